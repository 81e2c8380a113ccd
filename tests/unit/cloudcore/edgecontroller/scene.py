"""An API with nodes and pods, as the controllers see it."""

import json
from collections.abc import Iterator
from typing import Any

from cloudcore.errors import ApiNotFound, Status
from cloudcore.objects import EDGE_LABEL, SESSION_ANNOTATION, Kind, Object, read
from cloudcore.reschedule import ANNOTATION

Json = dict[str, Any]


class Cache:
    """What the API has."""

    def __init__(self, kind: Kind, *bodies: Json) -> None:
        self._kind = kind
        self.found: dict[str, Object] = {}
        for body in bodies:
            self.put(body)

    def put(self, body: Json) -> None:
        made = read(self._kind, json.dumps(body).encode())
        self.found[made.name] = made

    def get(self, namespace: str, name: str) -> Object | None:
        return self.found.get(name)

    def __iter__(self) -> Iterator[Object]:
        return iter(self.found.values())


class Api:
    """Remembers patches.   groups: name to annotation."""

    def __init__(self) -> None:
        self.patches: list[tuple[str, Json]] = []
        self.groups: dict[str, str] = {}
        self.fails: Exception | None = None

    async def patch(self, kind: Kind, name: str, body: bytes, namespace: str = "", **more: Any) -> None:
        if self.fails is not None:
            raise self.fails
        self.patches.append((name, json.loads(body)))

    async def get(self, kind: Kind, name: str) -> Object:
        if name not in self.groups:
            raise ApiNotFound(Status(message="no", reason="NotFound", code=404))
        body = {"metadata": {"name": name, "annotations": {ANNOTATION: self.groups[name]}}}
        return read(kind, json.dumps(body).encode())


def node(name: str, *, session: int = 1, ready: str = "True", connected: str = "True", **meta: Any) -> Json:
    labels = {EDGE_LABEL: "", **meta.pop("labels", {})}
    annotations = {SESSION_ANNOTATION: str(session), **meta.pop("annotations", {})}
    conditions = [{"type": "Ready", "status": ready}, {"type": "CloudConnected", "status": connected}]
    return {
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
        "status": {"conditions": conditions},
    }
