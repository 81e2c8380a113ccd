"""The log format of CRI runtimes: records to what `kubectl logs` prints, and where the last lines begin.  Pure.

    2016-10-06T00:17:09.669794202Z stdout P the beginning of a long line,
    2016-10-06T00:17:09.669794203Z stdout F and its end

P: the line goes on in the next record of its stream; F: it ends here.  Source: the Kubernetes design document for CRI logging;
the meaning of the options is that of PodLogOptions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from beehive.errors import Refused

MAX_RECORD = 256 * 1024
"""Longest record that is read; containerd cuts lines into records of 16 KiB."""
BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What of a log is wanted.  since_ns: Unix time in nanoseconds; stream: "stdout", "stderr" or "" for both."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    since_ns: int | None = None
    limit_bytes: int | None = None
    stream: str = ""


def parse_options(query: Iterable[tuple[str, str]], now_ns: int) -> Options:
    """Options from the query of a kubelet's containerLogs.  Raises Refused naming the parameter."""
    given = dict(reversed(list(query)))
    since_s = _number(given, "sinceSeconds", least=1)
    since_time = given.get("sinceTime", "")
    if since_s is not None and since_time:
        raise Refused("at most one of sinceTime or sinceSeconds may be specified")
    since_ns = None
    if since_s is not None:
        since_ns = now_ns - since_s * 1_000_000_000
    elif since_time:
        try:
            since_ns = parse_time(since_time.encode())
        except ValueError:
            raise Refused(f"invalid sinceTime {since_time[:64]!r}") from None
    stream = given.get("stream", "")
    if stream not in ("", "All", "Stdout", "Stderr"):
        raise Refused(f"invalid stream {stream[:64]!r}")
    return Options(
        follow=_flag(given, "follow"),
        previous=_flag(given, "previous"),
        timestamps=_flag(given, "timestamps"),
        tail_lines=_number(given, "tailLines", least=0),
        since_ns=since_ns,
        limit_bytes=_number(given, "limitBytes", least=1),
        stream="" if stream == "All" else stream.lower(),
    )


def _flag(given: dict[str, str], name: str) -> bool:
    text = given.get(name, "")
    if text.lower() in ("", "0", "f", "false"):
        return False
    if text.lower() in ("1", "t", "true"):
        return True
    raise Refused(f"invalid {name} {text[:64]!r}")


def _number(given: dict[str, str], name: str, *, least: int) -> int | None:
    text = given.get(name, "")
    if not text:
        return None
    if not text.isdecimal() or len(text) > 18 or int(text) < least:
        raise Refused(f"invalid {name} {text[:64]!r}")
    return int(text)


def parse_time(text: bytes) -> int:
    """RFC 3339 with up to nine decimals as Unix nanoseconds.  Raises ValueError."""
    body, zone = (text[:-1], b"Z") if text[-1:] in b"Zz" and text else (text[:-6], text[-6:])
    seconds, _, decimals = body.partition(b".")
    if len(seconds) != 19 or len(decimals) > 9 or not (decimals or b"0").isdigit():
        raise ValueError(f"no RFC 3339 time: {text[:40]!r}")
    moment = datetime.fromisoformat((seconds + (b"+00:00" if zone == b"Z" else zone)).decode("ascii"))
    if moment.tzinfo is None:
        raise ValueError(f"no zone in the time {text[:40]!r}")
    whole = int((moment - _EPOCH).total_seconds())
    return whole * 1_000_000_000 + int(decimals.ljust(9, b"0"))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Printer:
    """Turns blocks of a log file into what a client sees.

    Blocks may be cut anywhere.  What is no record is left out.  `done`: the byte limit is reached."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._rest = b""
        self._skipping = False
        self._line_begins = True
        self._left = options.limit_bytes
        self._wanted = options.stream.encode()

    @property
    def done(self) -> bool:
        return self._left == 0

    def feed(self, block: bytes) -> bytes:
        """The text for the records that are complete with this block."""
        *lines, rest = (self._rest + block).split(b"\n")
        if self._skipping and lines:
            lines, self._skipping = lines[1:], False
        if len(rest) > MAX_RECORD:
            rest, self._skipping = b"", True
        self._rest = rest if not self._skipping else b""
        out: list[bytes] = []
        for line in lines:
            self._record(line, out)
        return self._limited(b"".join(out))

    def next_file(self) -> None:
        """The next block begins another file: a record that was cut there has no rest."""
        self._rest, self._skipping = b"", False

    def _record(self, line: bytes, out: list[bytes]) -> None:
        try:
            at, stream, tags, text = line.split(b" ", 3)
        except ValueError:
            return
        if stream not in (b"stdout", b"stderr") or (self._wanted and stream != self._wanted):
            return
        options = self._options
        if options.since_ns is not None or options.timestamps:
            try:
                moment = parse_time(at)
            except ValueError:
                return
            if options.since_ns is not None and moment < options.since_ns:
                return
            if options.timestamps and self._line_begins:
                out.append(_nine_decimals(at))
        full = tags[:1] == b"F"
        out.append(text + b"\n" if full else text)
        self._line_begins = full

    def _limited(self, text: bytes) -> bytes:
        if self._left is None:
            return text
        text = text[: self._left]
        self._left -= len(text)
        return text


def _nine_decimals(at: bytes) -> bytes:
    """A record's time as a kubelet prints it: nine decimals, then a space.  Runtimes leave trailing zeros out."""
    body, zone = (at[:-1], at[-1:]) if at[-1:] in b"Zz" else (at[:-6], at[-6:])
    seconds, _, decimals = body.partition(b".")
    return seconds + b"." + decimals.ljust(9, b"0") + zone + b" "


def tail_start(read: Callable[[int, int], bytes], size: int, lines: int) -> tuple[int, int]:
    """Where the last `lines` lines of a file begin, and how many lines it lacks of that number.

    read(offset, count) gives bytes of the file; only as much is read as needed, from the end.  A line is counted once however
    many records it has; one that has no end yet counts too."""
    found = 0
    unread = size
    data = b""  # bytes from `unread` on that are not judged yet: whole records but for the first
    trailing = newest = True
    while unread > 0:
        count = min(BLOCK, unread)
        unread -= count
        data = read(unread, count) + data
        if trailing:
            # after the last newline is a record that is still being written
            data = data[: data.rfind(b"\n") + 1]
            trailing = not data
        stop = len(data)
        while stop:
            start = data.rfind(b"\n", 0, stop - 1) + 1
            if start == 0 and unread > 0:
                break
            tags = data[start : stop - 1].split(b" ", 3)[2:3]
            if newest or not tags or tags[0][:1] == b"F":
                found += 1
                if found > lines:
                    return unread + stop, 0
            newest = False
            stop = start
        if stop > MAX_RECORD:
            return unread + stop, 0  # no log any more; what follows is
        data = data[:stop]
    return 0, lines - found
