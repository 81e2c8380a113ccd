"""Start programs that outlive us, know them again later, and stop exactly those.

A pid is reused after its process ended, and after every boot.  A pid file therefore also holds the start time in clock
ticks and the boot: only a process that agrees in all three is the one that was started, and only that is signalled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy import machine
from deploy.errors import PartFailed

_MAX_LOG_BYTES = 10 * 1024 * 1024
_TAIL_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What identifies a process for ever."""

    pid: int
    started_ticks: int
    boot_id: str

    @classmethod
    def parse(cls, text: str) -> Record | None:
        """None for what is no record: an empty file of a machine that lost power."""
        try:
            data = json.loads(text)
            return cls(
                pid=int(data["pid"]), started_ticks=int(data["started_ticks"]), boot_id=str(data["boot_id"])
            )
        except (ValueError, TypeError, KeyError):
            return None


def parse_stat(text: str) -> tuple[str, int]:
    """State letter and start time of /proc/PID/stat.  The name in it may hold blanks and parentheses.  Pure."""
    words = text.rpartition(")")[2].split()
    return words[0], int(words[19])


def start_ticks(pid: int) -> int | None:
    """When a process started; None when there is none, or only its remains."""
    try:
        state, ticks = parse_stat(Path(f"/proc/{pid}/stat").read_text())
    except (OSError, IndexError, ValueError):
        return None
    return None if state in "ZX" else ticks


class Daemon:
    """One long-running program of a trial."""

    def __init__(self, part: str, *, pid_file: Path, log: Path) -> None:
        self.part = part
        self.log = log
        self._pid_file = pid_file
        self._child: subprocess.Popen[bytes] | None = None

    def pid(self) -> int | None:
        """The pid while it runs, else None."""
        try:
            record = Record.parse(self._pid_file.read_text())
        except OSError:
            record = None
        runs = (
            record is not None
            and record.boot_id == machine.boot_id()
            and start_ticks(record.pid) == record.started_ticks
        )
        if self._child is not None:
            self._child.poll()  # collects it if it has ended; after the look, so that what is not there is collected
        return record.pid if runs and record is not None else None

    def uptime_s(self) -> float | None:
        """Seconds since it was started; None when it does not run."""
        pid = self.pid()
        ticks = start_ticks(pid) if pid else None
        if ticks is None:
            return None
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")

    def start(self, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> None:
        """Start it in a session of its own with its output appended to its log.  Raises PartFailed."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._pid_file.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _MAX_LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            try:
                self._child = subprocess.Popen(
                    [str(word) for word in argv],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    cwd="/",
                    # containerd makes the root folders of images with it, and a container that is not root has to enter them
                    umask=0o022,
                    env=machine.environment(env),
                )
            except OSError as error:
                raise PartFailed(
                    self.part, f"cannot start {argv[0]}: {error.strerror}", log=self.log
                ) from error
        ticks = start_ticks(self._child.pid)
        record = Record(pid=self._child.pid, started_ticks=ticks or 0, boot_id=machine.boot_id())
        partial = self._pid_file.with_suffix(".new")
        partial.write_text(json.dumps(asdict(record)))
        partial.replace(self._pid_file)

    def check(self) -> None:
        """Raises PartFailed when the program that start() started has ended already."""
        if self._child is not None and (code := self._child.poll()) is not None:
            how = f"ended with exit code {code}" if code >= 0 else f"was killed by signal {-code}"
            raise PartFailed(self.part, f"it {how}", log=self.log)

    def stop(self, *, timeout_s: float = 20.0, kill: bool = False) -> bool:
        """End it: ask, wait, then kill.  Whether it was running.  The pid file goes."""
        pid = self.pid()
        running = pid is not None
        if pid is not None:
            if not kill:
                _signal(pid, signal.SIGTERM)
                self._wait(timeout_s)
            if self.pid() == pid:
                _signal(pid, signal.SIGKILL)
                self._wait(timeout_s)
        if running and self._child is not None:
            # Its first thread can be gone before its others are.
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(timeout_s)
        self._pid_file.unlink(missing_ok=True)
        return running

    def _wait(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while self.pid() is not None and time.monotonic() < deadline:
            time.sleep(0.02)

    def tail(self, lines: int = 12) -> list[str]:
        """The last lines of its log."""
        return tail(self.log, lines)


def tail(log: Path, lines: int) -> list[str]:
    """The last lines of a file, of which at most 16 KiB are read; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it ended by itself in this moment
