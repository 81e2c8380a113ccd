"""A stock KubeEdge edge from its join to its end, against the whole of cloudcore: what one was recorded to send is sent again,
and each answer has the shape that the stock hub gave."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from beehive.errors import NotFound
from beehive.message import Header, Message, Op, Route, raw
from cloudcore.identity.authority import SYSTEM_NAMESPACE, SecretData
from cloudcore.objects import CONFIGMAP, NAMESPACE, NODE, POD, SECRET, Object
from cloudcore.synccontroller import plan
from cloudcore.synccontroller.plan import CLUSTEROBJECTSYNC, OBJECTSYNC
from tests.fakes import edge
from tests.integration.compat.test_https import csr
from tests.integration.link.cloud import Cloud, Process, process, using
from tests.support.ports import free_port
from tests.vectors_kubeedge import lines

NODE_NAME = "vec-edge"
NAMESPACE_NAME = "vectors"
PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Running:
    process: Process
    compat: str


@pytest.fixture(scope="module")
def cloudcore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    port = free_port()
    with process(tmp_path_factory.mktemp("cloud"), compat_port=port) as running:
        yield Running(running, f"https://127.0.0.1:{port}")


def sessions() -> list[list[dict[str, Any]]]:
    """The recorded frames of each connection, each with its direction in `dir`."""
    found: list[list[dict[str, Any]]] = []
    for line in lines("hub.jsonl"):
        if line["dir"] == "open":
            found.append([])
        elif line.get("opcode") == "text":
            found[-1].append({"dir": line["dir"], **json.loads(line["text"])})
    return found


def shape(content: Any) -> Any:
    """Which of the catalogue's forms a content has, and whether it is a failure."""
    if content == "OK":
        return "OK"
    if isinstance(content, dict):
        if set(content) == {"Object", "Err"}:
            return ("ObjectResp", content["Err"] is None)
        if set(content) == {"ErrStatus"}:
            return ("ErrStatus", content["ErrStatus"].get("code"))
        if "Verb" in content:
            return ("Application", sorted(content))
        return ("object", content.get("kind"))
    return type(content).__name__


@dataclass(slots=True)
class Stock:
    """A stock edge that says again what one said.   swaps: what is called otherwise here (uids)."""

    cloud: Cloud
    identity: edge.Identity
    swaps: dict[str, str] = field(default_factory=dict)
    compared: list[str] = field(default_factory=list)
    lease: dict[str, str] = field(default_factory=dict)

    def message(self, frame: dict[str, Any]) -> Message:
        content = frame["content"]
        if (
            frame["route"]["resource"].startswith("kube-node-lease/")
            and frame["route"]["operation"] == "update"
        ):
            content["metadata"].update(self.lease)
        text = json.dumps(content)
        for old, new in self.swaps.items():
            text = text.replace(old, new)
        route = {key: frame["route"].get(key, "") for key in ("source", "group", "operation", "resource")}
        header = Header(msg_id=frame["header"]["msg_id"], timestamp=frame["header"]["timestamp"])
        return Message(header=header, route=Route(**route), content=raw(text.encode()))

    async def replay(self, link: edge.Edge, frame: dict[str, Any], answer: dict[str, Any] | None) -> None:
        """Send one frame; if the stock hub answered it, compare the answers."""
        message = self.message(frame)
        if answer is None:
            await link.send(message)
            return
        got = await link.ask(message)
        where = f"{message.route.operation} {message.route.resource}"
        for part in ("source", "group", "operation", "resource"):
            assert getattr(got.route, part) == answer["route"].get(part, ""), (
                f"{part} of the answer to {where}"
            )
        content = json.loads(bytes(got.content))
        assert shape(content) == shape(answer["content"]), where
        self.compared.append(where)
        if isinstance(content, dict) and (content.get("Object") or {}).get("kind") == "Lease":
            meta = content["Object"]["metadata"]
            self.lease = {key: meta[key] for key in ("uid", "resourceVersion")}

    async def make(self, kind: Any, name: str, body: dict[str, Any]) -> Object:
        full = {"metadata": {"name": name}, **body}
        return await self.cloud.create(kind, full, NAMESPACE_NAME if kind is not NAMESPACE else "")

    async def pod(self, name: str, old_uid: str, **spec: Any) -> Object:
        made = await self.make(
            POD,
            name,
            {
                "spec": {
                    "nodeName": NODE_NAME,
                    "containers": [{"name": "c", "image": "busybox", **spec.pop("container", {})}],
                    **spec,
                }
            },
        )
        self.swaps[old_uid] = made.uid
        return made

    async def syncs(self) -> dict[str, str]:
        """path → acknowledged version, of this node."""
        found = {}
        for kind in (OBJECTSYNC, CLUSTEROBJECTSYNC):
            for item in (await self.cloud.api.list_all(kind)).objects:
                record = plan.read(item)
                assert record is not None, item.name
                if record.node == NODE_NAME:
                    found[record.path] = record.version
        return found

    async def until_synced(self, path: str, version: str | None) -> dict[str, str]:
        async with asyncio.timeout(PATIENCE_S):
            while (held := await self.syncs()).get(path) != version:
                await asyncio.sleep(0.05)
        return held


