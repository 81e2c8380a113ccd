"""A kubelet as small as a test needs: pods bound to its nodes run, end as they say they do, and go when deleted."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from beehive import clock

OUTCOME = "test/outcome"
"""Annotation of a pod: `Succeeded` or `Failed` is how it ends; without it the pod runs on."""


class Kubelet:
    """Pods of nodes in `away` are not touched: nothing is heard of those nodes."""

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self._session = session
        self._server = server
        self._addresses = itertools.count(2)
        self.away: set[str] = set()

    async def add_node(self, name: str, **labels: str) -> None:
        node = {
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}},
            "status": {"capacity": {"cpu": "8", "memory": "16Gi", "pods": "50"}},
        }
        async with self._session.post(f"{self._server}/api/v1/nodes", json=node) as answer:
            assert answer.status == 201, await answer.text()
        await self.heartbeat(name)

    async def heartbeat(self, name: str) -> None:
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "lastHeartbeatTime": clock.rfc3339_micro(),
            "lastTransitionTime": clock.rfc3339(),
        }
        await self._patch(f"/api/v1/nodes/{name}/status", {"status": {"conditions": [ready]}})

    async def run(self) -> None:
        while True:
            async with self._session.get(f"{self._server}/api/v1/pods") as answer:
                pods = (await answer.json())["items"]
            for pod in pods:
                node = pod["spec"].get("nodeName")
                if node and node not in self.away:
                    await self._sync(pod)
            await asyncio.sleep(0.05)

    async def _sync(self, pod: dict[str, Any]) -> None:
        metadata, status = pod["metadata"], pod["status"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        outcome = (metadata.get("annotations") or {}).get(OUTCOME)
        if "deletionTimestamp" in metadata:
            if status["phase"] in ("Pending", "Running"):
                await self._patch(f"{path}/status", {"status": {"phase": "Failed"}})
            options = {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
            async with self._session.delete(self._server + path, json=options) as answer:
                assert answer.status in (200, 404, 409), await answer.text()
        elif status["phase"] == "Pending":
            address = f"10.1.0.{next(self._addresses)}"
            await self._patch(
                f"{path}/status",
                {
                    "status": {
                        "phase": "Running",
                        "podIP": address,
                        "podIPs": [{"ip": address}],
                        "conditions": [
                            {"type": "Ready", "status": "True", "lastTransitionTime": clock.rfc3339()}
                        ],
                    }
                },
            )
        elif status["phase"] == "Running" and outcome:
            state = {"terminated": {"exitCode": int(outcome == "Failed"), "finishedAt": clock.rfc3339()}}
            container = pod["spec"]["containers"][0]
            statuses = [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "imageID": "",
                    "ready": False,
                    "restartCount": 0,
                    "state": state,
                }
            ]
            ready = {"type": "Ready", "status": "False", "lastTransitionTime": clock.rfc3339()}
            await self._patch(
                f"{path}/status",
                {"status": {"phase": outcome, "containerStatuses": statuses, "conditions": [ready]}},
            )

    async def _patch(self, path: str, body: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/strategic-merge-patch+json"}
        async with self._session.patch(self._server + path, json=body, headers=headers) as answer:
            assert answer.status in (200, 404, 409), await answer.text()


@contextlib.asynccontextmanager
async def kubelet(session: aiohttp.ClientSession, server: str, *nodes: str) -> AsyncIterator[Kubelet]:
    """One that serves `nodes` (and any added later) until the block ends."""
    made = Kubelet(session, server)
    for name in nodes:
        await made.add_node(name)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(made.run())
        try:
            yield made
        finally:
            task.cancel()
