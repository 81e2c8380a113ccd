"""Jobs: run pods until enough of them have succeeded.

The decisions are `account` (what became of the pods), `verdict` (is it over) and `plan` (what to start and stop).
Every pod carries a finalizer until it is counted, so a pod that is gone is never counted twice or forgotten: its uid
goes into status.uncountedTerminatedPods first, then the finalizer goes, then it becomes a number.

Source: kubernetes, pkg/controller/job."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from beehive import clock
from cloudcore.standalone.controllers.base import Event, Item, is_ready, set_condition
from cloudcore.standalone.controllers.owned import (
    FAULT_PAUSE_S,
    NODES,
    Workloads,
    deletion_order,
    pod_from_template,
)
from cloudcore.standalone.deletion import DeleteOptions
from cloudcore.standalone.ids import PODS
from cloudcore.standalone.status import ApiError
from cloudcore.standalone.store import Record

Json = dict[str, Any]
KEY = ("batch", "jobs")
FINALIZER = "batch.kubernetes.io/job-tracking"
NAME_LABEL, UID_LABEL = "batch.kubernetes.io/job-name", "batch.kubernetes.io/controller-uid"
INDEX = "batch.kubernetes.io/job-completion-index"
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 10.0, 600.0
BURST = 100
MANAGER = "kubernetes.io/job-controller"


def phase(pod: Json) -> str:
    found: str = (pod.get("status") or {}).get("phase", "Pending")
    return found


def has_failed(job: Json, pod: Json) -> bool:
    """A pod that is deleted before it ended counts as failed, unless only ended pods are to be replaced."""
    if phase(pod) == "Failed":
        return True
    policy = job["spec"].get("podReplacementPolicy", "TerminatingOrFailed")
    if policy == "Failed" and pod["spec"].get("nodeName"):
        return False
    return "deletionTimestamp" in pod["metadata"] and phase(pod) != "Succeeded"


def is_running(job: Json, pod: Json) -> bool:
    """Active: neither ended nor given up."""
    return phase(pod) not in ("Succeeded", "Failed") and not has_failed(job, pod)


def is_finished(job: Json) -> Json | None:
    """The condition that says the job is over."""
    for item in (job.get("status") or {}).get("conditions") or ():
        if item["type"] in ("Complete", "Failed") and item["status"] == "True":
            found: Json = item
            return found
    return None


def index_of(pod: Json) -> int:
    text = (pod["metadata"].get("annotations") or {}).get(INDEX, "")
    return int(text) if text.isdigit() else -1


def read_indexes(text: str) -> set[int]:
    """`0-2,4` as numbers."""
    found: set[int] = set()
    for part in (item for item in text.split(",") if item):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def write_indexes(numbers: Iterable[int]) -> str:
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][-1] == number - 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """`counted` is the status with the pods that ended in it; `release` are pods whose finalizer may go."""

    counted: Json
    release: list[Json]
    succeeded: int
    failed: int
    indexes: frozenset[int] = frozenset()


def account(job: Json, pods: list[Json]) -> Account:
    """What became of the pods.  Calling it again on its own result counts nothing twice."""
    before = job.get("status") or {}
    waiting = before.get("uncountedTerminatedPods") or {}
    tracked = {
        pod["metadata"]["uid"] for pod in pods if FINALIZER in (pod["metadata"].get("finalizers") or ())
    }
    numbers = {"succeeded": before.get("succeeded", 0), "failed": before.get("failed", 0)}
    still: dict[str, list[str]] = {"succeeded": [], "failed": []}
    known: set[str] = set()
    for name, uids in still.items():
        for uid in waiting.get(name) or ():
            known.add(uid)
            if uid in tracked:
                uids.append(uid)
            else:
                numbers[name] += 1
    indexed = job["spec"].get("completionMode") == "Indexed"
    indexes = read_indexes(before.get("completedIndexes", "")) if indexed else set()
    for pod in pods:
        uid = pod["metadata"]["uid"]
        if uid in known or uid not in tracked:
            continue
        if phase(pod) == "Succeeded":
            # two pods of one index are one success
            if not indexed or (index_of(pod) >= 0 and index_of(pod) not in indexes):
                still["succeeded"].append(uid)
                indexes.add(index_of(pod))
        elif has_failed(job, pod):
            still["failed"].append(uid)
    counted = {name: value for name, value in before.items() if name != "completedIndexes"}
    for name, value in numbers.items():
        counted.pop(name, None)
        if value:
            counted[name] = value
    counted["uncountedTerminatedPods"] = {name: uids for name, uids in still.items() if uids}
    if indexed and indexes:
        counted["completedIndexes"] = write_indexes(indexes)
    listed = set(waiting.get("succeeded") or ()) | set(waiting.get("failed") or ())
    spare = {
        pod["metadata"]["uid"]
        for pod in pods
        if indexed
        and phase(pod) == "Succeeded"
        and pod["metadata"]["uid"] not in {*still["succeeded"], *known}
    }
    release = [
        pod for pod in pods if pod["metadata"]["uid"] in tracked and pod["metadata"]["uid"] in listed | spare
    ]
    return Account(
        counted=counted,
        release=release,
        succeeded=len(indexes) if indexed else numbers["succeeded"] + len(still["succeeded"]),
        failed=numbers["failed"] + len(still["failed"]),
        indexes=frozenset(indexes if indexed else ()),
    )


def verdict(job: Json, seen: Account, pods: list[Json], now: datetime) -> tuple[str, str, str] | None:
    """(Complete or Failed, reason, message) when the job is over."""
    spec = job["spec"]
    limit = spec.get("backoffLimit", 6)
    active = [pod for pod in pods if is_running(job, pod)]
    if seen.failed > limit or _restarts(spec, active) > limit:
        return "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    left = deadline_in(job, now)
    if left is not None and left <= 0:
        return "Failed", "DeadlineExceeded", "Job was active longer than specified deadline"
    wanted = spec.get("completions")
    enough = seen.succeeded > 0 and not active if wanted is None else seen.succeeded >= wanted
    return ("Complete", "CompletionsReached", "Reached expected number of succeeded pods") if enough else None


def _restarts(spec: Json, active: list[Json]) -> int:
    """Restarts in place count against the limit, too."""
    if spec["template"]["spec"].get("restartPolicy") != "OnFailure":
        return 0
    return sum(
        item.get("restartCount", 0)
        for pod in active
        for group in ("initContainerStatuses", "containerStatuses")
        for item in (pod.get("status") or {}).get(group) or ()
    )


def deadline_in(job: Json, now: datetime) -> float | None:
    """Seconds until activeDeadlineSeconds are over."""
    seconds, start = job["spec"].get("activeDeadlineSeconds"), (job.get("status") or {}).get("startTime")
    if seconds is None or not start or job["spec"].get("suspend"):
        return None
    return float(seconds - (now - clock.parse_rfc3339(start)).total_seconds())


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Pods to make (their indexes, or -1), pods to delete, and when to look again."""

    make: list[int] = field(default_factory=list)
    end: list[Json] = field(default_factory=list)
    again_s: float | None = None


