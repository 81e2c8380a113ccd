"""A file system of its own in a file, whose writes the kernel counts: what a flash card would take, journal included."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import TracebackType

SIZE_MIB = 256


class Card:
    """Mounted at `path`, which must not be there or be empty, while the context lasts.  Needs root and a loop device."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._image = path.with_name(path.name + ".img")
        self._stat: Path

    def __enter__(self) -> Card:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._image.open("wb") as file:
            file.truncate(SIZE_MIB << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self._image)], check=True)
        subprocess.run(["mount", "-o", "loop,noatime", str(self._image), str(self.path)], check=True)
        device = self.path.stat().st_dev
        self._stat = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
        (self.path / "lost+found").rmdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["umount", str(self.path)], check=True)
        self._image.unlink()

    def written(self) -> int:
        """Bytes that the card took since it was put in.   Source: Linux, Documentation/block/stat.rst: write sectors."""
        subprocess.run(["sync", "-f", str(self.path)], check=True)
        return int(self._stat.read_text().split()[6]) * 512
