"""What is used of each ResourceQuota.  Enforcing them is admission's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cloudcore.standalone import limits
from cloudcore.standalone.controllers.base import EVERYTHING, Controller, Event, Item

Json = dict[str, Any]
QUOTAS = ("", "resourcequotas")
CHANGING = (limits.PODS, limits.CLAIMS, limits.SERVICES)
"""Kinds whose objects may use more or less than before without coming or going."""


class Quotas(Controller):
    name = "resourcequota-controller"
    watches = (EVERYTHING,)

    def everything(self) -> Iterable[Item]:
        return self.ids(QUOTAS)

    def concerns(self, event: Event) -> Iterable[Item]:
        record = event.record
        if record.key == QUOTAS:
            return [(record.namespace, record.name)]
        if not record.namespace or (event.type == "MODIFIED" and record.key not in CHANGING):
            return []
        if not self.store.count(QUOTAS):
            return []
        return [(other.namespace, other.name) for other in self.store.select(QUOTAS, record.namespace)]

    async def reconcile(self, item: Item) -> float | None:
        quota = self.get(QUOTAS, *item)
        if quota is None or "deletionTimestamp" in quota["metadata"]:
            return None
        hard = (quota.get("spec") or {}).get("hard") or {}
        objects = (
            (key, record.decode())
            for key in self.store.resources()
            if limits.concerned(key, hard)
            for record in self.store.select(key, item[0])
        )
        await self.set_status(QUOTAS, quota, {"hard": hard, "used": limits.used(quota, objects)})
        return None
