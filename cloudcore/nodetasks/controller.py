"""Keeps what edges report about node tasks in the status of the jobs."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from beehive.errors import Conflict, Unavailable
from beehive.message import Message
from cloudcore.cloudhub.dispatch import FINISHED, Outcome
from cloudcore.cloudhub.nodes import Link
from cloudcore.kube import Kube
from cloudcore.nodetasks import report

log = logging.getLogger(__name__)

TRIES = 5
"""Nodes of one job write into one list."""


class _Job(msgspec.Struct, frozen=True, kw_only=True):
    status: dict[str, Any] | None = None


class NodeTasks:
    """The part `taskmanager` of the dispatcher."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def handle(self, link: Link, message: Message) -> Outcome:
        """Raises Refused for a report that is not the node's to make, Unavailable for what should be sent again."""
        kind, name = report.target(link.node, message)
        said = report.read(message)
        for _ in range(TRIES):
            held = await self._kube.get(kind, name)
            rows = report.rows(link.node, held.decode(_Job).status or {}, said)
            if rows is None:
                return FINISHED
            body = {"metadata": {"resourceVersion": held.version}, "status": {"nodeStatus": rows}}
            try:
                await self._kube.patch(kind, name, msgspec.json.encode(body), subresource="status")
            except Conflict:
                continue
            log.info("Node %s did %s of %s %s: %s", link.node, said.action, kind.kind, name, said.succ)
            return FINISHED
        raise Unavailable(f"{kind.kind} {name} changes all the time")
