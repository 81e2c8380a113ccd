"""Devices that pods claim, by an extended resource in a container's limits.  Pure.

    resources: {limits: {devices.skerry.dev/meter-a50285bi: 1}}

The name is that of a Device in the pod's own namespace that was made of found hardware.  The container gets exactly that device
node, at `/dev/skerry/<device>`, the same path wherever it is plugged in, and may read and write it without being privileged.  A
device is given to one pod at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from edgecore.edged.errors import Held
from edgecore.edged.pod import Container, Pod

PREFIX = "devices.skerry.dev/"
FOLDER = "/dev/skerry"
NOT_READY = "DeviceNotReady"


class HostDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A device node of this machine."""

    path: str
    major: int
    minor: int


Find = Callable[[str, str], HostDevice | str]
"""The device node of (namespace, device), or why there is none."""


def none(namespace: str, name: str) -> HostDevice | str:
    """A `Find` for a node without devices."""
    return f"there is no device {namespace}/{name} here: the part for devices is off"


class NotYet:
    """Hardware while nobody has looked at it."""

    def device(self, namespace: str, name: str) -> HostDevice | str:
        return f"it is not known yet whether device {namespace}/{name} is plugged in"

    def plugged_in(self) -> dict[str, int]:
        return {}


def claimed(container: Container) -> list[str]:
    """The devices that a container claims."""
    named = {*container.resources.limits, *container.resources.requests}
    return sorted(name.removeprefix(PREFIX) for name in named if name.startswith(PREFIX))


def claims(pod: Pod) -> frozenset[str]:
    """All devices that a pod claims."""
    containers = [*pod.spec.init_containers, *pod.spec.containers]
    return frozenset(device for container in containers for device in claimed(container))


def taken(pod: Pod, others: Iterable[Pod]) -> str:
    """Of what `pod` claims the first that another pod has, or an empty text."""
    wanted = claims(pod)
    if not wanted:
        return ""
    for other in others:
        if other.namespace == pod.namespace and (both := wanted & claims(other)):
            return min(both)
    return ""


def resolve(pod: Pod, container: Container, find: Find) -> list[tuple[str, HostDevice]]:
    """What a container is given: (path in it, device node).  Raises Held for what is not there now."""
    given = []
    for name in claimed(container):
        found = find(pod.namespace, name)
        if isinstance(found, str):
            raise Held(NOT_READY, found)
        given.append((f"{FOLDER}/{name}", found))
    return given


def stamp(given: Iterable[tuple[str, HostDevice]]) -> str:
    """What a container was given, to be compared with what it would be given now."""
    return " ".join(f"{inside}={device.path}={device.major}:{device.minor}" for inside, device in given)


def moved(pod: Pod, container: Container, stamped: str, find: Find) -> str:
    """Why a running container must be started again to reach its devices, or an empty text.

    One that is pulled out is no reason: the container sees that itself, and it may come back as it was."""
    if not stamped and not claimed(container):
        return ""
    try:
        now = stamp(resolve(pod, container, find))
    except Held:
        return ""
    return "" if now == stamped else "its device is plugged in under another device node"


def capacity(plugged_in: Mapping[str, int]) -> dict[str, str]:
    """As the Node tells it: 0 for what is away, so that a scheduler sends nobody for it."""
    return {f"{PREFIX}{name}": str(count) for name, count in sorted(plugged_in.items()) if len(name) <= 63}
