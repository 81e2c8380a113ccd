"""HorizontalPodAutoscalers: ask what pods use, and set the scale of what they are about.

How many replicas that makes is decided in cloudcore.standalone.autoscale."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from cloudcore.standalone import autoscale, selectors
from cloudcore.standalone.autoscale import Measured, Memory, MetricError
from cloudcore.standalone.controllers.base import Controller, Event, Item, set_condition
from cloudcore.standalone.ids import PODS
from cloudcore.standalone.kinds import Kind
from cloudcore.standalone.measured import UsageSource
from cloudcore.standalone.status import ApiError
from cloudcore.standalone.subresources import dig, put, scale_paths
from cloudcore.standalone.verbs import Resources

Json = dict[str, Any]
SCALERS = ("autoscaling", "horizontalpodautoscalers")
PERIOD_S = 15.0


class Autoscalers(Controller):
    """`usage`: None when nothing here can measure; the scalers say so then."""

    name = "horizontal-pod-autoscaler"
    watches = (SCALERS,)

    def __init__(
        self, resources: Resources, *, clock: Callable[[], float], usage: UsageSource | None
    ) -> None:
        super().__init__(resources, clock=clock)
        self._usage = usage
        self._memories: dict[str, Memory] = {}

    def everything(self) -> Iterable[Item]:
        return self.ids(SCALERS)

    def concerns(self, event: Event) -> Iterable[Item]:
        record = event.record
        if event.type == "DELETED":
            self._memories.pop(record.uid, None)
            return []
        before = event.before
        # its own status is no news
        if before is not None and before.decode().get("spec") == record.decode().get("spec"):
            return []
        return [(record.namespace, record.name)]

    async def reconcile(self, item: Item) -> float | None:
        scaler = self.get(SCALERS, *item)
        if scaler is None or "deletionTimestamp" in scaler["metadata"]:
            return None
        now = self._clock()
        memory = self._memories.setdefault(scaler["metadata"]["uid"], Memory())
        status: Json = dict(scaler.get("status") or {})
        status.setdefault("desiredReplicas", 0)
        said = status.get("conditions") or []
        stamp = self.resources.timestamp()

        def say(kind: str, true: bool, reason: str, message: str) -> None:  # noqa: FBT001
            nonlocal said
            value = {
                "type": kind,
                "status": "True" if true else "False",
                "reason": reason,
                "message": message,
            }
            said = set_condition(said, value, stamp)

        try:
            kind, target = self._target(scaler)
        except ApiError as error:
            say(
                "AbleToScale",
                False,
                "FailedGetScale",
                f"the HPA controller was unable to get the target's current scale: {error}",
            )
            await self.set_status(SCALERS, scaler, {**status, "conditions": said})
            return PERIOD_S
        spec_path, status_path, _ = scale_paths(kind)
        asked = dig(target, spec_path)
        current = asked if isinstance(asked, int) else 1
        status["currentReplicas"] = dig(target, status_path) or 0
        say(
            "AbleToScale",
            True,
            "SucceededGetScale",
            "the HPA controller was able to get the target's current scale",
        )
        if current == 0 and int(scaler["spec"].get("minReplicas") or 1) > 0:
            say(
                "ScalingActive",
                False,
                "ScalingDisabled",
                "scaling is disabled since the replica count of the target is zero",
            )
            await self.set_status(SCALERS, scaler, {**status, "desiredReplicas": 0, "conditions": said})
            return PERIOD_S
        found, faults = await self._measure(scaler, kind, target, current)
        status["currentMetrics"] = [item.current for item in found] or None
        if faults:
            say(
                "ScalingActive",
                False,
                faults[0].reason,
                f"the HPA was unable to compute the replica count: {faults[0]}",
            )
        if found:
            best = max(found, key=lambda item: item.replicas)
            wanted = best.replicas
            if faults:
                # a metric that is not there may be the one that needs what there is
                wanted = max(wanted, current)
            else:
                say(
                    "ScalingActive",
                    True,
                    "ValidMetricFound",
                    f"the HPA was able to successfully calculate a replica count from {best.name}",
                )
            verdict = autoscale.decide(scaler["spec"], current, wanted, memory, now)
            say("AbleToScale", True, *verdict.able)
            say("ScalingLimited", *verdict.limited)
            status["desiredReplicas"] = verdict.replicas
            if verdict.replicas != current:
                await self._scale(scaler, kind, target, spec_path, verdict.replicas)
                memory.note_change(now, current, verdict.replicas)
                status["lastScaleTime"] = stamp
                say(
                    "AbleToScale",
                    True,
                    "SucceededRescale",
                    f"the HPA controller was able to update the target scale to {verdict.replicas}",
                )
        await self.set_status(
            SCALERS,
            scaler,
            {name: value for name, value in {**status, "conditions": said}.items() if value is not None},
        )
        return PERIOD_S

    def _target(self, scaler: Json) -> tuple[Kind, Json]:
        reference = scaler["spec"].get("scaleTargetRef") or {}
        group = str(reference.get("apiVersion", "")).rpartition("/")[0]
        name = str(reference.get("name", ""))
        kind = self.resources.registry.group_kind(group, str(reference.get("kind", "")))
        if kind is None or "scale" not in kind.subresources:
            raise ApiError(
                404, "NotFound", f"{reference.get('kind')} of {reference.get('apiVersion')} has no scale"
            )
        return kind, self.resources.read(kind, scaler["metadata"]["namespace"], name)

    async def _measure(
        self, scaler: Json, kind: Kind, target: Json, current: int
    ) -> tuple[list[Measured], list[MetricError]]:
        if self._usage is None:
            return [], [
                MetricError("FailedGetResourceMetric", "this control plane has no way to measure its nodes")
            ]
        selector = self._selector(kind, target)
        if selector is None:
            return [], [MetricError("InvalidSelector", "the target's scale has no selector")]
        namespace = scaler["metadata"]["namespace"]
        records = self.store.select(PODS, namespace, lambda record: selector.matches(record.labels))
        pods = [record.decode() for record in records]
        used: dict[str, dict[str, tuple[Decimal, Decimal]]] = {}
        there = await self._usage.usage()
        for pod in pods:
            on = there.get(pod["spec"].get("nodeName") or "")
            place = (namespace, pod["metadata"]["name"])
            if on is None or place in on.unready:
                continue
            names = {item.get("name") for item in pod["spec"].get("containers") or ()}
            used[place[1]] = {
                name: (Decimal(part.cpu_nanocores).scaleb(-9), Decimal(part.memory_bytes))
                for name, part in on.pods.get(place, {}).items()
                if name in names
            }
        found, faults = [], []
        for metric in scaler["spec"].get("metrics") or ():
            try:
                found.append(autoscale.measure(metric, current, pods, used))
            except MetricError as error:
                faults.append(error)
        return found, faults

    def _selector(self, kind: Kind, target: Json) -> selectors.LabelSelector | None:
        try:
            if not kind.custom:
                return selectors.from_object((target.get("spec") or {}).get("selector")) or None
            path = scale_paths(kind)[2]
            text = dig(target, path) if path else None
            return selectors.parse_labels(text) if isinstance(text, str) and text else None
        except selectors.BadSelector:
            return None

    async def _scale(self, scaler: Json, kind: Kind, target: Json, path: str, replicas: int) -> None:
        changed = put(target, path, replicas)
        metadata = target["metadata"]
        await self.resources.update(
            kind, metadata["namespace"], metadata["name"], changed, self.options, subresource="scale"
        )
        await self.event(scaler, "SuccessfulRescale", f"New size: {replicas}")
