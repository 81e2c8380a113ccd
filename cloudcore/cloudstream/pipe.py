"""What relays need of a stream to a node, whatever carries it: our tunnel, a stock edge's, or another cloudcore's."""

from __future__ import annotations

from typing import Protocol

from beehive import tunnel


class Pipe(Protocol):
    """One stream that a node has answered.  `read` and `write` raise StreamReset when it is over before its end."""

    @property
    def over(self) -> bool: ...

    async def read(self) -> bytes:
        """Bytes, at least one; empty at the end."""
        ...

    async def write(self, data: bytes | memoryview) -> None:
        """Send bytes; waits while the node takes none."""
        ...

    async def end(self) -> None:
        """No more bytes from us, where the way to the node can say so."""
        ...

    def reset(self, reason: str) -> None:
        """Give the stream up in both directions.  Harmless when it is over."""
        ...


class Opening(Pipe, Protocol):
    """A stream that was asked for."""

    async def answered(self, timeout_s: float) -> tunnel.Answer:
        """The node's answer.  Raises StreamReset, also when none came in time."""
        ...


class Way(Protocol):
    """The way to one node, while it lasts."""

    @property
    def piped(self) -> bool:
        """Whether a two-way pipe is open."""
        ...

    async def run(self) -> None:
        """Serve it.  Raises SkerryError when it is over."""
        ...

    async def open(self, head: tunnel.Head) -> Opening:
        """Ask the node.  Raises Unavailable; ProtocolError for a malformed head; Refused for what it cannot be asked."""
        ...

    def fail(self, reason: str) -> None:
        """End every stream and refuse new ones."""
        ...
