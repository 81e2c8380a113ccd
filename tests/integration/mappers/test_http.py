"""The HTTP driver against a real server on loopback."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mappers.framework import http
from mappers.framework.driver import DeviceError, DriverError, Settings
from mappers.framework.errors import ValueRefused
from mappers.http.driver import Http
from tests.integration.mappers.support import prop
from tests.support.ports import free_port


class Plug(BaseHTTPRequestHandler):
    state: dict[str, Any] = {}
    asked: list[tuple[str, str, str, str]] = []

    def _do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.asked.append((self.command, self.path, body, self.headers.get("Authorization", "")))
        status, answer = 200, json.dumps({"relays": [self.state], "name": "plug"}).encode()
        match self.path.strip("/"):
            case "relay/0" if self.command == "POST":
                self.state.update(json.loads(body))
            case "broken":
                answer = b"<html>"
            case "busy":
                status = 503
            case "gone":
                status = 404
            case "away":
                status = 302
            case "huge":
                answer = b"x" * (2 * http.MAX_BYTES)
        self.send_response(status)
        self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(answer)

    do_GET = do_POST = do_PUT = _do

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def plug() -> Iterator[str]:
    Plug.state, Plug.asked = {"on": False}, []
    with ThreadingHTTPServer(("127.0.0.1", 0), Plug) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def make(url: str, **settings: Any) -> Http:
    device = Http()
    device.settings = Settings({"url": url, **settings})
    device.open()
    return device


def test_reading_and_writing(plug: str, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("geheim\n")
    device = make(plug, userName="u", password=str(tmp_path / "password"), MAXAGE="30")
    row = prop("on", "BOOLEAN", path="/status", jsonPath="$.relays[0].on", writePath="/relay/0")
    assert device.read(row) is False
    assert device.read(prop("name", "STRING", path="/status", jsonPath="name")) == "plug"
    assert len(Plug.asked) == 1  # two properties, one request
    device.write(row, True)
    assert Plug.asked[1] == ("POST", "/relay/0", '{"on":true}', "Basic dTpnZWhlaW0=")
    assert device.read(row) is True


def test_bad_answers_are_told_apart(plug: str) -> None:
    device = make(plug, timeout=2)
    for path, error in (
        ("/broken", ValueRefused),
        ("/busy", DeviceError),
        ("/gone", DriverError),
        ("/away", DriverError),
        ("/huge", DeviceError),
        ("http://127.0.0.1:1/x", DriverError),
        ("//127.0.0.1:1/x", DriverError),
        ("file:///etc/passwd", DriverError),
    ):
        with pytest.raises(error):
            device.read(prop("p", "STRING", path=path))
    with pytest.raises(DeviceError):
        make(f"http://127.0.0.1:{free_port()}/").read(prop("p", "STRING", path="/"))
    for url in ("ftp://a/", "http://", "http://a:x/", "http://a/\r\nHost: b"):
        with pytest.raises(DriverError):
            make(url)


def test_a_server_that_dawdles_is_left() -> None:
    async def scenario() -> None:
        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            with contextlib.suppress(OSError):
                while not writer.is_closing():
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.05)

        server = await asyncio.start_server(drip, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(DeviceError, match="too long"):
            await asyncio.to_thread(http.request, "GET", f"http://127.0.0.1:{port}/", timeout_s=0.3)
        await asyncio.sleep(0.15)
        server.close()

    asyncio.run(scenario())
