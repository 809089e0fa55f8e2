"""What the command line chooses for all VMs of a run."""

from dataclasses import dataclass


@dataclass
class Options:
    kernel: str
    memory_mib: int = 1024
    accel: str = "tcg"
    icount: bool = False  # set by what a scenario needs: one nanosecond of the guest's clock is one instruction

    def accelerator(self):
        if self.icount:
            return ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=on", "-cpu", "max"]
        if self.accel == "kvm":
            return ["-accel", "kvm", "-cpu", "host"]
        return ["-accel", "tcg,thread=multi", "-cpu", "max"]
