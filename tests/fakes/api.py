"""A Kubernetes API that answers what a test wrote down: plain HTTP on loopback, one script per path and query."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Reply:
    """status, body: an answer.   lines: a watch, each sent as a chunk.   then: `end` it well, `cut` it within a chunk, or
    `hold` it open until the client goes."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    lines: list[Any] | None = None
    then: str = "end"


@dataclass
class FakeApi:
    """`lists` and `watches` are used up from the front; the last one stays."""

    lists: list[Reply]
    watches: list[Reply] = field(default_factory=list)
    others: list[Reply] = field(default_factory=list)
    seen: list[tuple[str, str, dict[str, list[str]], bytes]] = field(default_factory=list)
    url: str = ""
    versions: list[int] = field(default_factory=lambda: [10**9])
    """What is answered to those who ask for no more than the version, used up likewise."""

    def next_reply(self, method: str, query: dict[str, list[str]]) -> Reply:
        if method == "GET" and query.get("limit") == ["1"]:
            return listed(self.versions.pop(0) if len(self.versions) > 1 else self.versions[0])
        script = self.others if method != "GET" else self.watches if "watch" in query else self.lists
        return script.pop(0) if len(script) > 1 else script[0]


@contextlib.contextmanager
def serving(api: FakeApi) -> Iterator[FakeApi]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            del args

        def handle_any(self) -> None:
            parts = urlsplit(self.path)
            query = parse_qs(parts.query)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            api.seen.append((self.command, parts.path, query, body))
            reply = api.next_reply(self.command, query)
            self.send_response(reply.status)
            self.send_header("Content-Type", "application/json")
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.lines is None:
                data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                return
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for line in reply.lines:
                data = line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            if reply.then == "end":
                self.wfile.write(b"0\r\n\r\n")
            elif reply.then == "cut":
                self.wfile.write(b"ff\r\n{")
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
            else:
                self.wfile.flush()
                with contextlib.suppress(OSError):
                    self.connection.recv(1)
            self.close_connection = True

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def pod(name: str, version: int, *, node: str = "a", uid: str = "") -> dict[str, Any]:
    meta = {"name": name, "namespace": "ns", "uid": uid or f"u-{name}", "resourceVersion": str(version)}
    return {"metadata": meta, "spec": {"nodeName": node}}


def listed(version: int, *items: dict[str, Any], token: str = "") -> Reply:
    meta = {"resourceVersion": str(version), **({"continue": token} if token else {})}
    return Reply(body={"kind": "PodList", "apiVersion": "v1", "metadata": meta, "items": list(items)})


def event(type_: str, item: dict[str, Any]) -> dict[str, Any]:
    return {"type": type_, "object": {"kind": "Pod", "apiVersion": "v1", **item}}


def status(code: int, reason: str, message: str = "no") -> dict[str, Any]:
    return {
        "kind": "Status",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
        "metadata": {},
    }
