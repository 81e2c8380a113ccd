"""The life of one link between a hub and an edge: both roles as state machines.  Pure; time is given, nothing is sent here.

    OPENING ── opened ──▶ SYNCING ── inventory ──▶ LIVE ── lost │ replaced │ silent ──▶ CLOSED
                     └─── (stock peer: no inventory) ──▶ LIVE

The shell around it owns the socket: it turns what arrives into a call, and performs the returned commands in order.
`handle_*` is total: a frame that is illegal by the peer leads to Close, never to an exception.

Sources: KubeEdge's message dispatcher (hub) and message handler (edge) for routing; RFC 6455 for close codes."""

from __future__ import annotations

import contextlib
from enum import Enum, auto

import msgspec

from beehive.errors import ProtocolError
from beehive.message import Digest, Failure, Group, Inventory, Message, Op, Source, new

PROTOCOL_VERSION = 1
HEADER_PROTOCOL = "Skerry-Protocol"
"""Request: the newest version the edge speaks.  Answer: the version to use; absent from a stock hub."""
HEADER_SESSION = "Skerry-Session"
"""Answer: the number of this session; it only grows for one node."""
HEADER_PACE = "Skerry-Pace"
"""Answer: the shortest time, in ms, between two writes of one device's status.  What comes sooner would wait at the hub."""
HEADER_NODE = "node_id"
HEADER_PROJECT = "project_id"
HEADER_USE = "ConnectionUse"
PROJECT_ID = "e632aba927ea4ac2b575ec1603d56f10"
"""KubeEdge's default; only logged by its hub."""

KEEPALIVE_S = 15.0
"""How often the edge says to a stock hub that it is alive, which drops a node after 30 s without."""
STOCK_SILENCE_S = 30.0
"""How long a stock edge may be silent: it sends nothing but its keepalive."""
SILENCE_S = 9.0
"""How long one of ours may be silent before the link counts as dead: pings go out every PING_S."""
PING_S = 4.0
INVENTORY_S = 20.0
"""How long a new session waits for the inventory before it is closed."""

CLOSE_POLICY = 1008
CLOSE_TOO_BIG = 1009
CLOSE_RESTART = 1012
CLOSE_REPLACED = 4001
"""Another session of the same node took over."""
CLOSE_SILENT = 4002
CLOSE_REVOKED = 4003
CLOSE_BAD_FRAME = 4004


class State(Enum):
    OPENING = auto()
    SYNCING = auto()
    LIVE = auto()
    CLOSED = auto()


# Commands: what the shell has to do.


class Send(msgspec.Struct, frozen=True):
    """Write this frame."""

    message: Message


class Forward(msgspec.Struct, frozen=True):
    """Hand this frame to the part named by `to`."""

    to: str
    message: Message


class Acked(msgspec.Struct, frozen=True):
    """The peer committed these frames."""

    ids: tuple[str, ...]


class Failed(msgspec.Struct, frozen=True):
    """The peer could not use this frame; `text` says why."""

    id: str
    text: str


class Declined(msgspec.Struct, frozen=True):
    """The peer will never be able to use this frame; `text` says why."""

    id: str
    text: str


class Difference(msgspec.Struct, frozen=True):
    """Compare what the edge holds with what it should hold; deliver the difference."""

    inventory: Inventory


class Compare(msgspec.Struct, frozen=True):
    """Compare what the edge says it holds, in short, with what it acknowledged."""

    digest: Digest


class Tell(msgspec.Struct, frozen=True):
    """Say once more what we hold."""


class Alive(msgspec.Struct, frozen=True):
    """The node said it is alive."""


class Answered(msgspec.Struct, frozen=True):
    """This frame answers the request with id `message.parent`."""

    message: Message


class Close(msgspec.Struct, frozen=True):
    """Close the socket with this code.  `reason` is for the log of both ends."""

    code: int
    reason: str


Command = Send | Forward | Acked | Failed | Declined | Difference | Compare | Tell | Alive | Answered | Close

# Cloud modules: an up-going frame with such a source that is no acknowledgement is not for anybody.
_CLOUD_SOURCES = frozenset(
    {Source.CLOUDHUB, "cloudStream", Source.DEVICECONTROLLER, Source.EDGECONTROLLER, "synccontroller"}
)
_TASK_OPS = frozenset({"prepull", "upgrade", "UpdateNodeActionStatus"})


