"""A trial's containerd: written down, filled with images, emptied, and cleaned up after.

The process itself is started by trial.py; this is what goes before and after it."""

from __future__ import annotations

import ipaddress
import os
import signal
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from deploy import containerd, cri, firewall, images, machine, processes
from deploy.errors import TrialError
from deploy.home import Home
from deploy.settings import Before

_NAMESPACE = "k8s.io"
_CGROUPS = Path("/sys/fs/cgroup")
_IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
# Folders outside of the home that containerd, its shims and the CNI library insist on, with what to look below.
_FIXED_FOLDERS = ("/run/containerd/s", "/run/containerd", "/var/lib/cni/results", "/var/lib/cni")
# Kernel messages about a mount that is busy stop when its last process is gone; that takes a moment.
_UNMOUNT_ATTEMPTS = 20
_SECOND_LOOK_S = 0.5


def look() -> Before:
    """The machine as it is now."""
    return Before(
        boot_id=machine.boot_id(),
        ip_forward=_IP_FORWARD.read_text().strip(),
        chains=tuple(firewall.own_chains(_iptables_save())),
        tables=tuple(_nft_tables()),
        folders=tuple(folder for folder in _FIXED_FOLDERS if Path(folder).is_dir()),
    )


def write_files(home: Home, subnet: ipaddress.IPv4Network, *, cni_bin_dir: str, snapshotter: str) -> None:
    """Write what containerd reads at start."""
    (home.containerd / "cni").mkdir(parents=True, exist_ok=True)
    runc = machine.find("runc")
    if runc is None:
        raise TrialError("runc is not installed: run `make up`, which installs it, or `apt-get install runc`")
    config = containerd.render_config(
        home,
        sandbox_image=images.PAUSE_IMAGE,
        cni_bin_dir=cni_bin_dir,
        runc=runc,
        crun=machine.find("crun"),
        snapshotter=snapshotter,
    )
    (home.containerd / "config.toml").write_text(config)
    (home.containerd / "cni" / "10-skerry.conflist").write_text(containerd.render_network(home, subnet))


def answers(home: Home) -> bool:
    """Whether containerd takes calls."""
    if not home.containerd_socket.is_socket():
        return False
    return machine.succeeds(_ctr(home, "version"), timeout_s=5.0) is None


def import_images(home: Home, *, snapshotter: str) -> int:
    """Make the local images and import those that are not there; how many that were.

    Raises TrialError when busybox is not static, or the import fails."""
    busybox = machine.find("busybox")
    if busybox is None:
        raise TrialError("busybox is not installed: run `make up`, or `apt-get install busybox-static`")
    content = Path(busybox).read_bytes()
    if b"ld-linux" in content[:4096]:
        raise TrialError(f"{busybox} is not a static program: `apt-get install busybox-static`")
    applets = machine.run([busybox, "--list"]).split()
    listed = machine.run(_ctr(home, "images", "ls"))
    there = {tuple(line.split()[:3:2]) for line in listed.splitlines()[1:]}
    imported = 0
    for image in images.busybox_images(content, applets, images.goarch(os.uname().machine)):
        archive, digest = images.build_archive(image)
        if (image.name, digest) in there:
            continue
        with tempfile.NamedTemporaryFile(dir=home.containerd, suffix=".tar") as file:
            file.write(archive)
            file.flush()
            machine.run(_ctr(home, "images", "import", "--snapshotter", snapshotter, file.name))
        imported += 1
    return imported


def remove_pods(home: Home) -> int:
    """Stop and remove every pod of this containerd, networks included; how many there were."""
    return cri.remove_everything(home.containerd_socket)


def has_leftovers(home: Home) -> bool:
    """Whether pods may be left, which only a running containerd can remove in order."""
    sandboxes = home.containerd / "root" / "io.containerd.grpc.v1.cri" / "sandboxes"
    return any(shims(home)) or (sandboxes.is_dir() and any(sandboxes.iterdir()))


def shims(home: Home) -> Iterator[int]:
    """Pids of the shims that serve this containerd."""
    socket = os.fsencode(home.containerd_socket)
    return (pid for pid, words in _all_shims() if socket in words)


def _all_shims() -> Iterator[tuple[int, list[bytes]]]:
    """Pid and command line of every shim of any containerd on this machine."""
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if words and b"containerd-shim" in words[0]:
            yield int(process.name), words


