"""One bounded HTTPS GET, for the few files that a hub gives before there is a link.  No redirects, no keep-alive, no cookies.

http.client would do, but it blocks, and an HTTP library in the daemon costs more memory than these lines."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from beehive.errors import ProtocolError, system_words
from edgecore.edgehub.websocket import Unreachable, proxy_for, refuse_expired

TIMEOUT_S = 30.0
MAX_BODY_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes

    @property
    def text(self) -> str:
        """The start of the body, for a message."""
        return self.body[:200].decode("utf-8", "replace").strip()


async def get(
    address: str,
    path: str,
    *,
    tls: ssl.SSLContext,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    any_time: bool = False,
) -> Response:
    """GET `path` from `host:port`.  A body goes along, as KubeEdge's /edge.crt wants it.   any_time: as for `dial`.

    Through the environment's proxy if it names one.
    Raises: Unreachable, ProtocolError (no HTTP, or too long), ssl.SSLCertVerificationError, Refused (expired; the proxy)."""
    host, _, port = address.rpartition(":")
    lines = [f"GET {path} HTTP/1.1", f"Host: {address}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    assert not any("\r" in line or "\n" in line for line in lines), "a header with a line break in it"
    request = "\r\n".join([*lines, "", ""]).encode() + body
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await _connect(host.strip("[]"), int(port), tls)
            try:
                if not any_time:
                    refuse_expired(address, writer.get_extra_info("ssl_object"))
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                received = b""
                # one piece more than allowed at most, so that too much is seen without being kept
                while len(received) <= MAX_BODY_BYTES and (piece := await reader.read(MAX_BODY_BYTES)):
                    received += piece
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError as error:
        raise Unreachable(f"cannot reach the cloud at {address}: no answer in {TIMEOUT_S:.0f} s") from error
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise ProtocolError(f"what answers at {address} is not a hub") from error
    except ssl.SSLCertVerificationError:
        raise
    except OSError as error:
        raise Unreachable(f"cannot reach the cloud at {address}: {system_words(error)}") from error
    found = re.match(r"HTTP/1\.[01] (\d{3}) ", head)
    if found is None or len(received) > MAX_BODY_BYTES:
        raise ProtocolError(f"what answers at {address} is not a hub")
    return Response(int(found[1]), received)


async def _connect(
    host: str, port: int, tls: ssl.SSLContext
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """With TLS; by CONNECT where the environment names a proxy.  Raises OSError, Refused, Unreachable."""
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    named = proxy_for(place)
    if named is None:
        return await asyncio.open_connection(host, port, ssl=tls)
    proxy = urlsplit(named)
    over_tls = proxy.scheme == "https"
    at = proxy.port or (443 if over_tls else 80)
    reader, writer = await asyncio.open_connection(proxy.hostname, at, ssl=True if over_tls else None)
    try:
        lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
        if proxy.username is not None:
            who = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
            lines.append(f"Proxy-Authorization: Basic {base64.b64encode(who.encode()).decode()}")
        writer.write("\r\n".join([*lines, "", ""]).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        found = re.match(r"HTTP/1\.[01] (\d{3}) ?([^\r]{0,80})", head)
        if found is None or found[1] != "200":
            said = f"{found[1]} {found[2]}".strip() if found else "no HTTP"
            raise Unreachable(f"cannot reach the cloud at {place}: the proxy answered {said}")
        await writer.start_tls(tls, server_hostname=host)
    except BaseException:
        writer.close()
        raise
    return reader, writer
