"""A registry of container images on loopback that does what no registry should."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator

ENDLESS_BYTES = 10 * 1024**3


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


_CONFIG = json.dumps(
    {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [_digest(b"x")]}}
).encode()
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def manifest(size: int) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": len(_CONFIG),
                "digest": _digest(_CONFIG),
            },
            "layers": [{"mediaType": _LAYER, "size": size, "digest": _digest(b"a layer")}],
        }
    ).encode()


class Registry:
    """Images `hangs`, `endless` (10 GiB, slowly), `wrong` (a layer that is not what it is called) and `forged` (the same of the
    manifest)."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.sent = 0
        """Bytes of the endless layer."""
        self.sending = 0
        self.asked: list[str] = []
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

            def do_HEAD(self) -> None:
                registry.serve(self)

            def do_GET(self) -> None:
                registry.serve(self)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]

    def serve(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        _, _, name, kind, *_ = [*request.path.split("/"), "", "", ""]
        with contextlib.suppress(OSError):
            if name == "hangs":
                self.stop.wait()
            elif kind == "manifests":
                size = ENDLESS_BYTES if name == "endless" else 4096
                self._answer(request, manifest(size), kind=_MANIFEST, forged=name == "forged")
            elif request.path.endswith(_digest(_CONFIG)):
                self._answer(request, _CONFIG)
            elif kind == "blobs" and name == "endless":
                self._flow(request)
            elif kind == "blobs":
                self._answer(request, bytes(4096))
            else:
                self._answer(request, b"{}")

    def _answer(
        self,
        request: http.server.BaseHTTPRequestHandler,
        body: bytes,
        *,
        kind: str = "application/octet-stream",
        forged: bool = False,
    ) -> None:
        request.send_response(200)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.send_header("Docker-Content-Digest", _digest(b"another" if forged else body))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)

    def _flow(self, request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(ENDLESS_BYTES))
        request.end_headers()
        self.sending += 1
        try:
            while request.command == "GET" and not self.stop.wait(0.05):
                request.wfile.write(bytes(64 * 1024))
                self.sent += 64 * 1024
        finally:
            self.sending -= 1

    @contextlib.contextmanager
    def serving(self) -> Iterator[Registry]:
        thread = threading.Thread(target=self._server.serve_forever, name="registry")
        thread.start()
        try:
            yield self
        finally:
            self.stop.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()
