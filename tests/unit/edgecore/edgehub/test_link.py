"""In which order the link dials, what it says first, what overtakes what, and how it ends."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from beehive import codec, session
from beehive.errors import Refused, SkerryError, Unavailable
from beehive.message import Group, Inventory, Message, Op, Source, new
from edgecore.edgehub import link as module
from edgecore.edgehub.link import MAX_DIRECT, Link
from edgecore.edgehub.session import Session
from edgecore.edgehub.websocket import Closed, Unreachable


class Socket:
    """The hub's end in memory: `frames` are what it says, `sent` what it heard."""

    def __init__(self, *, ours: bool = True) -> None:
        self.headers = (
            {session.HEADER_PROTOCOL: "1", session.HEADER_SESSION: "7", session.HEADER_PACE: "1000"}
            if ours
            else {}
        )
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        self.sent: list[Message] = []
        self.closed_with = 0
        self.gone = asyncio.Event()

    def header(self, name: str) -> str:
        return self.headers.get(name, "")

    async def receive(self) -> bytes:
        frame = await self.frames.get()
        if not frame:
            raise Closed(1006, "gone")
        return frame

    async def send(self, data: bytes) -> None:
        self.sent.append(codec.decode(data))

    async def ping(self, timeout_s: float) -> None:
        await asyncio.sleep(0)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed_with = self.closed_with or code

    def abort(self) -> None:
        self.gone.set()


class Peer:
    def __init__(self) -> None:
        self.log: list[str] = []
        self.reports: list[Message] = []
        self.acks: list[str] = []

    async def inventory(self) -> Inventory:
        return Inventory(objects={})

    def connected(self, current: Session, inventory_id: str) -> None:
        self.log.append(f"connected {current.address} {current.number}")

    def disconnected(self) -> None:
        self.log.append("disconnected")

    async def forwarded(self, part: str, message: Message) -> None:
        self.log.append(f"forwarded {part}")

    def answered(self, message: Message) -> None:
        self.log.append("answered")

    def acked(self, ids: Any) -> None:
        self.acks += ids

    def take(self, now: float) -> list[Message]:
        taken, self.reports = self.reports, []
        return taken

    def written(self, message: Message) -> None:
        self.log.append("written")

    def next_wakeup(self) -> float | None:
        return None


class World:
    """Who answers at which address.  Anybody else is unreachable."""

    def __init__(self) -> None:
        self.hubs: dict[str, Socket | SkerryError] = {}
        self.attempts: list[str] = []
        self.pauses: list[float] = []
        self.turn = asyncio.Event()

    async def dial(self, url: str, **options: Any) -> Any:
        address = url.split("/")[2]
        self.attempts.append(f"dial {address}")
        found = self.hubs.get(address, Unreachable(f"cannot connect to {address}"))
        if isinstance(found, SkerryError):
            raise found
        return found

    async def knock(self, address: str, timeout_s: float) -> None:
        self.attempts.append(f"knock {address}")
        if isinstance(self.hubs.get(address, Unreachable("")), Unreachable):
            raise Unreachable(f"cannot connect to {address}")


Scene = Callable[[Link, World, Peer], Awaitable[None]]


def on(monkeypatch: pytest.MonkeyPatch, scene: Scene, *addresses: str) -> None:
    async def play() -> None:
        world, peer = World(), Peer()
        monkeypatch.setattr(module, "dial", world.dial)
        monkeypatch.setattr(module, "knock", world.knock)
        link = Link(
            node="edge-1",
            addresses=addresses or ("a:1",),
            tls=lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            peer=peer,
        )

        async def pause(seconds: float) -> None:
            world.pauses.append(seconds)
            await asyncio.Event().wait() if link.session is not None else await world.turn.wait()
            world.turn.clear()

        monkeypatch.setattr(link, "_pause", pause)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(link._run())
            await scene(link, world, peer)
            running.cancel()

    asyncio.run(play())


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


def frame(operation: str = Op.UPDATE, *, group: str = Group.RESOURCE, content: Any = None) -> Message:
    return new(
        source=Source.EDGECONTROLLER,
        group=group,
        operation=operation,
        resource="d/configmap/a",
        content={} if content is None else content,
    )


