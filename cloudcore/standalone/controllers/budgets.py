"""The status of PodDisruptionBudgets.  Evictions are judged by the same rules, on what is newest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cloudcore.standalone import disruptions
from cloudcore.standalone.controllers.base import Controller, Event, Item, set_condition
from cloudcore.standalone.ids import PODS
from cloudcore.standalone.selectors import BadSelector, from_object
from cloudcore.standalone.store import Store

Json = dict[str, Any]
BUDGETS = ("policy", "poddisruptionbudgets")


def state(store: Store, namespace: str, budget: Json) -> Json:
    """The status of a budget on what is newest, without its conditions.  Raises BadSelector."""
    selector = from_object((budget.get("spec") or {}).get("selector"))
    pods = []
    if selector is not None:
        pods = [
            record.decode() for record in store.newest(PODS, namespace) if selector.matches(record.labels)
        ]
    scales = {}
    for uid in disruptions.controllers(pods):
        owner = store.by_uid(uid)
        replicas = None if owner is None else (owner.decode().get("spec") or {}).get("replicas")
        if isinstance(replicas, int):
            scales[uid] = replicas
    return disruptions.status(budget, pods, scales)


class Budgets(Controller):
    name = "disruption-controller"
    watches = (BUDGETS, PODS)

    def everything(self) -> Iterable[Item]:
        return self.ids(BUDGETS)

    def concerns(self, event: Event) -> Iterable[Item]:
        record = event.record
        if record.key == BUDGETS:
            return [(record.namespace, record.name)]
        if not self.store.count(BUDGETS):
            return []
        return [(other.namespace, other.name) for other in self.store.select(BUDGETS, record.namespace)]

    async def reconcile(self, item: Item) -> float | None:
        budget = self.get(BUDGETS, *item)
        if budget is None or "deletionTimestamp" in budget["metadata"]:
            return None
        before = (budget.get("status") or {}).get("conditions") or []
        try:
            now = state(self.store, item[0], budget)
            said = disruptions.condition(now["disruptionsAllowed"])
        except (BadSelector, ValueError) as error:
            now = disruptions.status({**budget, "spec": {}}, [], {})
            said = {
                "type": "DisruptionAllowed",
                "status": "False",
                "reason": "SyncFailed",
                "message": str(error),
            }
        said["observedGeneration"] = now["observedGeneration"]
        conditions = set_condition(before, said, self.resources.timestamp())
        await self.set_status(BUDGETS, budget, {**now, "conditions": conditions})
        return None
