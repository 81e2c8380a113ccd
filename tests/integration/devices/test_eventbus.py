"""The bus and the twin part against a real mosquitto."""

import asyncio
import contextlib
import json
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from beehive import clock
from devicetwin.module import DeviceTwin
from edgecore.eventbus import mqtt
from edgecore.eventbus.mqtt import EventBus
from tests.support import mosquitto
from tests.support.mosquitto import broker
from tests.support.ports import free_port
from tests.unit.devicetwin.fakes import MemoryStore, MemoryUplink, twin_message, until

pytestmark = pytest.mark.skipif(not mosquitto.IS_HERE, reason="mosquitto is not installed")


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="skm") as name:
        Path(name).chmod(0o777)  # mosquitto gives up root
        yield Path(name)


class Local:
    """A local client: publishes, and keeps what it sees."""

    def __init__(self, port: int) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self.client.on_message = self._on_message
        self.client.connect("127.0.0.1", port)
        self.client.subscribe("$hw/#", qos=1)
        self.client.loop_start()

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        self.seen.append(
            (message.topic, json.loads(message.payload) if message.payload[:1] == b"{" else message.payload)
        )

    def say(self, topic: str, payload: Any, *, qos: int = 1, retain: bool = False) -> None:
        text = json.dumps(payload) if isinstance(payload, dict) else payload
        sent = self.client.publish(topic, text, qos=qos, retain=retain)
        if qos:
            sent.wait_for_publish(30)  # the broker has it

    def answers(self, tail: str) -> list[Any]:
        return [p for t, p in self.seen if t.endswith(tail)]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextlib.asynccontextmanager
async def running(bus: EventBus, *others: Any) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(part.run()) for part in (bus, *others)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


