"""Run one probe or hook: exec in the container, an HTTP request, a TCP connection, a gRPC health check, a sleep.

Nothing is decided here; an attempt gives (success, text).  What a pod answers is read up to a bound.
Source: kubelet, prober/prober.go and lifecycle/handlers.go.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Protocol
from urllib.parse import urljoin, urlsplit

from edgecore.edged.errors import CriError, EdgedError
from edgecore.edged.pod import Container, HttpGetAction, IntOrString, LifecycleHandler, Probe
from edgecore.edged.runtime import ExecResult

MAX_OUTPUT = 256
MAX_HEAD_BYTES = 64 * 1024
MAX_REDIRECTS = 10
# RFC 7231 lets these redirect; others with 3xx are a success as they are
REDIRECTS = (301, 302, 303, 307, 308)


class Runner(Protocol):
    async def exec_sync(self, container_id: str, argv: list[str], timeout_s: float) -> ExecResult: ...


async def probe(
    runner: Runner, container_id: str, container: Container, check: Probe, *, pod_ip: str, timeout_s: float
) -> tuple[bool | None, str]:
    """One attempt.  None instead of a success when the runtime could not say: no verdict against the container (P5)."""
    try:
        if check.exec is not None:
            return await _exec(runner, container_id, check.exec.command, timeout_s)
        async with asyncio.timeout(timeout_s):
            if check.http_get is not None:
                return await _http(check.http_get, container, pod_ip)
            if check.tcp_socket is not None:
                return await _tcp(
                    check.tcp_socket.host or pod_ip, port_number(check.tcp_socket.port, container)
                )
            if check.grpc is not None:
                from edgecore.edged import health

                return await health.check(pod_ip, check.grpc.port, check.grpc.service, timeout_s)
        return None, "no probe"
    except TimeoutError:
        return False, f"no answer in {timeout_s:g} s"
    except (OSError, EdgedError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as err:
        return False, str(err)[:MAX_OUTPUT]


async def _exec(
    runner: Runner, container_id: str, argv: list[str], timeout_s: float
) -> tuple[bool | None, str]:
    try:
        result = await runner.exec_sync(container_id, argv, timeout_s)
    except CriError as err:
        if err.code == "DEADLINE_EXCEEDED":
            return False, f"command timed out after {timeout_s:g} s"
        if err.code == "UNAVAILABLE":
            return None, str(err)
        return False, str(err)[:MAX_OUTPUT]
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


async def _tcp(host: str, port: int) -> tuple[bool, str]:
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
    return True, ""


async def _http(action: HttpGetAction, container: Container, pod_ip: str) -> tuple[bool, str]:
    scheme = action.scheme.lower() or "http"
    host = action.host or pod_ip
    port = port_number(action.port, container)
    shown = f"[{host}]" if ":" in host else host
    path = action.path if action.path.startswith("/") else "/" + action.path
    url = f"{scheme}://{shown}:{port}{path}"
    headers = {h.name.title(): h.value for h in action.http_headers}
    first = urlsplit(url)
    for _ in range(MAX_REDIRECTS):
        status, location = await _get(url, headers)
        target = urljoin(url, location) if location else ""
        if status in REDIRECTS and target and urlsplit(target).hostname == first.hostname:
            url = target
            continue
        # a redirect to another host is not followed and counts as success, as in a kubelet
        return 200 <= status < 400, f"HTTP probe failed with statuscode: {status}" if status >= 400 else ""
    return False, f"stopped after {MAX_REDIRECTS} redirects"


async def _get(url: str, extra: dict[str, str]) -> tuple[int, str]:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"Host": parts.netloc, "User-Agent": "kube-probe/1.34", "Accept": "*/*", "Connection": "close"}
    headers.update(extra)
    if any(c in "\r\n\0 " for c in path) or any(c in "\r\n\0" for k, v in headers.items() for c in k + v):
        raise ValueError("request holds a control character")
    context = None
    if parts.scheme == "https":
        # a probe asks whether the pod answers, not who it is
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=MAX_HEAD_BYTES)
    try:
        lines = "".join(f"{k}: {v}\r\n" for k, v in headers.items() if v)
        writer.write(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1", "replace"))
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    finally:
        writer.close()
    words = head[0].split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
        raise ValueError(f"not an HTTP answer: {head[0][:64]!r}")
    location = next((h.partition(":")[2].strip() for h in head[1:] if h.lower().startswith("location:")), "")
    return int(words[1]), location


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
                ok, text = await _http(handler.http_get, container, pod_ip)
            else:
                return ""
    except TimeoutError:
        return f"no end in {timeout_s:g} s"
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as err:
        return str(err)[:MAX_OUTPUT] or type(err).__name__
    return "" if ok else text or "failed"
