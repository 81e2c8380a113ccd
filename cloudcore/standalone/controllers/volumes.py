"""Bind claims to volumes, make volumes for classes of ours, and say what has become of both.

Which volume a claim gets is decided in cloudcore.standalone.volumes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from cloudcore.standalone import volumes
from cloudcore.standalone.controllers.base import Controller, Event, Item
from cloudcore.standalone.controllers.placement import Node
from cloudcore.standalone.deletion import DeleteOptions
from cloudcore.standalone.ids import PODS
from cloudcore.standalone.status import ApiError
from cloudcore.standalone.verbs import Resources

Json = dict[str, Any]
CLAIMS, VOLUMES = ("", "persistentvolumeclaims"), ("", "persistentvolumes")
CLASSES = ("storage.k8s.io", "storageclasses")
NODES = ("", "nodes")


class Volumes(Controller):
    """Items are ("claim", namespace, name) and ("volume", name)."""

    name = "persistentvolume-controller"
    watches = (CLAIMS, VOLUMES, CLASSES, PODS)

    def __init__(self, resources: Resources, *, clock: Callable[[], float], root: str) -> None:
        super().__init__(resources, clock=clock)
        self._root = root

    def everything(self) -> Iterable[Item]:
        return [
            *(("claim", record.namespace, record.name) for record in self.store.select(CLAIMS)),
            *(("volume", record.name) for record in self.store.select(VOLUMES)),
        ]

    def concerns(self, event: Event) -> Iterable[Item]:
        record = event.record
        if record.key == PODS:
            # a claim that is being deleted goes when the last pod that uses it is gone
            ended = event.type == "DELETED" or record.fields.get("status.phase") in ("Succeeded", "Failed")
            names = volumes.claim_names(record.decode()["spec"]) if ended else []
            return [("claim", record.namespace, name) for name in names]
        if record.key == CLAIMS:
            body = record.decode()
            named = [("volume", body["spec"]["volumeName"])] if body["spec"].get("volumeName") else []
            return [("claim", record.namespace, record.name), *named]
        if record.key == VOLUMES:
            waiting = [item for item in self.everything() if item[0] == "claim"]
            return [("volume", record.name), *waiting]
        return self.everything()

    async def reconcile(self, item: Item) -> float | None:
        if item[0] == "volume":
            await self._volume(item[1])
        else:
            await self._claim(item[1], item[2])
        return None

    def _all(self, key: tuple[str, str]) -> dict[str, Json]:
        return {record.name: record.decode() for record in self.store.select(key)}

    # claims ------------------------------------------------------------------------------------------

    async def _claim(self, namespace: str, name: str) -> None:
        claim = self.get(CLAIMS, namespace, name)
        if claim is None:
            return
        if "deletionTimestamp" in claim["metadata"]:
            if not self._used(namespace, name):
                await self._let_go(CLAIMS, claim, volumes.CLAIM_IN_USE)
            return
        phase = (claim.get("status") or {}).get("phase")
        wanted = claim["spec"].get("volumeName")
        if phase in ("Bound", "Lost"):
            lost = self.get(VOLUMES, "", wanted or "") is None
            if lost and phase == "Bound":
                await self.set_status(CLAIMS, claim, {"phase": "Lost"})
                await self.event(
                    claim, "ClaimLost", "Bound claim has lost its PersistentVolume", warning=True
                )
            return
        classes = self._all(CLASSES)
        node = None
        if volumes.waits(claim, classes) and not wanted:
            selected = (claim["metadata"].get("annotations") or {}).get(volumes.SELECTED_NODE)
            if not selected:
                await self._say(
                    claim, "WaitForFirstConsumer", "waiting for first consumer to be created before binding"
                )
                return
            found = self.get(NODES, "", selected)
            node = Node.of(found) if found is not None else None
            if node is None:
                await self._reselect(claim)
                return
        volume = volumes.best(claim, self._all(VOLUMES).values(), node)
        if volume is None and node is not None and volumes.provisions(claim, classes):
            volume = await self._provision(claim, classes, node)
        if volume is not None:
            await self._bind(claim, volume)
        elif node is not None:
            # it was free when the pod's node was chosen: let the scheduler look again
            await self._reselect(claim)
        else:
            await self._unbound(claim, classes)

    async def _unbound(self, claim: Json, classes: dict[str, Json]) -> None:
        name = volumes.class_name(claim)
        if volumes.provisions(claim, classes):
            text = f"class {name} makes folders on nodes: its volumeBindingMode must be WaitForFirstConsumer"
            await self._say(claim, "ProvisioningFailed", text, warning=True)
        elif name and name not in classes:
            await self._say(
                claim, "ProvisioningFailed", f'storageclass.storage.k8s.io "{name}" not found', warning=True
            )
        else:
            text = "no persistent volumes available for this claim and no storage class is set"
            if name:
                text = f"no persistent volume of class {name} fits this claim, and nothing here makes such volumes"
            await self._say(claim, "FailedBinding", text)

    async def _say(self, claim: Json, reason: str, text: str, *, warning: bool = False) -> None:
        """Once per claim and text: what has not changed is no news."""
        metadata = claim["metadata"]
        for record in self.store.select(("", "events"), metadata["namespace"]):
            if (
                record.fields.get("involvedObject.uid") == metadata["uid"]
                and record.fields.get("reason") == reason
            ):
                return
        await self.event(claim, reason, text, warning=warning)

    async def _provision(self, claim: Json, classes: dict[str, Json], node: Node) -> Json:
        made = volumes.provisioned(claim, classes, node, self._root)
        try:
            outcome = await self.resources.create(self.kind(VOLUMES), "", made, self.options)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            return self.resources.read(self.kind(VOLUMES), "", made["metadata"]["name"])
        await self.event(
            claim, "ProvisioningSucceeded", f"Successfully provisioned volume {made['metadata']['name']}"
        )
        return outcome.body

    async def _bind(self, claim: Json, volume: Json) -> None:
        """The volume is written first: a claim is believed bound only when both name each other."""
        metadata, spec = volume["metadata"], volume["spec"]
        if (spec.get("claimRef") or {}).get("uid") != claim["metadata"]["uid"]:
            spec["claimRef"] = volumes.reference(claim)
            metadata.setdefault("annotations", {})[volumes.BOUND_BY_US] = "yes"
            outcome = await self.resources.update(
                self.kind(VOLUMES), "", metadata["name"], volume, self.options
            )
            volume = outcome.body
        await self.set_status(VOLUMES, volume, {"phase": "Bound"})
        place = (claim["metadata"]["namespace"], claim["metadata"]["name"])
        claim["spec"]["volumeName"] = metadata["name"]
        claim["metadata"].setdefault("annotations", {})[volumes.BIND_DONE] = "yes"
        outcome = await self.resources.update(self.kind(CLAIMS), *place, claim, self.options)
        status = {
            "phase": "Bound",
            "accessModes": spec.get("accessModes") or [],
            "capacity": spec.get("capacity") or {},
        }
        await self.set_status(CLAIMS, outcome.body, status)

    async def _reselect(self, claim: Json) -> None:
        claim["metadata"]["annotations"].pop(volumes.SELECTED_NODE, None)
        place = (claim["metadata"]["namespace"], claim["metadata"]["name"])
        await self.resources.update(self.kind(CLAIMS), *place, claim, self.options)

    def _used(self, namespace: str, name: str) -> bool:
        return any(
            record.fields.get("status.phase") not in ("Succeeded", "Failed")
            and name in volumes.claim_names(record.decode()["spec"])
            for record in self.store.select(PODS, namespace)
        )

    async def _let_go(self, key: tuple[str, str], body: Json, finalizer: str) -> None:
        kept = [item for item in body["metadata"].get("finalizers") or () if item != finalizer]
        if kept == (body["metadata"].get("finalizers") or []):
            return
        body["metadata"]["finalizers"] = kept
        place = (body["metadata"].get("namespace", ""), body["metadata"]["name"])
        await self.resources.update(self.kind(key), *place, body, self.options)

    # volumes -----------------------------------------------------------------------------------------

    async def _volume(self, name: str) -> None:
        volume = self.get(VOLUMES, "", name)
        if volume is None:
            return
        reference = volume["spec"].get("claimRef")
        claim = (
            self.get(CLAIMS, reference.get("namespace", ""), reference.get("name", "")) if reference else None
        )
        held = claim is not None and volumes.refers(volume, claim)
        if "deletionTimestamp" in volume["metadata"]:
            if not held:
                await self._let_go(VOLUMES, volume, volumes.VOLUME_IN_USE)
            return
        phase = (volume.get("status") or {}).get("phase")
        if not reference or not reference.get("uid"):
            wanted = "Available"
        elif held:
            wanted = "Bound"
        else:
            await self._released(volume, str(phase))
            return
        if phase != wanted:
            await self.set_status(VOLUMES, volume, {"phase": wanted})

    async def _released(self, volume: Json, phase: str) -> None:
        """Its claim is gone."""
        policy = volume["spec"].get("persistentVolumeReclaimPolicy")
        ours = (volume["metadata"].get("annotations") or {}).get(
            volumes.PROVISIONED_BY
        ) == volumes.PROVISIONER
        if policy == "Delete" and ours:
            await self.event(
                volume, "VolumeDelete", "the folder with the data stays on its node", warning=True
            )
            await self.resources.delete(self.kind(VOLUMES), "", volume["metadata"]["name"], DeleteOptions())
        elif policy in ("Delete", "Recycle"):
            if phase != "Failed":
                text = f"this server cannot {policy.lower()} volumes of this kind"
                await self.set_status(VOLUMES, volume, {"phase": "Failed", "message": text})
                await self.event(volume, f"VolumeFailed{policy}", text, warning=True)
        elif phase != "Released":
            await self.set_status(VOLUMES, volume, {"phase": "Released"})
