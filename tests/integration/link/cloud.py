"""A real cloudcore with its control plane, for tests of the link."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from beehive.errors import NotFound
from cloudcore import config as configuration
from cloudcore import kube
from cloudcore.identity import join
from cloudcore.identity.authority import ensure_authority
from cloudcore.kube import Kube
from cloudcore.objects import CONFIGMAP, DEVICE, DEVICEMODEL, EVENT, NODE, POD, SECRET, Kind, Object
from tests.fakes import edge
from tests.support.ports import free_port

CRDS = Path(__file__).parents[3] / "deploy" / "crds"
EDGE_LABELS = {"node-role.kubernetes.io/edge": "", "kubernetes.io/os": "linux"}


@dataclass(slots=True)
class Cloud:
    """`hub`: host:port.   api: a client of the control plane."""

    hub: str
    api: Kube
    ca: str

    async def token(self, **options: Any) -> str:
        made = await join.create_token(self.api, ttl=timedelta(hours=1), **options)
        return made.shown

    async def node(self, name: str, **options: Any) -> edge.Identity:
        """An identity made by joining."""
        return await edge.join(self.hub, self.ca, name, await self.token(**options))

    async def create(self, kind: Kind, body: dict[str, Any], namespace: str = "default") -> Object:
        full = {"apiVersion": kind.api_version, "kind": kind.kind, **body}
        return await self.api.create(kind, json.dumps(full).encode(), namespace if kind.namespaced else "")

    async def patch(self, kind: Kind, name: str, body: dict[str, Any], namespace: str = "default") -> Object:
        return await self.api.patch(
            kind, name, json.dumps(body).encode(), namespace if kind.namespaced else ""
        )


def node_body(name: str, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {**EDGE_LABELS, "kubernetes.io/hostname": name}, **metadata},
        "spec": {},
        "status": {},
    }


def pod_body(name: str, node: str, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "busybox"}], **spec},
    }


def write_config(
    folder: Path,
    hub_port: int,
    api_port: int,
    *,
    compat_port: int = 0,
    metrics_port: int = 0,
    stock_port: int = 0,
    hardware: int = 0,
    status_ms: int = 200,
) -> Path:
    """compat_port: where stock edges join, if they may.   stock_port: where their tunnels come then; 0: anywhere.
    metrics_port: where the hub's numbers are, if anywhere.   hardware: 1 to have the kinds of found hardware, too.
    status_ms: between two writes of one device's status."""
    path = folder / "cloudcore.yaml"
    names = ["devices", "devicemodels", "devicestatuses", *(["reliablesyncs"] if compat_port else [])]
    names += ["hardware", "devicecalls"] if hardware else []
    manifests = [str(CRDS / f"{name}.yaml") for name in names]
    path.write_text(
        json.dumps(
            {
                "dataDir": str(folder / "cloud"),
                "commonConfig": {
                    "monitorServer": {"bindAddress": f"127.0.0.1:{metrics_port}" if metrics_port else ""}
                },
                "modules": {
                    "cloudHub": {
                        "websocket": {"address": "127.0.0.1", "port": hub_port},
                        "https": {
                            "enable": bool(compat_port),
                            "address": "127.0.0.1",
                            "port": compat_port or 10002,
                        },
                    },
                    "deviceController": {"statusIntervalMs": status_ms},
                    "cloudStream": {"tunnelPort": stock_port},
                    "standalone": {
                        "enable": True,
                        "address": "127.0.0.1",
                        "port": api_port,
                        "manifests": manifests,
                    },
                },
            }
        )
    )
    return path


@dataclass(frozen=True, slots=True)
class Process:
    """A cloudcore that runs.   kubeconfig: its control plane's administrator."""

    hub: str
    kubeconfig: Path
    pid: int


@contextlib.contextmanager
def process(folder: Path, **options: int) -> Iterator[Process]:
    """Start cloudcore as users do, wait until the hub answers, and end it.   options: of `write_config`."""
    hub_port, api_port = free_port(), free_port()
    path = write_config(folder, hub_port, api_port, **options)
    with _running(folder, hub_port, ["--config", str(path), "--standalone"]) as child:
        yield Process(f"127.0.0.1:{hub_port}", configuration.load(path).admin_kubeconfig, child.pid)


@contextlib.contextmanager
def replica(
    folder: Path, kubeconfig: Path, *, streams: bool = False
) -> Iterator[tuple[Process, subprocess.Popen[bytes]]]:
    """One more cloudcore, at an API that is there.  It may be killed.   streams: it carries logs and exec."""
    hub_port, first = free_port(), free_port()
    path = folder / "cloudcore.yaml"
    path.write_text(
        json.dumps(
            {
                "commonConfig": {"monitorServer": {"bindAddress": ""}},
                "kubeAPIConfig": {"kubeConfig": str(kubeconfig)},
                "modules": {
                    "cloudHub": {"websocket": {"address": "127.0.0.1", "port": hub_port}},
                    "cloudStream": {"enable": streams, "firstPort": first, "lastPort": first + 50},
                },
            }
        )
    )
    with _running(folder, hub_port, ["--config", str(path)]) as child:
        yield Process(f"127.0.0.1:{hub_port}", kubeconfig, child.pid), child


@contextlib.contextmanager
def _running(folder: Path, hub_port: int, options: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "log").open("wb") as out:
        program = [sys.executable, "-m", "cloudcore.cli", "run", *options]
        child = subprocess.Popen(program, stdout=out, stderr=out, cwd=CRDS.parents[1])
        try:
            for _ in range(400):
                if child.poll() is not None:
                    raise AssertionError((folder / "log").read_text())
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", hub_port)) == 0:
                        break
                time.sleep(0.05)
            yield child
        finally:
            child.terminate()
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                raise
    assert child.returncode in (0, -signal.SIGKILL), (folder / "log").read_text()


@contextlib.asynccontextmanager
async def using(running: Process, *, clean: bool = True) -> AsyncIterator[Cloud]:
    """A client of it, and an empty cluster; or, unless `clean`, what is there."""
    api = Kube(kube.load(str(running.kubeconfig)))
    try:
        for kind in (NODE, POD, CONFIGMAP, SECRET, DEVICE, DEVICEMODEL, EVENT):
            for item in (await api.list_all(kind)).objects if clean else ():
                if item.namespace in ("", "default") and item.name != "kube-root-ca.crt":
                    with contextlib.suppress(NotFound):
                        await api.delete(kind, item.name, item.namespace, options=b'{"gracePeriodSeconds":0}')
        for record in await join.list_tokens(api) if clean else ():
            await join.revoke_token(api, record.id)  # names that were given lately are free again
        authority = await ensure_authority(api)
        yield Cloud(running.hub, api, ssl.DER_cert_to_PEM_cert(authority.der))
    finally:
        await api.close()