def plan(job: Json, seen: Account, pods: list[Json], now: datetime) -> Plan:
    """What to start and stop for a job that is not over."""
    spec = job["spec"]
    active = [pod for pod in pods if is_running(job, pod)]
    if spec.get("suspend"):
        return Plan(end=[pod for pod in active if "deletionTimestamp" not in pod["metadata"]])
    parallel, wanted = spec.get("parallelism", 1), spec.get("completions")
    if wanted is None:
        target = len(active) if seen.succeeded else parallel
        target = min(target, parallel)
    else:
        target = min(parallel, max(wanted - seen.succeeded, 0))
    end: list[Json] = []
    if spec.get("completionMode") == "Indexed":
        taken: set[int] = set()
        for pod in sorted(active, key=deletion_order, reverse=True):
            number = index_of(pod)
            if number in taken or number in seen.indexes or not 0 <= number < (wanted or 0):
                end.append(pod)
            taken.add(number)
        active = [pod for pod in active if pod not in end]
    surplus = len(active) - target
    if surplus > 0:
        return Plan(end=end + sorted(active, key=deletion_order)[:surplus])
    missing = min(target - len(active), BURST)
    if missing <= 0:
        return Plan(end=end)
    pause = backoff_in(seen, pods, now)
    if pause > 0:
        return Plan(end=end, again_s=pause)
    if spec.get("completionMode") != "Indexed":
        return Plan(make=[-1] * missing, end=end)
    running = {index_of(pod) for pod in active}
    free = [n for n in range(wanted or 0) if n not in running and n not in seen.indexes]
    return Plan(make=free[:missing], end=end)