def test_the_addresses_are_tried_in_turn_and_the_one_that_worked_comes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene(link: Link, world: World, peer: Peer) -> None:
        await settle()
        assert world.attempts == ["dial a:1", "knock b:1"]
        assert link.session is None
        socket = world.hubs["b:1"] = Socket()
        world.turn.set()
        await settle()
        assert link.session == Session("b:1", ours=True, number=7, pace_s=1.0)
        world.attempts.clear()
        socket.frames.put_nowait(b"")
        await settle()
        assert peer.log == ["connected b:1 7", "disconnected"]
        assert socket.gone.is_set()
        del world.hubs["b:1"]
        world.turn.set()
        await settle()
        assert [attempt.split()[1] for attempt in world.attempts] == ["b:1", "a:1"]

    on(monkeypatch, scene, "a:1", "b:1")


def test_who_refuses_is_waited_for_longer_than_who_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def rounds(link: Link, world: World) -> float:
        for _ in range(8):
            await settle()
            world.turn.set()
        await settle()
        return max(world.pauses)

    async def silent(link: Link, world: World, peer: Peer) -> None:
        assert await rounds(link, world) <= module.REACH_CAP_S

    async def refusing(link: Link, world: World, peer: Peer) -> None:
        world.hubs["a:1"] = Refused("not you")
        assert await rounds(link, world) > module.REACH_CAP_S
        assert link.last_error == "not you"

    on(monkeypatch, silent)
    on(monkeypatch, refusing)


@pytest.mark.parametrize("ours", [True, False])
def test_the_first_frames_are_a_sign_of_life_and_to_a_hub_of_ours_the_inventory(
    monkeypatch: pytest.MonkeyPatch, ours: bool
) -> None:
    async def scene(link: Link, world: World, peer: Peer) -> None:
        socket = world.hubs["a:1"] = Socket(ours=ours)
        peer.reports = [frame()]
        await settle()
        said = [message.route.operation for message in socket.sent]
        assert said == [Op.KEEPALIVE, *([Op.INVENTORY] if ours else []), Op.UPDATE]
        assert link.session is not None
        assert link.session.ours == ours

    on(monkeypatch, scene)


def test_answers_overtake_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(link: Link, world: World, peer: Peer) -> None:
        socket = world.hubs["a:1"] = Socket()
        await settle()
        socket.sent.clear()
        peer.reports = [frame("report") for _ in range(3)]
        link.send(frame("answer"))
        await settle()
        assert [message.route.operation for message in socket.sent] == ["answer", *["report"] * 3]

    on(monkeypatch, scene)


def test_what_waits_to_be_written_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(link: Link, world: World, peer: Peer) -> None:
        with pytest.raises(Unavailable, match="no link"):
            link.send(frame())
        world.hubs["a:1"] = Socket()
        await settle()
        for _ in range(MAX_DIRECT):
            link.send(frame())
        with pytest.raises(Unavailable, match="does not keep up"):
            link.send(frame())

    on(monkeypatch, scene)


def test_a_bad_frame_is_ignored_and_the_next_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(link: Link, world: World, peer: Peer) -> None:
        socket = world.hubs["a:1"] = Socket()
        await settle()
        peer.log.clear()
        for data in (b"null", b"\xff", b"[" * 1000, codec.encode(frame())):
            socket.frames.put_nowait(data)
        await settle()
        assert peer.log == ["forwarded metamanager"]
        assert link.session is not None

    on(monkeypatch, scene)


def test_acknowledgements_reach_the_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(link: Link, world: World, peer: Peer) -> None:
        socket = world.hubs["a:1"] = Socket()
        await settle()
        socket.frames.put_nowait(codec.encode(frame(Op.ACK, content=["x", "y"])))
        await settle()
        assert peer.acks == ["x", "y"]
        socket.frames.put_nowait(codec.encode(frame(Op.ACK, content={"not": "a list"})))
        await settle()
        assert socket.closed_with == session.CLOSE_BAD_FRAME
        assert link.session is None

    on(monkeypatch, scene)


def test_an_answer_lets_the_next_report_go_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stock hub acknowledges a report by answering it; the newer status of that pod must not wait for a keepalive."""

    async def scene(link: Link, world: World, peer: Peer) -> None:
        socket = world.hubs["a:1"] = Socket(ours=False)
        await settle()
        peer.answered = lambda message: peer.reports.append(frame("patch"))  # type: ignore[method-assign]
        answer = new(
            source=Source.EDGECONTROLLER,
            group=Group.RESOURCE,
            operation=Op.RESPONSE,
            resource="d/podpatch/a",
            parent="1",
        )
        socket.frames.put_nowait(codec.encode(answer))
        await settle()
        assert "patch" in [message.route.operation for message in socket.sent]

    on(monkeypatch, scene)


def test_a_link_needs_an_address() -> None:
    with pytest.raises(ValueError, match="address"):
        Link(node="n", addresses=(), tls=lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), peer=Peer())
