"""The disk that images are on: how full it is, and whether a download goes on.  Blocking."""

from __future__ import annotations

import os
from pathlib import Path

from edgecore.edged.imagegc import Disk

# Where containerd keeps what it is downloading, below its root.
_INGEST = "io.containerd.content.v1.content/ingest"
MAX_DOWNLOADS = 1000


def read(path: str) -> Disk:
    """The file system that `path` is on.  Raises OSError."""
    s = os.statvfs(path)
    return Disk(
        path=path,
        bytes_total=s.f_blocks * s.f_frsize,
        bytes_free=s.f_bavail * s.f_frsize,
        inodes=s.f_files,
        inodes_free=s.f_favail,
    )


def downloaded(root: str) -> int | None:
    """Bytes of the downloads under way; 0 when there is none; None when it is not known where they would be."""
    if not root:
        return None
    try:
        entries = os.listdir(Path(root) / _INGEST)[:MAX_DOWNLOADS]
    except OSError:
        return None
    total = 0
    for entry in entries:
        try:
            # the entry itself counts too, so that a download without its first byte is not taken for none
            total += 1 + os.stat(Path(root) / _INGEST / entry / "data").st_size
        except OSError:
            # finished meanwhile
            continue
    return total


class ImageDisk:
    """What is known of that disk; empty until the runtime has said where it is."""

    def __init__(self) -> None:
        self.path = ""
        self.root = ""

    def disk(self) -> Disk | None:
        """Now; None when it is not known."""
        try:
            return read(self.path) if self.path else None
        except OSError:
            return None

    def downloaded(self) -> int | None:
        return downloaded(self.root)