def backoff_in(seen: Account, pods: list[Json], now: datetime) -> float:
    """Seconds to wait before the next try: 10 s after the first failure, twice as long after each, at most 600 s."""
    ends = [at for pod in pods if phase(pod) == "Failed" and (at := ended_at(pod)) is not None]
    if not ends or not seen.failed:
        return 0.0
    pause = min(FIRST_BACKOFF_S * 2.0 ** min(seen.failed - 1, 10), LONGEST_BACKOFF_S)
    return float(max(pause - (now - max(ends)).total_seconds(), 0.0))


def ended_at(pod: Json) -> datetime | None:
    """When the last container of a pod ended; else when it ceased to be ready, else when it was made."""
    times = [
        terminated["finishedAt"]
        for item in (pod.get("status") or {}).get("containerStatuses") or ()
        if (terminated := (item.get("state") or {}).get("terminated")) and terminated.get("finishedAt")
    ]
    if not times:
        times = [
            item["lastTransitionTime"]
            for item in (pod.get("status") or {}).get("conditions") or ()
            if item.get("type") == "Ready" and item.get("lastTransitionTime")
        ]
    text = max(times, default=pod["metadata"].get("creationTimestamp"))
    return clock.parse_rfc3339(text) if text else None


def job_status(job: Json, seen: Account, pods: list[Json], stamp: str) -> Json:
    """The status of a job after its pods were counted."""
    status = copy.deepcopy(seen.counted)
    active = [pod for pod in pods if is_running(job, pod)]
    ending = [
        pod
        for pod in pods
        if "deletionTimestamp" in pod["metadata"] and phase(pod) not in ("Succeeded", "Failed")
    ]
    ready = sum(is_ready(pod) for pod in active)
    if active:
        status["active"] = len(active)
    else:
        status.pop("active", None)
    status["ready"], status["terminating"] = ready, len(ending)
    conditions = status.get("conditions") or []
    suspended = bool(job["spec"].get("suspend"))
    if suspended:
        status.pop("startTime", None)
        text = {"reason": "JobSuspended", "message": "Job suspended"}
        conditions = _told(conditions, {"type": "Suspended", "status": "True", **text}, stamp)
    else:
        status.setdefault("startTime", stamp)
        if any(item["type"] == "Suspended" and item["status"] == "True" for item in conditions):
            text = {"reason": "JobResumed", "message": "Job resumed"}
            conditions = _told(conditions, {"type": "Suspended", "status": "False", **text}, stamp)
            status["startTime"] = stamp
    if conditions:
        status["conditions"] = conditions
    return status


def finished_status(status: Json, over: tuple[str, str, str], stamp: str) -> Json:
    """`status` with the conditions of the end."""
    kind, reason, message = over
    before = {"Complete": "SuccessCriteriaMet", "Failed": "FailureTarget"}[kind]
    conditions = status.get("conditions") or []
    for name in (before, kind):
        conditions = _told(
            conditions, {"type": name, "status": "True", "reason": reason, "message": message}, stamp
        )
    status = {**status, "conditions": conditions}
    if kind == "Complete":
        status.setdefault("completionTime", stamp)
    return status


def _told(conditions: list[Json], new: Json, stamp: str) -> list[Json]:
    old = next((item for item in conditions if item["type"] == new["type"]), None)
    if old is not None and old["status"] == new["status"]:
        return conditions
    return set_condition(conditions, {**new, "lastProbeTime": stamp}, stamp)


def job_pod(job: Json, index: int) -> Json:
    """The pod for one index, or for none (-1)."""
    made = pod_from_template(copy.deepcopy(job["spec"]["template"]), job)
    metadata, spec = made["metadata"], made["spec"]
    metadata["finalizers"] = [*(metadata.get("finalizers") or ()), FINALIZER]
    if index < 0:
        return made
    metadata["generateName"] = f"{job['metadata']['name']}-{index}-"
    metadata.setdefault("annotations", {})[INDEX] = str(index)
    metadata.setdefault("labels", {})[INDEX] = str(index)
    spec.setdefault("hostname", f"{job['metadata']['name']}-{index}")
    source = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        container["env"] = [
            *(container.get("env") or ()),
            {"name": "JOB_COMPLETION_INDEX", "valueFrom": source},
        ]
    return made


