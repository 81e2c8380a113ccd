"""Deployments: one ReplicaSet per template, moved from old to new within maxSurge and maxUnavailable.

The decisions are `plan_rolling` and `deployment_status`.  Source: kubernetes, pkg/controller/deployment."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from beehive import clock
from cloudcore.standalone.admission import NAME_LETTERS
from cloudcore.standalone.controllers.base import Item, reference_to, set_condition
from cloudcore.standalone.controllers.owned import Workloads
from cloudcore.standalone.deletion import DeleteOptions
from cloudcore.standalone.ids import PODS

Json = dict[str, Any]
KEY = ("apps", "deployments")
SETS = ("apps", "replicasets")
REVISION = "deployment.kubernetes.io/revision"
HASH = "pod-template-hash"
NOT_COPIED = ("kubectl.kubernetes.io/last-applied-configuration", REVISION)


def share(value: Any, total: int, *, up: bool) -> int:
    """A number, or a percentage of `total` rounded up or down."""
    if isinstance(value, str) and value.endswith("%"):
        part = int(value[:-1]) * total
        return -(-part // 100) if up else part // 100
    return int(value or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """What counts of one ReplicaSet."""

    name: str
    wanted: int
    current: int
    available: int


def bounds(spec: Json) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) as numbers; both zero would never move, then one may be missing."""
    wanted = spec.get("replicas", 1)
    rolling = (spec.get("strategy") or {}).get("rollingUpdate") or {}
    surge = share(rolling.get("maxSurge", "25%"), wanted, up=True)
    missing = share(rolling.get("maxUnavailable", "25%"), wanted, up=False)
    if surge == 0 and missing == 0:
        missing = 1
    return surge, min(missing, wanted)


def plan_rolling(wanted: int, surge: int, missing: int, new: Members, old: list[Members]) -> dict[str, int]:
    """Which ReplicaSets to resize, and to what.  Empty when nothing may move now."""
    resized: dict[str, int] = {}
    total = new.wanted + sum(item.wanted for item in old)
    if new.wanted > wanted:
        return {new.name: wanted}
    if new.wanted < wanted:
        room = wanted + surge - total
        if room > 0:
            resized[new.name] = min(new.wanted + room, wanted)
    standing = [item for item in old if item.wanted > 0]
    if not standing:
        return resized
    least = wanted - missing
    lagging = max(new.wanted - new.available, 0)
    spare = total - least - lagging
    # pods that are not available cost nothing to take away
    sizes = {item.name: item.wanted for item in standing}
    for item in standing:
        broken = min(item.wanted - item.available, spare)
        if broken > 0:
            sizes[item.name] -= broken
            spare -= broken
    available = new.available + sum(min(item.available, sizes[item.name]) for item in standing)
    spare = available - least
    for item in standing:
        if spare <= 0:
            break
        step = min(sizes[item.name], spare)
        sizes[item.name] -= step
        spare -= step
    for item in standing:
        if sizes[item.name] != item.wanted:
            resized[item.name] = sizes[item.name]
    return resized


