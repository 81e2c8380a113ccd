"""CronJobs: make a Job whenever the schedule says so.

The decisions are `due` and `plan`.  A time that was missed while nothing ran is made up for once, by the latest, unless
startingDeadlineSeconds says that it is too late.

Source: kubernetes, pkg/controller/cronjob (cronjob_controllerv2.go)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from beehive import clock
from cloudcore.standalone import cron
from cloudcore.standalone.controllers.base import Event, Item, owner_of, reference_to
from cloudcore.standalone.controllers.jobs import KEY as JOBS
from cloudcore.standalone.controllers.jobs import is_finished
from cloudcore.standalone.controllers.owned import Workloads
from cloudcore.standalone.deletion import DeleteOptions
from cloudcore.standalone.status import ApiError

Json = dict[str, Any]
KEY = ("batch", "cronjobs")
SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"
MOST_MISSED = 100
"""Missed times that are looked through one by one; beyond it only the last hour is."""


def due(cron_job: Json, schedule: cron.Schedule, now: datetime) -> datetime | None:
    """The latest time that has come since the last run and is still to be served."""
    spec, status = cron_job["spec"], cron_job.get("status") or {}
    since = clock.parse_rfc3339(status.get("lastScheduleTime") or cron_job["metadata"]["creationTimestamp"])
    deadline = spec.get("startingDeadlineSeconds")
    if deadline is not None:
        since = max(since, now - timedelta(seconds=deadline))
    latest: datetime | None = None
    at = schedule.after(since)
    missed = 0
    while at is not None and at <= now:
        latest, missed = at, missed + 1
        if missed == MOST_MISSED:
            at = max(at, now - timedelta(hours=1))
        at = schedule.after(at)
    return latest


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`start`: the scheduled time to make a job for; `end`: jobs to replace; `forget`: finished ones beyond the limits."""

    start: datetime | None = None
    end: list[Json] = field(default_factory=list)
    forget: list[Json] = field(default_factory=list)
    skipped: str = ""
    again_s: float | None = None


def plan(cron_job: Json, schedule: cron.Schedule, jobs: list[Json], now: datetime) -> Plan:
    spec = cron_job["spec"]
    forget = [
        *_beyond(jobs, "Complete", spec.get("successfulJobsHistoryLimit", 3)),
        *_beyond(jobs, "Failed", spec.get("failedJobsHistoryLimit", 1)),
    ]
    if spec.get("suspend"):
        return Plan(forget=forget)
    following = schedule.after(now)
    again = (following - now).total_seconds() if following is not None else None
    start = due(cron_job, schedule, now)
    active = [job for job in jobs if is_finished(job) is None]
    policy = spec.get("concurrencyPolicy", "Allow")
    if start is None or not active or policy == "Allow":
        return Plan(start=start, forget=forget, again_s=again)
    if policy == "Replace":
        return Plan(start=start, end=active, forget=forget, again_s=again)
    text = "Not starting job because prior execution is running and concurrency policy is Forbid"
    return Plan(forget=forget, skipped=text, again_s=again)


def _beyond(jobs: list[Json], kind: str, limit: int) -> list[Json]:
    ended = [job for job in jobs if (over := is_finished(job)) is not None and over["type"] == kind]
    ended.sort(key=lambda job: ((job.get("status") or {}).get("startTime", ""), job["metadata"]["name"]))
    return ended[: max(len(ended) - limit, 0)]


def job_for(cron_job: Json, at: datetime) -> Json:
    """The job of one scheduled time; its name makes that there is only one."""
    metadata, template = cron_job["metadata"], copy.deepcopy(cron_job["spec"]["jobTemplate"])
    about = template.get("metadata") or {}
    return {
        "metadata": {
            "name": f"{metadata['name'][:52]}-{int(at.timestamp()) // 60}",
            "namespace": metadata["namespace"],
            "labels": about.get("labels") or {},
            "annotations": {**(about.get("annotations") or {}), SCHEDULED_AT: clock.rfc3339(at)},
            "ownerReferences": [reference_to(cron_job)],
        },
        "spec": template["spec"],
    }


