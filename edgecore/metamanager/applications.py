"""Store and link as the metaserver sees them: the objects held for this node, its own notes, questions to the cloud."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from beehive import resource
from beehive.errors import ProtocolError
from beehive.message import Message
from edgecore.metamanager.manager import MetaManager
from edgecore.metamanager.process import Change
from edgecore.metamanager.records import Row
from edgecore.metamanager.tables import Transaction
from edgecore.metaserver.ports import Held, HeldChange


class HeldObjects:
    """The metaserver's `Store`.  Its notes live under one prefix, so that it cannot touch another part's."""

    def __init__(self, meta: MetaManager) -> None:
        self._meta = meta
        self._store = meta.store

    async def held(self, kind: str, namespace: str = "") -> list[Held]:
        """Raises: Unavailable."""
        rows = await self._store.read(lambda view: view.all_of(kind, namespace))
        return [_held(row) for row in rows]

    async def held_one(self, kind: str, namespace: str, name: str) -> Held | None:
        """Raises: Unavailable."""
        key = resource.make(kind, name, namespace).key
        row = await self._store.read(lambda view: view.get(key))
        return _held(row) if row is not None else None

    def subscribe(self, listener: Callable[[HeldChange], None]) -> None:
        def tell(change: Change) -> None:
            where = change.resource
            if where.name:
                listener(
                    HeldChange(
                        kind=where.type,
                        namespace=_namespace(where.namespace),
                        name=where.name,
                        uid=change.uid,
                        gone=change.gone,
                    )
                )

        self._meta.on_change.append(tell)

    async def notes(self, prefix: str) -> dict[str, bytes]:
        """Raises: Unavailable."""
        found = await self._store.read(lambda view: view.states(_NOTES + prefix))
        return {key.removeprefix(_NOTES): value for key, value in found.items()}

    async def note(self, key: str) -> bytes | None:
        """Raises: Unavailable."""
        return await self._store.read(lambda view: view.state(_NOTES + key))

    async def pod_tokens(self) -> list[bytes]:
        """Raises: Unavailable."""
        return await self._meta.tokens.texts()

    async def write_notes(self, notes: Mapping[str, bytes | None]) -> None:
        """Raises: Unavailable."""
        wanted = dict(notes)

        def work(tx: Transaction) -> None:
            for key, value in wanted.items():
                if value is None:
                    tx.drop_state(_NOTES + key)
                else:
                    tx.set_state(_NOTES + key, value)

        await self._store.write(work)


class CloudLink:
    """The metaserver's `Cloud`."""

    def __init__(self, meta: MetaManager) -> None:
        self._meta = meta

    @property
    def online(self) -> bool:
        return self._meta.online

    @property
    def ours(self) -> bool:
        return self._meta.ours

    def on_connected(self, listener: Callable[[], None]) -> None:
        self._meta.on_connected.append(lambda session: listener())

    async def request(self, message: Message, *, timeout_s: float) -> Message:
        """Raises: Unavailable."""
        return await self._meta.request(message, timeout_s)

    def acknowledge(self, messages: Sequence[Message]) -> None:
        self._meta.acknowledge(messages)

    def refuse(self, message: Message, error: ProtocolError) -> None:
        self._meta.refuse(message, error)


_NOTES = "metaserver/"


def _namespace(wire: str) -> str:
    return "" if wire == resource.CLUSTER else wire


def _held(row: Row) -> Held:
    return Held(
        kind=row.type,
        namespace=_namespace(row.namespace),
        name=row.name,
        uid=row.uid,
        version=row.version,
        value=row.value,
    )