def upstream_part(message: Message) -> str | None:
    """The cloud part for an up-going frame that is neither keepalive nor acknowledgement; None: it is for nobody.

    Source: KubeEdge, message_dispatcher.go, DispatchUpstream (first match wins)."""
    route = message.route
    kind = route.resource.split("/")[1:2]
    if kind == ["volume"] and message.parent:
        return "csi"
    if route.operation == Op.UPLOAD and route.group == Group.USER:
        return "router"
    if route.operation in _TASK_OPS:
        return "taskmanager"
    if route.resource == "k8s/ca.crt":
        return "cloudhub"
    if route.source in _CLOUD_SOURCES:
        return None
    if route.source == Source.METASERVER:
        return "dynamiccontroller"
    if route.source == Source.TWIN:
        return "devicecontroller"
    return "edgecontroller"


def downstream_part(message: Message) -> str | None:
    """The edge part for a down-going frame that answers nothing; None: it is for nobody.

    Source: KubeEdge, edgehub/messagehandler."""
    match message.route.group:
        case Group.RESOURCE | "func":
            return "metamanager"
        case Group.TWIN:
            return "devicetwin"
        case Group.USER:
            return {"router_eventbus": "eventbus", "router_servicebus": "servicebus"}.get(
                message.route.source
            )
        case Group.TASKMANAGER:
            return "taskmanager"
    return None


class HubSession(msgspec.Struct):
    """The hub's end of one connection of one node.

    ours: the edge announced our protocol.   number: this session's fencing number."""

    node: str
    ours: bool
    number: int
    opened_at: float
    state: State = State.OPENING
    last_heard: float = 0.0
    bad_frames: int = 0
    asked: bool = False

    def ask(self) -> bool:
        """Whether the edge may be asked to say once more what it holds; notes that it was."""
        may = self.ours and self.state is State.LIVE and not self.asked
        self.asked = self.asked or may
        return may

    def opened(self, now: float) -> list[Command]:
        self.last_heard = now
        self.state = State.SYNCING if self.ours else State.LIVE
        return []

    def heard(self, now: float) -> None:
        """Bytes arrived, whatever they were: pings count."""
        self.last_heard = now

    def handle_frame(self, message: Message, now: float) -> list[Command]:
        """What one frame from the edge asks for."""
        if self.state in (State.OPENING, State.CLOSED):
            return []  # a late frame of a session that is over is refused by ignoring it
        self.last_heard = now
        operation = message.route.operation
        if operation == Op.KEEPALIVE:
            return [Alive()]
        if self.ours and operation in (Op.INVENTORY, Op.ACK, Op.DIGEST):
            return self._own_frame(message, operation)
        # while SYNCING everything else is welcome too: the edge may report before it has listed what it holds
        if operation == Op.RESPONSE:
            if upstream_part(message) == "csi":
                return [Forward("csi", message)]
            return [Acked((message.parent,))] if message.parent else []
        if operation == Op.ERROR:
            return self._error(message) if message.parent else []
        part = upstream_part(message)
        return [Forward(part, message)] if part else []

    def _error(self, message: Message) -> list[Command]:
        """One of ours says whether sending it again can help; a stock edge does not."""
        text = bytes(message.content)[:256].decode("utf-8", "replace")
        if self.ours:
            with contextlib.suppress(ProtocolError):  # then it is text, and temporary
                failure = message.decode(Failure)
                text = failure.message[:256]
                if failure.reason == ProtocolError.reason:
                    return [Declined(message.parent, text)]
        return [Failed(message.parent, text.strip('"'))]

    def _own_frame(self, message: Message, operation: str) -> list[Command]:
        try:
            if operation == Op.ACK:
                return [Acked(tuple(message.decode(list[str])))]
            if operation == Op.DIGEST:
                digest = message.decode(Digest)
                return [Compare(digest)] if self.state is State.LIVE else []
            if self.state is State.LIVE and not self.asked:
                # each costs the hub a look at everything that it names: once a session, and when asked
                raise ProtocolError("a second inventory in one session")
            inventory = message.decode(Inventory)
        except ProtocolError as error:
            return self.bad_frame(str(error))
        self.asked = False
        self.state = State.LIVE
        return [Difference(inventory)]

    def bad_frame(self, text: str) -> list[Command]:
        """A frame could not be read: say so twice, then close."""
        self.bad_frames += 1
        if self.bad_frames < 3:
            return []
        return self.close(CLOSE_BAD_FRAME, f"three bad frames, the last: {text}"[:120])

    def tick(self, now: float) -> list[Command]:
        """Call at least every second: closes what fell silent."""
        if self.state is State.CLOSED:
            return []
        limit = SILENCE_S if self.ours else STOCK_SILENCE_S
        if now - self.last_heard > limit:
            return self.close(CLOSE_SILENT, f"nothing heard for {limit:.0f} s")
        if self.state is State.SYNCING and now - self.opened_at > INVENTORY_S:
            return self.close(CLOSE_POLICY, "no inventory came")
        return []

    def replaced(self, by: int) -> list[Command]:
        """A session with the higher number `by` exists: this one is over."""
        return self.close(CLOSE_REPLACED, f"session {by} took over") if by > self.number else []

    def close(self, code: int, reason: str) -> list[Command]:
        if self.state is State.CLOSED:
            return []
        self.state = State.CLOSED
        return [Close(code, reason)]

    def next_wakeup(self) -> float:
        return self.last_heard + (SILENCE_S if self.ours else STOCK_SILENCE_S)