def deployment_status(body: Json, new: Json | None, sets: list[Json], now: str) -> Json:
    """The status that follows from its ReplicaSets' statuses."""
    wanted = body["spec"].get("replicas", 1)

    def total(field: str) -> int:
        return sum((item.get("status") or {}).get(field, 0) for item in sets)

    replicas, ready, available = total("replicas"), total("readyReplicas"), total("availableReplicas")
    updated = (new.get("status") or {}).get("replicas", 0) if new is not None else 0
    status: Json = {"observedGeneration": body["metadata"].get("generation", 1)}
    for name, value in (
        ("replicas", replicas),
        ("updatedReplicas", updated),
        ("readyReplicas", ready),
        ("availableReplicas", available),
        ("unavailableReplicas", max(wanted - available, 0)),
    ):
        if value:
            status[name] = value
    _, missing = bounds(body["spec"])
    conditions = list((body.get("status") or {}).get("conditions") or ())
    enough = available >= wanted - missing
    conditions = _with(
        conditions,
        "Available",
        enough,
        "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        "Deployment has minimum availability."
        if enough
        else "Deployment does not have minimum availability.",
        now,
    )
    name = new["metadata"]["name"] if new is not None else ""
    complete = new is not None and updated == wanted and replicas == wanted and available == wanted
    if body["spec"].get("paused"):
        conditions = _with(conditions, "Progressing", None, "DeploymentPaused", "Deployment is paused", now)
    elif complete or _settled(body, name, updated, replicas):
        conditions = _with(
            conditions,
            "Progressing",
            True,
            "NewReplicaSetAvailable",
            f'ReplicaSet "{name}" has successfully progressed.',
            now,
        )
    elif new is not None:
        conditions = _progress(body, status, name, conditions, now)
    status["conditions"] = conditions
    return status


def _settled(body: Json, name: str, updated: int, replicas: int) -> bool:
    """Whether this rollout had ended: pods that fail later do not begin it again."""
    old = _progressing(body)
    return bool(
        replicas == updated
        and old.get("reason") == "NewReplicaSetAvailable"
        and f'"{name}"' in old.get("message", "")
    )


def _progressing(body: Json) -> Json:
    conditions = (body.get("status") or {}).get("conditions") or ()
    return next((item for item in conditions if item["type"] == "Progressing"), {})


def _progress(body: Json, status: Json, name: str, conditions: list[Json], now: str) -> list[Json]:
    """The condition of a rollout under way: each step forward gives it its whole deadline again."""
    before, old = body.get("status") or {}, _progressing(body)
    forward = any(
        status.get(field, 0) > before.get(field, 0)
        for field in ("updatedReplicas", "readyReplicas", "availableReplicas")
    ) or (
        status.get("replicas", 0) - status.get("updatedReplicas", 0)
        < before.get("replicas", 0) - before.get("updatedReplicas", 0)
    )
    message = f'ReplicaSet "{name}" is progressing.'
    if not forward and old.get("reason") == "ProgressDeadlineExceeded" and f'"{name}"' in old["message"]:
        return conditions
    left = deadline_in(body, clock.parse_rfc3339(now))
    if not forward and old.get("message") == message and left is not None and left <= 0:
        late = f'ReplicaSet "{name}" has timed out progressing.'
        return _with(conditions, "Progressing", False, "ProgressDeadlineExceeded", late, now)
    if forward:
        conditions = [item for item in conditions if item["type"] != "Progressing"]
        if old.get("status") == "True":
            # it is the same state as before, only told anew
            fresh = {**old, "reason": "ReplicaSetUpdated", "message": message, "lastUpdateTime": now}
            return [*conditions, fresh]
    return _with(conditions, "Progressing", True, "ReplicaSetUpdated", message, now)


def deadline_in(body: Json, now: datetime) -> float | None:
    """Seconds until the rollout counts as stuck; None when it does not wait for anything."""
    old = _progressing(body)
    seconds = body["spec"].get("progressDeadlineSeconds", 600)
    if (
        old.get("reason") != "ReplicaSetUpdated"
        or not old.get("lastUpdateTime")
        or body["spec"].get("paused")
    ):
        return None
    return float(seconds - (now - clock.parse_rfc3339(old["lastUpdateTime"])).total_seconds())


def _with(
    conditions: list[Json],
    kind: str,
    good: bool | None,  # noqa: FBT001 - the status of a condition
    reason: str,
    message: str,
    now: str,
) -> list[Json]:
    state = "Unknown" if good is None else "True" if good else "False"
    old = next((item for item in conditions if item["type"] == kind), None)
    same = old is not None and (old.get("status"), old.get("reason"), old.get("message")) == (
        state,
        reason,
        message,
    )
    updated = old.get("lastUpdateTime", now) if same and old is not None else now
    fresh = {"type": kind, "status": state, "reason": reason, "message": message, "lastUpdateTime": updated}
    return set_condition(conditions, fresh, now)


