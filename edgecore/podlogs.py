"""Logs of this node's pods for the local API: read from their files, so that `kubectl logs` in a pod needs no cloud."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from beehive import clock
from beehive.errors import NotFound
from edgecore import onsite
from edgecore.edgestream import crilog
from edgecore.edgestream.logs import read_log


class PodLogs:
    """The metaserver's `Logs`.   root: where logs of pods are.   running: whether a pod of that UID still has a judge."""

    def __init__(self, root: Path, running: Callable[[str], bool]) -> None:
        self._root = root
        self._running = running

    async def read(
        self, namespace: str, name: str, uid: str, query: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        """What was written, in pieces; with `follow` until the pod is gone.  The query is a kubelet's.

        Raises: NotFound, Refused (a bad parameter, or several containers)."""
        options = crilog.parse_options(query.items(), clock.machine_ms() * 1_000_000)
        pod = onsite.PodRef(namespace=namespace, name=name, uid=uid)
        log = await asyncio.to_thread(
            onsite.log_file, self._root, pod, query.get("container", ""), previous=options.previous
        )
        try:
            file = await asyncio.to_thread(log.open)
        except FileNotFoundError as error:
            raise NotFound(f"pod {namespace}/{name} has no logs here") from error

        async def still() -> bool:
            return self._running(uid)

        return read_log(log, file, options, still)
