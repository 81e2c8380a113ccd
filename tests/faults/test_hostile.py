"""Somebody else's certificate, and frames that are none: A, M and F-T, over the real hub of the trial."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from beehive import codec, session
from beehive.message import Failure, Group, JoinRequest, Op, Source, new
from tests.e2e.skerry import eventually
from tests.fakes import edge
from tests.faults.stage import Stage

MIB = 1024 * 1024
GROWTH_KIB = 20 * 1024


def memory_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


@contextlib.asynccontextmanager
async def raw_link(
    stage: Stage, who: edge.Identity
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A websocket by hand, upgraded, to send what no library sends."""
    host, port = stage.hub.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=who.tls())
    lines = [
        f"GET /{session.PROJECT_ID}/{who.node}/events HTTP/1.1",
        f"Host: {stage.hub}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
        "server_max_window_bits=12; client_max_window_bits=12",
        f"{session.HEADER_NODE}: {who.node}",
        f"{session.HEADER_USE}: msg",
        f"{session.HEADER_PROTOCOL}: {session.PROTOCOL_VERSION}",
    ]
    try:
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        assert b" 101 " in answer, answer
        assert b"permessage-deflate" in answer, answer
        yield reader, writer
    finally:
        writer.transport.abort()


async def closing_code(reader: asyncio.StreamReader) -> int:
    """The code of the close frame that comes; 1006 when the connection just ends."""
    try:
        async with asyncio.timeout(20):
            while True:
                first, length = await reader.readexactly(2)
                if length == 126:
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                elif length == 127:
                    (length,) = struct.unpack("!Q", await reader.readexactly(8))
                body = await reader.readexactly(length)
                if first & 0x0F == 8:
                    return int.from_bytes(body[:2], "big")
    except (asyncio.IncompleteReadError, ConnectionError):
        return 1006


async def pour(writer: asyncio.StreamWriter, chunks: Callable[[], bytes], total: int) -> int:
    """Send until the other end has had enough, or `total` bytes; how many."""
    sent = 0
    with contextlib.suppress(ConnectionError, OSError):
        while sent < total and not writer.is_closing():
            chunk = chunks()
            writer.write(chunk)
            async with asyncio.timeout(20):
                await writer.drain()
            sent += len(chunk)
    return sent


def in_hub(stage: Stage, attack: Callable[[edge.Identity], Awaitable[None]]) -> None:
    """Act as node edge-x, which has joined rightly; the node of the trial must not feel it."""
    pid, number, before = stage.pid("cloudcore"), stage.session(), stage.containers()
    first = memory_kib(pid)

    async def go() -> None:
        ca = (stage.edge / "pki" / "ca.pem").read_text()
        token = stage.token(node="edge-x").split(".", 1)[1]
        who = await edge.join(stage.hub, ca, "edge-x", token)
        async with asyncio.timeout(90):
            await attack(who)

    try:
        asyncio.run(go())
    finally:
        stage.skerry.kubectl("delete", "node", "edge-x", "--ignore-not-found", "--wait=false")
    assert stage.pid("cloudcore") == pid
    assert stage.session() == number, "the other node's link was lost"
    assert stage.containers() == before
    eventually(lambda: memory_kib(pid) - first <= GROWTH_KIB, f"memory near {first} KiB again", 60)


@pytest.mark.quick
def test_m04_a_frame_that_claims_two_gib(stage: Stage) -> None:
    async def attack(who: edge.Identity) -> None:
        pid = stage.pid("cloudcore")
        async with raw_link(stage, who) as (reader, writer):
            first = memory_kib(pid)
            writer.write(b"\x81\xff" + struct.pack("!Q", 2 * 1024 * MIB) + bytes(4))
            await pour(writer, lambda: b"x" * 65536, 64 * MIB)
            assert await closing_code(reader) in (1009, 1006)
            assert memory_kib(pid) - first < GROWTH_KIB

    in_hub(stage, attack)


