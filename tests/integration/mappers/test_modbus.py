"""The Modbus driver against pymodbus' server, over TCP and over a serial line."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.ports import free_port

pytest.importorskip("pymodbus")
from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
from pymodbus.server import ModbusSerialServer, ModbusTcpServer

from mappers.framework.driver import DeviceError, DriverError, Settings
from mappers.framework.poller import Poller
from mappers.framework.spec import DeviceSpec
from mappers.modbus.bus import Bus
from mappers.modbus.driver import Modbus
from tests.integration.mappers.support import Collected, opened, polled, prop, serial_cable, until


def context(*units: int) -> Any:
    block: Any = ModbusSequentialDataBlock

    def unit(number: int) -> Any:
        return ModbusDeviceContext(
            di=block(1, [True, False] * 8),
            co=block(1, [False] * 16),
            ir=block(1, [number * 100 + i for i in range(16)]),
            hr=block(1, [0] * 16),
        )

    return ModbusServerContext(devices={number: unit(number) for number in units}, single=False)


@contextlib.asynccontextmanager
async def served(server: Any) -> AsyncIterator[None]:
    await server.serve_forever(background=True)
    try:
        yield
    finally:
        await server.shutdown()


async def exercise(device: Modbus, unit: int) -> None:
    assert await device.read(prop("i", "INT", register="InputRegister", offset=3)) == unit * 100 + 3
    assert await device.read(prop("d", "BOOLEAN", register="DiscreteInputRegister", offset=0)) is True
    assert await device.read(prop("d", "BOOLEAN", register="DiscreteInputRegister", offset=1)) is False
    coil = prop("c", "BOOLEAN", Register="CoilRegister", Offset="2")
    assert await device.read(coil) is False
    await device.write(coil, True)
    assert await device.read(coil) is True
    for settings, type_, value in (
        ({"offset": 0, "dataType": "int16", "scale": 0.1}, "FLOAT", -12.5),
        ({"offset": 1, "dataType": "float32", "isSwap": True}, "FLOAT", 21.5),
        ({"offset": 3, "dataType": "int32", "isRegisterSwap": "true"}, "INT", -70000),
        ({"offset": 5, "dataType": "float64"}, "DOUBLE", 1e-9),
        ({"offset": 9, "limit": 3}, "STRING", "valve"),
    ):
        row = prop("h", type_, register="HoldingRegister", **settings)
        await device.write(row, value)
        assert await device.read(row) == value
    with pytest.raises(DriverError, match="cannot be written"):
        await device.write(prop("i", "INT", register="InputRegister", offset=3), 1)
    with pytest.raises(DriverError, match="illegal address"):
        await device.read(prop("far", "INT", register="InputRegister", offset=5000))


def test_devices_on_tcp_share_one_connection() -> None:
    async def scenario() -> None:
        port = free_port()
        connections: list[bool] = []
        server = ModbusTcpServer(context(1, 2), address=("127.0.0.1", port), trace_connect=connections.append)
        settings = {"ip": "127.0.0.1", "port": str(port)}
        async with served(server):
            async with (
                opened(Modbus(), **settings, slaveID=1) as one,
                opened(Modbus(), **settings, slaveID=2) as two,
            ):
                async with asyncio.TaskGroup() as group:
                    group.create_task(exercise(one, 1))
                    group.create_task(exercise(two, 2))
                assert connections.count(True) == 1
            await until(lambda: connections.count(False) == 1)
        assert not Bus._open

    asyncio.run(scenario())


def test_devices_on_a_serial_line() -> None:
    async def scenario() -> None:
        with serial_cable(lost=lambda data: data[:1] == b"\x09") as (here, there):
            server = ModbusSerialServer(
                context(1, 7), port=there, baudrate=19200, ignore_missing_devices=True
            )
            settings = {"serialPort": here, "baudRate": 19200, "timeout": 0.5}
            async with (
                served(server),
                opened(Modbus(), **settings, slaveID=1) as one,
                opened(Modbus(), **settings, slaveID="7") as seven,
                opened(Modbus(), **settings, slaveID=9) as nobody,
            ):
                await exercise(one, 1)
                await exercise(seven, 7)
                with pytest.raises(DeviceError):
                    await nobody.read(prop("i", "INT", register="InputRegister", offset=3))
                assert await one.read(prop("i", "INT", register="InputRegister", offset=3)) == 103
        assert not Bus._open

    asyncio.run(scenario())


def test_a_device_that_goes_and_comes_back() -> None:
    async def scenario() -> None:
        port = free_port()
        reports = Collected()
        row = prop("i", "INT", register="InputRegister", offset=3)
        spec = DeviceSpec(
            id="default/d",
            settings=Settings({"ip": "127.0.0.1", "port": port, "timeout": 0.3}),
            properties={"i": row},
            state_cycle_s=1.0,
        )
        poller = Poller(Modbus, spec, reports, rng=random.Random(1))
        async with polled(poller):
            await until(lambda: reports.states == ["offline"])
            async with served(ModbusTcpServer(context(1), address=("127.0.0.1", port))):
                await until(lambda: reports.values == {"i": "103"} and reports.states[-1] == "online")
            await until(lambda: reports.states[-1] == "offline")
        assert not Bus._open

    asyncio.run(scenario())
