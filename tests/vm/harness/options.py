"""What the command line chooses for all VMs of a run."""

from dataclasses import dataclass


@dataclass
class Options:
    kernel: str
    memory_mib: int = 1024
    accel: str = "tcg"

    def accelerator(self):
        if self.accel == "kvm":
            return ["-accel", "kvm", "-cpu", "host"]
        return ["-accel", "tcg,thread=multi", "-cpu", "max"]
