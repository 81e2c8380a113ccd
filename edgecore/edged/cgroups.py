"""The cgroups of pods: the runtime makes them, nobody but us removes the empty parents.  Blocking."""

from __future__ import annotations

import contextlib
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def hierarchies(root: Path = ROOT) -> list[Path]:
    """Every mounted hierarchy: one on v2, one for each controller on v1."""
    if (root / "cgroup.controllers").exists():
        return [root]
    try:
        return [p for p in root.iterdir() if p.is_dir() and not p.is_symlink()]
    except FileNotFoundError:
        return []


def remove(parent: str, driver: str, root: Path = ROOT) -> None:
    """Remove a pod's cgroup if it is empty.  systemd removes its slices itself."""
    if not parent or driver != "cgroupfs":
        return
    for hierarchy in hierarchies(root):
        # not there in this hierarchy, or somebody still lives in it: the next clean-up sees it again
        with contextlib.suppress(OSError):
            (hierarchy / parent.lstrip("/")).rmdir()


def remove_root(name: str, root: Path = ROOT) -> None:
    """Remove the empty cgroups of all pods and what they have in common, when edged is uninstalled."""
    for hierarchy in hierarchies(root):
        for parent in (hierarchy / name / "burstable", hierarchy / name / "besteffort", hierarchy / name):
            for pod in parent.glob("pod*"):
                with contextlib.suppress(OSError):
                    pod.rmdir()
            with contextlib.suppress(OSError):
                parent.rmdir()
