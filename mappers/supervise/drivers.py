"""Which driver a protocol needs: a file of the operator's, one that comes with Skerry, or an installed package's.

A driver file is not run to find out what it is for: its class attribute `protocol` is read from its text.  Packages name
theirs as entry points `skerry.drivers`, protocol → module; `mapper package` makes such a package."""

from __future__ import annotations

import ast
import logging
import re
from dataclasses import dataclass
from pathlib import Path

from mappers.framework.builtin import builtin

log = logging.getLogger(__name__)

DEFAULT_FOLDER = Path("/etc/skerry/drivers")
ENTRY_POINTS = "skerry.drivers"
MAX_SOURCE_BYTES = 1024 * 1024
MAX_NAMED = 3
"""Files that are named as not used, when there is no driver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What `mapper run` is given, and a number that changes when the driver does (0: it cannot)."""

    name: str
    stamp: int = 0


def protocol_of(source: str) -> str:
    """The protocol of the driver class in a file's text; empty when there is none, or it is no plain text.  Pure."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""  # `fault_of` says why
    found = ""
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        for line in node.body:
            targets = (
                line.targets
                if isinstance(line, ast.Assign)
                else [line.target]
                if isinstance(line, ast.AnnAssign)
                else []
            )
            named = any(isinstance(target, ast.Name) and target.id == "protocol" for target in targets)
            value = line.value if isinstance(line, ast.Assign | ast.AnnAssign) else None
            if named and isinstance(value, ast.Constant) and isinstance(value.value, str):
                found = value.value
    return found


def fault_of(source: str) -> str:
    """Why a text is no Python, with the line; empty when it is.  Pure."""
    try:
        ast.parse(source)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return str(error) or type(error).__name__
    return ""


class Drivers:
    """Those that can be run here.  Reads the folder's files again when they change."""

    def __init__(self, folder: Path = DEFAULT_FOLDER) -> None:
        self._folder = folder
        self._known: dict[Path, tuple[int, str]] = {}  # file -> stamp, protocol
        self._faulty: dict[Path, tuple[int, str, str]] = {}  # file -> stamp, what is wrong, text
        self._unreadable: set[Path] = set()  # told already

    def find(self, protocol: str) -> Found | None:
        """Blocking, but for a few small files only."""
        for path, (stamp, spoken) in sorted(self._files().items()):
            if spoken == protocol:
                return Found(name=str(path), stamp=stamp)
        if builtin(protocol) is not None:
            return Found(name=protocol)
        from importlib import metadata  # 2 MB, for protocols that nothing above speaks

        points = metadata.entry_points(group=ENTRY_POINTS)
        return next((Found(name=point.value) for point in points if point.name == protocol), None)

    def _read(self, path: Path, stamp: int, old: tuple[int, str] | None) -> tuple[int, str]:
        """A file that is new or has changed.  One that is no Python at the moment counts as it was: what runs goes on.

        Raises: OSError."""
        try:
            with path.open(encoding="utf-8") as file:
                source, fault = file.read(MAX_SOURCE_BYTES), ""
        except UnicodeDecodeError as error:
            source, fault = "", f"it is not UTF-8: {error.reason}"
        if fault := fault or fault_of(source):
            if self._faulty.get(path, (0,))[0] != stamp:
                goes_on = "; what runs goes on" if old is not None and old[1] else ""
                log.warning("%s is not used: %s%s", path, fault, goes_on)
            self._faulty[path] = (stamp, fault, source)
            return old or (stamp, "")
        self._faulty.pop(path, None)
        spoken = protocol_of(source)
        if not spoken:
            self._faulty[path] = (stamp, "it has no class with a protocol", source)
            log.warning("%s is no driver: it has no class with a protocol", path)
        return stamp, spoken

    def explain(self, protocol: str) -> str:
        """Why there is no driver for a protocol, and what to do; as of the last `find`."""
        named = re.compile(rf"""\bprotocol\b[^=\n]{{0,64}}=\s*["']{re.escape(protocol)}["']""")
        files = sorted((path, fault, source) for path, (_, fault, source) in self._faulty.items())
        for path, fault, source in files:
            if named.search(source):
                return f"its driver {path} is not used: {fault}"
        text = f"there is no driver for {protocol}: put one into {self._folder}"
        if files:
            others = ", ".join(f"{path.name} ({fault})" for path, fault, _ in files[:MAX_NAMED])
            text += f"; not used there: {others}"
        return text

    def _files(self) -> dict[Path, tuple[int, str]]:
        try:
            paths = [path for path in self._folder.iterdir() if path.suffix == ".py"]
        except OSError:
            paths = []
        known = {}
        unreadable: set[Path] = set()
        for path in paths:
            try:
                stamp = path.stat().st_mtime_ns
                old = self._known.get(path)
                if old is None or old[0] != stamp:
                    old = self._read(path, stamp, old)
            except OSError as error:
                if path not in self._unreadable:
                    log.warning("Cannot read %s: %s", path, error)
                unreadable.add(path)
                continue
            known[path] = old
        self._known, self._unreadable = known, unreadable
        self._faulty = {path: fault for path, fault in self._faulty.items() if path in known}
        return known
