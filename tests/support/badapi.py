"""A Kubernetes API that has bad hours: plain HTTP on loopback before a real one, which answers as a test wants."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import http.server
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cloudcore import kube


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """at: monotonic seconds."""

    method: str
    path: str
    query: dict[str, list[str]]
    at: float

    @property
    def watches(self) -> bool:
        return "watch" in self.query

    @property
    def lists(self) -> bool:
        """Whether this asks for all of a kind, not only which version it is at."""
        return self.method == "GET" and not self.watches and self.query.get("limit") != ["1"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """status and body: answered instead.   events: what a watch says, after which it ends.   cut: `reset` the connection or end
    it (`torn`), in the middle of what was to be said, if there is something, else before anything."""

    status: int = 0
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    events: tuple[Any, ...] = ()
    cut: str = ""


def failure(code: int, reason: str, **headers: str) -> Fault:
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": "a bad hour",
        "reason": reason,
        "code": code,
        "metadata": {},
    }
    return Fault(
        status=code, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


class BadApi:
    """Set `fault` at any time: it is asked about each request.   asked: all that came."""

    def __init__(self, kubeconfig: Path) -> None:
        real = kube.load(str(kubeconfig))
        self._real = urlsplit(real.host)
        self._tls = ssl.create_default_context(cafile=real.ssl_ca_cert)
        self._tls.load_cert_chain(real.cert_file, real.key_file)
        self.fault: Callable[[Asked], Fault | None] = lambda asked: None
        self.asked: list[Asked] = []
        self.url = ""
        self._watches: set[socket.socket] = set()

    def tear_watches(self) -> None:
        """End every watch that is open in the middle of a chunk."""
        for line in list(self._watches):
            with contextlib.suppress(OSError):
                line.sendall(b'ff\r\n{"type":"MODIFIED","object":{"kind":"P')
                line.shutdown(socket.SHUT_RDWR)

    def reset_watches(self) -> None:
        for line in list(self._watches):
            reset(line)

    def open_watches(self) -> int:
        return len(self._watches)

    def kubeconfig(self, folder: Path) -> Path:
        """One that leads here."""
        path = folder / "bad-kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "bad",
                    "contexts": [{"name": "bad", "context": {"cluster": "bad", "user": "bad"}}],
                    "clusters": [{"name": "bad", "cluster": {"server": self.url}}],
                    "users": [{"name": "bad", "user": {}}],
                }
            )
        )
        return path

    # -- one request

    def serve(self, request: http.server.BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path)
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        asked = Asked(
            method=request.command, path=parts.path, query=parse_qs(parts.query), at=time.monotonic()
        )
        self.asked.append(asked)
        fault = self.fault(asked)
        if fault is None:
            self._forward(request, asked, body)
            return
        if fault.status or fault.events:
            said = b"".join(json.dumps(one).encode() + b"\n" for one in fault.events)
            data = said or json.dumps(fault.body).encode()
            request.send_response(fault.status or 200)
            for name, value in {"Content-Type": "application/json", **fault.headers}.items():
                request.send_header(name, value)
            length = len(data) + (1000 if fault.cut else 0)
            request.send_header("Content-Length", str(length))
            request.end_headers()
            request.wfile.write(data)
        if fault.cut:
            request.close_connection = True
            if fault.cut == "reset":
                reset(request.connection)

    def _forward(self, request: http.server.BaseHTTPRequestHandler, asked: Asked, body: bytes) -> None:
        line = http.client.HTTPSConnection(str(self._real.hostname), self._real.port, context=self._tls)
        try:
            headers = {
                name: value
                for name, value in request.headers.items()
                if name.lower() not in ("host", "connection", "content-length")
            }
            line.request(asked.method, request.path, body=body or None, headers=headers)
            answer = line.getresponse()
            request.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in (
                    "transfer-encoding",
                    "content-length",
                    "connection",
                    "date",
                    "server",
                ):
                    request.send_header(name, value)
            request.send_header("Transfer-Encoding", "chunked")
            request.end_headers()
            if asked.watches:
                self._watches.add(request.connection)
            while data := answer.read1(65536):
                request.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            request.wfile.write(b"0\r\n\r\n")
        except (OSError, http.client.HTTPException):
            # either side has gone
            request.close_connection = True
        finally:
            self._watches.discard(request.connection)
            line.close()


_LIBC = ctypes.CDLL(None, use_errno=True)


def reset(line: socket.socket) -> None:
    """End a connection at once as a machine that has lost it does, whoever waits on it here.

    Source: connect(2): a family of AF_UNSPEC dissolves a connection; that of TCP is reset."""
    nobody = struct.pack("=H14x", socket.AF_UNSPEC)
    _LIBC.connect(line.fileno(), nobody, len(nobody))


@contextlib.contextmanager
def before(kubeconfig: Path) -> Iterator[BadApi]:
    """A good one, until its `fault` says otherwise."""
    api = BadApi(kubeconfig)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            del args

        def handle_any(self) -> None:
            api.serve(self)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def handle(self) -> None:
            with contextlib.suppress(OSError, ValueError):
                super().handle()

        def finish(self) -> None:
            with contextlib.suppress(OSError, ValueError):
                super().finish()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="bad api", daemon=True)
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield api
    finally:
        api.reset_watches()
        server.shutdown()
        server.server_close()
        thread.join()