class EdgeSession(msgspec.Struct):
    """The edge's end.  ours: the hub answered with our protocol header."""

    node: str
    ours: bool
    number: int = 0
    state: State = State.OPENING
    last_heard: float = 0.0
    last_keepalive: float = 0.0

    def opened(self, inventory: Inventory, now: float) -> list[Command]:
        """The upgrade succeeded: a sign of life first, then what we hold (only to a hub of ours)."""
        self.state = State.LIVE
        self.last_heard = self.last_keepalive = now
        commands: list[Command] = [Send(keepalive())]
        if self.ours:
            commands.append(Send(holding(self.node, Op.INVENTORY, inventory)))
        return commands

    def heard(self, now: float) -> None:
        self.last_heard = now

    def handle_frame(self, message: Message, now: float) -> list[Command]:
        """What one frame from the hub asks for.

        A parent id makes a frame an answer (twin and task frames excepted): whoever waits for it gets it, and if nobody
        waits any more it is dropped, as KubeEdge does."""
        if self.state is not State.LIVE:
            return []
        self.last_heard = now
        if self.ours and message.route.operation == Op.ACK:
            try:
                return [Acked(tuple(message.decode(list[str])))]
            except ProtocolError as error:
                return self.close(CLOSE_BAD_FRAME, str(error)[:120])
        if self.ours and message.route.operation == Op.INVENTORY:
            return [Tell()]
        if self.ours and message.route.operation == Op.SUCCESSION:
            return [Forward("authority", message)]
        part = downstream_part(message)
        if message.parent and message.route.group not in (Group.TWIN, Group.TASKMANAGER):
            return [Answered(message)]
        return [Forward(part, message)] if part else []

    def tick(self, now: float) -> list[Command]:
        """Call at least every second: keepalives to a stock hub when due, and an end to a silent link.

        One of ours hears the shell's pings.  A stock hub never speaks on an idle link, so only these can find that one dead."""
        if self.state is not State.LIVE:
            return []
        if self.ours and now - self.last_heard > SILENCE_S:
            return self.close(CLOSE_SILENT, f"nothing heard for {SILENCE_S:.0f} s")
        if not self.ours and now - self.last_keepalive >= KEEPALIVE_S:
            self.last_keepalive = now
            return [Send(keepalive())]
        return []

    def close(self, code: int, reason: str) -> list[Command]:
        if self.state is State.CLOSED:
            return []
        self.state = State.CLOSED
        return [Close(code, reason)]


def holding(node: str, operation: str, content: Inventory | Digest) -> Message:
    """What `node` holds, as a frame to a hub of ours: its inventory or its digest."""
    return new(
        source=Source.METAMANAGER,
        group=Group.RESOURCE,
        operation=operation,
        resource=f"null/node/{node}",
        content=content,
    )


def keepalive() -> Message:
    """The edge's sign of life, as KubeEdge's hub expects it."""
    return new(
        source=Source.WEBSOCKET, group=Group.RESOURCE, operation=Op.KEEPALIVE, resource="node", content="ping"
    )
