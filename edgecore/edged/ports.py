"""What edged needs from the rest of edgecore.  metamanager hands these in; nothing here touches the network by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import msgspec

from beehive import clock
from edgecore.edged.csi import Published, Wanted
from edgecore.edged.errors import VolumeError
from edgecore.edged.pod import Container, Pod
from edgecore.edged.runtime import Given


class Objects(Protocol):
    """What this node should run.  Always local (SQLite) unless a method says otherwise."""

    async def pods(self) -> list[msgspec.Raw]:
        """Every pod desired on this node as JSON, those being deleted included.

        Raises Unavailable while the list is not known for sure (a store that was rebuilt and has not heard from the
        cloud yet): an empty list means that the node should run nothing, and edged acts on it.
        """
        ...

    async def get(self, kind: str, namespace: str, name: str) -> msgspec.Raw | None:
        """One object ("configmap", "secret", "service", "node", ...) if it is here."""
        ...

    async def known(self, kind: str, namespace: str) -> list[msgspec.Raw]:
        """All of a kind in a namespace that are here.  Raises Unavailable (the disk)."""
        ...

    async def fetch(self, kind: str, namespace: str, name: str, *, fresh: bool = False) -> msgspec.Raw | None:
        """One object: local first, else from the cloud, in bounded time.  fresh: from the cloud first.

        None when it does not exist.  Raises Unavailable when it is not here and the cloud cannot be asked.
        """
        ...

    async def expanded(self, namespace: str, name: str, uid: str) -> None:
        """The node's side of a claim's volume has the volume's size by now: tell the claim.

        Raises Unavailable, Refused, NotFound."""
        ...

    async def token(self, namespace: str, service_account: str, request: bytes) -> bytes:
        """TokenRequest JSON in, the same with its status out; stored and refreshed.  Raises Unavailable."""
        ...


class Reports(Protocol):
    """What happened.  Durable (outbox) when the call returns."""

    async def pod_status(self, namespace: str, name: str, uid: str, status: bytes) -> None:
        """The whole PodStatus as JSON; the newest wins for each UID."""
        ...

    async def pod_gone(self, namespace: str, name: str, uid: str) -> None:
        """The pod is terminated and cleaned up: delete it at the API (grace 0, UID precondition)."""
        ...

    async def event(self, event: bytes) -> None:
        """A core/v1 Event as JSON.  One that repeats comes with the same name and a higher count: create or update."""
        ...


class State(Protocol):
    """Small durable facts of edged: back-off, restart counts, last terminations."""

    async def load(self, key: str) -> bytes | None: ...

    async def save(self, key: str, value: bytes) -> None: ...

    async def drop(self, key: str) -> None: ...


class Plugins(Protocol):
    """Hardware that device plugins offer."""

    async def allocate(self, pod: Pod, container: Container) -> Given:
        """What a container gets with the devices that it asks for.  Raises Held while it cannot have them."""
        ...


class NoPlugins:
    """No plugin is listened to: extended resources are numbers and nothing else."""

    async def allocate(self, pod: Pod, container: Container) -> Given:
        """Nothing."""
        del pod, container
        return Given()


class Storage(Protocol):
    """Volumes of CSI drivers."""

    async def publish(self, pod: Pod, root: Path, wanted: Wanted) -> Published:
        """Mount a volume for a pod, whose folder is in root; where it is then.  May be repeated.  Raises VolumeError."""
        ...

    async def expand(self, pod: Pod, root: Path, wanted: Wanted) -> bool:
        """Let what is published have the size of its volume; False when its driver cannot.  May be repeated.

        Raises VolumeError."""
        ...

    async def unpublish(self, uid: str, root: Path) -> None:
        """Take all of a pod's away.  May be repeated.  Raises VolumeError."""
        ...


class NoStorage:
    """No driver is listened to."""

    async def publish(self, pod: Pod, root: Path, wanted: Wanted) -> Published:
        """Raises VolumeError."""
        del pod, root
        raise VolumeError(
            f"driver name {wanted.driver} not found: this node listens to no plugins (modules.edged.pluginDirectory)"
        )

    async def expand(self, pod: Pod, root: Path, wanted: Wanted) -> bool:
        """There are none."""
        del pod, root, wanted
        return False

    async def unpublish(self, uid: str, root: Path) -> None:
        """There are none."""


class Clock(Protocol):
    """Two clocks, so that tests can turn them."""

    def now(self) -> float:
        """Unix seconds; may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow, sleep included."""
        ...


class SystemClock:
    """The machine's clocks, right or wrong: what is seen here is compared with times that the runtime wrote."""

    def now(self) -> float:
        return clock.machine_ms() / 1000.0

    def monotonic(self) -> float:
        return clock.monotonic()
