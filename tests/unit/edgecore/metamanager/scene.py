"""The manager with a store in memory and no link, for the tests of its modules."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from beehive.errors import Unavailable
from beehive.message import Group, Message, Op, Source, new
from edgecore.edgehub.session import Session
from edgecore.metamanager.manager import MetaManager
from edgecore.metamanager.records import Pending, Row
from edgecore.metamanager.store import Counters


class Memory:
    """A store without a disk; what it does is done at once, unless `broken`.  Both view and transaction."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.notes: dict[str, bytes] = {}
        self.queue: dict[int, Pending] = {}
        self.counters = Counters()
        self.damaged: set[str] = set()
        self.set_aside = None
        self.complete = True
        self.broken = False

    async def read(self, work: Callable[[Any], Any]) -> Any:
        return work(self)

    async def write(self, work: Callable[[Any], Any]) -> Any:
        await asyncio.sleep(0)
        if self.broken:
            raise Unavailable("cannot write: the disk is full")
        self.counters.commits += 1
        return work(self)

    async def confirm_complete(self) -> None:
        self.complete = True

    async def drop_damaged(self) -> None:
        for key in self.damaged:
            self.rows.pop(key, None)
        self.damaged.clear()

    def get(self, key: str) -> Row | None:
        return self.rows.get(key)

    def all_of(self, kind: str, namespace: str = "") -> list[Row]:
        return [row for row in self.rows.values() if row.type == kind and namespace in ("", row.namespace)]

    def held(self) -> list[tuple[str, str, int]]:
        return [(row.uid, row.key, row.version) for row in self.rows.values()]

    def state(self, key: str) -> bytes | None:
        return self.notes.get(key)

    def states(self, prefix: str) -> dict[str, bytes]:
        return {key: value for key, value in self.notes.items() if key.startswith(prefix)}

    def outbox(self) -> list[Pending]:
        return list(self.queue.values())

    def put(self, row: Row) -> None:
        self.rows[row.key] = row

    def delete(self, key: str) -> None:
        self.rows.pop(key, None)

    def set_state(self, key: str, value: bytes) -> None:
        self.notes[key] = value

    def drop_state(self, key: str) -> None:
        self.notes.pop(key, None)

    def put_pending(self, pending: Pending) -> None:
        self.queue[pending.seq] = pending

    def drop_pending(self, seqs: Any) -> None:
        for seq in seqs:
            self.queue.pop(seq, None)


class Line:
    """The link, as far as sending goes."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.on_send: Callable[[Message], None] = lambda message: None

    def send(self, message: Message) -> None:
        self.sent.append(message)
        self.on_send(message)

    def wake(self) -> None:
        return

    def of(self, operation: str) -> list[Message]:
        return [message for message in self.sent if message.route.operation == operation]


Scene = Callable[[MetaManager, Memory, Line], Awaitable[None]]


def on(scene: Scene, *, ours: bool = True, linked: bool = True) -> None:
    """Play a scene with a manager that runs."""

    async def play() -> None:
        store, line = Memory(), Line()
        meta = MetaManager(store, "edge-1", query_s=0.2)  # type: ignore[arg-type]
        await meta.load()
        meta.bind(line)
        if linked:
            meta.connected(Session("hub:1", ours, 7), "inventory")
        async with asyncio.TaskGroup() as group:
            running = group.create_task(meta.run())
            await scene(meta, store, line)
            running.cancel()

    asyncio.run(play())


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def push(operation: str = Op.UPDATE, version: str = "5", name: str = "a", **content: Any) -> Message:
    body = {"metadata": {"name": name, "namespace": "d", "uid": "u1", "resourceVersion": version}, **content}
    return new(
        source=Source.EDGECONTROLLER,
        group=Group.RESOURCE,
        operation=operation,
        resource=f"d/configmap/{name}",
        content=body,
    )