def cron_status(cron_job: Json, jobs: list[Json], scheduled: datetime | None) -> Json:
    status = {n: v for n, v in (cron_job.get("status") or {}).items() if n != "active"}
    active = [
        {
            "kind": "Job",
            "apiVersion": "batch/v1",
            "namespace": job["metadata"]["namespace"],
            "name": job["metadata"]["name"],
            "uid": job["metadata"]["uid"],
            "resourceVersion": job["metadata"]["resourceVersion"],
        }
        for job in jobs
        if is_finished(job) is None
    ]
    if active:
        # the version is that of the moment the job was first listed: it would change with every write
        known = {item.get("uid"): item for item in (cron_job.get("status") or {}).get("active") or ()}
        status["active"] = [known.get(item["uid"], item) for item in active]
    if scheduled is not None:
        status["lastScheduleTime"] = clock.rfc3339(scheduled)
    ends = [
        job["status"]["completionTime"] for job in jobs if (job.get("status") or {}).get("completionTime")
    ]
    if ends:
        status["lastSuccessfulTime"] = max(*ends, status.get("lastSuccessfulTime", ""))
    return status


class CronJobs(Workloads):
    name = "cronjob-controller"
    key, kind_name, below = KEY, "CronJob", JOBS
    watches = (KEY, JOBS)

    def concerns(self, event: Event) -> Iterable[Item]:
        record = event.record
        if record.key == KEY:
            return [(record.namespace, record.name)]
        owner = owner_of(record) if record.owners else None
        return [(record.namespace, owner["name"])] if owner and owner.get("kind") == "CronJob" else []

    async def reconcile(self, item: Item) -> float | None:
        cron_job = self.get(KEY, *item)
        if cron_job is None or "deletionTimestamp" in cron_job["metadata"]:
            return None
        spec = cron_job["spec"]
        try:
            schedule = cron.parse(spec.get("schedule", ""), spec.get("timeZone") or "")
        except cron.BadSchedule as error:
            await self.event(cron_job, "UnparseableSchedule", f"unparseable schedule: {error}", warning=True)
            return None
        todo = plan(cron_job, schedule, self._jobs(cron_job), self.resources.now())
        for job in (*todo.end, *todo.forget):
            await self._delete(cron_job, job)
        if todo.skipped:
            await self.event(cron_job, "JobAlreadyActive", todo.skipped)
        started = await self._start(cron_job, todo.start) if todo.start is not None else None
        fresh = self.get(KEY, *item)
        if fresh is not None:
            await self.set_status(KEY, fresh, cron_status(fresh, self._jobs(fresh), started))
        return None if todo.again_s is None else max(todo.again_s, 0.1)

    def _jobs(self, cron_job: Json) -> list[Json]:
        found = [r.decode() for r in self.store.dependents(cron_job["metadata"]["uid"]) if r.key == JOBS]
        return sorted(found, key=lambda job: str(job["metadata"]["name"]))

    async def _start(self, cron_job: Json, at: datetime) -> datetime | None:
        body = job_for(cron_job, at)
        namespace = cron_job["metadata"]["namespace"]
        try:
            await self.resources.create(self.kind(JOBS), namespace, body, self.options)
        except ApiError as error:
            if error.code == 409:
                # made before a restart that lost our note of it
                return at
            await self.event(cron_job, "FailedCreate", f"Error creating job: {error}", warning=True)
            raise
        await self.event(cron_job, "SuccessfulCreate", f"Created job {body['metadata']['name']}")
        return at

    async def _delete(self, cron_job: Json, job: Json) -> None:
        metadata = job["metadata"]
        try:
            await self.resources.delete(
                self.kind(JOBS),
                metadata["namespace"],
                metadata["name"],
                DeleteOptions(uid=metadata["uid"], propagation="Background"),
            )
        except ApiError as error:
            if error.code != 404:
                raise
        else:
            await self.event(cron_job, "SuccessfulDelete", f"Deleted job {metadata['name']}")