def test_a_device_without_a_mapper_works_over_mqtt(folder: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        async with broker(port, folder=folder), contextlib.AsyncExitStack() as stack:
            uplink = MemoryUplink()

            async def on_message(topic: str, payload: bytes) -> None:
                await twin.on_mqtt(topic, payload)

            bus = EventBus(url=f"tcp://127.0.0.1:{port}", node_name="edge-1", on_message=on_message)
            twin = DeviceTwin(
                node_name="edge-1",
                store=MemoryStore(),
                uplink=uplink,
                publisher=bus,
                dmi_dir=folder / "dmi",
                clock=clock,
            )
            await stack.enter_async_context(running(bus, twin))
            await bus.connected.wait()
            local = Local(port)
            stack.callback(local.close)
            added = {
                "event_id": "1",
                "timestamp": 1,
                "added_devices": [{"id": "plant/pump", "name": "pump"}],
                "removed_devices": None,
            }
            await twin.on_message(twin_message("membership", added))
            await until(lambda: bool(local.answers("/membership/updated")))
            topic = "$hw/events/device/plant/pump"
            local.say(
                f"{topic}/twin/update",
                {"event_id": "a", "twin": {"rpm": {"actual": {"value": "900"}, "metadata": {"type": "int"}}}},
            )
            await until(lambda: bool(local.answers("twin/update/result")))
            assert local.answers("twin/update/result")[0]["twin"]["rpm"]["actual"]["value"] == "900"
            await until(lambda: uplink.twin("plant/pump") == {"rpm": ("900", None)})
            local.say(
                f"{topic}/twin/update", {"event_id": "b", "twin": {"rpm": {"expected": {"value": "1000"}}}}
            )
            await until(lambda: bool(local.answers("twin/update/delta")))
            assert local.answers("twin/update/delta")[0]["delta"] == {"rpm": "1000"}
            local.say(f"{topic}/state/update", {"state": "online"})
            await until(lambda: uplink.state("plant/pump") == "online")
            # its last will, which the broker says for it when its line breaks
            dying = paho.Client(paho.CallbackAPIVersion.VERSION2)
            dying.will_set(f"{topic}/state/update", '{"state": "offline"}', qos=1)
            dying.connect("127.0.0.1", port)
            dying.loop_start()
            await until(dying.is_connected)
            line = dying.socket()
            assert line is not None
            dying.loop_stop()
            line.shutdown(socket.SHUT_RDWR)
            await until(lambda: uplink.state("plant/pump") == "offline")
            local.say(f"{topic}/twin/update", b"\xff\xfe{", qos=0)
            local.say(f"{topic}/twin/update", "x" * 300_000)
            await until(
                lambda: [a.get("code") for a in local.answers("twin/update/result")[2:]] == [400, 400]
            )

    asyncio.run(scenario())


def test_the_broker_may_restart_and_qos_1_is_not_lost(folder: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        got: list[bytes] = []

        async def on_message(topic: str, payload: bytes) -> None:
            got.append(payload)

        keep = ("persistence true", f"persistence_location {folder}/")
        bus = EventBus(url=f"tcp://127.0.0.1:{port}", node_name="edge-1", on_message=on_message)
        topic = "$hw/events/device/plant/pump/twin/update"
        async with broker(port, *keep, folder=folder):
            async with running(bus):
                await bus.connected.wait()
            # edgecore is away; a device reports
            local = Local(port)
            local.say(topic, b"while away")
            local.close()
        again = EventBus(url=f"tcp://127.0.0.1:{port}", node_name="edge-1", on_message=on_message)
        async with running(again):
            async with broker(port, *keep, folder=folder):
                await until(lambda: b"while away" in got)
            await until(lambda: not again.connected.is_set())
            async with broker(port, *keep, folder=folder):
                await again.connected.wait()
                local = Local(port)
                local.say(topic, b"after the restart")
                # QoS 1 is at least once: a broker that ends before it heard the acknowledgement sends again
                await until(lambda: got[-1:] == [b"after the restart"])
                local.close()

    asyncio.run(scenario())


def test_retained_requests_floods_and_giants_do_no_harm(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "MAX_PACKET_BYTES", 64 * 1024)

    async def scenario() -> None:
        port = free_port()
        got: list[str] = []
        gate = asyncio.Event()

        async def on_message(topic: str, payload: bytes) -> None:
            await gate.wait()
            got.append(topic)

        async with broker(port, folder=folder):
            local = Local(port)
            local.say("$hw/events/device/a/b/twin/update", b"old command", retain=True)
            bus = EventBus(url=f"tcp://127.0.0.1:{port}", node_name="edge-1", on_message=on_message)
            async with running(bus):
                await until(lambda: bus.counts["retained"] == 1)
                local.say("$hw/events/device/a/b/twin/get", b"x" * 100_000)
                for _ in range(mqtt.MAX_WAITING + 500):
                    local.say("$hw/events/device/a/b/twin/get", b"flood", qos=0)
                await until(lambda: bus.counts["dropped_in"] > 0)
                assert bus._arrived.qsize() <= mqtt.MAX_WAITING
                gate.set()
                local.say("$hw/events/device/a/b/state/update", b"still there")
                await until(lambda: bool(got) and got[-1].endswith("state/update"))
                assert len(got) < mqtt.MAX_WAITING + 500
            local.close()

    asyncio.run(scenario())


def test_others_have_their_turn_between_two_messages(folder: Path) -> None:
    """Who waits in the same loop for something else must not wait for a whole flood: a probe has a second."""

    async def scenario() -> None:
        port = free_port()
        turns = handled = 0
        longest = 0

        async def on_message(topic: str, payload: bytes) -> None:
            nonlocal handled, longest
            handled += 1
            longest = max(longest, handled - turns)

        async def other() -> None:
            nonlocal turns
            while True:
                turns = handled
                await asyncio.sleep(0)

        async with broker(port, folder=folder):
            bus = EventBus(url=f"tcp://127.0.0.1:{port}", node_name="edge-1", on_message=on_message)
            async with running(bus):
                await bus.connected.wait()
                # all of them have come before one is handled
                for number in range(300):
                    item = mqtt._Arrived("$hw/events/device/a/b/twin/get", b"%d" % number, 0, 0, None)
                    bus._room.acquire()
                    bus._arrived.put_nowait(item)
                async with asyncio.TaskGroup() as group:
                    waiting = group.create_task(other())
                    await until(lambda: handled >= 300)
                    waiting.cancel()
        assert longest <= 2

    asyncio.run(scenario())


def test_publishing_without_a_broker_drops_and_counts() -> None:
    async def scenario() -> None:
        async def on_message(topic: str, payload: bytes) -> None: ...

        bus = EventBus(url=f"tcp://127.0.0.1:{free_port()}", node_name="edge-1", on_message=on_message)
        await bus.publish("a", b"x")
        async with running(bus):
            await asyncio.sleep(0.05)
            await bus.publish("a", b"x")
            await bus.publish("a/+", b"x", qos=1)
        assert bus.counts["dropped_out"] == 3

    asyncio.run(scenario())


def test_a_broker_without_version_5_gets_3_1_1() -> None:
    """An old broker closes on protocol level 5 with return code 1."""

    async def scenario() -> None:
        levels: list[int] = []

        async def old_broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                head = await reader.readexactly(2)
                body = await reader.readexactly(head[1])
                levels.append(body[6])
                writer.write(bytes([0x20, 2, 0, 1 if body[6] == 5 else 0]))
                await writer.drain()
                if body[6] != 5:
                    head = await reader.readexactly(2)
                    assert head[1] < 128, "one byte holds the length"
                    asked = await reader.readexactly(head[1])
                    writer.write(bytes([0x90, 3, *asked[:2], 1]))
                    await reader.read()
            finally:
                writer.close()
                await writer.wait_closed()

        async def on_message(topic: str, payload: bytes) -> None: ...

        server = await asyncio.start_server(old_broker, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        bus = EventBus(url=f"tcp://127.0.0.1:{port}", node_name="edge-1", on_message=on_message)
        async with server, running(bus):
            async with asyncio.timeout(30):
                await bus.connected.wait()
        assert levels[:2] == [5, 4]

    asyncio.run(scenario())
