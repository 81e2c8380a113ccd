"""What a node with a good certificate asks for and may not have: A03, A07, A10, A12, A14, A15, A16, M08; over the real hub."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from websockets.exceptions import ConnectionClosed

from beehive import application, codec, session
from beehive.message import JoinAnswer, JoinRequest, Op, Source, new
from tests.e2e.skerry import eventually
from tests.fakes import edge
from tests.faults.stage import BACK_S, Stage
from tests.faults.test_hostile import in_hub


async def answered(link: edge.Edge, operation: str, path: str, content: Any, timeout_s: float = 3.0) -> bytes:
    """What a request is answered with; nothing when it is not answered."""
    with contextlib.suppress(TimeoutError):
        question = new(source=Source.EDGED, group="meta", operation=operation, resource=path, content=content)
        answer = await link.ask(question, timeout_s)
        return answer.route.operation.encode() + bytes(answer.content)
    return b""


def is_refusal(answer: bytes) -> bool:
    return not answer or answer.startswith(b"error") or b'"Failure"' in answer


# -- A03


def wishes() -> dict[str, str]:
    """Signing requests that ask for more, by what they ask for; PEM."""
    good = edge.new_key()

    def made(
        *, name: str = "x", group: str = "y", key: Any = good, more: tuple[x509.ExtensionType, ...] = ()
    ) -> str:
        subject = [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, group),
        ]
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
        for extension in more:
            builder = builder.add_extension(extension, critical=True)
        algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM).decode()

    names = x509.SubjectAlternativeName([x509.DNSName("kubernetes"), x509.DNSName("*")])
    forged = made()
    body = bytearray(base64.b64decode("".join(forged.splitlines()[1:-1])))
    body[-6] ^= 0xFF
    text = base64.encodebytes(bytes(body)).decode()
    return {
        "another node": made(name="system:node:edge-1", group="system:nodes"),
        "masters": made(name="admin", group="system:masters"),
        "names": made(more=(names,)),
        "authority": made(more=(x509.BasicConstraints(ca=True, path_length=None),)),
        "server": made(more=(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),)),
        "weak": made(key=rsa.generate_private_key(public_exponent=65537, key_size=1024)),
        "odd curve": made(key=ec.generate_private_key(ec.SECP521R1())),
        "bad signature": f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n",
        "nothing": "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n",
    }


REFUSED = {"weak", "odd curve", "bad signature", "nothing"}


def test_a03_a_signing_request_asks_for_more(stage: Stage) -> None:
    ca = (stage.edge / "pki" / "ca.pem").read_text()

    async def go() -> None:
        token = stage.token(uses=str(len(wishes()))).split(".", 1)[1]
        for number, (wish, request) in enumerate(wishes().items()):
            node = f"edge-w{number}"
            answer = await edge.ask_to_join(stage.hub, ca, JoinRequest(node=node, token=token, csr=request))
            if wish in REFUSED:
                assert answer.route.operation == Op.ERROR, wish
                continue
            assert answer.route.operation == Op.RESPONSE, (wish, bytes(answer.content))
            leaf = x509.load_pem_x509_certificate(answer.decode(JoinAnswer).certificate.encode())
            assert leaf.subject.rfc4514_string() == f"CN=system:node:{node},O=system:nodes", wish
            usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH], wish
            assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca, wish
            oids = [one.oid for one in leaf.extensions]
            assert ExtensionOID.SUBJECT_ALTERNATIVE_NAME not in oids, wish

    asyncio.run(go())

    async def attack(who: edge.Identity) -> None:
        async with edge.connected(stage.hub, who) as link:
            for name, group in (
                ("system:node:edge-1", "system:nodes"),
                ("system:node:edge-x", "system:masters"),
            ):
                request = base64.b64encode(edge.csr(edge.new_key(), name, group).encode()).decode()
                content = {
                    "metadata": {"name": "metaserver-csr-edge-x"},
                    "spec": {
                        "signerName": "kubernetes.io/kubelet-serving",
                        "request": request,
                        "usages": ["server auth"],
                    },
                }
                answer = await answered(
                    link, Op.INSERT, "default/certificatesigningrequest/metaserver-csr-edge-x", content
                )
                assert is_refusal(answer), answer

    in_hub(stage, attack)
    assert stage.skerry.get("csr")["items"] == []


# -- A07, A10, A12, A15, A16


def test_a07_volumes_and_claims_of_others(stage: Stage) -> None:
    objects: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": "theirs"},
            "spec": {
                "capacity": {"storage": "1Mi"},
                "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": "/nowhere-mark"},
                "claimRef": {"kind": "PersistentVolumeClaim", "namespace": "default", "name": "theirs"},
                "storageClassName": "",
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "theirs", "namespace": "default", "annotations": {"mark": "nowhere-mark"}},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Mi"}},
                "volumeName": "theirs",
                "storageClassName": "",
            },
        },
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "VolumeAttachment",
            "metadata": {"name": "theirs", "annotations": {"mark": "nowhere-mark"}},
            "spec": {"attacher": "a", "nodeName": "edge-1", "source": {"persistentVolumeName": "theirs"}},
        },
    ]
    for one in objects:
        stage.skerry.kubectl("apply", "-f", "-", stdin=json.dumps(one))
    kinds = {
        "persistentvolume": "null/persistentvolume/theirs",
        "persistentvolumeclaim": "default/persistentvolumeclaim/theirs",
        "volumeattachment": "null/volumeattachment/theirs",
    }
    before = {kind: stage.skerry.get(kind, "theirs")["spec"] for kind in kinds}

    async def attack(who: edge.Identity) -> None:
        async with edge.connected(stage.hub, who) as link:
            for kind, path in kinds.items():
                for where in (path, path.rpartition("/")[0]):
                    answer = await answered(link, Op.QUERY, where, None)
                    assert b"nowhere-mark" not in answer, (where, answer)
                    assert is_refusal(answer), (where, answer)
                for operation in (Op.INSERT, Op.UPDATE, Op.PATCH, Op.DELETE, "createvolume", "deletevolume"):
                    answer = await answered(link, operation, path, {"spec": {"nodeName": "edge-x"}}, 1)
                    assert is_refusal(answer) or b"nowhere-mark" not in answer, (operation, kind, answer)
            assert not any("theirs" in path for path in link.paths())

    try:
        in_hub(stage, attack)
        assert {kind: stage.skerry.get(kind, "theirs")["spec"] for kind in kinds} == before
    finally:
        for kind in reversed(kinds):
            stage.skerry.kubectl("delete", kind, "theirs", "--wait=false", "--ignore-not-found")


def mirror(name: str, uid: str, **spec: Any) -> dict[str, Any]:
    owner = {"apiVersion": "v1", "kind": "Node", "name": "edge-x", "uid": uid, "controller": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "annotations": {"kubernetes.io/config.mirror": "x"},
            "ownerReferences": [owner],
        },
        "spec": {"nodeName": "edge-x", "containers": [{"name": "c", "image": "i"}], **spec},
    }


def test_a10_a12_pods_that_it_makes_and_its_own_node(stage: Stage) -> None:
    stage.skerry.kubectl(
        "apply",
        "-f",
        "-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "edge-x"}}),
    )
    uid = stage.skerry.get("node", "edge-x")["metadata"]["uid"]
    secret = {"name": "v", "secret": {"secretName": "hello"}}
    claim = {"name": "v", "persistentVolumeClaim": {"claimName": "theirs"}}
    plain = mirror("planted", uid)
    del plain["metadata"]["annotations"]
    bad: list[dict[str, Any]] = [
        plain,
        mirror("planted", "another"),
        mirror("planted", uid, serviceAccountName="default"),
        mirror("planted", uid, volumes=[secret]),
        mirror("planted", uid, volumes=[claim]),
        mirror("planted", uid, nodeName="edge-1"),
        mirror("planted", uid, resourceClaims=[{"name": "x"}]),
    ]
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "herd-1", "uid": "x"}

    async def attack(who: edge.Identity) -> None:
        async with edge.connected(stage.hub, who) as link:
            for body in bad:
                answer = await answered(link, Op.INSERT, "default/pod/planted", body)
                assert is_refusal(answer), (body, answer)
            for operation, path, content in (
                (Op.DELETE, "null/node/edge-x", None),
                (Op.UPDATE, "null/node/edge-x", {"metadata": {"name": "edge-x", "ownerReferences": [owner]}}),
                (Op.PATCH, "null/nodepatch/edge-x", json.dumps({"metadata": {"ownerReferences": [owner]}})),
                (Op.PATCH, "null/nodepatch/edge-x", json.dumps({"metadata": {"finalizers": ["a/b"]}})),
                (Op.PATCH, "null/nodepatch/edge-x", json.dumps({"spec": {"taints": []}})),
            ):
                assert is_refusal(await answered(link, operation, path, content)), (operation, path)

    in_hub(stage, attack)
    assert stage.skerry.kubectl("get", "pod", "planted", check=False).returncode != 0


def test_a15_requests_of_applications_that_nobody_granted(stage: Stage) -> None:
    rbac, me = (
        "rbac.authorization.k8s.io",
        {"kind": "ServiceAccount", "name": "default", "namespace": "default"},
    )
    role = {"apiGroup": rbac, "kind": "ClusterRole", "name": "cluster-admin"}
    binding = {
        "apiVersion": f"{rbac}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "planted"},
        "roleRef": role,
        "subjects": [me],
    }
    hook = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "planted"},
    }
    tries: list[tuple[str, str, Any]] = [
        ("create", f"/{rbac}/v1/clusterrolebindings/null/null", binding),
        ("bind", f"/{rbac}/v1/clusterroles/null/cluster-admin", None),
        ("escalate", f"/{rbac}/v1/clusterroles/null/cluster-admin", None),
        ("patch", f"/{rbac}/v1/clusterroles/null/cluster-admin", {"rules": []}),
        (
            "create",
            "/apiextensions.k8s.io/v1/customresourcedefinitions/null/null",
            {"metadata": {"name": "planted"}},
        ),
        ("create", "/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/null/null", hook),
        ("get", "/core/v1/secrets/default/hello", None),
        ("list", "/core/v1/secrets/null/null", None),
        ("list", "/core/v1/secrets/kube-system/null", None),
        ("delete", "/core/v1/nodes/null/edge-1", None),
        ("get", "/core/v1/secrets/default/hello/../../x", None),
        ("impersonate", "/core/v1/users/null/admin", None),
    ]

    async def attack(who: edge.Identity) -> None:
        async with edge.connected(stage.hub, who) as link:
            for account in ("", None, "default:default", "kube-system:default"):
                for verb, key, body in tries:
                    app = application.make(
                        node=who.node,
                        key=key,
                        verb=verb,
                        option=b"{}",
                        body=json.dumps(body).encode() if body is not None else None,
                        service_account=account,
                    )
                    frame = new(
                        source=Source.METAMANAGER,
                        group="metaserver",
                        operation=application.NULL,
                        resource=application.NULL,
                        content=app,
                    )
                    with contextlib.suppress(TimeoutError):
                        answer = await link.ask(frame, 2)
                        told = bytes(answer.content)
                        assert b"seal-on-a-rock" not in told
                        assert b"c2VhbC1vbi1hLXJvY2s" not in told
                        assert b'"Approved"' not in told, (account, verb, key, told[:300])

    in_hub(stage, attack)
    for kind in ("clusterrolebinding", "mutatingwebhookconfiguration"):
        assert stage.skerry.kubectl("get", kind, "planted", check=False).returncode != 0
    assert stage.skerry.get("clusterrole", "cluster-admin")["rules"]
    assert stage.skerry.get("node", "edge-1")


def test_a16_devices_of_others(stage: Stage) -> None:
    before = stage.skerry.get("device", "thermostat")["spec"]

    async def attack(who: edge.Identity) -> None:
        async with edge.connected(stage.hub, who) as link:
            twin = {"target": {"actual": {"value": "99", "metadata": {"timestamp": 1}}}}
            for path in (
                "device/default/thermostat/twin/edge_updated",
                "device/default/thermostat/state/update",
            ):
                sent = await link.report(
                    Op.UPDATE, path, {"twin": twin, "state": "offline"}, source=Source.TWIN
                )
                await link.until(lambda it, sent=sent: sent.id in it.refused or sent.id in it.acked)  # type: ignore[misc]
            for operation in (Op.QUERY, Op.UPDATE, Op.PATCH, Op.DELETE, Op.INSERT):
                for path in (
                    "default/device/thermostat",
                    "default/devicemodel/thermostat",
                    "default/devicestatus/thermostat",
                ):
                    answer = await answered(link, operation, path, {"spec": {}, "status": {}}, 1)
                    assert is_refusal(answer), (operation, path, answer)

    in_hub(stage, attack)
    assert stage.skerry.get("device", "thermostat")["spec"] == before
    assert stage.skerry.readings()["target"] != "99"


# -- A14, M08


def test_a14_events_of_others_and_a_flood_of_its_own(stage: Stage) -> None:
    """What is written of ten thousand is bounded, and the trial's own node is served meanwhile."""

    def event(name: str, about: dict[str, str], host: str) -> dict[str, Any]:
        return {
            "metadata": {"name": name, "namespace": "default"},
            "involvedObject": about,
            "source": {"component": "kubelet", "host": host},
            "reason": "Flood",
            "message": "x",
            "type": "Normal",
        }

    own = {"kind": "Node", "name": "edge-x"}

    async def attack(who: edge.Identity) -> None:
        async with edge.connected(stage.hub, who) as link:
            forged = [
                event("f.1", {"kind": "Node", "name": "edge-1"}, "edge-1"),
                event("f.1", {"kind": "Pod", "name": "herd-1", "namespace": "default"}, "edge-x"),
                event("f.1", own, "edge-1"),
            ]
            for body in forged:
                sent = await link.report(Op.INSERT, "default/event/f.1", body)
                await link.until(lambda it, sent=sent: it.refused.get(sent.id) == "Forbidden")  # type: ignore[misc]
            with contextlib.suppress(ConnectionClosed):
                for number in range(10_000):
                    name = f"e.{number}"
                    await link.report(Op.INSERT, f"default/event/{name}", event(name, own, "edge-x"))

    began = time.monotonic()
    in_hub(stage, attack)
    took = time.monotonic() - began
    events = stage.skerry.get("events")["items"]
    flood = [one for one in events if one["reason"] == "Flood"]
    assert not [one for one in flood if one["involvedObject"]["name"] != "edge-x"]
    # a burst, and twenty a second
    assert len(flood) <= 200 + 20 * (took + 30), len(flood)
    stage.skerry.kubectl("delete", "events", "--field-selector=reason=Flood", "--wait=false")


def test_m08_a_flood_of_tiny_frames(stage: Stage) -> None:
    """The sender is slowed down; another node's link stays, and its changes arrive."""
    tiny = codec.encode(session.keepalive())

    async def attack(who: edge.Identity) -> None:
        async def flood() -> int:
            sent = 0
            async with edge.connected(stage.hub, who) as link:
                with contextlib.suppress(ConnectionClosed, TimeoutError):
                    async with asyncio.timeout(25):
                        while True:
                            await link.link.send(tiny, text=True)
                            sent += 1
            return sent

        async with asyncio.TaskGroup() as group:
            flooding = group.create_task(flood())
            await asyncio.sleep(3)
            for target in ("22.5", "23.5"):
                await asyncio.to_thread(stage.skerry.set_target, target)
                await asyncio.to_thread(
                    eventually,
                    lambda target=target: stage.skerry.readings()["target"] == target,
                    "the target",
                    BACK_S,
                )
        # more than the hub takes at once, so it was held up
        assert flooding.result() > 2000

    in_hub(stage, attack)


@pytest.fixture(autouse=True)
def _no_leftovers(stage: Stage) -> Any:
    yield
    stage.skerry.kubectl("delete", "node", "edge-x", "--ignore-not-found", "--wait=false")