def test_m04_a_million_fragments(stage: Stage) -> None:
    async def attack(who: edge.Identity) -> None:
        pid = stage.pid("cloudcore")
        async with raw_link(stage, who) as (reader, writer):
            first = memory_kib(pid)
            mask = bytes(4)
            writer.write(b"\x01\x81" + mask + b"[")
            one = b"\x00\x81" + mask + b"["
            sent = await pour(writer, lambda: one * 8192, len(one) * 12_000_000)
            assert sent < len(one) * 12_000_000
            assert await closing_code(reader) in (1009, 1006)
            # a million small parts are lists of small things: bounded, if not small
            assert memory_kib(pid) - first < 2 * codec.MAX_FRAME_BYTES // 1024 * 64

    pid_memory = memory_kib(stage.pid("cloudcore"))
    in_hub(stage, attack)
    assert memory_kib(stage.pid("cloudcore")) - pid_memory < 10 * GROWTH_KIB


@pytest.mark.quick
def test_m04_a_compressed_bomb(stage: Stage) -> None:
    async def attack(who: edge.Identity) -> None:
        pid = stage.pid("cloudcore")
        squeezer = zlib.compressobj(9, zlib.DEFLATED, -12)
        bomb = b"".join(squeezer.compress(b" " * MIB) for _ in range(512)) + squeezer.flush(zlib.Z_SYNC_FLUSH)
        bomb = bomb.removesuffix(b"\x00\x00\xff\xff")
        assert len(bomb) < 2 * MIB
        async with raw_link(stage, who) as (reader, writer):
            first = memory_kib(pid)
            writer.write(b"\xc1\xff" + struct.pack("!Q", len(bomb)) + bytes(4) + bomb)
            assert await closing_code(reader) in (1009, 1006)
            assert memory_kib(pid) - first < 2 * GROWTH_KIB

    in_hub(stage, attack)


def members() -> dict[str, Any]:
    frame: dict[str, Any] = json.loads(
        codec.encode(
            new(
                source=Source.EDGED,
                group=Group.RESOURCE,
                operation=Op.UPDATE,
                resource="default/podstatus/herd-1",
                content={"UID": "x", "Status": {}},
            )
        )
    )
    return frame


def confused() -> list[bytes]:
    """Frames with a wrong type at each place."""
    wrong: list[Any] = [None, [], "", 1, -1.5, 2**70, True, {}, ["x"] * 3, {"a": {"b": []}}]
    frames = [json.dumps(value).encode() for value in wrong]
    for group, names in {
        key: list(value) if isinstance(value, dict) else [] for key, value in members().items()
    }.items():
        for value in wrong:
            frames.append(json.dumps({**members(), group: value}).encode())
            for name in names:
                changed = members()
                changed[group][name] = value
                frames.append(json.dumps(changed).encode())
    return [
        *frames,
        b'{"header":NaN}',
        b'{"header":{"msg_id":"a","msg_id":"b"}}',
        b'{"header":{"timestamp":1e999}}',
        b'{"a":' * 50_000,
        b"[" * 200_000,
        b"\xff\xfe\x00",
        b'{"header":{"msg_id":"\\ud800"}}',
    ]


@pytest.mark.quick
def test_m05_wrong_types_everywhere(stage: Stage) -> None:
    frames = confused()
    assert len(frames) > 100

    async def attack(who: edge.Identity) -> None:
        at = 0
        while at < len(frames):
            async with edge.connected(stage.hub, who) as link:
                before = at
                with contextlib.suppress(Exception):
                    while at < len(frames) and link.link.close_code is None:
                        await link.link.send(frames[at], text=b"\xff" not in frames[at])
                        at += 1
                        await asyncio.sleep(0.005)
                assert at > before
        async with edge.connected(stage.hub, who) as link:
            answer = await link.request(Op.QUERY, "null/node/edge-x")
            assert answer.parent

    in_hub(stage, attack)


