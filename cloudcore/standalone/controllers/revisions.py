"""The templates a DaemonSet or StatefulSet has had, kept as ControllerRevisions so that `kubectl rollout undo` works.

Source: kubernetes, pkg/controller/history; a revision's data is the patch that brings the template back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from cloudcore.standalone.admission import NAME_LETTERS
from cloudcore.standalone.controllers.base import reference_to
from cloudcore.standalone.controllers.owned import Workloads
from cloudcore.standalone.deletion import DeleteOptions

Json = dict[str, Any]
KEY = ("apps", "controllerrevisions")
LABEL = "controller-revision-hash"


def template_data(template: Json) -> Json:
    """What a revision keeps: a patch that replaces the template."""
    return {"spec": {"template": {**template, "$patch": "replace"}}}


def template_of(revision: Json) -> Json:
    template = (revision["data"].get("spec") or {}).get("template") or {}
    return {name: value for name, value in template.items() if name != "$patch"}


def mark(template: Json, collisions: int = 0) -> str:
    """Ten letters that name a template."""
    raw = msgspec.json.encode(template, order="deterministic") + str(collisions).encode()
    digest = hashlib.sha256(raw).digest()
    return "".join(NAME_LETTERS[byte % len(NAME_LETTERS)] for byte in digest[:10])


def to_forget(revisions: list[Json], used: Iterable[str], limit: int) -> list[Json]:
    """The oldest revisions beyond `limit` that no pod is of; `used` are marks."""
    kept = set(used)
    idle = [item for item in revisions if item["metadata"]["labels"].get(LABEL) not in kept]
    idle.sort(key=lambda item: item.get("revision", 0))
    return idle[: max(len(idle) - limit, 0)]


class Revisions:
    """The revisions of one workload, through the controller that owns it."""

    def __init__(self, controller: Workloads, owner: Json) -> None:
        self._controller = controller
        self._owner = owner

    def all(self) -> list[Json]:
        found = [
            record.decode()
            for record in self._controller.store.dependents(self._owner["metadata"]["uid"])
            if record.key == KEY
        ]
        return sorted(found, key=lambda item: item.get("revision", 0))

    async def current(self) -> Json:
        """The revision of the template as it is now, made or moved to the front if need be.  Raises ApiError."""
        controller, metadata = self._controller, self._owner["metadata"]
        data = template_data(self._owner["spec"]["template"])
        known = self.all()
        highest = known[-1].get("revision", 0) if known else 0
        found = next((item for item in known if item["data"] == data), None)
        kind, namespace = controller.kind(KEY), metadata["namespace"]
        if found is not None:
            if found.get("revision", 0) == highest:
                return found
            found["revision"] = highest + 1
            name = found["metadata"]["name"]
            return (await controller.resources.update(kind, namespace, name, found, controller.options)).body
        collisions = 0
        while True:
            letters = mark(data, collisions)
            name = f"{metadata['name'][:240]}-{letters}"
            if controller.store.head(KEY, namespace, name) is None:
                break
            collisions += 1
        labels = {**(self._owner["spec"]["template"].get("metadata", {}).get("labels") or {}), LABEL: letters}
        body = {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": labels,
                "ownerReferences": [reference_to(self._owner)],
            },
            "data": data,
            "revision": highest + 1,
        }
        return (await controller.resources.create(kind, namespace, body, controller.options)).body

    async def forget(self, used: Iterable[str], limit: int) -> None:
        controller = self._controller
        for item in to_forget(self.all(), used, limit):
            metadata = item["metadata"]
            await controller.resources.delete(
                controller.kind(KEY),
                metadata["namespace"],
                metadata["name"],
                DeleteOptions(uid=metadata["uid"]),
            )
