"""What a pod is given so that an unmodified in-cluster client finds the local API and trusts it.

Two things: the variables that every Kubernetes client reads (`service_env`), and the node's own authority beside the
cluster's in `kube-root-ca.crt` (`TrustingObjects`, which edged is given in place of the store).

Source: kubelet, envvars.FromServices; protocol notes on the metaserver, 6."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from beehive.message import UNREADABLE

ROOT_CA = "kube-root-ca.crt"
CA_KEY = "ca.crt"


def service_env(host: str, port: int) -> dict[str, str]:
    """The environment of the service `kubernetes`, as a kubelet gives it to every container; the pod's own variables win."""
    shown = f"[{host}]" if ":" in host else host
    address = f"tcp://{shown}:{port}"
    return {
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": str(port),
        "KUBERNETES_SERVICE_PORT_HTTPS": str(port),
        "KUBERNETES_PORT": address,
        f"KUBERNETES_PORT_{port}_TCP": address,
        f"KUBERNETES_PORT_{port}_TCP_PROTO": "tcp",
        f"KUBERNETES_PORT_{port}_TCP_PORT": str(port),
        f"KUBERNETES_PORT_{port}_TCP_ADDR": host,
    }


def trust(config_map: bytes, ca: bytes) -> bytes:
    """The ConfigMap `kube-root-ca.crt` with one more certificate (PEM).  One that cannot be read stays as it is."""
    try:
        found = msgspec.json.decode(config_map, type=dict[str, Any])
    except UNREADABLE:
        return config_map
    data = found.get("data")
    if not isinstance(data, dict) or not isinstance(data.get(CA_KEY), str):
        return config_map
    own = ca.decode("ascii")
    if own not in data[CA_KEY]:
        data[CA_KEY] = data[CA_KEY].rstrip("\n") + "\n" + own
    return msgspec.json.encode(found)


class Objects(Protocol):
    """edged's view of the store."""

    async def pods(self) -> list[msgspec.Raw]: ...

    async def get(self, kind: str, namespace: str, name: str) -> msgspec.Raw | None: ...

    async def known(self, kind: str, namespace: str) -> list[msgspec.Raw]: ...

    async def fetch(
        self, kind: str, namespace: str, name: str, *, fresh: bool = False
    ) -> msgspec.Raw | None: ...

    async def expanded(self, namespace: str, name: str, uid: str) -> None: ...

    async def token(self, namespace: str, service_account: str, request: bytes) -> bytes: ...


class TrustingObjects:
    """The same objects, but pods also trust this node's authority.  ca: empty as long as there is none."""

    def __init__(self, objects: Objects, ca: Callable[[], bytes]) -> None:
        self._objects = objects
        self._ca = ca

    async def pods(self) -> list[msgspec.Raw]:
        return await self._objects.pods()

    async def get(self, kind: str, namespace: str, name: str) -> msgspec.Raw | None:
        return self._trusting(kind, name, await self._objects.get(kind, namespace, name))

    async def known(self, kind: str, namespace: str) -> list[msgspec.Raw]:
        return await self._objects.known(kind, namespace)

    async def fetch(self, kind: str, namespace: str, name: str, *, fresh: bool = False) -> msgspec.Raw | None:
        found = await self._objects.fetch(kind, namespace, name, fresh=fresh)
        return self._trusting(kind, name, found)

    async def expanded(self, namespace: str, name: str, uid: str) -> None:
        await self._objects.expanded(namespace, name, uid)

    async def token(self, namespace: str, service_account: str, request: bytes) -> bytes:
        return await self._objects.token(namespace, service_account, request)

    def _trusting(self, kind: str, name: str, found: msgspec.Raw | None) -> msgspec.Raw | None:
        ca = self._ca()
        if found is None or not ca or (kind, name) != ("configmap", ROOT_CA):
            return found
        return msgspec.Raw(trust(bytes(found), ca))