def template_hash(template: Json, collisions: int = 0) -> str:
    """Ten letters that name a template."""
    raw = msgspec.json.encode(template, order="deterministic") + str(collisions).encode()
    digest = hashlib.sha256(raw).digest()
    return "".join(NAME_LETTERS[byte % len(NAME_LETTERS)] for byte in digest[:10])


def same_template(one: Json, other: Json) -> bool:
    return _bare(one) == _bare(other)


def _bare(template: Json) -> Json:
    template = copy.deepcopy(template)
    labels = template.setdefault("metadata", {}).get("labels") or {}
    labels.pop(HASH, None)
    template["metadata"]["labels"] = labels
    return template


class Deployments(Workloads):
    name = "deployment-controller"
    key, kind_name, below = KEY, "Deployment", SETS
    watches = (KEY, SETS)

    async def reconcile(self, item: Item) -> float | None:
        found = self.store.get(KEY, *item)
        if found is None:
            return None
        body = found.decode()
        if "deletionTimestamp" in body["metadata"]:
            await self._report(item)
            return None
        await self.claimed(body)
        new = await self._new_set(body)
        if new is not None and not body["spec"].get("paused"):
            await self._roll(body, new)
            await self._forget(body, new)
        elif new is not None:
            await self._resize(body, new, body["spec"].get("replicas", 1))
        return await self._report(item)

    def _sets(self, body: Json) -> list[Json]:
        found = [r.decode() for r in self.store.dependents(body["metadata"]["uid"]) if r.key == SETS]
        return sorted(
            found, key=lambda item: (item["metadata"]["creationTimestamp"], item["metadata"]["name"])
        )

    async def _report(self, item: Item) -> float | None:
        body = self.get(KEY, *item)
        if body is None:
            return None
        sets = self._sets(body)
        new = next((s for s in sets if same_template(s["spec"]["template"], body["spec"]["template"])), None)
        status = deployment_status(body, new, sets, self.resources.timestamp())
        await self.set_status(KEY, body, status)
        left = deadline_in({**body, "status": status}, self.resources.now())
        return None if left is None else max(left, 0.0) + 1.0

    async def _new_set(self, body: Json) -> Json | None:
        sets = self._sets(body)
        template = body["spec"]["template"]
        current = next((s for s in sets if same_template(s["spec"]["template"], template)), None)
        highest = max((_revision(item) for item in sets), default=0)
        if current is None:
            if body["spec"].get("paused"):
                return None
            current = await self._make_set(body, str(highest + 1), first=not sets)
        elif _revision(current) < highest:
            current["metadata"].setdefault("annotations", {})[REVISION] = str(highest + 1)
            metadata = current["metadata"]
            outcome = await self.resources.update(
                self.kind(SETS), metadata["namespace"], metadata["name"], current, self.options
            )
            current = outcome.body
        revision = (current["metadata"].get("annotations") or {}).get(REVISION, "1")
        if (body["metadata"].get("annotations") or {}).get(REVISION) != revision:
            await self.resources.patch(
                self.kind(KEY),
                body["metadata"]["namespace"],
                body["metadata"]["name"],
                "merge",
                {"metadata": {"annotations": {REVISION: revision}}},
                self.options,
            )
        return current

    async def _make_set(self, body: Json, revision: str, *, first: bool) -> Json:
        template = copy.deepcopy(body["spec"]["template"])
        metadata = body["metadata"]
        collisions = 0
        while True:
            mark = template_hash(template, collisions)
            name = f"{metadata['name'][:240]}-{mark}"
            if self.store.head(SETS, metadata["namespace"], name) is None:
                break
            collisions += 1
        template.setdefault("metadata", {}).setdefault("labels", {})[HASH] = mark
        selector = copy.deepcopy(body["spec"]["selector"])
        selector.setdefault("matchLabels", {})[HASH] = mark
        wanted = body["spec"].get("replicas", 1)
        surge, _ = bounds(body["spec"])
        others = sum(item["spec"].get("replicas", 0) for item in self._sets(body))
        if (body["spec"].get("strategy") or {}).get("type") == "Recreate":
            size = wanted if first else 0
        else:
            size = max(min(wanted, wanted + surge - others), 0)
        annotations = {n: v for n, v in (metadata.get("annotations") or {}).items() if n not in NOT_COPIED}
        outcome = await self.resources.create(
            self.kind(SETS),
            metadata["namespace"],
            {
                "metadata": {
                    "name": name,
                    "namespace": metadata["namespace"],
                    "labels": template["metadata"]["labels"],
                    "annotations": {**annotations, REVISION: revision},
                    "ownerReferences": [reference_to(body)],
                },
                "spec": {
                    "replicas": size,
                    "selector": selector,
                    "template": template,
                    **(
                        {"minReadySeconds": body["spec"]["minReadySeconds"]}
                        if "minReadySeconds" in body["spec"]
                        else {}
                    ),
                },
            },
            self.options,
        )
        if size:
            await self.event(body, "ScalingReplicaSet", f"Scaled up replica set {name} from 0 to {size}")
        return outcome.body

    async def _roll(self, body: Json, new: Json) -> None:
        wanted = body["spec"].get("replicas", 1)
        old = [item for item in self._sets(body) if item["metadata"]["uid"] != new["metadata"]["uid"]]
        if (body["spec"].get("strategy") or {}).get("type") == "Recreate":
            for item in old:
                await self._resize(body, item, 0)
            if not any(self._has_pods(item) for item in old):
                await self._resize(body, new, wanted)
            return
        surge, missing = bounds(body["spec"])
        resized = plan_rolling(wanted, surge, missing, _members(new), [_members(item) for item in old])
        for item in (new, *old):
            size = resized.get(item["metadata"]["name"])
            if size is not None:
                await self._resize(body, item, size)

    def _has_pods(self, replica_set: Json) -> bool:
        return any(record.key == PODS for record in self.store.dependents(replica_set["metadata"]["uid"]))

    async def _resize(self, body: Json, replica_set: Json, size: int) -> None:
        before = replica_set["spec"].get("replicas", 0)
        if before == size:
            return
        metadata = replica_set["metadata"]
        await self.resources.patch(
            self.kind(SETS),
            metadata["namespace"],
            metadata["name"],
            "merge",
            {"spec": {"replicas": size}},
            self.options,
        )
        word = "up" if size > before else "down"
        await self.event(
            body,
            "ScalingReplicaSet",
            f"Scaled {word} replica set {metadata['name']} from {before} to {size}",
        )

    async def _forget(self, body: Json, new: Json) -> None:
        limit = body["spec"].get("revisionHistoryLimit", 10)
        empty = [
            item
            for item in self._sets(body)
            if item["metadata"]["uid"] != new["metadata"]["uid"]
            and not item["spec"].get("replicas")
            and not (item.get("status") or {}).get("replicas")
            and "deletionTimestamp" not in item["metadata"]
        ]
        empty.sort(key=_revision)
        for item in empty[: max(len(empty) - limit, 0)]:
            metadata = item["metadata"]
            await self.resources.delete(
                self.kind(SETS), metadata["namespace"], metadata["name"], DeleteOptions(uid=metadata["uid"])
            )


def _members(replica_set: Json) -> Members:
    status = replica_set.get("status") or {}
    return Members(
        name=replica_set["metadata"]["name"],
        wanted=replica_set["spec"].get("replicas", 0),
        current=status.get("replicas", 0),
        available=status.get("availableReplicas", 0),
    )


def _revision(replica_set: Json) -> int:
    text = (replica_set["metadata"].get("annotations") or {}).get(REVISION, "0")
    return int(text) if text.isdigit() else 0
