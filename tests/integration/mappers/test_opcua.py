"""The OPC UA driver against asyncua's server."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.ports import free_port

pytest.importorskip("asyncua")
from asyncua import Server, ua

from mappers.framework.driver import DeviceError, DriverError, Settings
from mappers.framework.errors import ValueRefused
from mappers.framework.poller import Poller
from mappers.framework.spec import DeviceSpec
from mappers.opcua.driver import OpcUa, server_of
from tests.integration.mappers.support import Collected, opened, polled, prop, until

VALUES: dict[str, tuple[Any, Any]] = {
    "Force": (1.5, ua.VariantType.Double),
    "Speed": (7, ua.VariantType.Int16),
    "On": (False, ua.VariantType.Boolean),
    "Name": ("press", ua.VariantType.String),
}


@contextlib.asynccontextmanager
async def served(port: int) -> AsyncIterator[None]:
    server: Any = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace("urn:test")
    for name, (value, kind) in VALUES.items():
        node_id = ua.NodeId(name, index)
        node = await server.nodes.objects.add_variable(node_id, name, value, kind)
        if name != "Force":
            await node.set_writable()
    async with server:
        yield


def row(name: str, type_: str) -> Any:
    return prop(name, type_, NodeId=f"ns=2;s={name}")


def test_reading_and_writing_in_the_nodes_type() -> None:
    async def scenario() -> None:
        port = free_port()
        async with served(port), opened(OpcUa(), URL=f"opc.tcp://127.0.0.1:{port}") as device:
            assert await device.read(row("Force", "DOUBLE")) == 1.5
            for name, type_, value in (
                ("Speed", "INT", -5),
                ("On", "BOOLEAN", True),
                ("Name", "STRING", "x y"),
            ):
                await device.write(row(name, type_), value)
                assert await device.read(row(name, type_)) == value
            with pytest.raises(DriverError):
                await device.write(row("Force", "DOUBLE"), 2.0)
            with pytest.raises(DriverError):
                await device.read(row("Missing", "INT"))
            with pytest.raises(DriverError):
                await device.read(prop("p", "INT", nodeID="Speed"))
            with pytest.raises(ValueRefused):
                await device.write(row("Speed", "INT"), 70_000)
            assert await device.read(row("Speed", "INT")) == -5

    asyncio.run(scenario())


def test_a_server_that_goes_and_comes_back() -> None:
    async def scenario() -> None:
        port = free_port()
        reports = Collected()
        spec = DeviceSpec(
            id="default/d",
            settings=Settings({"url": f"opc.tcp://127.0.0.1:{port}", "timeout": 1}),
            properties={"Speed": row("Speed", "INT")},
            state_cycle_s=1.0,
        )
        async with polled(Poller(OpcUa, spec, reports, rng=random.Random(1))):
            await until(lambda: reports.states == ["offline"])
            async with served(port):
                await until(lambda: reports.values == {"Speed": "7"} and reports.states[-1] == "online")
            await until(lambda: reports.states[-1] == "offline")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"url": "http://a"},
        {"url": "opc.tcp://a", "securityMode": "Sign"},
        {"url": "opc.tcp://a", "securityPolicy": "Basic256Sha256", "securityMode": "Sign"},
        {"url": "opc.tcp://a", "userName": "u", "password": "/nonexistent"},
    ],
)
def test_settings_that_cannot_be_meant(settings: dict[str, Any]) -> None:
    with pytest.raises(DriverError):
        server_of(Settings(settings))


def test_a_dead_server_is_a_device_that_does_not_answer() -> None:
    async def scenario() -> None:
        with pytest.raises(DeviceError):
            async with opened(OpcUa(), url=f"opc.tcp://127.0.0.1:{free_port()}"):
                pass

    asyncio.run(scenario())
