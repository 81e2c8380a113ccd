"""The lines that Modbus devices hang on, one connection for all devices of a line.  pymodbus stays in here.

A line does one request at a time.  A request that is given up closes the connection: its late answer must not be taken for
the answer to the next one, which on a serial line nothing else would tell."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pymodbus import FramerType, ModbusException
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient

from mappers.framework.driver import DeviceError, DriverError
from mappers.modbus.codec import Field, Register

logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # it logs what it raises as well

_BUSY = (
    5,
    6,
    10,
    11,
)  # exception codes that may be gone the next time: acknowledge, busy, gateway without an answer
_CODES = {1: "illegal function", 2: "illegal address", 3: "illegal value", 4: "device failure"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What makes two devices share a connection.  port: TCP.  parity: N, E or O."""

    host: str = ""
    port: int = 502
    device: str = ""
    baud_rate: int = 9600
    data_bits: int = 8
    stop_bits: int = 1
    parity: str = "N"
    timeout_s: float = 2.0

    def __str__(self) -> str:
        return self.device or f"{self.host}:{self.port}"


class Bus:
    """A shared line.  Take one with `use`, give it back with `leave`."""

    _open: dict[tuple[int, Line], "Bus"] = {}

    def __init__(self, key: tuple[int, Line]) -> None:
        self._key = key
        self._line = key[1]
        self._lock = asyncio.Lock()
        self._users = 0
        self._client: Any = None

    @classmethod
    def use(cls, line: Line) -> "Bus":
        """The line's bus, made if this is its first device.  Call it from the event loop."""
        key = (id(asyncio.get_running_loop()), line)
        bus = cls._open.get(key) or cls._open.setdefault(key, cls(key))
        bus._users += 1
        return bus

    def leave(self) -> None:
        """Give the bus back; the last one closes it."""
        self._users -= 1
        if self._users == 0:
            self._open.pop(self._key, None)
            self._hang_up()

    async def connect(self) -> None:
        """Raises: DeviceError."""
        async with self._lock:
            await self._connected()

    async def read(self, unit: int, field: Field) -> Sequence[Any]:
        """Words, or bits of coils and discrete inputs.  Raises: DeviceError, DriverError."""
        method = {
            Register.COIL: "read_coils",
            Register.DISCRETE: "read_discrete_inputs",
            Register.INPUT: "read_input_registers",
            Register.HOLDING: "read_holding_registers",
        }[field.register]
        answer = await self._request(
            lambda client: getattr(client, method)(field.offset, count=field.count, device_id=unit)
        )
        found: Sequence[Any] = answer.bits if field.register.is_bits else answer.registers
        return found

    async def write_coil(self, unit: int, offset: int, *, value: bool) -> None:
        """Raises: DeviceError, DriverError."""
        await self._request(lambda client: client.write_coil(offset, value, device_id=unit))

    async def write_words(self, unit: int, offset: int, words: list[int]) -> None:
        """One word by function 6, several by 16: simple devices know only the first.  Raises: DeviceError, DriverError."""
        if len(words) == 1:
            await self._request(lambda client: client.write_register(offset, words[0], device_id=unit))
        else:
            await self._request(lambda client: client.write_registers(offset, words, device_id=unit))

    async def _request(self, ask: Callable[[Any], Awaitable[Any]]) -> Any:
        async with self._lock:
            client = await self._connected()
            try:
                answer = await ask(client)
            except (ModbusException, OSError) as error:
                self._hang_up()
                raise DeviceError(f"{self._line}: {error}") from error
            except BaseException:  # given up: see the module's docstring
                self._hang_up()
                raise
        if answer.isError():
            code = getattr(answer, "exception_code", 0)
            text = f"{self._line}: the device refuses: {_CODES.get(code, f'code {code}')}"
            raise DeviceError(text) if code in _BUSY else DriverError(text)
        return answer

    async def _connected(self) -> Any:
        if self._client is not None and self._client.connected:
            return self._client
        self._hang_up()
        self._client = _client(self._line)
        try:
            good = await self._client.connect()
        except (ModbusException, OSError) as error:
            self._hang_up()
            raise DeviceError(f"cannot open {self._line}: {error}") from error
        except BaseException:
            self._hang_up()
            raise
        if not good:
            self._hang_up()
            raise DeviceError(f"cannot open {self._line}")
        return self._client

    def _hang_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _client(line: Line) -> Any:
    # Reconnecting is the framework's, with its growing pauses.
    common: dict[str, Any] = {"timeout": line.timeout_s, "retries": 0, "reconnect_delay": 0}
    if line.device:
        return AsyncModbusSerialClient(
            line.device,
            framer=FramerType.RTU,
            baudrate=line.baud_rate,
            bytesize=line.data_bits,
            stopbits=line.stop_bits,
            parity=line.parity,
            **common,
        )
    return AsyncModbusTcpClient(line.host, port=line.port, **common)
