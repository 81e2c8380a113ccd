"""Two listings of the runtime -> which pods to look at.  Pure.

A listing is only a hint: a pod named here is inspected before anything is decided.
Source: kubelet, pleg/generic.go, which turns (old state, new state) of each container into an event.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from edgecore.edged.runtime import LABEL_POD_UID, ContainerInfo, PodRuntime, SandboxInfo


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """States by pod UID and object id; sandboxes count as objects too."""

    pods: Mapping[str, Mapping[str, str]] = msgspec.field(default_factory=dict)


def listing(sandboxes: Iterable[SandboxInfo], containers: Iterable[ContainerInfo]) -> Listing:
    """Keep of a listing what events are made from.  Objects without a pod UID label are not a kubelet's: left out."""
    pods: dict[str, dict[str, str]] = {}
    for s in sandboxes:
        uid = s.labels.get(LABEL_POD_UID, "")
        if uid:
            pods.setdefault(uid, {})[s.id] = "ready" if s.ready else "notready"
    for c in containers:
        if c.uid:
            pods.setdefault(c.uid, {})[c.id] = c.state.value
    return Listing(pods=pods)


def states(runtime: PodRuntime) -> dict[str, str]:
    """One pod as it was read, in a listing's words."""
    return {
        **{s.id: "ready" if s.ready else "notready" for s in runtime.sandboxes},
        **{c.id: c.state.value for c in runtime.containers},
    }


def changed(old: Listing, new: Listing) -> set[str]:
    """UIDs of pods of which anything appeared, disappeared or changed its state."""
    if old.pods == new.pods:
        return set()
    return {uid for uid in old.pods.keys() | new.pods.keys() if old.pods.get(uid) != new.pods.get(uid)}
