"""Delete what nobody owns any more, and finish foreground and orphaning deletions.

Source: kubernetes, pkg/controller/garbagecollector.  An owner counts as gone only when no object with its uid exists;
an owner of a kind that is not served now keeps its dependents (absence of information destroys nothing)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cloudcore.standalone.controllers.base import EVERYTHING, Controller, Event, Item
from cloudcore.standalone.deletion import FOREGROUND, ORPHAN, DeleteOptions
from cloudcore.standalone.status import ApiError
from cloudcore.standalone.store import Record

Json = dict[str, Any]


class Garbage(Controller):
    """Items are (uid,)."""

    name = "generic-garbage-collector"
    watches = (EVERYTHING,)
    resync_s = 300.0

    def everything(self) -> Iterable[Item]:
        for key in self.store.resources():
            for record in self.store.select(key):
                if record.owners or _ending(record):
                    yield (record.uid,)

    def concerns(self, event: Event) -> Iterable[Item]:
        record = event.record
        if event.type == "DELETED":
            found = [(below.uid,) for below in self.store.dependents(record.uid)]
            # an owner that waits for its dependents looks again
            return [*found, *((owner,) for owner in record.owners)]
        if record.owners or _ending(record):
            return [(record.uid,)]
        return []

    async def reconcile(self, item: Item) -> float | None:
        record = self.store.by_uid(item[0])
        if record is None:
            return None
        kind = self.resources.registry.stored(record.key)
        if kind is None:
            return None
        body = record.decode()
        finalizers = body["metadata"].get("finalizers") or []
        if "deletionTimestamp" in body["metadata"]:
            if ORPHAN in finalizers:
                await self._orphan(record, body)
                return None
            if FOREGROUND in finalizers:
                return await self._foreground(record, body)
            return None
        owners = body["metadata"].get("ownerReferences") or []
        if not owners:
            return None
        alive = [owner for owner in owners if self._exists(owner, record.namespace)]
        if not alive:
            await self._delete(record, "Background")
        elif len(alive) < len(owners):
            body["metadata"]["ownerReferences"] = alive
            await self.resources.update(kind, record.namespace, record.name, body, self.options)
        elif all(self._waits(owner) for owner in alive):
            await self._delete(record, "Foreground" if self.store.dependents(record.uid) else "Background")
        return None

    def _exists(self, owner: Json, namespace: str) -> bool:
        found = self.store.by_uid(owner.get("uid", ""))
        if found is not None:
            return found.namespace in ("", namespace)
        group, _, version = owner.get("apiVersion", "").rpartition("/")
        return self.resources.registry.by_kind(group, version, owner.get("kind", "")) is None

    def _waits(self, owner: Json) -> bool:
        found = self.store.by_uid(owner.get("uid", ""))
        return (
            found is not None
            and _ending(found)
            and FOREGROUND in (found.decode()["metadata"].get("finalizers") or ())
        )

    async def _delete(self, record: Record, propagation: str) -> None:
        kind = self.kind(record.key)
        try:
            await self.resources.delete(
                kind, record.namespace, record.name, DeleteOptions(uid=record.uid, propagation=propagation)
            )
        except ApiError as error:
            if error.code != 404:
                raise

    async def _foreground(self, record: Record, body: Json) -> float | None:
        blocking = False
        for below in self.store.dependents(record.uid):
            refs = below.decode()["metadata"].get("ownerReferences") or ()
            blocking = blocking or any(
                ref.get("uid") == record.uid and ref.get("blockOwnerDeletion") for ref in refs
            )
            self.touch([(below.uid,)])
        if blocking:
            return 1.0
        await self._without(record, body, FOREGROUND)
        return None

    async def _orphan(self, record: Record, body: Json) -> None:
        for below in self.store.dependents(record.uid):
            dependent = below.decode()
            refs = dependent["metadata"].get("ownerReferences") or []
            dependent["metadata"]["ownerReferences"] = [ref for ref in refs if ref.get("uid") != record.uid]
            await self.resources.update(
                self.kind(below.key), below.namespace, below.name, dependent, self.options
            )
        await self._without(record, body, ORPHAN)

    async def _without(self, record: Record, body: Json, finalizer: str) -> None:
        body["metadata"]["finalizers"] = [
            item for item in body["metadata"].get("finalizers") or () if item != finalizer
        ]
        await self.resources.update(self.kind(record.key), record.namespace, record.name, body, self.options)


def _ending(record: Record) -> bool:
    return b'"deletionTimestamp"' in record.body
