"""Beside a cluster: make pods on edge nodes tolerate a silent node as long as its owner says.

A cluster ends the pods of a node that it does not hear of after five minutes, since it gives each pod such a toleration.  For a
node that is meant to stand alone that is wrong, and there is no setting for it by node.  This part sets the time in the pods
themselves, by `cloudcore.reschedule`; it is off until it is asked for, and needs no webhook.  Level-triggered: all pods are
looked at, those that were found right are not looked at again until they or the policy change."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from beehive.errors import Conflict, SkerryError
from cloudcore import reschedule
from cloudcore.cache import Cache
from cloudcore.edgecontroller.downstream import is_edge
from cloudcore.errors import ApiNotFound
from cloudcore.kube import Kube
from cloudcore.objects import POD, Kind, Object

log = logging.getLogger(__name__)

LOOK_S = 5.0
GROUP_S = 60.0
"""How long what a group says is remembered."""
AT_ONCE = 8
NODEGROUP = Kind("NodeGroup", "nodegroups", "apps.kubeedge.io", "v1alpha1", namespaced=False)


class _Spec(msgspec.Struct, frozen=True, kw_only=True):
    tolerations: list[dict[str, Any]] | None = None


class _Pod(msgspec.Struct, frozen=True, kw_only=True):
    spec: _Spec = _Spec()


class Tolerations:
    """`run` is a supervised part.   default_s: what counts for nodes that say nothing; None: for ever."""

    name = "tolerations"

    def __init__(self, kube: Kube, nodes: Cache, pods: Cache, *, default_s: float | None) -> None:
        self._kube = kube
        self._nodes = nodes
        self._pods = pods
        self._default_s = default_s
        self._right: dict[
            str, tuple[str, float | None]
        ] = {}  # pod uid → its version and what it was found to have
        self._groups: dict[str, tuple[float, str]] = {}
        self._failing = False

    async def run(self) -> None:
        """Never returns."""
        await self._nodes.wait_synced()
        await self._pods.wait_synced()
        loop = asyncio.get_running_loop()
        while True:
            await self.look(loop.time())
            await asyncio.sleep(LOOK_S)

    async def look(self, now: float) -> None:
        """Look at every pod on an edge node once.  Raises nothing."""
        policies: dict[str, float | None] = {}
        for node in list(self._nodes):
            if is_edge(node):
                policies[node.name] = reschedule.choose(
                    reschedule.of_node(node),
                    await self._group(reschedule.group_of(node), now),
                    self._default_s,
                )
        pods = [pod for pod in self._pods if pod.node in policies and not pod.deleting]
        self._right = {pod.uid: self._right[pod.uid] for pod in pods if pod.uid in self._right}
        wrong = [pod for pod in pods if self._right.get(pod.uid) != (pod.version, policies[pod.node])]
        slots = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for pod in wrong:
                group.create_task(self._mend(pod, policies[pod.node], slots), name=f"tolerations {pod.name}")

    async def _group(self, name: str, now: float) -> str:
        """What a node's group says."""
        if not name:
            return ""
        at, text = self._groups.get(name, (-GROUP_S, ""))
        if now - at < GROUP_S:
            return text
        try:
            group = await self._kube.get(NODEGROUP, name)
            text = reschedule.of_node(group)
        except ApiNotFound:
            text = ""
        except SkerryError as error:
            log.debug("! cannot read group %s: %s", name, error)
        self._groups[name] = (now, text)
        return text

    async def _mend(self, pod: Object, after_s: float | None, slots: asyncio.Semaphore) -> None:
        try:
            before = pod.decode(_Pod).spec.tolerations or []
            wanted = reschedule.tolerations(before, after_s)
            if wanted != before:
                body = {"metadata": {"resourceVersion": pod.version}, "spec": {"tolerations": wanted}}
                async with slots:
                    await self._kube.patch(POD, pod.name, msgspec.json.encode(body), pod.namespace)
                return  # its new version is looked at when it comes
        except (Conflict, ApiNotFound):
            return  # it changed meanwhile: the cache will say how
        except SkerryError as error:
            if not self._failing:
                log.warning(
                    "Cannot set how long pod %s/%s waits for its node: %s", pod.namespace, pod.name, error
                )
            self._failing = True
            return
        self._failing = False
        self._right[pod.uid] = (pod.version, after_s)
