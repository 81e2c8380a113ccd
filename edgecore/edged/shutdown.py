"""What a machine that shuts down leaves its pods: in which order they end, and how long each may take.  Pure.

As in a kubelet: pods end by priority, those that a node cannot do without last, and each group has its own time.  What is
different is what becomes of them.  A kubelet calls every such pod Failed and leaves it to a controller in the cloud to make
another; a board may be without its cloud when it is back.  So a pod that would be started again after a power cut is ended
for the shutdown only and starts again, as the same pod, at the next boot; what never runs twice (restartPolicy Never) is
Failed with a kubelet's words.

Source: kubelet, nodeshutdown/nodeshutdown_manager.go (groupByPriority, migrateConfig).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from edgecore.edged import restarts
from edgecore.edged.admission import CRITICAL_PRIORITY
from edgecore.edged.pod import Pod
from edgecore.edged.status import Outcome

TERMINATED = Outcome(
    phase="Failed",
    reason="Terminated",
    message="Pod was terminated in response to imminent node shutdown.",
)
NODE_MESSAGE = "node is shutting down"


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """Pods of this priority and above, up to the next period's, have so long together."""

    priority: int
    seconds: int


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Pods that end together.  seconds: after that the next group's turn comes, whatever still runs."""

    seconds: int
    pods: tuple[Pod, ...]


def periods(total_s: int, critical_s: int) -> tuple[Period, ...]:
    """Of shutdownGracePeriod and shutdownGracePeriodCriticalPods, which is a part of it; none: pods are left alone."""
    if total_s <= 0:
        return ()
    critical_s = max(0, min(critical_s, total_s))
    return (
        Period(priority=0, seconds=total_s - critical_s),
        Period(priority=CRITICAL_PRIORITY, seconds=critical_s),
    )


def groups(pods: Iterable[Pod], times: Sequence[Period]) -> list[Group]:
    """In the order in which they end; those without pods are left out."""
    ordered = sorted(times, key=lambda t: t.priority)
    members: list[list[Pod]] = [[] for _ in ordered]
    for pod in pods:
        below = [i for i, t in enumerate(ordered) if t.priority <= (pod.spec.priority or 0)]
        if members:
            # lower than all of them: with the lowest
            members[below[-1] if below else 0].append(pod)
    return [
        Group(seconds=t.seconds, pods=tuple(found))
        for t, found in zip(ordered, members, strict=True)
        if found
    ]


def total_s(times: Sequence[Period]) -> int:
    """How long all of it may take."""
    return sum(t.seconds for t in times)


def returns(pod: Pod) -> bool:
    """Whether it runs again at the next boot: whether anything in it is started again that was cut off."""
    return any(restarts.app(pod, c, restarts.CUT_OFF) for c in pod.spec.containers)
