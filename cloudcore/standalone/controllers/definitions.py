"""Serve what CustomResourceDefinitions define, and clean up after those that go."""

from __future__ import annotations

from collections.abc import Iterable

from cloudcore.standalone import crds
from cloudcore.standalone.controllers.base import Controller, Event, Item
from cloudcore.standalone.deletion import DeleteOptions
from cloudcore.standalone.kinds import Registry
from cloudcore.standalone.store import Store


class Definitions(Controller):
    name = "customresourcedefinition-controller"
    watches = (crds.KEY,)

    def everything(self) -> Iterable[Item]:
        return self.ids(crds.KEY)

    def concerns(self, event: Event) -> Iterable[Item]:
        return [("", event.record.name)]

    async def reconcile(self, item: Item) -> float | None:
        name = item[1]
        definition = self.get(crds.KEY, "", name)
        registry = self.resources.registry
        if definition is None:
            plural, _, group = name.partition(".")
            registry.replace_custom((group, plural), ())
            return None
        key = crds.key_of(definition)
        if "deletionTimestamp" in definition["metadata"]:
            return await self._clean_up(name, key)
        now = self.resources.timestamp()
        status = crds.established(definition, registry, now)
        before = definition.get("status") or {}
        if crds.accepted(definition):
            # times of conditions that have not changed are kept
            status["conditions"] = before.get("conditions") or status["conditions"]
        await self.set_status(crds.KEY, definition, status)
        if crds.accepted({"status": status}):
            registry.replace_custom(key, crds.rows(definition))
        return None

    async def _clean_up(self, name: str, key: tuple[str, str]) -> float | None:
        kind = self.resources.registry.stored(key)
        left = self.store.select(key)
        if kind is not None:
            for record in left:
                if "deletionTimestamp" not in record.decode()["metadata"]:
                    await self.resources.delete(kind, record.namespace, record.name, DeleteOptions())
        if self.store.select(key):
            return 0.5
        self.resources.registry.replace_custom(key, ())
        definition = self.get(crds.KEY, "", name)
        if definition is not None and crds.CLEANUP in definition["metadata"].get("finalizers", ()):
            definition["metadata"]["finalizers"].remove(crds.CLEANUP)
            await self.resources.update(self.kind(crds.KEY), "", name, definition, self.options)
        return None


def load(store: Store, registry: Registry) -> None:
    """Serve the definitions that are established in the store, before anybody can ask."""
    for record in store.select(crds.KEY):
        definition = record.decode()
        if crds.accepted(definition):
            registry.replace_custom(crds.key_of(definition), crds.rows(definition))
