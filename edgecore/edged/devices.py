"""Devices that plugins offer to containers: how many there are, and which container has which.  Pure.

Source: kubelet, cm/devicemanager/manager.go (devicesToAllocate, GetCapacity), pod_devices.go.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

import msgspec

from edgecore.edged import quantity
from edgecore.edged.errors import Held
from edgecore.edged.pod import Container, Pod

# A plugin is a program of root's; these only keep a broken one from filling memory.
MAX_RESOURCES, MAX_DEVICES, MAX_ID = 64, 4096, 512
HELD = "UnexpectedAdmissionError"
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z")

Grants = dict[str, dict[str, dict[str, tuple[str, ...]]]]
"""Pod UID -> container -> resource -> device ids."""


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """numa: nodes of the machine that it is near to."""

    healthy: bool
    numa: tuple[int, ...] = ()


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What a container may get of one resource.

    has: given to it before; then nothing else is chosen.  first: those that this pod's init containers had.
    free: all others that are healthy and nobody's.
    """

    count: int
    has: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    free: tuple[str, ...] = ()

    def by_order(self) -> tuple[str, ...]:
        """For a plugin without a preference."""
        return self.has or (*self.first, *self.free)[: self.count]


def valid_name(name: str) -> bool:
    """Whether a plugin may offer a resource of that name: `<domain>/<name>`, and neither Kubernetes' own nor ours."""
    domain = name.partition("/")[0]
    return (
        len(name) <= 253
        and bool(_NAME.match(name))
        and domain not in ("kubernetes.io", "devices.skerry.dev")
        and not domain.endswith(".kubernetes.io")
        and not name.startswith("requests.")
    )


def wanted(container: Container) -> dict[str, int]:
    """Counts by resource of what may come from a plugin."""
    found = {}
    for name, amount in container.resources.limits.items():
        if valid_name(name):
            found[name] = quantity.units(quantity.parse(amount))
    return {name: count for name, count in found.items() if count > 0}


class Book(msgspec.Struct):
    """All devices of this machine and who has them.

    resources: as their plugins said last; a plugin that is away leaves its devices unhealthy.
    """

    resources: dict[str, dict[str, Device]] = msgspec.field(default_factory=dict)
    grants: Grants = msgspec.field(default_factory=dict)

    def learn(self, resource: str, devices: Mapping[str, Device]) -> None:
        """What a plugin says now."""
        self.resources[resource] = dict(devices)

    def lost(self, resource: str) -> None:
        """Its plugin went away: nothing new is given of it until it is back."""
        known = self.resources.get(resource, {})
        self.resources[resource] = {i: Device(healthy=False, numa=d.numa) for i, d in known.items()}

    def forget(self, resource: str) -> None:
        """Its plugin stays away.  The name is remembered, so that its count is told as 0."""
        self.resources[resource] = {}

    def counts(self) -> dict[str, tuple[int, int]]:
        """Capacity and allocatable by resource."""
        return {
            name: (len(devices), sum(d.healthy for d in devices.values()))
            for name, devices in sorted(self.resources.items())
        }

    def keep_only(self, uids: Collection[str]) -> bool:
        """Take back what pods had that are no more; True when that was something."""
        gone = [uid for uid in self.grants if uid not in uids]
        for uid in gone:
            del self.grants[uid]
        return bool(gone)

    def choose(self, pod: Pod, container: Container, resource: str, count: int) -> Choice | None:
        """What a container may get.  None for a resource of which no plugin ever spoke: then it is not a device.

        Raises Held while there is not enough of it.
        """
        devices = self.resources.get(resource)
        own = self.grants.get(pod.uid, {})
        has = own.get(container.name, {}).get(resource)
        if devices is None and has is None:
            return None
        devices = devices or {}
        if has is not None:
            bad = [i for i in has if not (d := devices.get(i)) or not d.healthy]
            if bad:
                raise Held(HELD, f"Allocate failed due to no healthy device for {resource}: {bad[0][:64]}")
            return Choice(count=count, has=has)
        early = {c.name for c in pod.spec.init_containers if not pod.is_sidecar(c)}
        taken = {
            i
            for uid, of_pod in self.grants.items()
            for name, given in of_pod.items()
            if uid != pod.uid or name not in early
            for i in given.get(resource, ())
        }
        reusable = {i for name in early for i in own.get(name, {}).get(resource, ())}
        free = sorted(i for i, d in devices.items() if d.healthy and i not in taken)
        first = tuple(i for i in free if i in reusable)
        rest = tuple(i for i in free if i not in reusable)
        if len(free) < count:
            raise Held(
                HELD,
                f"Allocate failed due to requested number of devices unavailable for {resource}. "
                f"Requested: {count}, Available: {len(free)}, which is unexpected",
            )
        return Choice(count=count, first=first, free=rest)

    def take(self, uid: str, container: str, resource: str, ids: Iterable[str]) -> None:
        self.grants.setdefault(uid, {}).setdefault(container, {})[resource] = tuple(ids)

    def give_back(self, uid: str, container: str, resource: str) -> None:
        """It was not given after all."""
        self.grants.get(uid, {}).get(container, {}).pop(resource, None)


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    grants: Grants = {}
    resources: list[str] = []


def encode(book: Book) -> bytes:
    """What must outlive the agent: who has what, and which resources are devices."""
    return msgspec.json.encode(_Kept(grants=book.grants, resources=sorted(book.resources)))


def decode(row: bytes | None) -> Book:
    try:
        kept = msgspec.json.decode(row, type=_Kept) if row else _Kept()
    except (msgspec.MsgspecError, RecursionError):
        kept = _Kept()
    return Book(resources={name: {} for name in kept.resources}, grants=kept.grants)