async def join(cloud: Cloud, compat: str) -> edge.Identity:
    """As keadm and edgecore do it; see the protocol notes on the hub, 2.2 to 2.4."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                secret = await cloud.api.get(SECRET, "tokensecret", SYSTEM_NAMESPACE)
                break
            except NotFound:
                await asyncio.sleep(0.05)
    digest, _, jwt = secret.decode(SecretData).bytes("tokendata").decode().partition(".")
    request, key = csr(NODE_NAME)
    async with aiohttp.ClientSession() as client:
        async with client.get(f"{compat}/node/{NODE_NAME}", ssl=False) as answer:
            assert answer.status == 404
        async with client.get(f"{compat}/ca.crt", ssl=False) as answer:
            ca = await answer.read()
            assert hashlib.sha256(ca).hexdigest() == digest
        trust = ssl.create_default_context(cadata=ssl.DER_cert_to_PEM_cert(ca))
        headers = {"NodeName": NODE_NAME, "Authorization": f"Bearer {jwt}"}
        async with client.get(f"{compat}/edge.crt", headers=headers, data=request, ssl=trust) as answer:
            assert answer.status == 200, await answer.text()
            certificate = x509.load_der_x509_certificate(await answer.read())
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return edge.Identity(node=NODE_NAME, ca=ssl.DER_cert_to_PEM_cert(ca), certificate=pem, key=key)


def test_a_recorded_edge_lives_its_life_here(cloudcore: Running) -> None:
    first, second = sessions()
    recorded_uids = {
        frame["route"]["resource"].rpartition("/")[2]: frame["content"]["metadata"]["uid"]
        for frame in [*first, *second]
        if frame["dir"] == "down"
        and "/pod/p" in frame["route"]["resource"]
        and isinstance(frame["content"], dict)
        and "metadata" in frame["content"]
    }
    answers = {
        frame["header"]["parent_msg_id"]: frame
        for frame in [*first, *second]
        if frame["dir"] == "down" and frame["header"].get("parent_msg_id")
    }

    async def play(stock: Stock, link: edge.Edge, frames: list[dict[str, Any]], prepare: Any) -> None:
        for frame in frames:
            route = frame["route"]
            if frame["dir"] != "up" or frame["header"].get("parent_msg_id") or route["source"] == "twin":
                continue  # acknowledgements are the fake's own; twins have tests of their own
            await prepare(route["resource"])
            await stock.replay(link, frame, answers.get(frame["header"]["msg_id"]))

    async def live(stock: Stock) -> None:
        """The first connection: register, pods, queries, reports."""
        async with edge.connected(stock.cloud.hub, stock.identity, ours=False) as link:

            async def prepare(path: str) -> None:
                if path == f"kube-node-lease/lease/{NODE_NAME}" and f"null/node/{NODE_NAME}" in link.paths():
                    node = await stock.cloud.api.get(NODE, NODE_NAME)
                    old = next(
                        f
                        for f in first
                        if f["route"]["resource"] == path and f["route"]["operation"] == "insert"
                    )
                    stock.swaps[old["content"]["metadata"]["ownerReferences"][0]["uid"]] = node.uid
                for name in ("p1", "p2", "p3"):
                    if path == f"vectors/podpatch/{name}" and f"vectors/pod/{name}" not in link.paths():
                        await stock.pod(name, recorded_uids[name], **SPECS[name])
                        await link.until(
                            lambda it, name=name: f"vectors/pod/{name}" in it.paths(), PATIENCE_S
                        )

            await play(stock, link, first, prepare)
            pushed = [m for m in link.pushes if m.route.resource == "vectors/pod/p1"]
            like = next(f for f in first if f["dir"] == "down" and f["route"]["resource"] == "vectors/pod/p1")
            assert pushed[0].route.operation == like["route"]["operation"] == Op.INSERT
            assert pushed[0].route.source == like["route"]["source"]
            assert set(json.loads(bytes(pushed[0].content))) >= {
                "kind",
                "apiVersion",
                "metadata",
                "spec",
                "status",
            }
            assert pushed[0].version == json.loads(bytes(pushed[0].content))["metadata"]["resourceVersion"]
            for path, entry in link.held.items():
                assert entry.version, path
            held = {entry.resource: entry.version for entry in link.held.values()}
            for path, version in held.items():
                if path.split("/")[1] in ("pod", "configmap", "secret"):
                    await stock.until_synced(path, version)

    async def away(stock: Stock) -> None:
        api = stock.cloud.api
        await api.delete(POD, "p2", NAMESPACE_NAME, options=b'{"gracePeriodSeconds":0}')
        await api.patch(CONFIGMAP, "cm1", b'{"data":{"a":"new"}}', NAMESPACE_NAME)

    async def again(stock: Stock) -> None:
        """The second: told what changed and nothing else; a pod goes with grace."""
        async with edge.connected(stock.cloud.hub, stock.identity, ours=False) as link:
            await link.until(lambda it: it.pushed(Op.DELETE, "vectors/pod/p2"), PATIENCE_S)
            await link.until(lambda it: it.pushed(Op.UPDATE, "vectors/configmap/cm1"), PATIENCE_S)
            gone = json.loads(bytes(link.pushed(Op.DELETE, "vectors/pod/p2")[0].content))["metadata"]
            assert gone["uid"] == stock.swaps[recorded_uids["p2"]]
            await stock.until_synced("vectors/pod/p2", None)
            # service accounts' rights are worked out anew and told at each connect
            told = {m.route.resource for m in link.pushes if "/serviceaccountaccess/" not in m.route.resource}
            assert told == {"vectors/pod/p2", "vectors/configmap/cm1"}, (
                "what it acknowledged is not sent again"
            )

            reports = sum(
                f["dir"] == "up" and f["route"]["resource"] == "vectors/podpatch/p1" for f in second
            )
            seen = 0

            async def prepare(path: str) -> None:
                nonlocal seen
                seen += path == "vectors/podpatch/p1"
                if seen == reports and not link.pushed(Op.UPDATE, "vectors/pod/p1"):
                    # the last report says that it has ended
                    await stock.cloud.api.delete(POD, "p1", NAMESPACE_NAME)
                    await link.until(lambda it: it.pushed(Op.UPDATE, "vectors/pod/p1"), PATIENCE_S)

            await play(stock, link, second, prepare)
            await link.until(lambda it: it.pushed(Op.DELETE, "vectors/pod/p1"), PATIENCE_S)
            await stock.until_synced("vectors/pod/p1", None)

    async def go() -> None:
        async with using(cloudcore.process) as cloud, asyncio.timeout(120):
            stock = Stock(cloud, await join(cloud, cloudcore.compat))
            await stock.make(NAMESPACE, NAMESPACE_NAME, {})
            await stock.make(CONFIGMAP, "cm1", {"data": {"a": "old"}})
            await stock.make(CONFIGMAP, "openshift-service-ca.crt", {})
            await stock.make(SECRET, "s1", {"data": {"k": base64.b64encode(b"v").decode()}})
            await live(stock)
            await away(stock)
            await again(stock)
            kinds = {f"{where}/".split("/")[1] for where in stock.compared}
            assert kinds >= {
                "lease",
                "node",
                "nodepatch",
                "podpatch",
                "pod",
                "secret",
                "configmap",
                "serviceaccounttoken",
            }
            assert len(stock.compared) > 30
            await cloud.api.delete(NODE, NODE_NAME)
            async with asyncio.timeout(PATIENCE_S):
                while await stock.syncs():
                    await asyncio.sleep(0.05)

    asyncio.run(go())


SPECS: dict[str, dict[str, Any]] = {
    "p1": {
        "container": {"envFrom": [{"configMapRef": {"name": "cm1"}}]},
        "volumes": [
            {"name": "s", "secret": {"secretName": "s1"}},
            {
                "name": "t",
                "projected": {
                    "sources": [
                        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                        {"configMap": {"name": "kube-root-ca.crt"}},
                        {"configMap": {"name": "openshift-service-ca.crt"}},
                    ]
                },
            },
        ],
    },
    "p2": {"restartPolicy": "Never"},
    "p3": {"container": {"envFrom": [{"configMapRef": {"name": "absent"}}]}},
}
