"""Who may run on this node: the owner's policy, and the room that there is."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping

from edgecore.edged import admission, policy
from edgecore.edged.config import EdgedConfig
from edgecore.edged.errors import RoomComing, VolumeError
from edgecore.edged.pod import Pod
from edgecore.edged.status import Outcome
from edgecore.edged.worker import Worker

log = logging.getLogger(__name__)


class Room:
    """Asked by each pod's worker before it starts.

    workers: of the pods that run here or should, in the order in which they came.  allocatable: nano-units by resource
    name.  pressures: the node's conditions that are on.  strict_groups: what the runtime can, as in admission.Room; None
    until it said so."""

    def __init__(
        self,
        config: EdgedConfig,
        *,
        workers: Callable[[], Collection[Worker]],
        allocatable: Callable[[], Mapping[str, int]],
        pressures: Callable[[], frozenset[str]],
        labels: Callable[[], Mapping[str, str]],
        strict_groups: Callable[[], bool | None],
    ) -> None:
        self._config = config
        self._workers = workers
        self._allocatable = allocatable
        self._pressures = pressures
        self._labels = labels
        self._strict_groups = strict_groups
        # UID of a critical pod -> those that end for it
        self._ending: dict[str, list[Worker]] = {}

    def permit(self, pod: Pod) -> Outcome | None:
        """Why this machine's owner forbids a pod, if so.  Raises PolicyError while the policy cannot be read."""
        # read each time: it is small, and a change needs no restart
        return policy.refuse(pod, policy.load(self._config.policy_file))

    def hold_path(self, pod: Pod, path: str) -> str:
        """What a path leads to, if only that may be used; empty where every path may.

        Blocking.  Raises VolumeError for one that the pod may not have, PolicyError."""
        rules = policy.load(self._config.policy_file)
        if rules.allow_host_paths is None or pod.namespace in rules.exempt_namespaces:
            return ""
        leads_to = os.path.realpath(path)
        refused = policy.refuse_path(pod, leads_to, policy.resolved(rules))
        if refused:
            raise VolumeError(refused)
        return leads_to

    def admit(self, worker: Worker) -> Outcome | None:
        """Why a pod may not run, if so; a critical one may end others for it.  Raises RoomComing until they have ended."""
        if not worker.runtime.sandboxes:
            refused = self.permit(worker.pod)
            if refused is not None:
                return refused
        if worker.old:
            return None
        if worker.pod.strict_groups and self._strict_groups() is None:
            raise RoomComing("waits until the runtime has said whether it can keep an image's groups away")
        uid = worker.pod.uid
        wanted = {w.pod.uid for w in self._workers()}
        self._ending = {critical: left for critical, left in self._ending.items() if critical in wanted}
        left = [w for w in self._ending.pop(uid, ()) if not w.ended]
        if not left:
            decision = self._decide(worker)
            if not decision.preempt:
                return decision.refused
            victims = {w.pod.uid: w for w in self._workers()}
            left = [victims[victim] for victim in decision.preempt]
            for victim in left:
                log.warning("Ending pod %s/%s for a critical one", victim.pod.namespace, victim.pod.name)
                victim.evict(admission.PREEMPTING, grace_s=victim.pod.grace_period_s)
        self._ending[uid] = left
        names = ", ".join(f"{w.pod.namespace}/{w.pod.name}" for w in left)
        raise RoomComing(f"waits until these have ended for it: {names}")

    def short(self, pod: Pod) -> str:
        """Why a pod that runs cannot have what it asks for now; empty when it can."""
        others = [w.granted for w in self._workers() if w.admitted and w.syncing and w.pod.uid != pod.uid]
        return admission.short(pod, others, self._room())

    def _room(self) -> admission.Room:
        return admission.Room(
            allocatable=self._allocatable(),
            max_pods=self._config.max_pods,
            pressures=self._pressures(),
            labels=self._labels(),
            strict_groups=bool(self._strict_groups()),
        )

    def _decide(self, worker: Worker) -> admission.Decision:
        others = {}
        for other in self._workers():
            # those that wait for their turn count only for who came after them
            if other is worker:
                break
            if other.syncing and not other.machine.absent:
                others[other.pod.uid] = other.granted
        others |= {w.pod.uid: w.granted for w in self._workers() if w.admitted and w.syncing}
        others.pop(worker.pod.uid, None)
        return admission.decide(worker.pod, list(others.values()), self._room())
