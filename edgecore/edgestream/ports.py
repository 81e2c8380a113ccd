"""What edgestream needs of the part that runs pods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from beehive import tunnel


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One container that the runtime has, running or ended.

    log: absolute path of its newest log file, or empty."""

    id: str
    attempt: int
    running: bool
    log: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerView:
    """A container of a pod: its instances, newest first, and why there is none if there is none."""

    name: str
    instances: tuple[Instance, ...] = ()
    waiting: str = ""
    tty: bool = False
    stdin: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """A pod as streams see it.  sandbox: id of the one that is ready, or empty; log_root: folder that holds all pods' logs."""

    namespace: str
    name: str
    uid: str
    sandbox: str
    containers: tuple[ContainerView, ...]
    log_root: str

    def container(self, name: str) -> ContainerView | None:
        return next((c for c in self.containers if c.name == name), None)


class Served(Protocol):
    """One stream that the cloud opened, whichever tunnel it came by.  What is async raises StreamReset when it is over."""

    head: tunnel.Head

    @property
    def has_answered(self) -> bool: ...

    @property
    def over(self) -> bool:
        """Whether the cloud, or the loss of the tunnel, ended it."""
        ...

    async def answer(self, answer: tunnel.Answer) -> None:
        """Answer, once, before the first byte."""
        ...

    async def read(self) -> bytes:
        """Bytes, at least one; empty at the end."""
        ...

    async def write(self, data: bytes | memoryview) -> None: ...

    async def end(self) -> None:
        """No more bytes from us."""
        ...


class StreamRuntime(Protocol):
    """Pods of this node and the runtime's streaming endpoints.  All raise SkerryError when the runtime is away."""

    async def pod(self, namespace: str, name: str) -> PodView | None:
        """The pod of that name, or None when this node has none."""
        ...

    async def running(self, container_id: str) -> bool:
        """Whether a container still runs; False when it is gone."""
        ...

    async def exec_url(
        self, container_id: str, command: Sequence[str], *, stdin: bool, stdout: bool, stderr: bool, tty: bool
    ) -> str:
        """Where the runtime waits for the client of a new exec."""
        ...

    async def attach_url(
        self, container_id: str, *, stdin: bool, stdout: bool, stderr: bool, tty: bool
    ) -> str:
        """Where the runtime waits for the client of an attach."""
        ...

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        """Where the runtime waits for the client of a port-forward.  ports: those a websocket client names in advance."""
        ...

    async def pods_json(self) -> bytes:
        """The pods of this node as a v1 PodList."""
        ...

    async def stats_json(self) -> bytes:
        """The node's stats/summary (stats/v1alpha1 Summary)."""
        ...

    async def metrics_text(self, path: str) -> bytes:
        """`metrics`, `metrics/resource`, `metrics/cadvisor` or `metrics/probes` in Prometheus' text format."""
        ...
