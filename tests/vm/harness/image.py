"""What a VM boots and mounts: kernel, initramfs, disks. Nothing here is an image of a system; the
guests' root is the host's own, over 9p."""

import fcntl
import hashlib
import lzma
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

VM_DIR = Path(__file__).resolve().parent.parent
CHECKOUT = VM_DIR.parent.parent
BUILD_DIR = CHECKOUT / "build" / "vm"

MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "9p", "9pnet_virtio", "overlay")

CLUSTER_NAME = "gracetest"
FILESYSTEM = "data"
SHARED_DISK_MIB = 1024
LOCAL_DISK_MIB = 256
JOURNAL_MIB = 32


def kernel_version(wanted=""):
    """The newest installed kernel whose version starts with `wanted` (default: Debian 12's 6.1)."""

    def key(version):
        return [int(part) if part.isdigit() else part for part in version.replace("-", ".").split(".")]

    installed = [
        path.name for path in Path("/lib/modules").glob("*")
        if (path / "modules.dep").exists() and Path(f"/boot/vmlinuz-{path.name}").exists()
    ]  # fmt: skip
    matching = [version for version in installed if version.startswith(wanted or "6.1.")]
    if not matching:
        raise SystemExit(
            f"no kernel {wanted or '6.1'} in /boot with its modules (have: {', '.join(installed) or 'none'}); "
            f"install the packages of {VM_DIR / 'packages'}"
        )
    return max(matching, key=key)


def kernel_image(version):
    """What QEMU boots: the ELF file inside bzImage, for its PVH entry. The emulated CPU would spend
    seconds on unpacking it. bzImage itself if it is packed in another way than Debian 12's (xz)."""
    packed = Path(f"/boot/vmlinuz-{version}")
    stat = packed.stat()
    result = BUILD_DIR / f"vmlinux-{version}-{stat.st_size}-{stat.st_mtime_ns}"
    with once(result) as missing:
        if missing:
            data = packed.read_bytes()
            start = data.find(b"\xfd7zXZ\0")
            unpacked = lzma.LZMADecompressor().decompress(data[start:]) if start > 0 else b""
            missing.write_bytes(unpacked if unpacked.startswith(b"\x7fELF") else data)
    return result


def initramfs(version):
    """Path of the initramfs for this kernel; built once, then taken from build/vm."""
    init = VM_DIR / "guest" / "initramfs-init"
    digest = hashlib.sha256(init.read_bytes() + Path(__file__).read_bytes()).hexdigest()[:12]
    result = BUILD_DIR / f"initramfs-{version}-{digest}.cpio"
    with once(result) as missing:
        if missing:
            build_initramfs(version, init, missing)
    return result


def build_initramfs(version, init, result):
    with tempfile.TemporaryDirectory(dir=BUILD_DIR) as scratch:
        root = Path(scratch)
        for directory in ("bin", "dev", "proc", "sys", "modules", "lower", "upper", "newroot"):
            (root / directory).mkdir()
        shutil.copy("/bin/busybox", root / "bin" / "busybox")
        shutil.copy(init, root / "init")
        (root / "init").chmod(0o755)
        order = []
        for module in MODULES:
            lines = subprocess.run(
                ["modprobe", "--show-depends", "-S", version, module], check=True, text=True, capture_output=True
            ).stdout.splitlines()
            for line in lines:
                words = line.split()
                if words[0] == "insmod" and words[1] not in order:
                    order.append(words[1])
        for path in order:
            shutil.copy(path, root / "modules")
        (root / "modules" / "order").write_text("".join(Path(path).name + "\n" for path in order))
        names = "".join(f"{path.relative_to(root)}\n" for path in sorted(root.rglob("*")))
        archive = subprocess.run(
            ["cpio", "--quiet", "-o", "-H", "newc"], cwd=root, input=names.encode(), check=True, stdout=subprocess.PIPE
        ).stdout
        # Not compressed: unpacking costs an emulated CPU more than reading.
        result.write_bytes(archive)


def shared_disk(path, journals):
    """A fresh GFS2 for `journals` nodes at `path`."""
    template = BUILD_DIR / f"gfs2-{journals}x{JOURNAL_MIB}-{SHARED_DISK_MIB}.img"
    with once(template) as missing:
        if missing:
            sparse(missing, SHARED_DISK_MIB)
            subprocess.run(
                ["mkfs.gfs2", "-O", "-q", "-p", "lock_dlm", "-t", f"{CLUSTER_NAME}:{FILESYSTEM}",
                 "-j", str(journals), "-J", str(JOURNAL_MIB), missing],
                check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
    copy_sparse(template, path)


def local_disk(path):
    """A fresh ext4: a node's own disk, which survives its power failures."""
    template = BUILD_DIR / f"ext4-{LOCAL_DISK_MIB}.img"
    with once(template) as missing:
        if missing:
            sparse(missing, LOCAL_DISK_MIB)
            subprocess.run(["mkfs.ext4", "-q", "-F", missing], check=True)
    copy_sparse(template, path)


def sparse(path, mebibytes):
    with open(path, "wb") as f:
        f.truncate(mebibytes << 20)


def copy_sparse(source, target):
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", source, target], check=True)


@contextmanager
def once(path):
    """Yields a temporary path to build `path` at, or None if it is there; safe between harness runs."""
    BUILD_DIR.mkdir(parents=True, exist_ok=True)
    with open(BUILD_DIR / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            yield None
            return
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            yield temporary
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)
