"""A real cloud, a real link and store, and the local API in front of them; the pods' part is played by the test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import ssl
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudcore import config as configuration
from cloudcore import kube
from cloudcore.identity.authority import ensure_authority
from cloudcore.kube import Kube
from cloudcore.objects import POD, Kind
from edgecore.edgehub.certificate import Files, join, parse_token
from edgecore.edgehub.link import Link
from edgecore.metamanager.applications import CloudLink, HeldObjects
from edgecore.metamanager.manager import MetaManager
from edgecore.metamanager.store import Store
from edgecore.metaserver.module import MetaServer, MetaServerOptions
from tests.integration.link import cloud as clouds
from tests.integration.link.cloud import Cloud, node_body, pod_body
from tests.support.ports import free_port

NODE = "edge-1"
ACCOUNT = Kind("ServiceAccount", "serviceaccounts")
CONFIGMAP = Kind("ConfigMap", "configmaps")
DEPLOYMENT = Kind("Deployment", "deployments", "apps")
NODE_KIND = Kind("Node", "nodes", namespaced=False)
RBAC = "rbac.authorization.k8s.io"
ROLE = Kind("Role", "roles", RBAC)
BINDING = Kind("RoleBinding", "rolebindings", RBAC)
ROOT = Path(__file__).parents[3]
KUBECTL = shutil.which("kubectl")


@dataclass(slots=True)
class Edge:
    """The node's half.  `token`: of its pod `p`."""

    meta: MetaManager
    server: MetaServer
    folder: Path
    port: int
    token: str = ""

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def until(self, condition: Any, seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.02)

    def kubeconfig(self, token: str | None = None) -> Path:
        ca = self.folder / "pod-ca.crt"
        ca.write_bytes(self.server.trust.ca())
        path = self.folder / "kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [
                        {"name": "e", "cluster": {"server": self.url, "certificate-authority": str(ca)}}
                    ],
                    "users": [{"name": "p", "user": {"token": self.token if token is None else token}}],
                    "contexts": [
                        {"name": "c", "context": {"cluster": "e", "user": "p", "namespace": "default"}}
                    ],
                    "current-context": "c",
                }
            )
        )
        return path

    async def kubectl(
        self, *arguments: str, stdin: bytes = b"", token: str | None = None
    ) -> tuple[int, str, str]:
        """Exit code, output, errors."""
        assert KUBECTL is not None, "kubectl is on the machines that run this"
        home = self.folder / "kubectl-home"
        home.mkdir(exist_ok=True)
        process = await asyncio.create_subprocess_exec(
            KUBECTL,
            "--kubeconfig",
            str(self.kubeconfig(token)),
            "--request-timeout=20s",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "HOME": str(home)},
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()


class Stage:
    """`cloud` can be stopped and started again on the same ports and state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hub_port, self.api_port = free_port(), free_port()
        self.address = ""
        self.ca_hash = ""
        self.files = Files(folder / "pki")

    @contextlib.asynccontextmanager
    async def cloud(self) -> AsyncIterator[Cloud]:
        """A cloudcore with its control plane, in a process of its own."""
        config = clouds.write_config(self.folder, self.hub_port, self.api_port)
        program = [sys.executable, "-m", "cloudcore.cli", "run", "--config", str(config), "--standalone"]
        with (self.folder / "cloud.log").open("ab") as log:
            child = await asyncio.create_subprocess_exec(*program, stdout=log, stderr=log, cwd=ROOT)
        try:
            async with asyncio.timeout(30):
                while not await _listens(self.hub_port):
                    assert child.returncode is None, (self.folder / "cloud.log").read_text()
                    await asyncio.sleep(0.05)
            self.address = f"127.0.0.1:{self.hub_port}"
            kubeconfig = configuration.load(config).admin_kubeconfig
            api = Kube(kube.load(str(kubeconfig)))
            try:
                authority = await ensure_authority(api)
                self.ca_hash = authority.fingerprint
                yield Cloud(self.address, api, ssl.DER_cert_to_PEM_cert(authority.der))
            finally:
                await api.close()
        finally:
            child.terminate()
            async with asyncio.timeout(20):
                await child.wait()

    async def furnish(self, cloud: Cloud) -> None:
        """A node that joined, a pod on it, and what its account may do."""
        await join(
            self.files,
            node=NODE,
            addresses=[cloud.hub],
            token=parse_token(f"{self.ca_hash}.{await cloud.token()}"),
            remember=[cloud.hub],
        )
        await self.account(cloud)

    async def account(self, cloud: Cloud) -> None:
        """The node, the pod, and the account."""
        await cloud.create(NODE_KIND, node_body(NODE))
        await cloud.create(ACCOUNT, {"metadata": {"name": "ann"}})
        rules = [
            {
                "apiGroups": [""],
                "resources": ["configmaps", "pods", "pods/log"],
                "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"],
            },
            {
                "apiGroups": ["apps"],
                "resources": ["deployments", "deployments/scale"],
                "verbs": ["get", "list", "watch", "patch"],
            },
        ]
        await cloud.create(ROLE, {"metadata": {"name": "ann"}, "rules": rules})
        await cloud.create(
            BINDING,
            {
                "metadata": {"name": "ann"},
                "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "ann"},
                "subjects": [{"kind": "ServiceAccount", "name": "ann", "namespace": "default"}],
            },
        )
        await cloud.create(POD, pod_body("p", NODE, serviceAccountName="ann"))

    @contextlib.asynccontextmanager
    async def edge(
        self, *, port: int = 0, offline_writes: frozenset[str] = frozenset()
    ) -> AsyncIterator[Edge]:
        store = Store.open(self.folder / "edgecore.db")
        try:
            meta = MetaManager(store, NODE, query_s=10)
            await meta.load()
            link = Link(node=NODE, addresses=[self.address], tls=self.files.tls, peer=meta)
            meta.bind(link)
            options = MetaServerOptions(
                host="127.0.0.1",
                port=port,
                pki=self.folder / "pki",
                socket=self.folder / "metaserver.sock",
                offline_writes=offline_writes,
            )
            server = MetaServer(options, node=NODE, store=HeldObjects(meta), cloud=CloudLink(meta))
            meta.handlers["metaserver"] = server.pushed
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(part()) for part in (meta.run, link.run, server.run)]
                try:
                    async with asyncio.timeout(20):
                        await server.ready.wait()
                    yield Edge(meta, server, self.folder, server.port)
                finally:
                    for task in tasks:
                        task.cancel()
        finally:
            store.close()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


async def pod_token(edge: Edge) -> str:
    """The token that edged would put into the pod's volume."""
    await edge.until(lambda: edge.meta.online)
    pod: dict[str, Any] | None = None
    async with asyncio.timeout(30):
        while pod is None:
            raw = await edge.meta.get("pod", "default", "p")
            pod = json.loads(bytes(raw)) if raw is not None else None
            await asyncio.sleep(0.05)
    bound = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"]}
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": [], "expirationSeconds": 3607, "boundObjectRef": bound},
    }
    async with asyncio.timeout(30):
        while await edge.meta.get("serviceaccountaccess", "default", "ann") is None:
            await asyncio.sleep(0.05)
    answer = json.loads(await edge.meta.token("default", "ann", json.dumps(request).encode()))
    token: str = answer["status"]["token"]
    return token


def deployment(name: str, *, replicas: int) -> dict[str, Any]:
    labels = {"app": name}
    container = {"name": "c", "image": "skerry.local/busybox:1"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"metadata": {"name": name}, "spec": spec}


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": data}