def clean_up(home: Home, before: Before | None) -> list[str]:
    """Remove what a stopped containerd left outside of its folders; what could not be removed, as sentences.

    before: how the machine was; None when nobody knows, then what may be somebody else's stays."""
    _end_shims(home)
    problems = _unmount(home)
    delete_bridge = ["ip", "link", "delete", home.bridge]
    if machine.interface_exists(home.bridge) and (reason := machine.succeeds(delete_bridge)):
        problems.append(reason)
    if before is not None and before.boot_id != machine.boot_id():
        before = None  # the machine has started anew since
    problems += _clean_firewall(home, before)
    problems += _remove_cgroups(home)
    if before is not None:
        # Pods of others may have come to need forwarding meanwhile.
        if before.ip_forward != _IP_FORWARD.read_text().strip() and not any(_all_shims()):
            _IP_FORWARD.write_text(before.ip_forward + "\n")
        _remove_folders(home, before.folders)
    return problems


def _end_shims(home: Home) -> None:
    """Kill shims that survived and what runs in their pods, also where a shim went first: containerd could not be asked."""
    pids = [pid for shim in shims(home) for pid in (*_children(shim), shim)]
    pids += [pid for pid in _in_cgroups(home) if pid not in pids]
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    deadline = time.monotonic() + 5
    while any(processes.start_ticks(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)


def _in_cgroups(home: Home) -> list[int]:
    """Pids of what runs in the pods' control groups, which carry this home's name."""
    found: set[int] = set()
    for top in _cgroup_trees(home):
        for folder, _, _ in os.walk(top):
            try:
                found.update(int(pid) for pid in Path(folder, "cgroup.procs").read_text().split())
            except OSError:  # it has just gone
                continue
    return sorted(found - {0})


def _cgroup_trees(home: Home) -> list[Path]:
    """One on version 2, one for each controller on version 1."""
    hierarchies = [
        _CGROUPS,
        *(entry for entry in _CGROUPS.iterdir() if entry.is_dir() and not entry.is_symlink()),
    ]
    return [tree for hierarchy in hierarchies if (tree := hierarchy / home.cgroup).is_dir()]


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _unmount(home: Home) -> list[str]:
    problems: list[str] = []
    for attempt in range(_UNMOUNT_ATTEMPTS):
        # the kernel names mounts without links; one that is overlooked here would be emptied by a purge
        points = machine.mounts_below(Path("/proc/mounts").read_text(), home.root.resolve())
        problems = [reason for point in points if (reason := machine.succeeds(["umount", point]))]
        if not problems:
            return []
        time.sleep(0.05 * (attempt + 1))
    return problems


def _remove_cgroups(home: Home) -> list[str]:
    problems = []
    for tree in _cgroup_trees(home):
        for folder, _, _ in os.walk(tree, topdown=False):
            try:
                Path(folder).rmdir()
            except OSError as error:
                problems.append(f"cannot remove the control group {folder}: {error.strerror}")
    return problems


def _clean_firewall(home: Home, before: Before | None) -> list[str]:
    problems = []
    # Without knowledge of how it was, all chains count as having been there.
    chains: Collection[str] = before.chains if before is not None else firewall.own_chains(_iptables_save())
    for arguments in firewall.plan_cleanup(_iptables_save(), home.network, chains, home.bridge):
        if reason := machine.succeeds(["iptables", *arguments]):
            problems.append(reason)
    if before is not None:
        if suspects := firewall.orphans(_iptables_save(), before.chains):
            time.sleep(_SECOND_LOOK_S)
            for orphan in sorted(suspects & firewall.orphans(_iptables_save(), before.chains)):
                if reason := machine.succeeds(["iptables", *firewall.removal(orphan)]):
                    problems.append(reason)
        for family, program in firewall.FAMILIES.items():
            for table in firewall.empty_tables(family, machine.run([program]), before.tables, _nft_tables()):
                if reason := machine.succeeds(["nft", "delete", "table", *table.split()]):
                    problems.append(reason)
    return problems


def _remove_folders(home: Home, there_before: Collection[str]) -> None:
    results = Path("/var/lib/cni/results")
    if results.is_dir():
        for file in results.glob(f"{home.network}-*"):
            file.unlink(missing_ok=True)
    for folder in _FIXED_FOLDERS:
        if folder not in there_before:
            try:
                Path(folder).rmdir()
            except OSError:  # not there, or in use by somebody else
                continue


def _iptables_save() -> str:
    return machine.run(["iptables-save"])


def _nft_tables() -> list[str]:
    """None to speak of where iptables is the legacy one and nft is not installed."""
    if machine.find("nft") is None:
        return []
    return firewall.parse_nft_tables(machine.run(["nft", "list", "tables"]))


def _ctr(home: Home, *arguments: str) -> list[str]:
    return ["ctr", "--address", str(home.containerd_socket), "--namespace", _NAMESPACE, *arguments]
