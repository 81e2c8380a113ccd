"""Names under which log collectors look for containers' logs: `/var/log/containers/<pod>_<namespace>_<container>-<id>.log`.

Links to the files themselves.  Blocking; a link that cannot be made keeps nobody from running.
Source: kubelet, kuberuntime/legacy.go.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from edgecore.edged.pod import Pod

# A file name's limit, less the ending.
_MAX_NAME = 251


def make(folder: Path, pod: Pod, container: str, container_id: str, target: str) -> None:
    """Name a container's log.  Raises OSError."""
    name = f"{pod.name}_{pod.namespace}_{container}-{container_id}"[:_MAX_NAME] + ".log"
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(folder / name)
    os.symlink(target, folder / name)


def sweep(folder: Path, log_dir: Path) -> int:
    """Remove the links into our folder whose log is gone; how many that were.  Raises OSError."""
    removed = 0
    for entry in list(os.scandir(folder)) if folder.is_dir() else ():
        if not entry.is_symlink():
            continue
        target = os.readlink(entry.path)
        if target.startswith(f"{log_dir}/") and not os.path.lexists(target):
            os.unlink(entry.path)
            removed += 1
    return removed
