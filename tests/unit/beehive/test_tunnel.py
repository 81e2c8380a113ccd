"""The tunnel's machine: two ends wired together, garbage, bounds."""

from __future__ import annotations

import struct
from collections import deque

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beehive import tunnel
from beehive.errors import ProtocolError, Unavailable
from beehive.tunnel import Answer, Answered, Data, Excess, Head, Kind, Limits, Mux, Opened, Reset, Role

LOGS = Head(kind="http", method="GET", path="/containerLogs/default/web/c?follow=true")
OK = Answer(status=200, headers=[("Content-Type", "text/plain")])


def pair(limits: Limits | None = None) -> tuple[Mux, Mux]:
    return Mux(Role.HUB, limits or tunnel.HUB_LIMITS), Mux(Role.EDGE, limits or tunnel.EDGE_LIMITS)


def opened(hub: Mux, edge: Mux, *, answered: bool = True) -> int:
    stream, frame = hub.open(LOGS, 0.0)
    assert edge.receive(frame, 0.0) == Opened(stream, LOGS)
    if answered:
        reply = edge.answer(stream, OK, 0.0)
        assert reply is not None
        assert hub.receive(reply, 0.0) == Answered(stream, OK)
    return stream


def frame(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack("!BBI", kind, flags, stream) + payload


def test_a_request_is_answered_and_ends_at_both_ends() -> None:
    hub, edge = pair()
    stream = opened(hub, edge)
    body = edge.data(stream, b"hello", 1.0, end=True)
    assert body is not None
    assert hub.receive(body, 1.0) == Data(stream, b"hello", True)
    assert edge.room(stream) is None
    end = hub.data(stream, b"", 1.0, end=True)
    assert end is not None
    assert edge.receive(end, 1.0) == Data(stream, b"", True)
    assert (hub.count, edge.count) == (0, 0)


def test_the_frame_layout_is_what_the_docstring_draws() -> None:
    hub, _ = pair()
    _, first = hub.open(Head(kind="http", method="GET", path="/healthz"), 0.0)
    assert first == b'\x01\x00\x00\x00\x00\x01{"kind":"http","method":"GET","path":"/healthz"}'
    assert hub.data(1, b"x", 0.0, end=True) == b"\x03\x01\x00\x00\x00\x01x"


def test_a_reset_is_heard_once_and_late_frames_are_ignored() -> None:
    hub, edge = pair()
    stream = opened(hub, edge)
    late = edge.data(stream, b"late", 0.0)
    gone = hub.reset(stream, "client went\naway")
    assert gone is not None
    assert late is not None
    assert hub.receive(late, 0.0) is None
    assert edge.receive(gone, 0.0) == Reset(stream, "client went?away")
    assert edge.data(stream, b"more", 0.0) is None
    assert edge.receive(gone, 0.0) is None
    assert hub.reset(stream, "again") is None
    assert (hub.count, edge.count) == (0, 0)


def test_a_reader_that_takes_nothing_stops_only_its_own_stream() -> None:
    hub, edge = pair()
    slow, quick = opened(hub, edge), opened(hub, edge)
    while room := edge.room(slow):
        sent = edge.data(slow, b"s" * room, 0.0)
        assert sent is not None
        hub.receive(sent, 0.0)
    for _ in range(200):
        room = edge.room(quick)
        assert room
        sent = edge.data(quick, b"q" * room, 0.0)
        assert sent is not None
        hub.receive(sent, 0.0)
        credit = hub.consumed(quick, room)
        if credit is not None:
            edge.receive(credit, 0.0)
    assert edge.room(slow) == 0


def test_windows_grow_for_readers_that_keep_up_and_no_further_than_the_pool() -> None:
    limits = Limits(streams=8, window_max=256 * 1024, pool=200 * 1024)
    hub, edge = pair(limits)
    streams = [opened(hub, edge) for _ in range(3)]
    for _ in range(50):
        for stream in streams:
            room = edge.room(stream)
            assert room
            sent = edge.data(stream, b"x" * room, 0.0)
            assert sent is not None
            hub.receive(sent, 0.0)
            if (credit := hub.consumed(stream, room)) is not None:
                edge.receive(credit, 0.0)

    def in_flight(stream: int) -> int:
        total = 0
        while room := edge.room(stream):
            assert edge.data(stream, b"x" * room, 0.0) is not None
            total += room
        return total

    held = [in_flight(stream) for stream in streams]
    assert max(held) > tunnel.FIRST_WINDOW
    assert sum(held) <= 3 * tunnel.FIRST_WINDOW + limits.pool
    for stream in streams:
        hub.reset(stream, "done")
    assert hub._grown == 0


def test_one_stream_too_many_is_refused_at_both_ends() -> None:
    hub, edge = pair(Limits(streams=2))
    opened(hub, edge)
    opened(hub, edge)
    with pytest.raises(Unavailable, match="2 streams open already"):
        hub.open(LOGS, 0.0)
    third = frame(Kind.OPEN, 3, b'{"kind":"http","method":"GET","path":"/x"}')
    assert edge.receive(third, 0.0) == Excess(3)
    hub.receive(Mux.refuse(1, "too many"), 0.0)
    assert hub.count == 1


def test_idle_streams_expire_and_busy_ones_do_not() -> None:
    hub, edge = pair(Limits(idle_s=10.0))
    idle, busy = opened(hub, edge), opened(hub, edge)
    sent = edge.data(busy, b"x", 9.0)
    assert sent is not None
    hub.receive(sent, 9.0)
    assert hub.expired(10.0) == []
    assert hub.expired(11.0) == [idle]


@pytest.mark.parametrize(
    ("role", "bad"),
    [
        (Role.HUB, b""),
        (Role.HUB, b"\x03\x00\x00"),
        (Role.HUB, frame(Kind.OPEN, 2, b"{}")),
        (Role.HUB, frame(Kind.DATA, 2, b"x")),
        (Role.HUB, frame(Kind.DATA, 0, b"x")),
        (Role.HUB, frame(Kind.DATA, 1, b"before the answer")),
        (Role.HUB, frame(Kind.ANSWER, 1, b'{"status":99}')),
        (Role.HUB, frame(Kind.ANSWER, 1, b'{"status":200,"headers":[["A","b\\r\\nSet-Cookie: c"]]}')),
        (Role.HUB, frame(Kind.ANSWER, 1, b'{"status":200,"headers":[["A:","b"]]}')),
        (Role.HUB, frame(Kind.ANSWER, 1, b"[" * 60000)),
        (Role.HUB, frame(Kind.PING, 1)),
        (Role.HUB, frame(Kind.PONG, 0, b"x")),
        (Role.HUB, frame(99, 1)),
        (Role.HUB, frame(Kind.CREDIT, 1, b"\0\0\0\0")),
        (Role.HUB, frame(Kind.CREDIT, 1, b"\xff\xff\xff\xff")),
        (Role.HUB, frame(Kind.CREDIT, 1, b"\1")),
        (Role.HUB, frame(Kind.CREDIT, 1, b"\0\0\0\1", flags=1)),
        (Role.HUB, frame(Kind.RESET, 1, b"x" * 513)),
        (Role.HUB, frame(Kind.DATA, 1, b"x", flags=2)),
        (Role.HUB, b"\x03\x00\x00\x00\x00\x01" + b"x" * 70000),
        (Role.EDGE, frame(Kind.ANSWER, 1, b'{"status":200}')),
        (Role.EDGE, frame(Kind.DATA, 1, b"")),
        (Role.EDGE, frame(Kind.DATA, 1, b"x" * (tunnel.MAX_DATA + 1))),
        (Role.EDGE, frame(Kind.OPEN, 1, b'{"kind":"http","method":"GET","path":"/again"}')),
        (Role.EDGE, frame(Kind.OPEN, 2, b'{"kind":"magic","method":"GET","path":"/"}')),
        (Role.EDGE, frame(Kind.OPEN, 2, b'{"kind":"http","method":"GET","path":"/a b"}')),
        (Role.EDGE, frame(Kind.OPEN, 2, b'{"kind":"http","method":"GET","path":"http://x/"}')),
        (Role.EDGE, frame(Kind.OPEN, 2, b'{"kind":"http","method":"G ET","path":"/"}')),
    ],
)
def test_what_a_peer_must_not_send_is_its_fault(role: Role, bad: bytes) -> None:
    hub, edge = pair()
    opened(hub, edge, answered=False)
    with pytest.raises(ProtocolError):
        (hub if role is Role.HUB else edge).receive(bad, 0.0)


def test_more_than_was_granted_is_the_peers_fault() -> None:
    hub, edge = pair()
    stream = opened(hub, edge)
    for _ in range(tunnel.FIRST_WINDOW // tunnel.MAX_DATA):
        hub.receive(frame(Kind.DATA, stream, b"x" * tunnel.MAX_DATA), 0.0)
    with pytest.raises(ProtocolError, match="beyond its credit"):
        hub.receive(frame(Kind.DATA, stream, b"x"), 0.0)


def test_data_after_the_end_is_the_peers_fault() -> None:
    hub, edge = pair()
    stream = opened(hub, edge)
    hub.receive(frame(Kind.DATA, stream, b"x", flags=1), 0.0)
    with pytest.raises(ProtocolError, match="after its end"):
        hub.receive(frame(Kind.DATA, stream, b"x"), 0.0)


def test_a_head_beyond_the_limit_is_refused_before_it_is_sent() -> None:
    hub, _ = pair()
    with pytest.raises(ProtocolError, match="over the limit"):
        hub.open(Head(kind="http", method="GET", path="/" + "a" * tunnel.MAX_JSON), 0.0)
    with pytest.raises(ProtocolError, match="headers"):
        hub.open(Head(kind="http", method="GET", path="/", headers=[("A", "b")] * 65), 0.0)
    assert hub.count == 0


def test_misuse_by_us_is_a_bug_and_not_the_peers_fault() -> None:
    hub, edge = pair()
    stream = opened(hub, edge)
    with pytest.raises(ValueError, match="opens"):
        edge.open(LOGS, 0.0)
    with pytest.raises(ValueError, match="once"):
        edge.answer(stream, OK, 0.0)
    with pytest.raises(ValueError, match="room"):
        hub.data(stream, b"x" * (tunnel.MAX_DATA + 1), 0.0)


@given(st.sampled_from(list(Role)), st.lists(st.binary(max_size=64), max_size=20))
def test_garbage_is_understood_or_a_protocol_error(role: Role, frames: list[bytes]) -> None:
    hub, edge = pair()
    opened(hub, edge)
    mux = hub if role is Role.HUB else edge
    for one in frames:
        try:
            mux.receive(one, 0.0)
        except ProtocolError:
            return


@given(
    st.sampled_from(list(Role)),
    st.lists(
        st.builds(
            frame,
            st.integers(0, 9),
            st.integers(0, 3),
            st.one_of(
                st.binary(max_size=8),
                st.sampled_from(
                    [b'{"status":200}', b'{"kind":"upgrade","method":"POST","path":"/exec"}', b"\0\0\1\0"]
                ),
            ),
            st.integers(0, 2),
        ),
        max_size=30,
    ),
)
def test_plausible_garbage_is_understood_or_a_protocol_error(role: Role, frames: list[bytes]) -> None:
    hub, edge = pair()
    opened(hub, edge)
    mux = hub if role is Role.HUB else edge
    for one in frames:
        try:
            mux.receive(one, 0.0)
        except ProtocolError:
            return
        assert mux.count <= mux.limits.streams
        assert mux._grown >= 0


class Wire:
    """Both ends with frames under way in each direction; Hypothesis decides who moves next."""

    def __init__(self, payloads: list[tuple[bytes, bytes]]) -> None:
        self.hub, self.edge = pair(Limits(streams=16, pool=128 * 1024))
        self.down: deque[bytes] = deque()
        self.up: deque[bytes] = deque()
        self.to_send: dict[tuple[Role, int], bytes] = {}
        self.got: dict[tuple[Role, int], bytes] = {}
        self.unread: dict[tuple[Role, int], int] = {}
        self.ended: set[tuple[Role, int]] = set()
        self.closed: set[tuple[Role, int]] = set()
        for down, up in payloads:
            stream, one = self.hub.open(LOGS, 0.0)
            self.down.append(one)
            self.to_send[Role.HUB, stream] = down
            self.to_send[Role.EDGE, stream] = up
        self.answered: set[int] = set()

    def mux(self, role: Role) -> tuple[Mux, deque[bytes], deque[bytes]]:
        return (self.hub, self.down, self.up) if role is Role.HUB else (self.edge, self.up, self.down)

    def deliver(self, role: Role) -> bool:
        mux, out, inbox = self.mux(role)
        if not inbox:
            return False
        match mux.receive(inbox.popleft(), 0.0):
            case Opened(stream):
                reply = mux.answer(stream, OK, 0.0)
                assert reply is not None
                out.append(reply)
                self.answered.add(stream)
            case Data(stream, payload, end):
                self.got[role, stream] = self.got.get((role, stream), b"") + payload
                self.unread[role, stream] = self.unread.get((role, stream), 0) + len(payload)
                if end:
                    self.ended.add((role, stream))
            case Reset() | Excess():
                raise AssertionError("nobody reset a stream")
        return True

    def send(self, role: Role, stream: int) -> bool:
        mux, out, _ = self.mux(role)
        if stream not in self.answered or (role, stream) in self.closed:
            return False
        rest = self.to_send[role, stream]
        room = mux.room(stream)
        assert room is not None
        if rest and not room:
            return False
        part, self.to_send[role, stream] = rest[:room], rest[room:]
        end = not self.to_send[role, stream]
        sent = mux.data(stream, part, 0.0, end=end)
        assert sent is not None
        out.append(sent)
        if end:
            self.closed.add((role, stream))
        return True

    def read(self, role: Role, stream: int) -> bool:
        mux, out, _ = self.mux(role)
        size = self.unread.pop((role, stream), 0)
        if not size:
            return False
        if (credit := mux.consumed(stream, size)) is not None:
            out.append(credit)
        return True


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_byte_arrives_once_and_in_order_whoever_moves_next(data: st.DataObject) -> None:
    sizes = data.draw(
        st.lists(st.tuples(st.integers(0, 200_000), st.integers(0, 200_000)), min_size=1, max_size=4)
    )
    payloads = [(bytes([n]) * down, bytes([n + 100]) * up) for n, (down, up) in enumerate(sizes)]
    wire = Wire(payloads)
    rng = data.draw(st.randoms(use_true_random=False))
    streams = list(range(1, len(payloads) + 1))
    moves = [(wire.deliver, (role,)) for role in Role for _ in streams]
    moves += [(act, (role, n)) for act in (wire.send, wire.read) for role in Role for n in streams]  # type: ignore[misc]
    stuck = 0
    while stuck < 3:
        rng.shuffle(moves)
        stuck = 0 if any([move(*args) for move, args in moves]) else stuck + 1
    for n, (down, up) in enumerate(payloads, start=1):
        assert wire.got.get((Role.EDGE, n), b"") == down
        assert wire.got.get((Role.HUB, n), b"") == up
    assert wire.ended == {(role, n) for role in Role for n in streams}
    assert (wire.hub.count, wire.edge.count, wire.hub._grown, wire.edge._grown) == (0, 0, 0, 0)


@given(st.binary(max_size=200))
@example(b"HTTP/1.1 " + b"1" * 5000)
@example(b"HTTP/1.1 \xb2\xb2\xb2")
def test_an_answer_is_read_or_refused(head: bytes) -> None:
    try:
        answer = tunnel.read_head(head, "it")
    except ProtocolError:
        return
    assert 100 <= answer.status <= 599


def test_status_and_headers() -> None:
    answer = tunnel.read_head(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\nno header\r\nA:b", "it"
    )
    assert (answer.status, answer.headers) == (101, [("Upgrade", "SPDY/3.1"), ("A", "b")])
