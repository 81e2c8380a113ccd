"""Bluetooth LE devices around an adapter that is not there: bleak's client and scanner, as far as the driver uses them.

`tests/unit/mappers/ble/test_driver.py` compares their methods with those of the real ones, and what they raise is bleak's."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakCharacteristicNotFoundError, BleakDeviceNotFoundError, BleakError


@dataclass(kw_only=True)
class Peripheral:
    """A device.  values: by full UUID.  abilities: of characteristics, else read and write."""

    address: str
    name: str = ""
    rssi: int = -60
    values: dict[str, bytes] = field(default_factory=dict)
    abilities: dict[str, list[str]] = field(default_factory=dict)
    manufacturer: dict[int, bytes] = field(default_factory=dict)
    service: dict[str, bytes] = field(default_factory=dict)
    here: bool = True
    written: list[tuple[str, bytes, bool | None]] = field(default_factory=list)
    clients: list["Client"] = field(default_factory=list)

    def notify(self, uuid: str, data: bytes) -> None:
        self.values[uuid] = data
        for client in self.clients:
            if uuid in client.listening:
                client.listening[uuid](client.services.get_characteristic(uuid), bytearray(data))

    def leave(self) -> None:
        """Out of reach: connections break."""
        self.here = False
        for client in list(self.clients):
            client.drop()


class Air:
    """The adapter and what is around it.  `bleak` is what the driver imports."""

    def __init__(self, *devices: Peripheral) -> None:
        self.devices = list(devices)
        self.scanners: list[Scanner] = []
        self.started = 0
        self.fails: Exception | None = None  # what starting a scan raises
        air = self
        self.bleak = SimpleNamespace(
            BleakClient=type("BleakClient", (Client,), {"air": air}),
            BleakScanner=type("BleakScanner", (Scanner,), {"air": air}),
        )

    def find(self, address: str) -> Peripheral | None:
        return next((d for d in self.devices if d.address == address and d.here), None)

    def advertise(self, device: Peripheral) -> None:
        if not device.here:
            return
        handle = BLEDevice(device.address, device.name or None, None)
        data = AdvertisementData(
            device.name or None, device.manufacturer, device.service, [], None, device.rssi, ()
        )
        for scanner in list(self.scanners):
            scanner.callback(handle, data)


class Scanner:
    air: Air

    def __init__(self, detection_callback: Callable[..., None], *, bluez: Any = None, **kwargs: Any) -> None:
        self.callback = detection_callback

    async def start(self) -> None:
        if self.air.fails is not None:
            raise self.air.fails
        if self.air.scanners:
            raise BleakError("org.bluez.Error.InProgress")
        self.air.scanners.append(self)
        self.air.started += 1
        for device in self.air.devices:
            asyncio.get_running_loop().call_soon(self.air.advertise, device)

    async def stop(self) -> None:
        if self in self.air.scanners:
            self.air.scanners.remove(self)


class Services:
    def __init__(self, device: Peripheral) -> None:
        self.device = device

    def get_characteristic(self, specifier: str) -> Any:
        if specifier not in self.device.values:
            return None
        able = self.device.abilities.get(specifier, ["read", "write"])
        return SimpleNamespace(uuid=specifier, properties=able)

    def __iter__(self) -> Iterator[Any]:
        return iter(())


class Client:
    air: Air

    def __init__(
        self,
        address_or_ble_device: Any,
        disconnected_callback: Callable[[Any], None] | None = None,
        *,
        timeout: float = 30,
        pair: bool = False,
        bluez: Any = None,
        **kwargs: Any,
    ) -> None:
        self.address = address_or_ble_device.address
        self.gone = disconnected_callback
        self.device: Peripheral | None = None
        self.listening: dict[str, Callable[..., None]] = {}

    @property
    def is_connected(self) -> bool:
        return self.device is not None

    @property
    def services(self) -> Services:
        return Services(self._device())

    def _device(self) -> Peripheral:
        if self.device is None:
            raise BleakError("Not connected")
        return self.device

    def drop(self) -> None:
        if self.device is not None:
            self.device.clients.remove(self)
            self.device = None
            if self.gone is not None:
                self.gone(self)

    async def connect(self, **kwargs: Any) -> None:
        await asyncio.sleep(0)
        device = self.air.find(self.address)
        if device is None:
            raise BleakDeviceNotFoundError(self.address)
        self.device = device
        device.clients.append(self)

    async def disconnect(self) -> None:
        self.drop()

    async def read_gatt_char(self, char_specifier: str, **kwargs: Any) -> bytearray:
        device = self._device()
        if char_specifier not in device.values:
            raise BleakCharacteristicNotFoundError(char_specifier)
        return bytearray(device.values[char_specifier])

    async def write_gatt_char(self, char_specifier: str, data: bytes, response: bool | None = None) -> None:
        device = self._device()
        device.values[char_specifier] = bytes(data)
        device.written.append((char_specifier, bytes(data), response))

    async def start_notify(
        self, char_specifier: str, callback: Callable[[Any, bytearray], None], **kwargs: Any
    ) -> None:
        self._device()
        self.listening[char_specifier] = callback

    async def stop_notify(self, char_specifier: str) -> None:
        self.listening.pop(char_specifier, None)
