"""Short ways to write pods and runtime states."""

from __future__ import annotations

import json
from typing import Any

from edgecore.edged import adopt
from edgecore.edged.pod import Pod
from edgecore.edged.podread import decode_pod
from edgecore.edged.runtime import (
    ANNOTATION_HASH,
    ANNOTATION_RESOURCES,
    ANNOTATION_RESTART_COUNT,
    ContainerState,
    ContainerStatus,
    SandboxStatus,
)

CREATED, RUNNING, EXITED, UNKNOWN = (
    ContainerState.CREATED,
    ContainerState.RUNNING,
    ContainerState.EXITED,
    ContainerState.UNKNOWN,
)


def raw(*containers: dict[str, Any], meta: dict[str, Any] | None = None, **spec: Any) -> bytes:
    return json.dumps(
        {
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", **(meta or {})},
            "spec": {"containers": list(containers) or [c()], **spec},
        }
    ).encode()


def make(*containers: dict[str, Any], meta: dict[str, Any] | None = None, **spec: Any) -> Pod:
    return decode_pod(raw(*containers, meta=meta, **spec))


def c(name: str = "c", **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": "i:1", **fields}


def box(*, ready: bool = True, attempt: int = 0, sid: str = "s0", host: bool = False) -> SandboxStatus:
    return SandboxStatus(
        id=sid,
        name="p",
        namespace="ns",
        uid="u",
        attempt=attempt,
        ready=ready,
        created_at=1.0,
        ips=("10.0.0.2",) if ready and not host else (),
        host_network=host,
    )


def ran(
    pod: Pod,
    name: str = "c",
    state: ContainerState = RUNNING,
    *,
    code: int = 0,
    count: int = 0,
    sid: str = "s0",
    at: float = 100.0,
    cid: str = "",
) -> ContainerStatus:
    return ContainerStatus(
        id=cid or f"{name}{count}",
        name=name,
        attempt=count,
        state=state,
        created_at=at,
        started_at=at,
        finished_at=at + 5 if state is EXITED else 0.0,
        exit_code=code,
        image="i:1",
        image_ref="sha256:1",
        sandbox_id=sid,
        annotations={
            ANNOTATION_RESTART_COUNT: str(count),
            ANNOTATION_RESOURCES: "{}",
            ANNOTATION_HASH: adopt.container_hash(pod.container(name)),
        },
    )
