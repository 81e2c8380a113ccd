"""How the run before this one ended, for whoever asks why a board was away.

A small file beside the store says that a daemon runs, since when, and how many processes the kernel had killed for want of
memory by then.  An end in order removes it; if it is there at a start, the run before was ended from outside.  After a power
cut it may be missing, since it is not synced; then nothing is said."""

from __future__ import annotations

import contextlib
import logging
import re
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)

NAME = "edgecore.run"
MAX_BYTES = 4096


class Began(msgspec.Struct, frozen=True, kw_only=True):
    """boot: the kernel's name for it.   killed: processes that were killed for want of memory since then."""

    boot: str
    killed: int

    def __str__(self) -> str:
        return f"boot {self.boot}\nkilled {self.killed}\n"


def parse(text: str) -> Began | None:
    """What `str` wrote; None for anything else."""
    found = re.fullmatch(r"boot ([0-9a-f-]{1,64})\nkilled (\d{1,18})\n", text)
    return Began(boot=found[1], killed=int(found[2])) if found else None


def describe(before: Began, now: Began) -> str:
    """What became of a run that began with `before` and did not end in order."""
    if before.boot != now.boot:
        return "the machine stopped without stopping edgecore: its power was cut, or it hung"
    if killed := now.killed - before.killed:
        times = "once" if killed == 1 else f"{killed} times"
        return f"it was killed; the kernel has killed {times} for want of memory since it began, which may be why"
    return "it was killed or ended by a fault: its log may say why"


class LastEnd:
    """`begin` when nobody else has the store; `end` in order."""

    def __init__(self, folder: Path, proc: Path = Path("/proc")) -> None:
        self._path = folder / NAME
        self._proc = proc
        self.said = ""
        """How the run before ended, if not in order."""

    def begin(self) -> None:
        """Look at what the run before left, and leave the same."""
        now = self._now()
        before = None
        with contextlib.suppress(OSError, UnicodeDecodeError), self._path.open("rb") as file:
            before = parse(file.read(MAX_BYTES).decode("ascii"))
        if before is not None:
            self.said = describe(before, now)
            log.warning("The last run of edgecore did not end in order: %s", self.said)
        try:
            self._path.write_text(str(now))
        except OSError as error:
            log.debug("! cannot note that this runs: %s", error)

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _now(self) -> Began:
        boot, killed = "", 0
        with contextlib.suppress(OSError):
            boot = (self._proc / "sys/kernel/random/boot_id").read_text().strip()
            found = re.search(r"^oom_kill (\d+)$", (self._proc / "vmstat").read_text(), re.MULTILINE)
            killed = int(found[1]) if found else 0
        return Began(boot=boot, killed=killed)
