"""Give every namespace its default service account and the API's authority; empty those that are deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cloudcore.standalone.controllers.base import Controller, Event, Item
from cloudcore.standalone.deletion import DeleteOptions
from cloudcore.standalone.ids import NAMESPACES
from cloudcore.standalone.status import ApiError
from cloudcore.standalone.verbs import Resources

ROOT_CA = "kube-root-ca.crt"
ACCOUNTS, CONFIGMAPS, PODS = ("", "serviceaccounts"), ("", "configmaps"), ("", "pods")
LATE_RETRY_S = 1.0


class Namespaces(Controller):
    name = "namespace-controller"
    watches = (NAMESPACES, ACCOUNTS, CONFIGMAPS)

    def __init__(self, resources: Resources, *, clock: Callable[[], float], authority_pem: str) -> None:
        super().__init__(resources, clock=clock)
        self._authority = authority_pem

    def everything(self) -> Iterable[Item]:
        return self.ids(NAMESPACES)

    def concerns(self, event: Event) -> Iterable[Item]:
        record = event.record
        if record.key == NAMESPACES:
            return [("", record.name)]
        if record.key == ACCOUNTS and record.name != "default":
            return []
        if record.key == CONFIGMAPS and record.name != ROOT_CA:
            return []
        return [("", record.namespace)]

    async def reconcile(self, item: Item) -> float | None:
        name = item[1]
        namespace = self.get(NAMESPACES, "", name)
        if namespace is None:
            return None
        if "deletionTimestamp" in namespace["metadata"]:
            return await self._empty(name)
        if self.store.head(ACCOUNTS, name, "default") is None:
            await self.resources.create(
                self.kind(ACCOUNTS), name, {"metadata": {"name": "default", "namespace": name}}, self.options
            )
        data = {"ca.crt": self._authority}
        found = self.get(CONFIGMAPS, name, ROOT_CA)
        if found is None:
            note = "Contains a CA bundle that can be used to verify the API server when using internal endpoints."
            body = {
                "metadata": {
                    "name": ROOT_CA,
                    "namespace": name,
                    "annotations": {"kubernetes.io/description": note},
                },
                "data": data,
            }
            await self.resources.create(self.kind(CONFIGMAPS), name, body, self.options)
        elif found.get("data") != data:
            await self.resources.update(
                self.kind(CONFIGMAPS), name, ROOT_CA, {**found, "data": data}, self.options
            )
        return None

    async def _empty(self, name: str) -> float | None:
        left: dict[str, int] = {}
        for kind in self.resources.registry.stored_kinds():
            if not kind.namespaced:
                continue
            for record in self.store.select(kind.key, name):
                body = record.decode()
                if "deletionTimestamp" in body["metadata"]:
                    continue
                try:
                    await self.resources.delete(
                        kind, name, record.name, DeleteOptions(uid=record.uid, propagation="Background")
                    )
                except ApiError as error:
                    if error.code not in (404, 409):
                        raise
            remaining = len(self.store.select(kind.key, name))
            if remaining:
                left[kind.plural] = remaining
        namespace = self.get(NAMESPACES, "", name)
        if namespace is None:
            return None
        if left:
            listed = ", ".join(
                f"{plural} has {count} resource instances" for plural, count in sorted(left.items())
            )
            status = {
                **(namespace.get("status") or {}),
                "phase": "Terminating",
                "conditions": [
                    {
                        "type": "NamespaceContentRemaining",
                        "status": "True",
                        "reason": "SomeResourcesRemain",
                        "message": f"Some resources are remaining: {listed}",
                        "lastTransitionTime": namespace["metadata"]["deletionTimestamp"],
                    }
                ],
            }
            await self.set_status(NAMESPACES, namespace, status)
            return LATE_RETRY_S
        namespace["spec"] = {"finalizers": []}
        await self.resources.update(
            self.kind(NAMESPACES), "", name, namespace, self.options, subresource="finalize"
        )
        return None
