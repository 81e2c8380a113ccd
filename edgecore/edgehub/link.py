"""The link to the cloud: dial, carry one session after another, come back.

Theory of operation.  `run` tries the hub's addresses in turn; after a round in which none took us it waits with jittered
back-off, or until the machine's network changed.  While nobody answers at all the wait stays short and the attempt is a bare
knock, so that the node is back within seconds of the network; a hub that answers and says no is given up to 30 s.  A
connection is carried by four tasks: reading frames, writing them,
ticking the session, and asking for signs of life, so that a silent line is found in under ten seconds.  The first to fail ends
all four.

What frames mean is `beehive.session`'s; what is in them is the `Peer`'s, who also holds what waits to be sent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from beehive import clock, codec, session, succession
from beehive.backoff import Backoff
from beehive.errors import ProtocolError, Refused, SkerryError, Unavailable
from beehive.message import Inventory, Message, Op
from edgecore.edgehub import netlink
from edgecore.edgehub.session import Session
from edgecore.edgehub.websocket import OVER, UNTRUSTED, Closed, Socket, Unreachable, dial, knock

log = logging.getLogger(__name__)

PONG_S = session.SILENCE_S - session.PING_S
"""How long an answer to a ping may take: with PING_S between pings a dead line is found after SILENCE_S."""

STEADY_S = 5.0
"""A session that lasted so long was a success: the next dial starts with the shortest back-off."""

REACH_CAP_S = 2.5
"""Longest wait while nobody answers: a knock is three small packets, and a fleet that comes back is spread over it."""

KNOCK_S = 2.5

MAX_PACE_S = 3600.0
"""What a hub may ask for; its own setting has the same bound."""

MAX_DIRECT = 1024
"""Frames waiting to be written beside the outbox: answers, acknowledgements, questions."""


class Peer(Protocol):
    """The part of the daemon that the link carries frames for."""

    async def inventory(self) -> Inventory:
        """What the node holds, for a hub of ours."""
        ...

    def connected(self, current: Session, inventory_id: str) -> None:
        """Frames may be sent from now on.  A hub of ours acknowledges `inventory_id` when all it implies is committed."""
        ...

    def telling(self, inventory_id: str) -> None:
        """The hub asked again for what the node holds, and is told now."""
        ...

    def disconnected(self) -> None:
        """They may not any more; what was in flight has to go again."""
        ...

    async def forwarded(self, part: str, message: Message) -> None:
        """A frame that answers nothing.  Waiting here holds up the link."""
        ...

    def answered(self, message: Message) -> None:
        """A frame that answers one of ours."""
        ...

    def acked(self, ids: Sequence[str]) -> None:
        """The hub committed these."""
        ...

    def take(self, now: float) -> list[Message]:
        """Reports to write now."""
        ...

    def written(self, message: Message) -> None:
        """One of those was given to the socket."""
        ...

    def next_wakeup(self) -> float | None:
        """When `take` may have more without a `wake`."""
        ...


class Authorities(Protocol):
    """What knows which authorities of the cloud this node trusts (edgehub/succession.py)."""

    def trusts(self) -> str:
        """For the hub."""
        ...

    async def fetch(self, address: str) -> bool:
        """Whether a newer one is trusted after having asked there."""
        ...

    def proved(self) -> None:
        """A hub was trusted."""
        ...

    def is_shut_out(self) -> bool:
        """Whether a hub will not take this node's certificate, as the authority that signed it was replaced."""
        ...

    def may_lapse_wrongly(self) -> bool:
        """Whether one is not trusted only by this machine's clock."""
        ...