@pytest.mark.quick
def test_a02_a_certificate_and_another_name(stage: Stage) -> None:
    async def attack(who: edge.Identity) -> None:
        with pytest.raises((InvalidStatus, ExceptionGroup)) as refused:
            async with edge.connected(stage.hub, who, claim="edge-1"):
                pass
        assert "403" in str(refused.value) or "403" in repr(getattr(refused.value, "exceptions", ""))
        other = edge.Identity(node="edge-1", ca=who.ca, certificate=who.certificate, key=who.key)
        with pytest.raises((InvalidStatus, ExceptionGroup)):
            async with edge.connected(stage.hub, other):
                pass
        # the path and the frames may claim what they like: nothing of edge-1 is told or changed
        async with edge.connected(stage.hub, who) as link:
            for where in ("null/node/edge-1", "default/pod/herd-1", "default/secret/hello"):
                answer = await link.request(Op.QUERY, where)
                assert b"seal-on-a-rock" not in bytes(answer.content)
                assert b"containers" not in bytes(answer.content), where
                assert answer.route.operation == Op.ERROR or b"Forbidden" in bytes(answer.content), where
            await link.send(
                new(
                    source=Source.METAMANAGER,
                    group=Group.RESOURCE,
                    operation=Op.INVENTORY,
                    resource="null/node/edge-1",
                    content={"objects": {}, "session": 0},
                )
            )
            await asyncio.sleep(2)
            assert not [path for path in link.paths() if "herd" in path or "edge-1" in path]

    in_hub(stage, attack)


PATHS = [
    "default/secret/hello",
    "default/secret/../../default/secret/hello",
    "default/secret/hello/..",
    "default%2Fsecret%2Fhello",
    "/secret/hello",
    "null/secret/hello",
    "default/secret/",
    "default/secret",
    "default//secret/hello",
    "default/configmap/hello",
    "default/configmap",
    "null/configmap/",
    "kube-system/secret/x",
    "kubeedge/secret/casecret",
    "default/secretlist/",
]


@pytest.mark.quick
def test_a05_secrets_of_pods_of_another_node(stage: Stage) -> None:
    async def attack(who: edge.Identity) -> None:
        async with edge.connected(stage.hub, who) as link:
            for where in PATHS:
                for operation in (Op.QUERY, "list", "watch", Op.UPDATE):
                    question = new(
                        source=Source.EDGED,
                        group=Group.META,
                        operation=operation,
                        resource=where,
                        content=None,
                    )
                    with contextlib.suppress(TimeoutError):
                        await link.ask(question, 0.4)
            seen = b"".join(bytes(message.content) for message in link.pushes)
            assert b"seal-on-a-rock" not in seen
            assert b"c2VhbC1vbi1hLXJvY2s" not in seen
            answer = await link.request(Op.QUERY, "default/secret/hello")
            assert b"c2VhbC1vbi1hLXJvY2s" not in bytes(answer.content)
            assert answer.route.operation == Op.ERROR or b"Forbidden" in bytes(answer.content)

    in_hub(stage, attack)


