"""Run tests on a machine that this one is not: a virtual one with systemd, a kernel of Debian's and cgroups of version 2.

    python tests/vm.py [--folder FOLDER] [PYTEST_ARGUMENT ...]       (make vm TEST_ARGS='...')

Needs root, and Debian's debootstrap, qemu-system-x86 and e2fsprogs.  The machine's files are made once, in FOLDER; its disk is
made anew each time, with this tree and the libraries of this virtual environment.  It has no network.  Without KVM it takes
minutes to boot, and everything in it is twenty times as slow: name the tests that are worth it.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

PACKAGES = (
    "systemd,systemd-sysv,dbus,udev,iproute2,iptables,kmod,procps,e2fsprogs,busybox-static,python3,libpython3-stdlib,"
    "containerd,runc,crun,containernetworking-plugins,mosquitto,initramfs-tools,linux-image-cloud-amd64"
)
RELEASE, MIRROR = "bookworm", "http://deb.debian.org/debian"
DONE = "SKERRY-VM-EXIT"
UNIT = """[Unit]
Description=Tests
After=multi-user.target
[Service]
Type=oneshot
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
ExecStart=/bin/sh /root/tests.sh
[Install]
WantedBy=multi-user.target
"""


def make_root(root: Path) -> None:
    """A Debian in a folder."""
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, str(root), MIRROR]
    subprocess.run(command, check=True)
    for service in ("containerd", "mosquitto"):
        subprocess.run(["chroot", str(root), "systemctl", "disable", service], check=True)
    (root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
    (root / "etc/hostname").write_text("edge-vm\n")


def make_disk(root: Path, disk: Path, tests: list[str]) -> None:
    """The folder as a file system, with what is to be tested in it."""
    here = Path(__file__).resolve().parent.parent
    for name, source in (("opt/site", Path(sysconfig.get_paths()["purelib"])), ("opt/skerry", None)):
        target = root / name
        shutil.rmtree(target, ignore_errors=True)
        if source is not None:
            shutil.copytree(source, target, symlinks=True)
            continue
        target.mkdir(parents=True)
        archive = subprocess.run(["git", "-C", str(here), "archive", "HEAD"], check=True, capture_output=True)
        subprocess.run(["tar", "-x", "-C", str(target)], input=archive.stdout, check=True)
    (root / "root/tests.sh").write_text(
        "export PYTHONPATH=/opt/site:/opt/skerry PYTHONDONTWRITEBYTECODE=1 SKERRY_WAIT_S=300\ncd /opt/skerry\n"
        f"python3 -m pytest -p no:cacheprovider {shlex.join(tests)}\necho {DONE} $?\nsystemctl --no-block poweroff\n"
    )
    unit = root / "etc/systemd/system/tests.service"
    unit.write_text(UNIT)
    # a login would take the line away from the tests
    for command in (["enable", "tests"], ["mask", "serial-getty@ttyS0"]):
        subprocess.run(["chroot", str(root), "systemctl", *command], check=True, capture_output=True)
    with disk.open("wb") as file:
        file.truncate(6 << 30)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", str(root), str(disk)], check=True)


def run(root: Path, disk: Path) -> int:
    """Boot it, show what it says, and return what pytest returned."""
    kernel, initrd = (next((root / "boot").glob(name)) for name in ("vmlinuz-*", "initrd.img-*"))
    # KVM that is there may still not run this kernel
    accelerator = os.environ.get("VM_ACCEL") or "tcg,thread=multi"
    machine = [
        *("qemu-system-x86_64", "-accel", accelerator, "-cpu", "max", "-m", "1536", "-smp", "2"),
        *("-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"),
        *("-kernel", str(kernel), "-initrd", str(initrd)),
        *("-append", "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=0"),
        *("-drive", f"file={disk},if=virtio,format=raw,cache=unsafe"),
    ]
    code = 1
    with subprocess.Popen(machine, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line)
            if line.startswith(DONE):
                code = int(line.split()[1])
    return code


def main() -> int:
    """What pytest returned in there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp/skerry-vm"))
    folder, tests = (known := parser.parse_known_args())[0].folder, known[1]
    if platform.machine() != "x86_64" or os.geteuid() != 0:
        parser.error("this needs root, and an x86_64 machine")
    for program in ("debootstrap", "qemu-system-x86_64", "mkfs.ext4"):
        if shutil.which(program) is None:
            parser.error(f"{program} is not installed")
    root = folder / "root"
    if not (root / "etc/fstab").exists():
        folder.mkdir(parents=True, exist_ok=True)
        make_root(root)
    make_disk(root, folder / "disk.img", tests or ["-q", "tests/integration/edged/test_runtimes.py"])
    return run(root, folder / "disk.img")


if __name__ == "__main__":
    sys.exit(main())
