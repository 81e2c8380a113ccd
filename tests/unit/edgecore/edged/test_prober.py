"""The attempts themselves, against servers on loopback."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from edgecore.edged import prober
from edgecore.edged.errors import CriError
from edgecore.edged.pod import (
    Container,
    ExecAction,
    GrpcAction,
    HttpGetAction,
    HttpHeader,
    LifecycleHandler,
    Probe,
    SleepAction,
    TcpSocketAction,
)
from edgecore.edged.runtime import ExecResult
from tests.unit.edgecore.edged.builders import c, make

CONTAINER: Container = make(c(ports=[{"name": "web", "containerPort": 8080}])).spec.containers[0]


class Runner:
    def __init__(self, code: int = 0, error: CriError | None = None) -> None:
        self.code, self.error = code, error

    async def exec_sync(self, container_id: str, argv: list[str], timeout_s: float) -> ExecResult:
        if self.error is not None:
            raise self.error
        return ExecResult(exit_code=self.code, stdout=b"out", stderr=b"err")


def attempt(
    check: Probe, runner: Runner | None = None, timeout_s: float = 5.0
) -> Awaitable[tuple[bool | None, str]]:
    return prober.probe(runner or Runner(), "id", CONTAINER, check, pod_ip="127.0.0.1", timeout_s=timeout_s)


async def serving(reply: Callable[[str], bytes | None], use: Callable[[int], Awaitable[Any]]) -> Any:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.append(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            out = reply(head.decode())
            if out is not None:
                writer.write(out)
                await writer.drain()
            else:
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            open_ones.remove(writer)

    open_ones: list[asyncio.StreamWriter] = []

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        result = await use(server.sockets[0].getsockname()[1])
        async with asyncio.timeout(30):
            while open_ones:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.001)
    return result


def http(
    reply: Callable[[str], bytes | None], timeout_s: float = 5.0, **fields: Any
) -> tuple[bool | None, str]:
    async def use(port: int) -> tuple[bool | None, str]:
        return await attempt(Probe(http_get=HttpGetAction(port=port, **fields)), timeout_s=timeout_s)

    return asyncio.run(serving(reply, use))


@pytest.mark.parametrize(
    ("line", "ok"),
    [
        (b"HTTP/1.1 200 OK", True),
        (b"HTTP/1.1 399 Odd", True),
        (b"HTTP/1.1 304", True),
        (b"HTTP/1.1 404 Not Found", False),
        (b"HTTP/1.1 500", False),
        (b"SSH-2.0-x", False),
        (b"HTTP/1.1 x", False),
    ],
)
def test_status_codes(line: bytes, ok: bool) -> None:
    assert http(lambda _: line + b"\r\n\r\n")[0] is ok


def test_the_request_says_what_was_written() -> None:
    seen: list[str] = []

    def reply(head: str) -> bytes:
        seen.append(head)
        return b"HTTP/1.1 200 OK\r\n\r\n"

    named = [("x-a", "1"), ("host", "web.test"), ("X-A", "2")]
    headers = [HttpHeader(name=name, value=value) for name, value in named]
    assert http(reply, path="/a?b=c", http_headers=headers)[0]
    assert seen[0].startswith("GET /a?b=c HTTP/1.1\r\n")
    assert "X-A: 1\r\n" in seen[0]
    assert "X-A: 2\r\n" in seen[0]
    assert seen[0].count("Host: ") == 1
    assert "Host: web.test\r\n" in seen[0]
    assert "User-Agent: kube-probe/" in seen[0]


def test_redirects() -> None:
    def local(head: str) -> bytes:
        if head.startswith("GET / "):
            return b"HTTP/1.1 302 Found\r\nLocation: /down\r\n\r\n"
        return b"HTTP/1.1 503 Down\r\n\r\n"

    assert http(local)[0] is False
    assert http(lambda _: b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.test/\r\n\r\n")[0] is True
    told = b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.test/\r\nContent-Length: 5\r\n\r\nthere"
    assert http(lambda _: told) == (True, "Probe terminated redirects, Response body: there")
    ok, text = http(lambda _: b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n")
    assert ok is False
    assert text.endswith('/": stopped after 10 redirects')


def test_bad_servers_fail_and_do_no_harm() -> None:
    for reply, why in (
        (b"X" * 200_000, "server response headers exceeded 65536 bytes; aborted"),
        (b"", "EOF"),
        (b"SSH-2.0-x\r\n\r\n", 'malformed HTTP response "SSH-2.0-x"'),
    ):
        ok, text = http(lambda _, reply=reply: reply)  # type: ignore[misc]
        assert ok is False
        assert re.fullmatch(r'Get "http://127\.0\.0\.1:\d+/": ' + re.escape(why), text)
    ok, text = http(lambda _: None, timeout_s=0.05)
    assert ok is False
    assert text.endswith('/": context deadline exceeded (Client.Timeout exceeded while awaiting headers)')
    assert http(lambda _: b"HTTP/1.1 503 Down\r\n\r\n") == (False, "HTTP probe failed with statuscode: 503")


@pytest.mark.parametrize("path", ["/a\r\nX: y", "/a b", "/\0"])
def test_requests_cannot_be_split(path: str) -> None:
    assert http(lambda _: b"HTTP/1.1 200 OK\r\n\r\n", path=path)[0] is None


def test_tcp() -> None:
    async def use(port: int) -> tuple[bool | None, str]:
        return await attempt(Probe(tcp_socket=TcpSocketAction(port=port)))

    assert asyncio.run(serving(lambda _: None, use))[0] is True


def test_nobody_listens() -> None:
    """In the words of a kubelet, without asyncio's."""
    with socket.socket() as bound:  # a port that is taken and not listened at
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        refused = f"dial tcp 127.0.0.1:{port}: connect: connection refused"
        assert asyncio.run(attempt(Probe(tcp_socket=TcpSocketAction(port=port)))) == (False, refused)
        assert asyncio.run(attempt(Probe(http_get=HttpGetAction(port=port, path="a")))) == (
            False,
            f'Get "http://127.0.0.1:{port}/a": {refused}',
        )
        assert asyncio.run(attempt(Probe(grpc=GrpcAction(port=port)))) == (
            False,
            f'failed to connect service "127.0.0.1:{port}": {refused}',
        )


