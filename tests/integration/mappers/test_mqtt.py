"""The MQTT driver against a real mosquitto."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable

import pytest

from tests.support import mosquitto
from tests.support.mosquitto import broker
from tests.support.ports import free_port

pytest.importorskip("paho.mqtt.client")

from mappers.framework.driver import DeviceError, DriverError, Settings
from mappers.framework.mqtt import Broker, Link, broker_of
from mappers.framework.poller import Poller
from mappers.framework.spec import DeviceSpec
from mappers.mqtt.driver import Mqtt
from tests.integration.mappers.support import Collected, opened, polled, prop, until

pytestmark = pytest.mark.skipif(not mosquitto.IS_HERE, reason="mosquitto is not installed")


@contextlib.asynccontextmanager
async def local(port: int) -> AsyncIterator[Link]:
    link = Link.use(Broker(host="127.0.0.1", port=port, client_id="the-device"))
    try:
        await link.wait(60)
        yield link
    finally:
        await link.leave()


async def repeat(device: Link, topic: str, payload: bytes, seen: Callable[[], bool]) -> None:
    """Until it is seen: what comes before the broker knows of a subscription is for nobody."""
    async with asyncio.timeout(60):
        while not seen():
            await device.publish(topic, payload)
            await asyncio.sleep(0.05)


def test_a_device_reports_takes_commands_and_survives_the_broker() -> None:
    async def scenario() -> None:
        port = free_port()
        reports = Collected()
        rows = {
            "t": prop("t", "FLOAT", topic="z/1", jsonPath="$.temp"),
            "lamp": prop(
                "lamp", "BOOLEAN", topic="z/lamp", commandTopic="z/1/set", template='{"l":${value}}'
            ),
        }
        settings = {"brokerURL": f"tcp://127.0.0.1:{port}", "availabilityTopic": "z/1/up", "timeout": 1}
        spec = DeviceSpec(id="default/d", settings=Settings(settings), properties=rows, state_cycle_s=0.05)
        poller = Poller(Mqtt, spec, reports, rng=random.Random(1))
        got: list[tuple[str, bytes]] = []
        async with broker(port), local(port) as device, polled(poller):
            device.subscribe("z/+/set", lambda topic, payload: got.append((topic, payload)))
            await until(lambda: reports.states[-1:] == ["unknown"])  # heard nothing yet, and not lost
            await device.publish("z/lamp", b"ON", retain=True)
            first = json.dumps({"temp": 21.5}).encode()
            await repeat(device, "z/1", first, lambda: reports.values == {"t": "21.5", "lamp": "true"})
            await until(lambda: reports.states[-1] == "online")
            for bad in (b"\xff", b"{", b'{"temp": NaN}', b"x" * 300_000):
                await device.publish("z/1", bad)
            await device.publish("z/1", json.dumps({"temp": 22}).encode())
            await until(lambda: reports.values["t"] == "22")
            driver = poller._driver
            assert driver is not None
            await driver.write(rows["lamp"], True)
            await until(lambda: got == [("z/1/set", b'{"l":true}')])
            await device.publish("z/1/up", b"offline")
            await until(lambda: reports.states[-1] == "offline")
            await device.publish("z/1/up", b"online")
            await until(lambda: reports.states[-1] == "online")
        assert not Link._open

    asyncio.run(scenario())


def test_the_broker_goes_and_comes_back() -> None:
    async def scenario() -> None:
        port = free_port()
        row = prop("t", "INT", topic="a/t", commandTopic="a/set")
        device = Mqtt()
        device.properties = {"t": row}
        url = f"127.0.0.1:{port}"
        device.settings, device.id = Settings({"brokerURL": url, "timeout": 0.2}), "default/d"
        with pytest.raises(DeviceError):
            await device.open()
        device.settings = Settings({"brokerURL": url, "timeout": 30})
        assert not Link._open
        async with broker(port):
            await device.open()
        await until(lambda: not device.link.connected.is_set())
        with pytest.raises(DeviceError):
            await device.read(row)
        with pytest.raises(DeviceError):
            await device.write(row, 1)
        assert await device.state() == "offline"
        async with broker(port), local(port) as other:
            await until(lambda: device.link.connected.is_set())
            await repeat(other, "a/t", b"7", lambda: "t" in device.heard)
            assert await device.read(row) == "7"
            await device.close()
        assert not Link._open

    asyncio.run(scenario())


def test_settings_that_cannot_be_meant() -> None:
    for url in ("ftp://a", "tcp://", "tcp://a:99999999"):
        with pytest.raises(DriverError):
            broker_of(url)
    assert broker_of("ssl://a").port == 8883

    async def scenario() -> None:
        for settings in (
            {"passwordFile": "/nonexistent"},
            {"brokerURL": "ssl://127.0.0.1:1", "ca": "/nonexistent"},
        ):
            with pytest.raises(DriverError):
                async with opened(Mqtt(), **settings):
                    pass

    asyncio.run(scenario())
