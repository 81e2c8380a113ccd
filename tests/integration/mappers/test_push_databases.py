"""Readings on their way to Redis, TDengine and an OTLP collector: servers on loopback that speak their protocols."""

import asyncio
import contextlib
import json
import random
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mappers.framework import pusher
from mappers.framework.driver import Property
from mappers.framework.poller import Sample
from mappers.framework.push import Otlp, Redis, Target, Tdengine
from mappers.framework.pusher import Pusher
from tests.integration.mappers.support import until
from tests.integration.mappers.test_push import running
from tests.support.ports import free_port


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pusher, "RETRY_BASE_S", 0.05)
    monkeypatch.setattr(pusher, "RETRY_CAP_S", 0.1)


def push(one: Pusher, target: Target, value: str, type_: str = "FLOAT", name: str = "temp") -> None:
    one.push(Property(name=name, pushes=(target,)), Sample(name=name, type=type_, value=value, desired=""))


@contextlib.contextmanager
def serving(server: Any) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class FakeRedis(socketserver.ThreadingTCPServer):
    """Redis as far as ZADD: one sorted set for each key, a password, databases."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int, password: str = "") -> None:
        super().__init__(("127.0.0.1", port), _RedisCalls)
        self.password = password
        self.sets: dict[tuple[int, str], dict[str, float]] = {}
        self.says = ""


class _RedisCalls(socketserver.StreamRequestHandler):
    server: FakeRedis

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            self._serve()

    def _serve(self) -> None:
        allowed, database = not self.server.password, 0
        while (head := self.rfile.readline()).startswith(b"*"):
            words = []
            for _ in range(int(head[1:])):
                length = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(length + 2)[:-2].decode())
            match words:
                case ["AUTH", password]:
                    allowed = password == self.server.password
                    self.wfile.write(b"+OK\r\n" if allowed else b"-WRONGPASS invalid\r\n")
                case _ if not allowed:
                    self.wfile.write(b"-NOAUTH Authentication required.\r\n")
                case ["SELECT", number]:
                    database = int(number)
                    self.wfile.write(b"+OK\r\n")
                case _ if self.server.says:
                    self.wfile.write(f"-{self.server.says}\r\n".encode())
                case ["ZADD", key, score, member]:
                    self.server.sets.setdefault((database, key), {})[member] = float(score)
                    self.wfile.write(b":1\r\n")
                case _:
                    self.wfile.write(b"-ERR unknown command\r\n")


class Sink(BaseHTTPRequestHandler):
    """TDengine's REST interface and an OTLP collector.  The super table is missing until somebody makes it."""

    got: list[tuple[str, dict[str, str], str]]
    tables: set[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        answer: dict[str, Any] = {}
        if self.path.startswith("/rest/sql/"):
            if body.startswith("CREATE STABLE"):
                self.tables.add("readings")
                answer = {"code": 0}
            elif "readings" not in self.tables:
                answer = {"code": 0x2603, "desc": "Table does not exist"}
            elif "bad" in body:
                answer = {"code": 0x2600, "desc": "syntax error"}
            else:
                answer = {"code": 0, "rows": 1}
        if not answer.get("code") and not body.startswith("CREATE"):
            self.got.append((self.path, dict(self.headers), body))
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None: ...


@contextlib.contextmanager
def sink(port: int) -> Iterator[list[tuple[str, dict[str, str], str]]]:
    Sink.got, Sink.tables = [], set()
    with serving(ThreadingHTTPServer(("127.0.0.1", port), Sink)):
        yield Sink.got


def test_members_reach_a_redis_that_was_away_once_and_with_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSWORD", "s3cret")

    async def scenario() -> None:
        port = free_port()
        target = Redis(address=f"127.0.0.1:{port}/3", device="plant/boiler")
        one = Pusher(tmp_path, rng=random.Random(1))
        for i in range(20):
            push(one, target, str(i))
        async with running(one):
            await asyncio.sleep(0.2)
            server = FakeRedis(port, "s3cret")
            server.says = "LOADING Redis is loading the dataset in memory"
            with serving(server):
                await asyncio.sleep(0.3)
                assert server.sets == {}
                server.says = ""
                await until(lambda: len(server.sets.get((3, "boiler"), {})) == 20)
                member, score = next(iter(server.sets[3, "boiler"].items()))
                told = json.loads(member)
                assert told["TimeStamp"] == score
                assert told | {"TimeStamp": 0} == {
                    "DeviceName": "boiler",
                    "PropertyName": "temp",
                    "Namespace": "plant",
                    "Value": "0",
                    "Type": "float",
                    "TimeStamp": 0,
                }
                server.says = "WRONGTYPE Operation against a key holding the wrong kind of value"
                push(one, target, "x")
                await until(lambda: one.counts["refused"] == 1)
                assert one.counts["sent"] == 20

    asyncio.run(scenario())


def test_a_wrong_password_keeps_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "wrong")

    async def scenario() -> None:
        port = free_port()
        server = FakeRedis(port, "s3cret")
        one = Pusher(tmp_path, rng=random.Random(1))
        with serving(server):
            async with running(one):
                push(one, Redis(address=f"127.0.0.1:{port}/0", device="a/b"), "1")
                await asyncio.sleep(0.3)
                assert one.counts.total() == 0
                monkeypatch.setenv("PASSWORD", "s3cret")
                await until(lambda: one.counts["sent"] == 1)

    asyncio.run(scenario())


def test_rows_reach_tdengine_and_one_bad_one_takes_no_other_with_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        target = Tdengine(url=f"http://127.0.0.1:{port}/rest/sql/plant", device="plant/boiler")
        one = Pusher(tmp_path, rng=random.Random(1))
        with sink(port) as got:
            push(one, target, "21.5")
            push(one, target, "it's \\ bad\nreally", "STRING", "note")
            push(one, target, "true", "BOOLEAN", "on")
            async with running(one):
                await until(lambda: one.counts["sent"] == 2)
                assert one.counts["refused"] == 1
                path, headers, body = got[-1]
                assert path == "/rest/sql/plant"
                assert headers["Authorization"].startswith("Basic ")
                assert "TAGS ('plant/boiler', 'on', 'BOOLEAN') VALUES (" in body
                assert body.endswith(", 1, 'true')")
                assert all("bad" not in text for _, _, text in got)

    asyncio.run(scenario())


def test_metrics_reach_a_collector_in_one_call(tmp_path: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        target = Otlp(url=f"http://127.0.0.1:{port}/v1/metrics", device="plant/boiler")
        one = Pusher(tmp_path, rng=random.Random(1))
        push(one, target, "21.5")
        push(one, target, "7", "INT", "count")
        push(one, target, "words", "STRING", "note")
        with sink(port) as got:
            async with running(one):
                await until(lambda: one.counts["sent"] == 2)
                assert one.counts["refused"] == 1
        ((_, headers, body),) = got
        assert headers["Content-Type"] == "application/json"
        found = {}
        for resource in json.loads(body)["resourceMetrics"]:
            (attribute,) = resource["resource"]["attributes"]
            assert attribute == {"key": "device.id", "value": {"stringValue": "plant/boiler"}}
            (metric,) = resource["scopeMetrics"][0]["metrics"]
            (reading,) = metric["gauge"]["dataPoints"]
            assert int(reading.pop("timeUnixNano")) > 1_600_000_000_000_000_000
            found[metric["name"]] = reading
        assert found == {"temp": {"asDouble": 21.5}, "count": {"asInt": "7"}}

    asyncio.run(scenario())
