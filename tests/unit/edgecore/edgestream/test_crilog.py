"""Log records to text: partial lines, options, cuts anywhere, where the last lines begin."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from beehive.errors import Refused
from edgecore.edgestream import crilog
from edgecore.edgestream.crilog import Options, Printer, parse_options, parse_time, tail_start

LOG = (
    b"2026-01-02T03:04:05.1Z stdout F one\n"
    b"2026-01-02T03:04:06.000000001Z stderr F two\n"
    b"2026-01-02T03:04:07Z stdout P thr\n"
    b"2026-01-02T03:04:07.5Z stdout F ee\n"
    b"2026-01-02T03:04:08Z stdout F \n"
)


def printed(options: Options, data: bytes = LOG) -> bytes:
    return Printer(options).feed(data)


def test_lines_are_joined_from_their_records() -> None:
    assert printed(Options()) == b"one\ntwo\nthree\n\n"


def test_timestamps_have_nine_decimals_and_stand_once_before_a_line() -> None:
    assert printed(Options(timestamps=True)) == (
        b"2026-01-02T03:04:05.100000000Z one\n"
        b"2026-01-02T03:04:06.000000001Z two\n"
        b"2026-01-02T03:04:07.000000000Z three\n"
        b"2026-01-02T03:04:08.000000000Z \n"
    )


def test_since_leaves_out_what_is_older() -> None:
    assert printed(Options(since_ns=parse_time(b"2026-01-02T03:04:06.000000001Z"))) == b"two\nthree\n\n"
    assert printed(Options(since_ns=parse_time(b"2026-01-02T04:04:06.000000002+01:00"))) == b"three\n\n"


def test_one_stream_can_be_asked_for() -> None:
    assert printed(Options(stream="stderr")) == b"two\n"


def test_the_limit_cuts_within_a_line_and_says_done() -> None:
    printer = Printer(Options(limit_bytes=6))
    assert printer.feed(LOG) == b"one\ntw"
    assert printer.done
    assert printer.feed(LOG) == b""


def test_what_is_no_record_is_left_out() -> None:
    junk = b"garbage\n\n\0\0\0\n2026 stdout F kept without options\n2026-01-02T03:04:05Z stdin F no\n" + LOG
    assert printed(Options(), junk) == b"kept without options\none\ntwo\nthree\n\n"
    assert printed(Options(timestamps=True), junk).count(b"\n") == 4


def test_a_record_without_end_is_dropped_at_the_bound() -> None:
    printer = Printer(Options())
    for _ in range(crilog.MAX_RECORD // 1000 + 2):
        printer.feed(b"2026-01-02T03:04:05Z stdout F " + b"x" * 1000)
    assert len(printer._rest) <= crilog.MAX_RECORD
    assert printer.feed(b"end of it\n" + LOG) == b"one\ntwo\nthree\n\n"


@given(st.lists(st.integers(1, 60), max_size=30))
def test_blocks_may_be_cut_anywhere(sizes: list[int]) -> None:
    printer, out, rest = Printer(Options(timestamps=True)), b"", LOG
    for size in sizes:
        out += printer.feed(rest[:size])
        rest = rest[size:]
    assert out + printer.feed(rest) == printed(Options(timestamps=True))


@given(st.binary(max_size=300))
def test_garbage_never_raises(data: bytes) -> None:
    printed(Options(timestamps=True, since_ns=0, stream="stdout"), data)
    tail_start(lambda at, n: data[at : at + n], len(data), 3)


@pytest.mark.parametrize(
    ("lines", "text"),
    [(0, b""), (1, b"\n"), (2, b"three\n\n"), (3, b"two\nthree\n\n"), (4, b"one\ntwo\nthree\n\n")],
)
def test_the_tail_begins_at_a_line_and_not_at_a_record(lines: int, text: bytes) -> None:
    start, missing = tail_start(lambda at, n: LOG[at : at + n], len(LOG), lines)
    assert missing == 0
    assert printed(Options(), LOG[start:]) == text


def test_a_file_with_fewer_lines_says_how_many_it_lacks() -> None:
    assert tail_start(lambda at, n: LOG[at : at + n], len(LOG), 10) == (0, 6)
    assert tail_start(lambda _at, _n: b"", 0, 10) == (0, 10)


def test_a_line_that_is_not_finished_counts() -> None:
    log = LOG + b"2026-01-02T03:04:09Z stdout P prompt> \n"
    start, _ = tail_start(lambda at, n: log[at : at + n], len(log), 1)
    assert printed(Options(), log[start:]) == b"prompt> "


@given(
    st.integers(0, 40),
    st.integers(1, 200),
    st.lists(st.tuples(st.integers(0, 90), st.booleans()), max_size=30),
)
def test_the_tail_is_the_end_of_the_whole(lines: int, block: int, records: list[tuple[int, bool]]) -> None:
    log = b"".join(
        b"2026-01-02T03:04:09Z stdout %c %d%s\n" % (b"F" if full else b"P", n, b"x" * size)
        for n, (size, full) in enumerate(records)
    )
    half = b"2026-01-02T03:04:09Z stdout F half"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crilog, "BLOCK", block)
        start, missing = tail_start(lambda at, n: (log + half)[at : at + n], len(log + half), lines)
    whole = printed(Options(), log).splitlines(keepends=True)
    assert printed(Options(), log[start:]) == b"".join(whole[-lines:] if lines else [])
    assert missing == max(0, lines - len(whole))


def test_only_the_end_is_read_for_the_tail() -> None:
    log = LOG * 20_000
    read = []

    def at(offset: int, count: int) -> bytes:
        read.append(count)
        return log[offset : offset + count]

    tail_start(at, len(log), 10)
    assert sum(read) <= crilog.BLOCK


def test_options_are_read_as_a_kubelet_reads_them() -> None:
    given_ = [
        ("follow", "true"),
        ("tailLines", "5"),
        ("sinceSeconds", "10"),
        ("limitBytes", "7"),
        ("stream", "All"),
    ]
    assert parse_options(given_, 20_000_000_000) == Options(
        follow=True, tail_lines=5, since_ns=10_000_000_000, limit_bytes=7
    )
    assert parse_options([("sinceTime", "1970-01-01T00:00:01Z"), ("previous", "1")], 0) == Options(
        since_ns=1_000_000_000, previous=True
    )
    assert parse_options([], 0) == Options()


@pytest.mark.parametrize(
    "query",
    [
        [("tailLines", "-1")],
        [("tailLines", "x")],
        [("tailLines", "9" * 5000)],
        [("sinceSeconds", "0")],
        [("limitBytes", "0")],
        [("follow", "maybe")],
        [("sinceTime", "yesterday")],
        [("stream", "Both")],
        [("sinceSeconds", "1"), ("sinceTime", "1970-01-01T00:00:01Z")],
    ],
)
def test_options_that_make_no_sense_are_refused(query: list[tuple[str, str]]) -> None:
    with pytest.raises(Refused):
        parse_options(query, 0)


@given(
    st.sampled_from(["sinceTime", "sinceSeconds", "tailLines", "limitBytes", "follow", "stream"]),
    st.one_of(st.text(max_size=40), st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d.{0,12}", fullmatch=True)),
)
@example("sinceTime", "2026-01-01T00:00:00.12345")
@example("tailLines", "9" * 5000)
def test_any_value_of_an_option_is_read_or_refused(name: str, value: str) -> None:
    try:
        options = parse_options([(name, value)], 0)
    except Refused:
        return
    assert options.tail_lines is None or options.tail_lines >= 0
