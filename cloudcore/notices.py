"""Events on objects that somebody should look at: written in the background, each once, few at a time."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import OrderedDict

import msgspec

from beehive import clock
from beehive.errors import SkerryError
from cloudcore.kube import Kube
from cloudcore.objects import EVENT, Kind

log = logging.getLogger(__name__)

MAX_WAITING = 256
"""More at one time are left out: each is in the log, and in a condition where there is one."""
MAX_REMEMBERED = 4096
PAUSE_S = 0.05
"""Between two: a fault that befalls everything must not flood the API."""
DEFAULT_NAMESPACE = "default"
"""Where events about objects without a namespace are looked for."""


def event(
    kind: Kind,
    namespace: str,
    name: str,
    *,
    uid: str,
    version: str,
    reason: str,
    text: str,
    component: str,
) -> tuple[str, bytes]:
    """A Warning about one object: the namespace that it goes to, and its body."""
    now = clock.rfc3339()
    where = namespace or DEFAULT_NAMESPACE
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name[:200]}.{uuid.uuid4().hex[:16]}", "namespace": where},
        "involvedObject": {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "name": name,
            "namespace": namespace,
            "uid": uid,
            "resourceVersion": version,
        },
        "type": "Warning",
        "reason": reason,
        "message": text[:1024],
        "source": {"component": component},
        "reportingComponent": component,
        "reportingInstance": "cloudcore",
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
    return where, msgspec.json.encode(body)


class Notices:
    """`run` is a supervised part."""

    name = "notices"

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._waiting: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(MAX_WAITING)
        self._said: OrderedDict[tuple[str, str, str, str], str] = OrderedDict()

    def tell(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        uid: str,
        version: str = "",
        reason: str,
        text: str,
        component: str,
    ) -> None:
        """Say so on the object, unless that is what was said of it last.  Never blocks."""
        key = (kind.kind, namespace, name, reason)
        if not name or self._said.get(key) == text or self._waiting.full():
            return
        self._said[key] = text
        self._said.move_to_end(key)
        if len(self._said) > MAX_REMEMBERED:
            self._said.popitem(last=False)
        self._waiting.put_nowait(
            event(
                kind,
                namespace,
                name,
                uid=uid,
                version=version,
                reason=reason,
                text=text,
                component=component,
            )
        )

    async def run(self) -> None:
        while True:
            namespace, body = await self._waiting.get()
            try:
                await self._kube.create(EVENT, body, namespace)
            except SkerryError as error:
                log.info("Cannot write an event: %s", error)
            await asyncio.sleep(PAUSE_S)
