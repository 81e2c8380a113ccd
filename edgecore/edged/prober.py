"""Run one probe or hook: exec in the container, an HTTP request, a TCP connection, a gRPC health check, a sleep.

Nothing is decided here; an attempt gives (success, text).  What a pod answers is read up to a bound.  The texts are a
kubelet's, whose words people look up and watch for.
Source: kubelet, prober/prober.go and lifecycle/handlers.go.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from typing import Protocol
from urllib.parse import urljoin, urlsplit

from beehive.errors import system_words
from edgecore.edged.errors import CriError
from edgecore.edged.pod import Container, HttpGetAction, IntOrString, LifecycleHandler, Probe
from edgecore.edged.runtime import ExecResult

MAX_OUTPUT = 256
MAX_HEAD_BYTES = 64 * 1024
MAX_REDIRECTS = 10
# RFC 7231 lets these redirect; others with 3xx are a success as they are
REDIRECTS = (301, 302, 303, 307, 308)

_ATTEMPT = re.compile(r'exec "[0-9a-f]{64}"')


class _Failed(Exception):
    """The pod did not answer as it should; the text says how."""


class Runner(Protocol):
    async def exec_sync(self, container_id: str, argv: list[str], timeout_s: float) -> ExecResult: ...


async def probe(
    runner: Runner, container_id: str, container: Container, check: Probe, *, pod_ip: str, timeout_s: float
) -> tuple[bool | None, str]:
    """One attempt.

    None instead of a success when it could not be tried: no verdict against the container (P5).  With it, the text is
    empty while the runtime is away, and otherwise worth telling.  So is a text with the success of an HTTP probe."""
    try:
        if check.exec is not None:
            return await _exec(runner, container_id, check.exec.command, timeout_s)
        if check.http_get is not None:
            return await _http(check.http_get, container, pod_ip, timeout_s)
        if check.tcp_socket is not None:
            port = port_number(check.tcp_socket.port, container)
            return await _tcp(check.tcp_socket.host or pod_ip, port, timeout_s)
        if check.grpc is not None:
            return await _grpc(pod_ip, check.grpc.port, check.grpc.service, timeout_s)
    except ValueError as err:
        return None, str(err)[:MAX_OUTPUT]
    return None, ""


async def _exec(
    runner: Runner, container_id: str, argv: list[str], timeout_s: float
) -> tuple[bool | None, str]:
    try:
        result = await runner.exec_sync(container_id, argv, timeout_s)
    except CriError as err:
        if err.code == "DEADLINE_EXCEEDED":
            shown = " ".join(argv)[:MAX_OUTPUT]
            return False, f'command timed out: "{shown}" timed out after {timeout_s:g}s'
        # the id of the attempt would make each event another one
        return None, "" if err.code == "UNAVAILABLE" else _ATTEMPT.sub("exec", err.said)[:MAX_OUTPUT]
    text = (result.stdout + result.stderr)[:MAX_OUTPUT].decode("utf-8", "replace")
    return result.exit_code == 0, text


def port_number(port: IntOrString, container: Container) -> int:
    """A port by number or by the name it has in the container.  Raises ValueError."""
    if isinstance(port, str):
        named = next((p.container_port for p in container.ports if p.name == port), None)
        if named is None and not port.isdigit():
            raise ValueError(f"cannot find port {port[:64]!r}")
        port = named if named is not None else int(port)
    if not 0 < port < 65536:
        raise ValueError(f"port {port} is out of range")
    return port


async def _tcp(host: str, port: int, timeout_s: float) -> tuple[bool, str]:
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await _dial(host, port)
    except TimeoutError:
        return False, f"dial tcp {_place(host, port)}: i/o timeout"
    except _Failed as err:
        return False, str(err)[:MAX_OUTPUT]
    writer.close()
    return True, ""


async def _grpc(host: str, port: int, service: str, timeout_s: float) -> tuple[bool, str]:
    # it takes memory that most nodes need not spend
    from edgecore.edged import health

    try:
        async with asyncio.timeout(timeout_s):
            return await health.check(host, port, service, timeout_s)
    except TimeoutError:
        return False, f"timeout: health rpc did not complete within {timeout_s:g}s: context deadline exceeded"
    except OSError as err:
        return False, f'failed to connect service "{_place(host, port)}": {_undialled(host, port, err)}'


async def _http(
    action: HttpGetAction, container: Container, pod_ip: str, timeout_s: float
) -> tuple[bool, str]:
    """Raises ValueError for what cannot be asked."""
    scheme = action.scheme.lower() or "http"
    port = port_number(action.port, container)
    path = action.path if action.path.startswith("/") else "/" + action.path
    url = f"{scheme}://{_place(action.host or pod_ip, port)}{path}"
    # a list: a name may be there more than once
    headers = [(h.name.title(), h.value) for h in action.http_headers]
    first = urlsplit(url)
    try:
        async with asyncio.timeout(timeout_s):
            for _ in range(MAX_REDIRECTS):
                status, location, body = await _get(url, headers)
                target = urljoin(url, location) if location else ""
                if status in REDIRECTS and target:
                    if urlsplit(target).hostname == first.hostname:
                        url = target
                        continue
                    # one to another host is not followed and counts as success, as in a kubelet
                    return True, f"Probe terminated redirects, Response body: {body}"
                failed = f"HTTP probe failed with statuscode: {status}" if status >= 400 else ""
                return 200 <= status < 400, failed
    except TimeoutError:
        why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    except _Failed as err:
        why = str(err)[:MAX_OUTPUT]
    else:
        why = f"stopped after {MAX_REDIRECTS} redirects"
    return False, f'Get "{url[:MAX_OUTPUT]}": {why}'


async def _get(url: str, extra: list[tuple[str, str]]) -> tuple[int, str, str]:
    """Status, location, and the beginning of the body where there is a location.

    Raises _Failed; ValueError for what cannot be asked."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    usual = {"Host": parts.netloc, "User-Agent": "kube-probe/1.34", "Accept": "*/*", "Connection": "close"}
    given = {name for name, _ in extra}
    headers = [*((name, value) for name, value in usual.items() if name not in given), *extra]
    if any(c in "\r\n\0 " for c in path) or any(c in "\r\n\0" for k, v in headers for c in k + v):
        raise ValueError("request holds a control character")
    context = None
    if parts.scheme == "https":
        # a probe asks whether the pod answers, not who it is
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    reader, writer = await _dial(host, port, context)
    try:
        lines = "".join(f"{k}: {v}\r\n" for k, v in headers if v)
        writer.write(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1", "replace"))
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        location = _header(head, "location")
        length = _header(head, "content-length")
        body = b""
        if location and length.isdigit() and int(length):
            body = await reader.readexactly(min(MAX_OUTPUT, int(length)))
    except asyncio.IncompleteReadError as err:
        raise _Failed("EOF") from err
    except asyncio.LimitOverrunError as err:
        raise _Failed(f"server response headers exceeded {MAX_HEAD_BYTES} bytes; aborted") from err
    except OSError as err:
        if isinstance(err, TimeoutError) and err.errno is None:
            raise  # the probe's own, not the network's
        raise _Failed(f"read tcp {_place(host, port)}: read: {system_words(err).lower()}") from err
    finally:
        writer.close()
    words = head[0].split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
        raise _Failed(f'malformed HTTP response "{head[0][:64]}"')
    return int(words[1]), location, body.decode("utf-8", "replace")


def _header(head: list[str], name: str) -> str:
    """The value of a header in the lines of a response; empty without it."""
    return next(
        (line.partition(":")[2].strip() for line in head[1:] if line.lower().startswith(f"{name}:")), ""
    )


async def _dial(
    host: str, port: int, context: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Raises _Failed; TimeoutError of the caller's own time limit."""
    try:
        return await asyncio.open_connection(host, port, ssl=context, limit=MAX_HEAD_BYTES)
    except OSError as err:
        if isinstance(err, TimeoutError) and err.errno is None:
            raise
        raise _Failed(_undialled(host, port, err)) from err


def _undialled(host: str, port: int, err: OSError) -> str:
    """Why there is no connection, as Go says it."""
    if isinstance(err, socket.gaierror):
        return f"dial tcp: lookup {host}: no such host"
    if isinstance(err, ssl.SSLError):
        return f"tls: {err.reason or err}"
    return f"dial tcp {_place(host, port)}: connect: {system_words(err).lower()}"


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def hook(
    runner: Runner,
    container_id: str,
    container: Container,
    handler: LifecycleHandler,
    *,
    pod_ip: str,
    timeout_s: float,
) -> str:
    """Run a postStart or preStop hook; returns what went wrong, or nothing."""
    try:
        async with asyncio.timeout(timeout_s):
            if handler.sleep is not None:
                await asyncio.sleep(handler.sleep.seconds)
                return ""
            if handler.exec is not None:
                ok, text = await _exec(runner, container_id, handler.exec.command, timeout_s)
            elif handler.http_get is not None:
                ok, text = await _http(handler.http_get, container, pod_ip, timeout_s)
            else:
                return ""
    except TimeoutError:
        return f"no end in {timeout_s:g} s"
    except ValueError as err:
        return str(err)[:MAX_OUTPUT]
    return "" if ok else text or "failed"