class Link:
    """One at a time to one of several addresses of the same cloud.

    tls: makes the context for a dial, so that a renewed certificate is used from the next one on.  Raises what makes
    dialling senseless now; the text is shown to the operator.   ask_time: finds out at an address whether the clock here
    was wrong and is corrected.   authorities: asked about a hub that is not trusted."""

    def __init__(
        self,
        *,
        node: str,
        addresses: Sequence[str],
        tls: Callable[[], ssl.SSLContext],
        peer: Peer,
        project: str = session.PROJECT_ID,
        rng: random.Random | None = None,
        ask_time: Callable[[str], Awaitable[bool]] | None = None,
        authorities: Authorities | None = None,
    ) -> None:
        if not addresses:
            raise ValueError("a link needs an address")
        self.node = node
        self.session: Session | None = None
        self.last_error = ""
        self._addresses = list(addresses)
        self._tls = tls
        self._peer = peer
        self._project = project
        self._ask_time = ask_time
        self._authorities = authorities
        self._redial = False
        self._unreachable = False
        self._rng = rng or random.Random()
        self._direct: deque[Message] = deque()
        self._wake = asyncio.Event()
        self._network_changed = asyncio.Event()

    # for the peer

    def wake(self) -> None:
        """Something new may be taken."""
        self._wake.set()

    def send(self, message: Message) -> None:
        """Write a frame before all reports.  Raises: Unavailable (no link, or too much waits)."""
        if self.session is None:
            raise Unavailable("cannot reach the cloud: no link")
        if len(self._direct) >= MAX_DIRECT:
            raise Unavailable("cannot reach the cloud: the link does not keep up")
        self._direct.append(message)
        self._wake.set()

    def redial(self) -> None:
        """Leave the hub and come back at once, with what `tls` gives now."""
        if self.session is not None:
            self._redial = True
            self._wake.set()

    # the life

    async def run(self) -> None:
        """Keep a link for ever."""
        watch = netlink.Watch(self._network_changed.set)
        try:
            watch.start()
        except OSError as error:
            log.info("Changes of the network are not seen (%s): reconnecting relies on back-off", error)
        try:
            await self._run()
        finally:
            watch.stop()

    async def _run(self) -> None:
        refused, unreached = Backoff(), Backoff(cap_s=REACH_CAP_S)
        failing_since: float | None = None
        while True:
            backoff = unreached
            for address in list(self._addresses):
                socket = await self._try(address)
                if socket is None:
                    if not self._unreachable:
                        backoff = refused
                    continue
                # the address that worked is the first to be tried again
                self._addresses.remove(address)
                self._addresses.insert(0, address)
                failing_since = None
                began = clock.monotonic()
                await self._carry(address, socket)
                backoff = refused
                unreached.reset()
                if clock.monotonic() - began >= STEADY_S:
                    refused.reset()
                if self._redial:
                    self._redial = False
                    refused.reset()
                break
            else:
                if failing_since is None:
                    failing_since = clock.monotonic()
                    log.warning("Cannot reach the cloud, trying on: %s", self.last_error)
            await self._pause(backoff.next_s(self._rng))

    async def _pause(self, seconds: float) -> None:
        """Wait, but not when the network changed meanwhile: then another way may exist."""
        self._network_changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._network_changed.wait()
                # a change comes as a burst of messages, and routes come after addresses
                await asyncio.sleep(min(0.2, seconds))

    async def _try(self, address: str) -> Socket | None:
        try:
            if self._unreachable:
                await knock(address, KNOCK_S)
            try:
                return await self._dial(address)
            except Refused as refused:
                if not await self._mended(address, refused):
                    raise
                return await self._dial(address)
        except SkerryError as error:
            self._unreachable = isinstance(error, Unreachable)
            text = str(error)
            if not self._unreachable and self._is_shut_out():
                text = (
                    f"{error}; the authority that signed this node's certificate was replaced: run "
                    f"`cloudcore authority readmit {self.node}` in the cloud, or `edgecore join --token …` here with a "
                    "new token"
                )
            if (isinstance(error, Refused) or text != str(error)) and text != self.last_error:
                log.error("%s", text)
            self.last_error = text
            log.debug("! %s", error)
            return None

    def _is_shut_out(self) -> bool:
        try:
            return self._authorities is not None and self._authorities.is_shut_out()
        except SkerryError:  # dialling says so, too
            return False

    async def _dial(self, address: str) -> Socket:
        headers = {
            session.HEADER_NODE: self.node,
            session.HEADER_PROJECT: self._project,
            session.HEADER_USE: "msg",
            session.HEADER_PROTOCOL: str(session.PROTOCOL_VERSION),
        }
        if self._authorities is not None:
            headers[succession.HEADER] = self._authorities.trusts()
        socket = await dial(
            f"wss://{address}/{self._project}/{self.node}/events", tls=self._tls(), headers=headers
        )
        if self._authorities is not None:
            try:
                self._authorities.proved()
            except SkerryError as error:
                log.warning("Cannot forget an authority whose window is over: %s", error)
        return socket

    async def _mended(self, address: str, refused: Refused) -> bool:
        """Whether the hub may be trusted after all.  Raises: Unreachable, Refused, with what to do."""
        if refused.reason == OVER:
            return await self._was_wrong(address, refused)
        if refused.reason != UNTRUSTED or self._authorities is None:
            return False
        # the authority may have been replaced while this node was away; or it still counts, and the clock here is ahead
        if await self._authorities.fetch(address):
            return True
        return self._authorities.may_lapse_wrongly() and await self._was_wrong(address, refused)

    async def _was_wrong(self, address: str, refused: Refused) -> bool:
        """Whether this machine's clock was, by which something is over.  Raises: Unreachable, Refused, with what to do."""
        if self._ask_time is None:
            return False
        try:
            return await self._ask_time(address)
        except (Unreachable, Refused):
            raise
        except SkerryError as error:
            log.debug("! what time it is: %s", error)
            raise Refused(
                f"{refused}; this machine's clock says {clock.machine():%Y-%m-%d} UTC: if that is wrong, set it ({error})"
            ) from error

    async def _carry(self, address: str, socket: Socket) -> None:
        """One session, from the upgrade to its end."""
        ours = socket.header(session.HEADER_PROTOCOL) == str(session.PROTOCOL_VERSION)
        number = _whole(socket.header(session.HEADER_SESSION))
        pace_s = min(_whole(socket.header(session.HEADER_PACE)) / 1000, MAX_PACE_S) if ours else 0.0
        current = Session(address, ours, number, pace_s)
        machine = session.EdgeSession(node=self.node, ours=ours, number=current.number)
        log.info("Connected to %s (%s)", address, f"session {current.number}" if ours else "a KubeEdge hub")
        reason = "stopping"
        try:
            try:
                inventory = await self._peer.inventory() if ours else Inventory(objects={})
                self._direct.clear()
                # the first frames say who we are; whatever the parts send comes behind them
                opening = machine.opened(inventory, clock.monotonic())
                await self._perform(machine, opening, socket)
                self.session = current
                self._peer.connected(current, _inventory_id(opening))
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._read(machine, socket), name="link-read")
                    group.create_task(self._write(machine, socket), name="link-write")
                    group.create_task(self._tick(machine, socket), name="link-tick")
                    group.create_task(self._probe(machine, socket), name="link-probe")
            except* SkerryError as faults:
                reason = self.last_error = str(_first(faults))
                expected = logging.INFO if self._redial else logging.WARNING
                log.log(expected, "Disconnected from %s: %s", address, reason)
        finally:
            self.session = None
            self._peer.disconnected()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(3.0):
                    await socket.close(1001, reason)
            socket.abort()

    async def _read(self, machine: session.EdgeSession, socket: Socket) -> None:
        while True:
            frame = await socket.receive()
            try:
                message = codec.decode(frame)
            except ProtocolError as error:
                # the hub is ours or a stock one; either way the next frame is readable again
                log.warning("Ignored a frame: %s", error)
                machine.heard(clock.monotonic())
                continue
            log.debug("< %s %s %s", message.route.operation, message.route.resource, message.id)
            await self._perform(machine, machine.handle_frame(message, clock.monotonic()), socket)

    async def _write(self, machine: session.EdgeSession, socket: Socket) -> None:
        while True:
            self._wake.clear()
            while self._direct:
                await self._write_one(self._direct.popleft(), socket)
            if self._redial:
                raise Unavailable("the certificate is a new one")
            for message in self._peer.take(clock.monotonic()):
                # answers and questions overtake a long row of reports
                while self._direct:
                    await self._write_one(self._direct.popleft(), socket)
                await self._write_one(message, socket)
                self._peer.written(message)
            wakeup = self._peer.next_wakeup()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(None) as limit:
                    if wakeup is not None:
                        limit.reschedule(
                            asyncio.get_running_loop().time() + max(0.01, wakeup - clock.monotonic())
                        )
                    await self._wake.wait()

    async def _write_one(self, message: Message, socket: Socket) -> None:
        log.debug("> %s %s %s", message.route.operation, message.route.resource, message.id)
        await socket.send(codec.encode(message))

    async def _tick(self, machine: session.EdgeSession, socket: Socket) -> None:
        while True:
            await asyncio.sleep(1.0)
            await self._perform(machine, machine.tick(clock.monotonic()), socket)

    async def _probe(self, machine: session.EdgeSession, socket: Socket) -> None:
        while True:
            await socket.ping(PONG_S)
            machine.heard(clock.monotonic())
            # after a change of the network the next question comes at once
            await self._pause(session.PING_S)

    async def _perform(
        self, machine: session.EdgeSession, commands: list[session.Command], socket: Socket
    ) -> None:
        for command in commands:
            match command:
                case session.Send(message):
                    self._direct.append(message)
                    self._wake.set()
                case session.Forward(part, message):
                    await self._peer.forwarded(part, message)
                case session.Answered(message):
                    self._peer.answered(message)
                    # it may have ended a report's flight: the next of its key goes, or a refused one has a time again
                    self._wake.set()
                case session.Acked(ids):
                    self._peer.acked(ids)
                    self._wake.set()
                case session.Tell():
                    told = session.holding(self.node, Op.INVENTORY, await self._peer.inventory())
                    self._peer.telling(told.id)
                    self._direct.append(told)
                    self._wake.set()
                case session.Close(code, reason):
                    await socket.close(code, reason)
                    raise Closed(code, reason)
                case _:
                    raise AssertionError(f"an edge session asked for {command}")


def _inventory_id(commands: list[session.Command]) -> str:
    for command in commands:
        if isinstance(command, session.Send) and command.message.route.operation == Op.INVENTORY:
            return command.message.id
    return ""


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0


def _first(faults: BaseExceptionGroup[SkerryError]) -> SkerryError:
    """The first fault is the cause; the others are its echoes."""
    found: BaseException = faults
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, SkerryError), "except* let something else through"
    return found
