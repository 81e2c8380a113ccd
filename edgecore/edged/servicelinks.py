"""The variables that tell a container of its namespace's Services: REDIS_SERVICE_HOST, REDIS_PORT and their like.  Pure.

Source: kubelet, envvars/envvars.go (FromServices) and kubelet_pods.go (getServiceEnvVarMap).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

# What one Service may make of a container's environment; the API takes no more ports than that into one object anyway.
MAX_PORTS = 250


class _Meta(msgspec.Struct, frozen=True, kw_only=True):
    name: str


class _Port(msgspec.Struct, frozen=True, kw_only=True):
    port: int
    name: str | None = None
    protocol: str | None = None


class _Spec(msgspec.Struct, frozen=True, kw_only=True, rename={"cluster_ip": "clusterIP"}):
    cluster_ip: str | None = None
    ports: list[_Port] | None = None


class _Service(msgspec.Struct, frozen=True, kw_only=True):
    metadata: _Meta
    spec: _Spec = _Spec()


def variables(services: Iterable[bytes | msgspec.Raw], *, leave_out: str = "") -> dict[str, str]:
    """Of the Services (JSON) of one namespace, by name.  Those without an address of their own, or that cannot be read, give
    none.  leave_out: the name of one that containers are told of in another way."""
    found: dict[str, str] = {}
    for raw in services:
        try:
            service = msgspec.json.decode(raw, type=_Service)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            continue
        if service.metadata.name != leave_out and service.spec.cluster_ip not in (None, "", "None"):
            found |= _of_one(service.metadata.name, service.spec.cluster_ip or "", service.spec.ports or [])
    return found


def _of_one(name: str, address: str, ports: list[_Port]) -> dict[str, str]:
    if not ports or "\0" in address:
        return {}
    prefix = _upper(name)
    found = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(ports[0].port)}
    for port in ports[:MAX_PORTS]:
        if port.name:
            found[f"{prefix}_SERVICE_PORT_{_upper(port.name)}"] = str(port.port)
    shown = f"[{address}]" if ":" in address else address
    for i, port in enumerate(ports[:MAX_PORTS]):
        protocol = port.protocol or "TCP"
        url = f"{protocol.lower()}://{shown}:{port.port}"
        if i == 0:
            found[f"{prefix}_PORT"] = url
        link = f"{prefix}_PORT_{port.port}_{protocol.upper()}"
        found |= {
            link: url,
            f"{link}_PROTO": protocol.lower(),
            f"{link}_PORT": str(port.port),
            f"{link}_ADDR": address,
        }
    return found


def _upper(name: str) -> str:
    return name.upper().replace("-", "_")
