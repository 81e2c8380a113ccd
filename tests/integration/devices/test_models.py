"""A DeviceModel that changes or goes, and what a real `mapper run` process makes of it."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from beehive import dmi
from beehive._generated import dmi_pb2 as pb
from beehive.errors import Refused
from tests.integration.devices.test_thermostat import ID, Edge, folder, mapper, opened, sample
from tests.unit.devicetwin.fakes import until

__all__ = ["folder"]

MODEL = "default/thermostat"

DRIVER = """
from mappers.framework.driver import Driver

class Counting(Driver):
    protocol = "virtual"

    async def open(self):
        print("opened", flush=True)

    async def read(self, prop):
        return {"FLOAT": 1.5, "INT": 1, "STRING": "one", "BOOLEAN": True}[prop.type]

    async def write(self, prop, value):
        pass

    async def call(self, method, values):
        return values["target"]
"""


def model(type_: str = "FLOAT", maximum: str = "30") -> dict[str, Any]:
    found = sample("model")
    for row in found["spec"]["properties"]:
        if row["name"] == "temperature":
            row["type"] = type_
        if row["name"] == "target":
            row["maximum"] = maximum
    return found


def said(edge: Edge) -> tuple[str, str]:
    """Type and value of the temperature, as the cloud hears them."""
    message = edge.uplink.latest.get(f"twin/{ID}")
    if message is None:
        return "", ""
    of = msgspec.json.decode(bytes(message.content))["twin"].get("temperature", {})
    return of.get("metadata", {}).get("type", ""), (of.get("actual") or {}).get("value", "")


@pytest.fixture
def driver(folder: Path) -> str:
    file = folder / "counting.py"
    file.write_text(DRIVER)
    return str(file)


def test_a_running_mapper_takes_on_a_changed_model(folder: Path, driver: str) -> None:
    async def scenario() -> None:
        edge = Edge(folder)
        device = sample("device")
        device["spec"]["methods"] = [{"name": "echo", "propertyNames": ["target"]}]
        async with edge.running() as twin:
            await edge.put(twin, "devicemodel", model())
            await edge.put(twin, "device", device)
            async with mapper(folder, file=driver):
                await until(lambda: said(edge) == ("float", "1.5"))
                await edge.put(twin, "devicemodel", model("STRING"), "update")
                await until(lambda: said(edge) == ("string", "one"))
                await until(lambda: bool(twin.devices()[0]["delivered"]))
                # a bound alone, which a driver need not be opened again for
                assert await twin.call(ID, "echo", {"target": "29"}, 5) == "29"
                await edge.put(twin, "devicemodel", model("STRING", maximum="25"), "update")
                await until(lambda: bool(twin.devices()[0]["delivered"]))
                with pytest.raises(Refused, match="above the maximum"):
                    await twin.call(ID, "echo", {"target": "29"}, 5)
                assert await twin.call(ID, "echo", {"target": "24"}, 5) == "24"

    asyncio.run(scenario())


def test_a_mapper_that_was_away_has_the_model_of_today(folder: Path, driver: str) -> None:
    async def scenario() -> None:
        edge = Edge(folder)
        async with edge.running() as twin:
            await edge.put(twin, "devicemodel", model())
            await edge.put(twin, "device", sample("device"))
            async with mapper(folder, file=driver):
                await until(lambda: said(edge) == ("float", "1.5"))
            await edge.put(twin, "devicemodel", model("INT"), "update")
            async with mapper(folder, file=driver):
                await until(lambda: said(edge) == ("int", "1"))
                await until(lambda: bool(twin.devices()[0]["delivered"]))

    asyncio.run(scenario())


def test_a_model_that_changed_while_edgecore_was_away_reaches_the_mapper(folder: Path, driver: str) -> None:
    async def scenario() -> None:
        edge = Edge(folder)
        async with mapper(folder, file=driver):
            async with edge.running() as twin:
                await edge.put(twin, "devicemodel", model())
                await edge.put(twin, "device", sample("device"))
                await until(lambda: said(edge) == ("float", "1.5"))
            edge.store.rows["devicemodel", MODEL] = msgspec.json.encode(model("INT"))
            async with edge.running() as twin:
                await until(lambda: said(edge) == ("int", "1"))

    asyncio.run(scenario())


def test_a_deleted_model_leaves_the_mapper_and_its_device_goes_on(folder: Path, driver: str) -> None:
    async def scenario() -> None:
        edge = Edge(folder)
        async with edge.running() as twin:
            await edge.put(twin, "devicemodel", model())
            await edge.put(twin, "device", sample("device"))
            async with mapper(folder, file=driver):
                await until(lambda: said(edge) == ("float", "1.5"))
                async with opened(folder / "virtual.sock") as client:
                    held = await client.call(
                        dmi.MAPPER["GetDevice"],
                        pb.GetDeviceRequest(deviceName="thermostat", deviceNamespace="default"),
                        timeout_s=30,
                    )

                    async def takes() -> bool:
                        """Whether the mapper has the model that its device needs."""
                        try:
                            await client.call(
                                dmi.MAPPER["UpdateDevice"],
                                pb.UpdateDeviceRequest(device=held.device),
                                timeout_s=30,
                            )
                        except Refused as error:
                            if "there is no model" not in str(error):
                                raise
                            return False
                        return True

                    assert await takes()
                    await edge.put(twin, "devicemodel", model(), "delete")
                    async with asyncio.timeout(30):
                        while await takes():
                            await asyncio.sleep(0.02)
                edge.uplink.latest.clear()
                await twin.on_connected()
                await until(lambda: said(edge) != ("", ""))
                reported = twin.devices()[0]["twins"]["temperature"]["reportedAt"]
                await until(lambda: twin.devices()[0]["twins"]["temperature"]["reportedAt"] > reported)
                assert twin.devices()[0]["state"] == "online"
                # a new one of its name is taken on
                await edge.put(twin, "devicemodel", model("INT"))
                await until(lambda: said(edge) == ("int", "1"))

    asyncio.run(scenario())