def expires_in(job: Json, now: datetime) -> float | None:
    """Seconds until a finished job is to be deleted."""
    life, over = job["spec"].get("ttlSecondsAfterFinished"), is_finished(job)
    if life is None or over is None:
        return None
    return float(life - (now - clock.parse_rfc3339(over["lastTransitionTime"])).total_seconds())


class Jobs(Workloads):
    name = "job-controller"
    key, kind_name = KEY, "Job"
    watches = (KEY, PODS, NODES)

    def concerns(self, event: Event) -> Iterable[Item]:
        found = dict.fromkeys(super().concerns(event))
        record = event.record
        if record.key == PODS and NAME_LABEL in record.labels and b'"' + FINALIZER.encode() in record.body:
            # a pod that lost its job still carries our finalizer
            found[record.namespace, record.labels[NAME_LABEL]] = None
        return found

    async def _own(self, record: Record, body: Json, owner: Json) -> Json:
        body["metadata"].setdefault("finalizers", []).append(FINALIZER)
        return await super()._own(record, body, owner)

    async def reconcile(self, item: Item) -> float | None:
        await self._release_orphans(item)
        job = self.get(KEY, *item)
        if job is None or job["spec"].get("managedBy", MANAGER) != MANAGER:
            return None
        now = self.resources.now()
        pods = await self.claimed(job)
        seen = account(job, pods)
        stamp = self.resources.timestamp()
        if is_finished(job) or "deletionTimestamp" in job["metadata"]:
            return await self._after(job, seen, pods, now)
        over = verdict(job, seen, pods, now)
        again: float | None = None
        if over is None:
            todo = plan(job, seen, pods, now)
            again = todo.again_s
            for pod in todo.end:
                await self.end(job, pod)
            for index in todo.make:
                if await self.make(job, job_pod(job, index)):
                    again = FAULT_PAUSE_S
                    break
        else:
            for pod in pods:
                if is_running(job, pod):
                    await self.end(job, pod)
        job = self.get(KEY, *item)
        if job is None:
            return None
        pods = await self.claimed(job)
        seen = account(job, pods)
        status = job_status(job, seen, pods, stamp)
        if over is not None:
            status = finished_status(status, over, stamp)
        await self.set_status(KEY, job, status)
        await self._release(account({**job, "status": status}, pods).release)
        if over is not None:
            done = over[0] == "Complete"
            await self.event(job, "Completed" if done else over[1], over[2], warning=not done)
        left = deadline_in({**job, "status": status}, now)
        waits = [value for value in (again, left) if value is not None]
        return max(min(waits), 0.1) if waits else None

    async def _after(self, job: Json, seen: Account, pods: list[Json], now: datetime) -> float | None:
        """A job that is over: count the rest, and delete it when its time has come."""
        metadata = job["metadata"]
        status = job_status(job, seen, pods, self.resources.timestamp())
        await self.set_status(KEY, job, status)
        await self._release(account({**job, "status": status}, pods).release)
        left = expires_in(job, now)
        if left is None or "deletionTimestamp" in metadata:
            return None
        if left > 0:
            return left
        await self.resources.delete(
            self.kind(KEY),
            metadata["namespace"],
            metadata["name"],
            DeleteOptions(uid=metadata["uid"], propagation="Foreground"),
        )
        return None

    async def _release_orphans(self, item: Item) -> None:
        namespace, name = item

        def lost(record: Record) -> bool:
            return (
                record.labels.get(NAME_LABEL) == name
                and self.store.by_uid(record.labels.get(UID_LABEL, "")) is None
            )

        await self._release(record.decode() for record in self.store.select(PODS, namespace, lost))

    async def _release(self, pods: Iterable[Json]) -> None:
        for pod in pods:
            metadata = pod["metadata"]
            # the pod may have gone on since it was read
            fresh = self.get(PODS, metadata["namespace"], metadata["name"])
            if fresh is None or fresh["metadata"]["uid"] != metadata["uid"]:
                continue
            finalizers = fresh["metadata"].get("finalizers") or []
            if FINALIZER not in finalizers:
                continue
            fresh["metadata"]["finalizers"] = [entry for entry in finalizers if entry != FINALIZER]
            try:
                await self.resources.update(
                    self.kind(PODS), metadata["namespace"], metadata["name"], fresh, self.options
                )
            except ApiError as error:
                if error.code != 404:
                    raise
