"""The store as the parts of the node see it: each has its own corner of the notes."""

from __future__ import annotations

from edgecore.metamanager.process import TWIN_TYPES
from edgecore.metamanager.saver import Saver
from edgecore.metamanager.store import Store


class PartState:
    """Small durable facts of one part (edged's `State`).   They are stored with what the part reports (`saver`)."""

    def __init__(self, store: Store, saver: Saver, part: str) -> None:
        self._store = store
        self._saver = saver
        self._prefix = f"{part}/"

    async def load(self, key: str) -> bytes | None:
        """Raises: Unavailable."""
        return await self._store.read(lambda view: view.state(self._prefix + key))

    async def save(self, key: str, value: bytes) -> None:
        """Raises: Unavailable."""
        await self._saver.keep(self._prefix + key, value)

    async def drop(self, key: str) -> None:
        """Raises: Unavailable."""
        await self._saver.keep(self._prefix + key, None)


class TwinRows:
    """The rows of devicetwin (its `TwinStore`): the API's objects, read only, and its own."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def load(self, kind: str) -> list[tuple[str, bytes]]:
        """Raises: Unavailable."""
        if kind in TWIN_TYPES:
            rows = await self._store.read(lambda view: view.all_of(kind))
            return [(f"{row.namespace}/{row.name}", row.value) for row in rows]
        prefix = f"devicetwin/{kind}/"
        found = await self._store.read(lambda view: view.states(prefix))
        return [(key.removeprefix(prefix), value) for key, value in found.items()]

    async def save(self, kind: str, key: str, value: bytes) -> None:
        """Raises: Unavailable."""
        await self._store.write(lambda tx: tx.set_state(f"devicetwin/{kind}/{key}", value))

    async def drop(self, kind: str, key: str) -> None:
        """Raises: Unavailable."""
        await self._store.write(lambda tx: tx.drop_state(f"devicetwin/{kind}/{key}"))