def test_several_addresses_and_none() -> None:
    many = OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1, 0, 0), [Errno 113] x")
    assert prober._undialled("a.test", 1, many) == "dial tcp a.test:1: connect: connection refused"
    gone = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    assert prober._undialled("a.test", 1, gone) == "dial tcp: lookup a.test: no such host"
    assert prober._place("fe80::1", 80) == "[fe80::1]:80"


def test_exec() -> None:
    check = Probe(exec=ExecAction(command=["sh", "-c", "x"]))
    assert asyncio.run(attempt(check)) == (True, "outerr")
    assert asyncio.run(attempt(check, Runner(code=1))) == (False, "outerr")
    late = CriError("slow", retryable=True, code="DEADLINE_EXCEEDED")
    assert asyncio.run(attempt(check, Runner(error=late), 2.0)) == (
        False,
        'command timed out: "sh -c x" timed out after 2s',
    )


def test_no_verdict_where_it_could_not_be_tried() -> None:
    check = Probe(exec=ExecAction(command=["x"]))
    away = CriError("away", retryable=True, code="UNAVAILABLE")
    assert asyncio.run(attempt(check, Runner(error=away))) == (None, ""), "the runtime is away"
    text = f'failed to start exec "{"0a" * 32}": executable file not found'
    absent = CriError("cannot ExecSync: " + text, retryable=True, code="UNKNOWN", said=text)
    told = "failed to start exec: executable file not found"
    assert asyncio.run(attempt(check, Runner(error=absent))) == (None, told), "the same each time"
    unnamed = Probe(tcp_socket=TcpSocketAction(port="nope"))
    assert asyncio.run(attempt(unnamed)) == (None, "cannot find port 'nope'")


def test_ports() -> None:
    assert prober.port_number("web", CONTAINER) == 8080
    assert prober.port_number("81", CONTAINER) == 81
    for bad in ("none", 0, 70000):
        with pytest.raises(ValueError, match="port"):
            prober.port_number(bad, CONTAINER)


def hooked(handler: LifecycleHandler, runner: Runner | None = None, timeout_s: float = 5.0) -> str:
    return asyncio.run(
        prober.hook(runner or Runner(), "id", CONTAINER, handler, pod_ip="127.0.0.1", timeout_s=timeout_s)
    )


def test_hooks() -> None:
    run = LifecycleHandler(exec=ExecAction(command=["x"]))
    assert hooked(run) == ""
    assert hooked(run, Runner(code=1)) == "outerr"
    assert hooked(LifecycleHandler(sleep=SleepAction(seconds=0))) == ""
    assert hooked(LifecycleHandler(sleep=SleepAction(seconds=9)), timeout_s=0.01) == "no end in 0.01 s"
    assert hooked(LifecycleHandler()) == ""
