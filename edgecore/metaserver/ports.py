"""What the metaserver needs from the rest of edgecore.  metamanager and edgehub hand these in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from beehive.errors import ProtocolError
from beehive.message import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One object that the cloud gave this node.  `kind` is its type on the wire (`pod`, `configmap`, `device`, ...);
    `namespace` is empty for a cluster-scoped object; `version` is -1 when it came without one; `value` is its JSON."""

    kind: str
    namespace: str
    name: str
    uid: str
    version: int
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldChange:
    """Look again at this one.  `gone`: it is held no more, and `uid` says which."""

    kind: str
    namespace: str
    name: str
    uid: str
    gone: bool


class Store(Protocol):
    """The edge's store: what the node holds, to read; and notes of our own, to read and write."""

    async def held(self, kind: str, namespace: str = "") -> list[Held]:
        """All objects of a wire type, in one namespace or everywhere."""
        ...

    async def held_one(self, kind: str, namespace: str, name: str) -> Held | None: ...

    def subscribe(self, listener: Callable[[HeldChange], None]) -> None:
        """Call `listener` after each committed change; it does not block."""
        ...

    async def notes(self, prefix: str) -> dict[str, bytes]:
        """Our notes whose key begins with `prefix`."""
        ...

    async def note(self, key: str) -> bytes | None: ...

    async def pod_tokens(self) -> list[bytes]:
        """The service account tokens that this edge got for its pods."""
        ...

    async def write_notes(self, notes: Mapping[str, bytes | None]) -> None:
        """Write or (None) remove notes in one commit; durable on return.  Raises Unavailable."""
        ...


class Logs(Protocol):
    """Logs of pods that run on this node."""

    async def read(
        self, namespace: str, name: str, uid: str, query: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        """By a kubelet's query.  Raises NotFound, Refused."""
        ...


class Cloud(Protocol):
    """The link to the hub."""

    @property
    def online(self) -> bool:
        """Whether the hub is there now."""
        ...

    @property
    def ours(self) -> bool:
        """Whether the hub that is there is one of ours, and knows what we added to KubeEdge's requests."""
        ...

    def on_connected(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever the link has come; it does not block."""
        ...

    async def request(self, message: Message, *, timeout_s: float) -> Message:
        """The frame that answers `message`.  Raises Unavailable: no link, it broke, or no answer in time."""
        ...

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Tell the hub that these pushes are committed; of no use, and no harm, when the link has gone meanwhile."""
        ...

    def refuse(self, message: Message, error: ProtocolError) -> None:
        """Tell the hub that this push cannot be used."""
        ...
