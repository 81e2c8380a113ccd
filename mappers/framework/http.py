"""One HTTP request with bounds on its time and its size.  Blocking: call it from a thread.

Redirects are not followed and no proxy is used: what a manifest names is what is asked."""

import base64
import http.client
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from mappers.framework.errors import DeviceError, DriverError

MAX_BYTES = 1024 * 1024
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    body: bytes


def check_url(url: str) -> str:
    """Raises: DriverError unless it is an http or https address."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or any(ord(c) <= 32 or ord(c) > 126 for c in url):
        raise DriverError(f"not an http address: {url[:64]!r}")
    return url


def basic(user: str, password: str) -> str:
    """The value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def request(
    method: str,
    url: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 5.0,
    ca: str | None = None,
) -> Answer:
    """Ask once.  ca: file with the authority of an https server, None for the machine's own.

    Raises: DeviceError when there is no answer within `timeout_s` or it is longer than 1 MiB; DriverError for a bad address."""
    parts = urlsplit(check_url(url))
    until = time.monotonic() + timeout_s
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    try:
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=ca)
            connection = http.client.HTTPSConnection(host, parts.port, timeout=timeout_s, context=context)
        else:
            connection = http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
    except (OSError, ssl.SSLError) as error:
        raise DriverError(f"cannot use {ca}: {error}") from error
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, target, body=body, headers={"Connection": "close", **(headers or {})})
        answer = connection.getresponse()
        return Answer(status=answer.status, body=_body(answer, until))
    except (OSError, http.client.HTTPException, ValueError) as error:
        where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        raise DeviceError(f"no answer from {where}: {str(error) or type(error).__name__}") from error
    finally:
        connection.close()


def _body(answer: http.client.HTTPResponse, until: float) -> bytes:
    """A server that sends a byte now and then meets its end here: each wait is bounded by the socket's timeout, all by
    `until`."""
    chunks: list[bytes] = []
    size = 0
    while chunk := answer.read1(_CHUNK):
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_BYTES:
            raise DeviceError(f"the answer is longer than {MAX_BYTES} bytes")
        if time.monotonic() > until:
            raise DeviceError("the answer takes too long")
    return b"".join(chunks)
