"""What the workload controllers share: which objects are theirs, and how pods are made and deleted.

Ownership follows the reference to the controller; an object without one that fits the selector is adopted, an
owned one that ceases to fit is let go.  A pod on a node that nothing is heard of is never deleted from here: it runs
on without us, and it is looked at again when its node is back.

Source: kubernetes, pkg/controller/controller_ref_manager.go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

from beehive import clock
from cloudcore.standalone.controllers.base import Controller, Event, Item, is_ready, owner_of, reference_to
from cloudcore.standalone.deletion import DeleteOptions
from cloudcore.standalone.ids import PODS, Key
from cloudcore.standalone.selectors import LabelSelector, from_object
from cloudcore.standalone.status import ApiError
from cloudcore.standalone.store import Record

Json = dict[str, Any]
NODES = ("", "nodes")
Claim = Literal["own", "adopt", "release", "other"]
FAULT_PAUSE_S = 5.0
"""After the API refused to create a pod."""


def pod_from_template(template: Json, owner: Json) -> Json:
    """A pod as `owner` makes it, without a name."""
    metadata = template.get("metadata") or {}
    made: Json = {
        "generateName": f"{owner['metadata']['name']}-",
        "namespace": owner["metadata"]["namespace"],
        "ownerReferences": [reference_to(owner)],
    }
    for field in ("labels", "annotations", "finalizers"):
        if metadata.get(field):
            made[field] = metadata[field]
    return {"kind": "Pod", "apiVersion": "v1", "metadata": made, "spec": template["spec"]}


def deletion_order(pod: Json) -> tuple[Any, ...]:
    """Which pods go first: not scheduled, not running, not ready, cheap, young.

    Source: controller_utils.go, ActivePods; ages are compared by creation time, newest first."""
    status = pod.get("status") or {}
    phases = {"Pending": 0, "Unknown": 1, "Running": 2}
    cost = (pod["metadata"].get("annotations") or {}).get("controller.kubernetes.io/pod-deletion-cost", "0")
    newest = pod["metadata"].get("creationTimestamp", "")
    return (
        bool(pod["spec"].get("nodeName")),
        phases.get(status.get("phase", "Pending"), 0),
        is_ready(pod),
        int(cost) if cost.lstrip("-").isdigit() else 0,
        tuple(-ord(letter) for letter in newest),
    )


def selector_of(owner: Json) -> LabelSelector | None:
    """None when it would select everything: such a workload owns nothing but what it made."""
    return from_object((owner.get("spec") or {}).get("selector")) or None


def claim(owner: Json, selector: LabelSelector | None, body: Json) -> Claim:
    """Whose `body` is, seen by `owner`."""
    metadata = body["metadata"]
    fits = selector is not None and selector.matches(metadata.get("labels") or {})
    reference = owner_of(body)
    ending = "deletionTimestamp" in metadata
    if reference is not None:
        if reference.get("uid") != owner["metadata"]["uid"]:
            return "other"
        return "own" if fits or ending or selector is None else "release"
    if not fits or ending or "deletionTimestamp" in owner["metadata"]:
        return "other"
    return "adopt"


def ready_since(pod: Json) -> datetime | None:
    """When the pod became ready, if it is."""
    for item in (pod.get("status") or {}).get("conditions") or ():
        if item.get("type") == "Ready" and item.get("status") == "True":
            at = item.get("lastTransitionTime")
            return clock.parse_rfc3339(at) if at else datetime.min.replace(tzinfo=clock.wall().tzinfo)
    return None


def available_in(pod: Json, seconds: int, now: datetime) -> float | None:
    """Seconds until the pod has been ready for `seconds`; 0 when it is available, None when it is not ready."""
    since = ready_since(pod)
    if since is None:
        return None
    return max(seconds - (now - since).total_seconds(), 0.0) if seconds else 0.0


def is_silent(node: Json) -> bool:
    """Whether nothing is heard of this node, so that nothing is known of its pods."""
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(item.get("type") == "Ready" and item.get("status") == "Unknown" for item in conditions)


def parts_of(selector: LabelSelector | None, labels: Mapping[str, str]) -> bool:
    return selector is not None and selector.matches(labels)


class Workloads(Controller):
    """The controller of one kind, `key`, whose objects own objects of the kind `below`."""

    key: Key = ("", "")
    kind_name = ""
    below: Key = PODS

    def everything(self) -> Iterable[Item]:
        return self.ids(self.key)

    def concerns(self, event: Event) -> Iterable[Item]:
        record = event.record
        if record.key == self.key:
            return [(record.namespace, record.name)]
        if record.key == NODES:
            return self.everything() if self.node_matters(event) else []
        if record.key != self.below:
            return []
        found: dict[Item, None] = {}
        for state in (event.before, record):
            if state is not None:
                found.update(dict.fromkeys(self._keepers(state)))
        return found

    def node_matters(self, event: Event) -> bool:
        """Pods of a node that was silent may be deleted again when it is back."""
        if event.before is None or event.type == "DELETED":
            return False
        return is_silent(event.before.decode()) and not is_silent(event.record.decode())

    def _keepers(self, record: Record) -> Iterable[Item]:
        owner = owner_of(record) if record.owners else None
        if owner is not None:
            return [(record.namespace, owner["name"])] if owner.get("kind") == self.kind_name else []
        return [
            (other.namespace, other.name)
            for other in self.store.select(self.key, record.namespace)
            if parts_of(selector_of(other.decode()), record.labels)
        ]

    async def claimed(self, owner: Json) -> list[Json]:
        """All objects of `below` that are `owner`'s, after adopting and letting go.  Raises ApiError."""
        selector = selector_of(owner)
        namespace, uid = owner["metadata"]["namespace"], owner["metadata"]["uid"]
        near = {r.uid: r for r in self.store.dependents(uid) if r.key == self.below}
        if selector is not None:
            for record in self.store.select(self.below, namespace):
                if selector.matches(record.labels):
                    near[record.uid] = record
        found = []
        for record in near.values():
            body = record.decode()
            verdict = claim(owner, selector, body)
            if verdict == "own":
                found.append(body)
            elif verdict == "adopt":
                found.append(await self._own(record, body, owner))
            elif verdict == "release":
                await self._let_go(record, body, uid)
        return sorted(
            found, key=lambda item: (item["metadata"].get("creationTimestamp", ""), item["metadata"]["name"])
        )

    async def _own(self, record: Record, body: Json, owner: Json) -> Json:
        references = body["metadata"].setdefault("ownerReferences", [])
        references.append(reference_to(owner))
        outcome = await self.resources.update(
            self.kind(self.below), record.namespace, record.name, body, self.options
        )
        return outcome.body

    async def _let_go(self, record: Record, body: Json, uid: str) -> None:
        references = body["metadata"].get("ownerReferences") or []
        body["metadata"]["ownerReferences"] = [item for item in references if item.get("uid") != uid]
        await self.resources.update(self.kind(self.below), record.namespace, record.name, body, self.options)

    async def make(self, owner: Json, pod: Json) -> str:
        """Create a pod.  The text of the refusal, or nothing."""
        try:
            outcome = await self.resources.create(
                self.kind(PODS), owner["metadata"]["namespace"], pod, self.options
            )
        except ApiError as error:
            await self.event(owner, "FailedCreate", f"Error creating: {error}", warning=True)
            return str(error)
        await self.event(owner, "SuccessfulCreate", f"Created pod: {outcome.body['metadata']['name']}")
        return ""

    async def end(self, owner: Json, pod: Json) -> bool:
        """Ask for a pod to be deleted, unless nothing is heard of its node.  Whether it was asked."""
        metadata = pod["metadata"]
        if "deletionTimestamp" in metadata or self.on_silent_node(pod):
            return False
        try:
            await self.resources.delete(
                self.kind(PODS),
                metadata["namespace"],
                metadata["name"],
                DeleteOptions(uid=metadata["uid"]),
            )
        except ApiError as error:
            if error.code != 404:
                raise
            return False
        await self.event(owner, "SuccessfulDelete", f"Deleted pod: {metadata['name']}")
        return True

    def on_silent_node(self, pod: Json) -> bool:
        name = pod["spec"].get("nodeName", "")
        node = self.get(NODES, "", name) if name else None
        return node is not None and is_silent(node)