@pytest.mark.quick
def test_a09_pods_of_another_node(stage: Stage) -> None:
    pod = stage.skerry.get("pod", "herd-1")
    status = {"phase": "Failed", "reason": "Taken"}

    async def attack(who: edge.Identity) -> None:
        async with edge.connected(stage.hub, who) as link:
            uid = pod["metadata"]["uid"]
            await link.report(
                Op.UPDATE, "default/podstatus/herd-1", {"UID": uid, "Name": "herd-1", "Status": status}
            )
            await link.report(
                Op.UPDATE, "default/podstatus", [{"UID": uid, "Name": "herd-1", "Status": status}]
            )
            for operation, where, content in (
                (Op.PATCH, "default/podpatch/herd-1", json.dumps({"status": status})),
                (Op.DELETE, "default/pod/herd-1", {"gracePeriodSeconds": 0}),
                (Op.DELETE, "default/pod", None),
                (Op.INSERT, "default/pod/planted", {**pod, "metadata": {"name": "planted"}}),
                (Op.PATCH, "null/nodepatch/edge-1", json.dumps({"metadata": {"labels": {"a": "b"}}})),
                (Op.DELETE, "null/node/edge-1", None),
                (Op.UPDATE, "kube-node-lease/lease/edge-1", {"spec": {"holderIdentity": "x"}}),
            ):
                with contextlib.suppress(TimeoutError):
                    answer = await link.ask(
                        new(
                            source=Source.EDGED,
                            group=Group.META,
                            operation=operation,
                            resource=where,
                            content=content,
                        ),
                        3,
                    )
                    assert answer.route.operation == Op.ERROR or b'"Err":null' not in bytes(answer.content)
            await asyncio.sleep(1)

    in_hub(stage, attack)
    after = stage.skerry.get("pod", "herd-1")
    assert after["metadata"]["uid"] == pod["metadata"]["uid"]
    assert after["status"]["phase"] == "Running"
    assert "deletionTimestamp" not in after["metadata"]
    assert stage.skerry.kubectl("get", "pod", "planted", check=False).returncode != 0
    assert "a" not in stage.skerry.get("node", "edge-1")["metadata"]["labels"]
    assert stage.skerry.get("lease", "-n", "kube-node-lease", "edge-1")["spec"]["holderIdentity"] != "x"
    eventually(stage.is_agreed, "agreement", 60)


@pytest.mark.quick
def test_f_t07_a_token_is_used_twice(stage: Stage) -> None:
    """A01, too: who stole a token that was used gets nothing by it."""
    ca = (stage.edge / "pki" / "ca.pem").read_text()
    token = stage.token().split(".", 1)[1]

    async def go() -> None:
        await edge.join(stage.hub, ca, "edge-t", token)
        request = JoinRequest(node="edge-u", token=token, csr=edge.csr(edge.new_key()))
        answer = await edge.ask_to_join(stage.hub, ca, request)
        assert answer.route.operation == Op.ERROR
        assert answer.decode(Failure).reason in ("TokenUsed", "Unavailable", "TooManyRequests")

    asyncio.run(go())


def test_f_t07_tokens_are_guessed(stage: Stage) -> None:
    before = stage.containers()
    good = stage.token()
    _, name, secret = good.split(".")
    ca = (stage.edge / "pki" / "ca.pem").read_text()
    reasons: dict[str, int] = {}
    request = edge.csr(edge.new_key())

    async def go() -> None:
        slots = asyncio.Semaphore(8)

        async def guess(number: int) -> None:
            tried = f"{name}.{number:032d}"
            async with slots:
                answer = await edge.ask_to_join(
                    stage.hub, ca, JoinRequest(node="edge-g", token=tried, csr=request)
                )
            assert answer.route.operation == Op.ERROR
            reason = answer.decode(Failure).reason
            reasons[reason] = reasons.get(reason, 0) + 1

        async with asyncio.TaskGroup() as group:
            for number in range(1000):
                group.create_task(guess(number))

    offset = stage.log_size("cloudcore")
    asyncio.run(go())
    assert sum(reasons.values()) == 1000
    # no more than a burst was even compared
    assert reasons["BadToken"] < 250, reasons
    assert "Refused to let edge-g join" in stage.log_since("cloudcore", offset)
    assert secret not in stage.log_since("cloudcore", 0)
    assert stage.is_linked()
    assert stage.containers() == before

    # and whoever has a good one gets in soon after
    async def join() -> bool:
        request = JoinRequest(node="edge-g", token=f"{name}.{secret}", csr=edge.csr(edge.new_key()))
        return (await edge.ask_to_join(stage.hub, ca, request)).route.operation == Op.RESPONSE

    eventually(lambda: asyncio.run(join()), "a good token", 60)
    time.sleep(11)  # the bucket of failures is empty again for the next case
