"""Readings on their way to a real HTTP server and a real broker, which are away in between."""

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mappers.framework import pusher
from mappers.framework.driver import Driver, Property, Settings, Value
from mappers.framework.mqtt import Broker, Link
from mappers.framework.poller import Poller, Sample
from mappers.framework.push import Http, Influx, Mqtt, Target
from mappers.framework.pusher import Pusher
from mappers.framework.spec import DeviceSpec
from tests.integration.mappers.support import Collected, polled, until
from tests.support import mosquitto
from tests.support.mosquitto import broker
from tests.support.ports import free_port


class Sink(BaseHTTPRequestHandler):
    got: list[tuple[str, str, str]] = []
    status = 204

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        bad = "bad" in body
        status = 400 if bad else self.status
        if status == 204:
            self.got.append((self.path, self.headers.get("Authorization", ""), body))
        self.send_response(status)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None: ...


@contextlib.contextmanager
def sink(port: int) -> Iterator[list[tuple[str, str, str]]]:
    Sink.got, Sink.status = [], 204
    with ThreadingHTTPServer(("127.0.0.1", port), Sink) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield Sink.got
        finally:
            server.shutdown()
            thread.join()


@contextlib.asynccontextmanager
async def running(one: Pusher) -> Any:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(one.run())
        try:
            yield
        finally:
            task.cancel()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pusher, "RETRY_BASE_S", 0.05)
    monkeypatch.setattr(pusher, "RETRY_CAP_S", 0.1)


def make(folder: Path | None) -> Pusher:
    return Pusher(folder, rng=random.Random(1))


def push(one: Pusher, target: Target, value: str, type_: str = "STRING") -> None:
    sample = Sample(name="p", type=type_, value=value, desired="")
    one.push(Property(name="p", pushes=(target,)), sample)


def test_what_an_address_misses_waits_over_a_restart_and_comes_in_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        port = free_port()
        target = Http(url=f"http://127.0.0.1:{port}/in")
        first = make(tmp_path)
        async with running(first):
            for i in range(5):
                push(first, target, f"a{i}")
            await until(lambda: "Readings wait" in caplog.text)
        second = make(tmp_path)
        async with running(second):
            with sink(port) as got:
                push(second, target, "b0")
                await until(lambda: len(got) == 6)
                values = [body.split("&")[0] for _, _, body in got]
                assert values == ["p=a0", "p=a1", "p=a2", "p=a3", "p=a4", "p=b0"]
                assert {path for path, _, _ in got} == {"/in"}
                Sink.status = 503
                push(second, target, "c0")
                await asyncio.sleep(0.3)
                assert len(got) == 6
                Sink.status = 204
                await until(lambda: len(got) == 7)
                push(second, target, "bad")
                push(second, target, "d0")
                await until(lambda: len(got) == 8)
                assert dict(second.counts) == {"sent": 8, "refused": 1}

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert caplog.text.count("Readings wait") == 2  # once each time it goes


def test_points_go_in_batches_with_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cret")

    async def scenario() -> None:
        port = free_port()
        url = f"http://127.0.0.1:{port}/api/v2/write?org=o&bucket=b&precision=ms"
        target = Influx(url=url, measurement="m", field_key="f", tags={"room": "1"})
        one = make(tmp_path)
        for i in range(20):
            push(one, target, str(i), "INT")
        with sink(port) as got:
            async with running(one):
                await until(lambda: bool(got))
                path, token, body = got[0]
                assert (path.partition("?")[0], token) == ("/api/v2/write", "Token s3cret")
                lines = body.split("\n")
                assert len(lines) == 20
                assert lines[3].startswith("m,room=1 f=3i ")
                push(one, target, "bad")
                push(one, target, "9", "INT")
                await until(lambda: one.counts["sent"] == 21)
                assert one.counts["refused"] == 1

    asyncio.run(scenario())


@pytest.mark.skipif(not mosquitto.IS_HERE, reason="mosquitto is not installed")
def test_readings_reach_a_broker_and_a_dead_one_stalls_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        port, dead = free_port(), free_port()
        heard: list[str] = []
        one = make(tmp_path)
        async with broker(port), running(one):
            link = Link.use(Broker(host="127.0.0.1", port=port))
            await link.wait(30)
            link.subscribe("plant/t", lambda topic, payload: heard.append(payload.decode()))
            while not heard:  # the broker may not have the subscription yet
                await link.publish("plant/t", b"first")
                await asyncio.sleep(0.1)

            def readings() -> list[str]:
                return [text for text in heard if text != "first"]

            push(one, Mqtt(address=f"tcp://127.0.0.1:{dead}", topic="x", qos=1), "1")
            for i in range(3):
                push(one, Mqtt(address=f"tcp://127.0.0.1:{port}", topic="plant/t", qos=1), str(i))
            await until(lambda: len(readings()) == 3)
            assert [text.rpartition("  ")[2] for text in readings()] == [
                "plant/t: 0",
                "plant/t: 1",
                "plant/t: 2",
            ]
            await link.leave()
        assert not Link._open

    asyncio.run(scenario())


def test_a_device_pushes_in_its_report_cycle() -> None:
    class Counter(Driver):
        protocol = "counter"

        async def open(self) -> None:
            self.count = 0

        async def read(self, prop: Property) -> Value:
            self.count += 1
            return self.count

    async def scenario() -> None:
        pushed: list[Sample] = []
        row = Property(
            name="n",
            type="INT",
            cycle_s=0.02,
            report=False,
            pushes=(Http(url="http://h/"),),
            push_cycle_s=0.2,
        )
        spec = DeviceSpec(id="default/d", settings=Settings(), properties={"n": row})
        reports = Collected()
        poller = Poller(
            Counter, spec, reports, rng=random.Random(1), push=lambda prop, sample: pushed.append(sample)
        )
        async with polled(poller):
            await until(lambda: len(pushed) == 3)
        assert int(pushed[2].value) >= 10  # read far more often than pushed
        assert reports.values == {}

    asyncio.run(scenario())
