"""The hub with real TLS, real websockets and the real control plane."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from beehive import codec, session
from beehive.errors import NotFound
from beehive.message import (
    Failure,
    Group,
    JoinAnswer,
    JoinRequest,
    Op,
    RenewRequest,
    Source,
    new,
)
from cloudcore.identity import revocation
from cloudcore.objects import (
    CONFIGMAP,
    EVENT,
    LEASE,
    NODE,
    POD,
    SECRET,
    SESSION_ANNOTATION,
    annotation,
)
from tests.fakes import edge
from tests.integration.link.cloud import (
    Cloud,
    Process,
    node_body,
    pod_body,
    process,
    using,
    write_config,
)
from tests.support.ports import free_port

Test = Callable[[Cloud], Awaitable[None]]


METRICS_PORT = free_port()


@pytest.fixture(scope="module")
def cloudcore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with process(tmp_path_factory.mktemp("cloud"), metrics_port=METRICS_PORT) as running:
        yield running


def in_cloud(running: Process, test: Test) -> None:
    async def go() -> None:
        async with using(running) as cloud, asyncio.timeout(30):
            await test(cloud)

    asyncio.run(go())


async def eventually(check: Callable[[], Awaitable[bool]], timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not await check():
            await asyncio.sleep(0.02)


async def register(link: edge.Edge) -> None:
    name = link.identity.node
    answer = await link.request(Op.INSERT, f"null/node/{name}", node_body(name))
    assert json.loads(bytes(answer.content))["Err"] is None
    await link.until(lambda it: f"null/node/{name}" in it.paths())


def test_join_gives_the_name_that_was_asked_and_nothing_else(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        from cryptography import x509

        identity = await cloud.node("edge-1")
        certificate = x509.load_pem_x509_certificate(identity.certificate.encode())
        assert certificate.subject.rfc4514_string() == "CN=system:node:edge-1,O=system:nodes"
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usages) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]

    in_cloud(cloudcore, test)


def test_join_is_refused_with_a_sentence(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        async def refusal(node: str, token: str, csr: str | None = None) -> Failure:
            request = JoinRequest(node=node, token=token, csr=csr or edge.csr(edge.new_key()))
            answer = await edge.ask_to_join(cloud.hub, cloud.ca, request)
            assert answer.route.operation == Op.ERROR
            return answer.decode(Failure)

        good = await cloud.token()
        assert (await refusal("edge-1", "abc")).reason == "BadToken"
        assert (await refusal("edge-1", good[:-1] + ("a" if good[-1] != "a" else "b"))).reason == "BadToken"
        assert (await refusal("Edge_1", good)).reason == "BadName"
        assert (await refusal("edge-1", good, csr="nonsense")).reason == "BadRequest"
        await edge.join(cloud.hub, cloud.ca, "edge-1", good)
        used = await refusal("edge-2", good)
        assert used.reason == "TokenUsed"
        assert "used already" in used.message
        bound = await cloud.token(node="edge-9")
        assert "edge-9" in (await refusal("edge-2", bound)).message

    in_cloud(cloudcore, test)


def test_a_token_for_one_joins_one_even_at_once(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        token = await cloud.token()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(
                    edge.ask_to_join(
                        cloud.hub,
                        cloud.ca,
                        JoinRequest(node=f"edge-{i}", token=token, csr=edge.csr(edge.new_key())),
                    )
                )
                for i in range(8)
            ]
        operations = sorted(task.result().route.operation for task in tasks)
        assert operations == [Op.ERROR] * 7 + [Op.RESPONSE]

    in_cloud(cloudcore, test)


def test_a_machine_may_ask_again_with_its_key(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        token, key = await cloud.token(), edge.new_key()
        for _ in range(2):  # the first answer may have been lost
            request = JoinRequest(node="edge-1", token=token, csr=edge.csr(key))
            answer = await edge.ask_to_join(cloud.hub, cloud.ca, request)
            assert answer.decode(JoinAnswer).certificate

    in_cloud(cloudcore, test)


def test_a_taken_name_needs_a_token_for_that_name(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        await cloud.create(NODE, node_body("edge-1"))
        request = JoinRequest(node="edge-1", token=await cloud.token(), csr=edge.csr(edge.new_key()))
        failure = (await edge.ask_to_join(cloud.hub, cloud.ca, request)).decode(Failure)
        assert failure.reason == "NameTaken"
        assert "--node edge-1" in failure.message
        assert (await cloud.node("edge-1", node="edge-1")).certificate

    in_cloud(cloudcore, test)


def test_the_authority_is_served_to_anybody(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        host, port = cloud.hub.split(":")
        context = ssl.create_default_context(cadata=cloud.ca)
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
        writer.write(b"GET /ca.crt HTTP/1.1\r\nHost: hub\r\n\r\n")
        answer = await reader.read()
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert ssl.DER_cert_to_PEM_cert(body) == cloud.ca

    in_cloud(cloudcore, test)


def test_without_a_right_certificate_nobody_comes_in(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        one = await cloud.node("edge-1")
        with pytest.raises(InvalidStatus) as refused:
            async with edge.connected(cloud.hub, one, claim="edge-2"):
                pass
        assert refused.value.response.status_code == 403
        with pytest.raises(InvalidStatus) as refused:
            async with edge.connected(cloud.hub, one, use=""):
                pass
        assert refused.value.response.status_code == 400
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"wss://{cloud.hub}/a/edge-1/events", ssl=edge.client_tls(cloud.ca)):
                pass
        assert refused.value.response.status_code == 401

    in_cloud(cloudcore, test)


def test_before_joining_only_a_small_join_frame_is_welcome(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        async def said(frame: bytes) -> int:
            async with connect(f"wss://{cloud.hub}/join", ssl=edge.client_tls(cloud.ca)) as link:
                await link.send(frame, text=True)
                with pytest.raises(ConnectionClosed) as closed:
                    await link.recv()
                assert closed.value.rcvd is not None
                return closed.value.rcvd.code

        assert await said(codec.encode(session.keepalive())) == session.CLOSE_POLICY
        assert await said(b"[]") == session.CLOSE_BAD_FRAME
        assert await said(b" " * (codec.MAX_JOIN_BYTES + 1)) == session.CLOSE_TOO_BIG

    in_cloud(cloudcore, test)


def test_renewal_is_for_the_name_in_the_certificate(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        from cryptography import x509

        identity = await cloud.node("edge-1")
        async with edge.connected(cloud.hub, identity) as link:
            question = new(
                source=Source.METAMANAGER,
                group=Group.HUB,
                operation=Op.RENEW,
                resource="null/node/edge-2",
                content=RenewRequest(csr=edge.csr(edge.new_key(), name="system:node:edge-2")),
            )
            answer = (await link.ask(question)).decode(JoinAnswer)
        certificate = x509.load_pem_x509_certificate(answer.certificate.encode())
        assert certificate.subject.rfc4514_string() == "CN=system:node:edge-1,O=system:nodes"

    in_cloud(cloudcore, test)


def test_sessions_count_up_and_the_newer_one_wins(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        identity = await cloud.node("edge-1")
        async with edge.connected(cloud.hub, identity) as first:
            assert first.session == 1
            await register(first)
            assert annotation(await cloud.api.get(NODE, "edge-1"), SESSION_ANNOTATION) == "1"
            async with edge.connected(cloud.hub, identity) as second:
                assert second.session == 2
                await asyncio.wait_for(first.link.wait_closed(), 30)
                assert first.link.close_code == session.CLOSE_REPLACED
                # the end of the old one did not remove the new one
                answer = await second.request(Op.QUERY, "null/node/edge-1")
                assert json.loads(bytes(answer.content))["metadata"]["name"] == "edge-1"
            # another hub took the node over
        async with edge.connected(cloud.hub, identity) as third:
            assert third.session == 3
            await cloud.patch(NODE, "edge-1", {"metadata": {"annotations": {SESSION_ANNOTATION: "9"}}})
            await asyncio.wait_for(third.link.wait_closed(), 30)
            assert third.link.close_code == session.CLOSE_REPLACED

    in_cloud(cloudcore, test)


def test_a_pod_comes_with_what_it_refers_to(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        identity = await cloud.node("edge-1")
        await cloud.create(CONFIGMAP, {"metadata": {"name": "settings"}, "data": {"a": "1"}})
        await cloud.create(SECRET, {"metadata": {"name": "key"}, "data": {"a": "MQ=="}})
        await cloud.create(SECRET, {"metadata": {"name": "other"}, "data": {"a": "MQ=="}})
        async with edge.connected(cloud.hub, identity) as link:
            await register(link)
            container = {
                "name": "c",
                "image": "busybox",
                "envFrom": [{"configMapRef": {"name": "settings"}}],
            }
            body = pod_body("web", "edge-1", containers=[container])
            body["spec"]["initContainers"] = [
                {**container, "name": "i", "envFrom": [{"secretRef": {"name": "key"}}]}
            ]
            pod = await cloud.create(POD, body)
            await link.until(lambda it: "default/pod/web" in it.paths())
            given = (
                "null/node/edge-1",
                "default/configmap/kube-root-ca.crt",
                "default/service/kubernetes",
            )  # the latter two by the control plane
            order = [m.route.resource for m in link.pushes if m.route.resource not in given]
            assert order == ["default/configmap/settings", "default/secret/key", "default/pod/web"]
            frame = link.pushed(Op.INSERT, "default/pod/web")[0]
            assert (frame.version, frame.parent) == (pod.version, "")
            assert json.loads(bytes(frame.content))["kind"] == "Pod"
            # what is in use changes: the node is told
            await cloud.patch(CONFIGMAP, "settings", {"data": {"a": "2"}})
            await link.until(lambda it: it.pushed(Op.UPDATE, "default/configmap/settings"))
            # a status alone is nothing to tell
            before = len(link.pushes)
            patch = json.dumps({"status": {"phase": "Running"}})
            answer = json.loads(bytes((await link.request(Op.PATCH, "default/podpatch/web", patch)).content))
            assert answer["Object"]["status"]["phase"] == "Running"
            assert answer["Err"] is None
            await cloud.patch(POD, "web", {"metadata": {"labels": {"x": "y"}}})

            def pushed() -> list[str]:
                # the rights of its service account come when they are worked out
                told = [m.route.resource for m in link.pushes[before:]]
                return [path for path in told if "/serviceaccountaccess/" not in path]

            await link.until(lambda it: pushed())
            assert pushed() == ["default/pod/web"]
            # gone
            options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod.uid}}
            done = await link.request(Op.DELETE, "default/pod/web", options)
            assert done.is_ok
            await link.until(lambda it: "default/pod/web" not in it.paths())
            again = await link.request(Op.DELETE, "default/pod/web", options)
            assert again.is_ok

    in_cloud(cloudcore, test)


def test_what_changed_while_away_is_told_once(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        identity = await cloud.node("edge-1")
        async with edge.connected(cloud.hub, identity) as link:
            await register(link)
            names = ("stays", "changes", "goes")
            for name in names:
                await cloud.create(POD, pod_body(name, "edge-1"))
            await link.until(lambda it: it.paths() >= {f"default/pod/{name}" for name in names})
            held = link.held
        await cloud.patch(POD, "changes", {"metadata": {"labels": {"x": "y"}}})
        await cloud.api.delete(POD, "goes", "default", options=b'{"gracePeriodSeconds":0}')
        await cloud.create(POD, pod_body("new", "edge-1"))
        async with edge.connected(cloud.hub, identity, held=held) as link:
            await link.until(lambda it: it.acked and "default/pod/goes" not in it.paths())
            told = sorted(
                (m.route.operation, m.route.resource) for m in link.pushes if "/pod/" in m.route.resource
            )
            assert told == [
                (Op.DELETE, "default/pod/goes"),
                (Op.INSERT, "default/pod/new"),
                (Op.UPDATE, "default/pod/changes"),
            ]

    in_cloud(cloudcore, test)


def test_frames_that_are_not_acknowledged_come_again_in_the_next_session(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        identity = await cloud.node("edge-1")
        async with edge.connected(cloud.hub, identity, acks=False) as link:
            await link.request(Op.INSERT, "null/node/edge-1", node_body("edge-1"))
            await cloud.create(POD, pod_body("web", "edge-1"))
            await link.until(lambda it: it.pushed(Op.INSERT, "default/pod/web"))
        async with edge.connected(cloud.hub, identity) as link:
            await link.until(lambda it: it.pushed(Op.INSERT, "default/pod/web"))

    in_cloud(cloudcore, test)


def test_the_hub_keeps_the_lease_of_its_own_edges(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        identity = await cloud.node("edge-1")
        async with edge.connected(cloud.hub, identity) as link:
            await register(link)

            async def leased() -> bool:
                try:
                    lease = await cloud.api.get(LEASE, "edge-1", "kube-node-lease")
                except NotFound:
                    return False
                spec: dict[str, Any] = json.loads(lease.raw)["spec"]
                assert (spec["holderIdentity"], spec["leaseDurationSeconds"]) == ("edge-1", 40)
                return True

            await eventually(leased)

    in_cloud(cloudcore, test)


def test_events_are_written_and_acknowledged(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        identity = await cloud.node("edge-1")
        async with edge.connected(cloud.hub, identity) as link:
            await register(link)
            body = {
                "metadata": {"name": "edge-1.1", "namespace": "default"},
                "involvedObject": {"kind": "Node", "name": "edge-1"},
                "reason": "Starting",
                "message": "hello",
                "type": "Normal",
                "source": {"component": "kubelet", "host": "edge-1"},
            }
            sent = await link.report(Op.INSERT, "default/event/edge-1.1", body)
            await link.until(lambda it: sent.id in it.acked)
            assert json.loads((await cloud.api.get(EVENT, "edge-1.1", "default")).raw)["message"] == "hello"
            body["source"] = {"component": "kubelet", "host": "edge-2"}
            forged = await link.report(Op.INSERT, "default/event/edge-1.2", body)
            await link.until(lambda it: it.refused.get(forged.id) == "Forbidden")
            with pytest.raises(NotFound):
                await cloud.api.get(EVENT, "edge-1.2", "default")

    in_cloud(cloudcore, test)


def test_a_stock_edge_gets_what_it_expects(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        identity = await cloud.node("edge-1")
        async with edge.connected(cloud.hub, identity, ours=False) as link:
            assert link.link.response is not None
            assert session.HEADER_PROTOCOL not in link.link.response.headers
            await register(link)
            lease = {
                "metadata": {"name": "edge-1", "namespace": "kube-node-lease"},
                "spec": {"holderIdentity": "edge-1", "leaseDurationSeconds": 40},
            }
            answer = await link.request(Op.INSERT, "kube-node-lease/lease/edge-1", lease)
            held = json.loads(bytes(answer.content))
            assert held["Err"] is None
            answer = await link.request(Op.UPDATE, "kube-node-lease/lease/edge-1", held["Object"])
            assert json.loads(bytes(answer.content))["Err"] is None
            again = json.loads(
                bytes((await link.request(Op.INSERT, "null/node/edge-1", node_body("edge-1"))).content)
            )
            assert again["Err"]["ErrStatus"]["reason"] == "AlreadyExists"
            assert again["Object"] is None
            await cloud.create(POD, pod_body("web", "edge-1"))
            await link.until(lambda it: "default/pod/web" in it.paths())
            assert not any(m.route.operation == Op.ACK for m in link.pushes)
            missing = await link.request(Op.QUERY, "default/configmap/absent")
            assert json.loads(bytes(missing.content))["ErrStatus"]["code"] == 403
        async with edge.connected(cloud.hub, identity, ours=False) as link:
            await link.until(lambda it: "default/pod/web" in it.paths())

    in_cloud(cloudcore, test)


def test_bad_frames_end_the_link_and_nobody_elses(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        one, two = await cloud.node("edge-1"), await cloud.node("edge-2")
        async with edge.connected(cloud.hub, one) as bad, edge.connected(cloud.hub, two) as good:
            await register(good)
            for frame in (b"null", b'{"header":{"msg_id":1}}', b"[" * 100_000):
                await bad.link.send(frame, text=True)
            await asyncio.wait_for(bad.link.wait_closed(), 30)
            assert bad.link.close_code == session.CLOSE_BAD_FRAME
            assert (await good.request(Op.QUERY, "null/node/edge-2")).content

    in_cloud(cloudcore, test)


def test_a_port_in_use_is_one_sentence(cloudcore: Process, tmp_path: Path) -> None:
    port = int(cloudcore.hub.rsplit(":", 1)[1])
    config = write_config(tmp_path, port, free_port())
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "cloudcore.cli",
            "run",
            "--config",
            config,
            "--standalone",
            "--log-level",
            "error",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert f"cloudcore: cannot listen on 127.0.0.1:{port}" in done.stderr.splitlines()[-1]


def test_a_revoked_node_is_cut_and_stays_out_until_it_joins_anew(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        one, two = await cloud.node("revoked-1"), await cloud.node("revoked-2")
        async with edge.connected(cloud.hub, one) as link, edge.connected(cloud.hub, two) as other:
            await register(link)
            await revocation.revoke(cloud.api, "revoked-1")
            async with asyncio.timeout(30):
                await link.link.wait_closed()
            assert link.link.close_code == session.CLOSE_REVOKED
            await register(other)
        with pytest.raises(InvalidStatus) as refused:
            async with edge.connected(cloud.hub, one):
                pass
        assert refused.value.response.status_code == 403
        assert b"was revoked" in (refused.value.response.body or b"")
        await asyncio.sleep(2.1)  # what is signed within the same second is void, too
        again = await cloud.node("revoked-1", node="revoked-1")
        async with edge.connected(cloud.hub, again) as link:
            await link.request(Op.QUERY, "null/node/revoked-1")

    in_cloud(cloudcore, test)


def test_a_serial_revokes_one_certificate(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        from cryptography import x509

        old = await cloud.node("serial-1", node="serial-1")
        new_ = await cloud.node("serial-1", node="serial-1")
        serial = x509.load_pem_x509_certificate(old.certificate.encode()).serial_number
        async with edge.connected(cloud.hub, old) as link:
            await revocation.revoke(cloud.api, "serial-1", serial=f"{serial:X}")
            async with asyncio.timeout(30):
                await link.link.wait_closed()
        async with edge.connected(cloud.hub, new_) as link:
            await register(link)

    in_cloud(cloudcore, test)


def test_a_name_is_kept_for_who_joined_and_has_not_registered_yet(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        first = await cloud.node("reserved-1")

        async def refused() -> bool:
            request = JoinRequest(node="reserved-1", token=await cloud.token(), csr=edge.csr(edge.new_key()))
            answer = await edge.ask_to_join(cloud.hub, cloud.ca, request)
            return answer.route.operation == Op.ERROR and answer.decode(Failure).reason == "NameTaken"

        await eventually(refused)
        assert (await cloud.node("reserved-1", node="reserved-1")).certificate
        async with edge.connected(cloud.hub, first) as link:
            await register(link)
        await cloud.api.delete(NODE, "reserved-1")

        async def free() -> bool:
            return not await refused()

        await eventually(free)

    in_cloud(cloudcore, test)


async def numbers() -> dict[str, float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", METRICS_PORT)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: hub\r\n\r\n")
    answer = (await reader.read()).decode()
    writer.close()
    assert answer.startswith("HTTP/1.1 200 OK\r\n")
    rows = [line.split() for line in answer.partition("\r\n\r\n")[2].splitlines() if line[0] != "#"]
    return {name: float(value) for name, value in rows}


def test_a_reconnect_with_nothing_changed_sends_nothing(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        one = await cloud.node("quiet-1")
        async with edge.connected(cloud.hub, one) as link:
            await register(link)
            for number in range(5):
                await cloud.create(POD, pod_body(f"quiet-{number}", "quiet-1"))
            await link.until(lambda it: sum("/pod/quiet-" in path for path in it.paths()) == 5)
            for number in range(5):
                status = {"status": {"phase": "Running", "message": str(number)}}
                path = f"default/podpatch/quiet-{number}"
                answer = await link.request(Op.PATCH, path, json.dumps(status))
                assert json.loads(bytes(answer.content))["Err"] is None
            held = dict(link.held)

        before = await numbers()
        assert before["skerry_hub_objects_acked_total"] >= 6
        for _ in range(3):
            async with edge.connected(cloud.hub, one, held=held) as link:
                # the rights of a service account are no object of the API's: they are told at each connect
                await link.until(lambda it: it.acked)
                assert [
                    m.route.resource for m in link.pushes if "/serviceaccountaccess/" not in m.route.resource
                ] == []
        after = await numbers()
        assert after["skerry_hub_sessions_opened_total"] == before["skerry_hub_sessions_opened_total"] + 3
        assert after["skerry_hub_objects_resent_total"] == before["skerry_hub_objects_resent_total"]

    in_cloud(cloudcore, test)


def test_the_numbers_count_what_is_denied(cloudcore: Process) -> None:
    async def test(cloud: Cloud) -> None:
        before = await numbers()
        one = await cloud.node("counted-1")
        async with edge.connected(cloud.hub, one) as link:
            await link.request(Op.QUERY, "default/secret/not-mine")
            now = await numbers()
            assert now["skerry_hub_sessions"] == 1
            assert now["skerry_hub_denied_total"] == before["skerry_hub_denied_total"] + 1
            assert now["skerry_api_requests_total"] > before["skerry_api_requests_total"]
        with pytest.raises(InvalidStatus):
            async with edge.connected(cloud.hub, one, claim="counted-2"):
                pass
        last = await numbers()
        assert last["skerry_hub_connections_refused_total"] == now["skerry_hub_connections_refused_total"] + 1

    in_cloud(cloudcore, test)
