"""Bluetooth LE through the machine's adapter.  bleak stays in here.

Who hears advertisements of one adapter shares one scan, and connections are made one after the other: adapters refuse a second
scan, and a connection while another is being made.  On Linux both go through BlueZ (`bluetoothd`) by D-Bus."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mappers.framework.errors import DeviceError, DriverError

log = logging.getLogger(__name__)

MAX_HEARD = 1024  # devices remembered of one adapter; a hall at a fair has some hundreds
MAX_PARTS = 16  # of one advertisement


@dataclass(frozen=True, slots=True, kw_only=True)
class Advert:
    """What was heard last of a device.  manufacturer: by company.  service: by full UUID.  handle: the library's."""

    address: str
    name: str = ""
    rssi: int = 0
    manufacturer: dict[int, bytes] = field(default_factory=dict)
    service: dict[str, bytes] = field(default_factory=dict)
    services: tuple[str, ...] = ()
    handle: Any = None


Hearer = Callable[[Advert], None]


def _bleak() -> Any:
    """Raises: DriverError without the library."""
    try:
        import bleak
    except ImportError as error:
        raise DriverError("Bluetooth needs the extra `mappers-ble`") from error
    return bleak


def _failures() -> tuple[type[BaseException], ...]:
    """What bleak raises when the adapter, BlueZ or the device does not do it; D-Bus that is away is an OSError."""
    from bleak.exc import BleakError

    return (BleakError, OSError, EOFError, TimeoutError)


class Scan:
    """The scan of one adapter.  Take it with `use`, give it back with `leave`; both in the event loop."""

    _open: ClassVar[dict[tuple[int, str], "Scan"]] = {}

    def __init__(self, key: tuple[int, str]) -> None:
        self._key = key
        self._users = 0
        self._hearers: list[Hearer] = []
        self._lock = asyncio.Lock()
        self._scanner: Any = None
        self.connecting = asyncio.Lock()
        self.heard: dict[str, Advert] = {}

    @classmethod
    def of(cls, adapter: str) -> "Scan":
        """The one of an adapter, empty for the machine's first.  It does not scan yet."""
        key = (id(asyncio.get_running_loop()), adapter)
        for old in [k for k, s in cls._open.items() if k[0] != key[0] and s._users == 0]:
            del cls._open[old]  # of a loop that ended
        return cls._open.setdefault(key, cls(key))

    @contextlib.asynccontextmanager
    async def use(self, hearer: Hearer) -> AsyncIterator[None]:
        """Scan while this is open.  Raises: DeviceError, DriverError."""
        await self.enter(hearer)
        try:
            yield
        finally:
            await self.leave(hearer)

    async def enter(self, hearer: Hearer) -> None:
        """Raises: DeviceError, DriverError."""
        async with self._lock:
            if self._scanner is None:
                await self._start()
            self._hearers.append(hearer)
            self._users += 1

    async def leave(self, hearer: Hearer) -> None:
        async with self._lock:
            if hearer not in self._hearers:
                return
            self._hearers.remove(hearer)
            self._users -= 1
            if self._users == 0:
                scanner, self._scanner = self._scanner, None
                self.heard.clear()
                if scanner is None:
                    return
                try:
                    await scanner.stop()
                except _failures() as error:
                    log.debug("! stopping a scan: %s", error)

    async def again(self) -> None:
        """Start anew a scan that has become silent: one that BlueZ forgot when it was restarted tells nobody.

        Raises: DeviceError."""
        async with self._lock:
            if self._scanner is None:
                return
            with contextlib.suppress(*_failures()):
                await self._scanner.stop()
            self._scanner = None
            await self._start()

    async def _start(self) -> None:
        bleak = _bleak()
        adapter = self._key[1]
        options: dict[str, Any] = {"bluez": {"adapter": adapter}} if adapter else {}
        try:
            scanner = bleak.BleakScanner(detection_callback=self._hear, **options)
            await scanner.start()
        except _failures() as error:
            raise DeviceError(f"cannot scan with {adapter or 'Bluetooth'}: {_text(error)}") from error
        self._scanner = scanner

    def _hear(self, device: Any, data: Any) -> None:
        address = str(device.address).upper()
        if address not in self.heard and len(self.heard) >= MAX_HEARD:
            self.heard.pop(next(iter(self.heard)))
        manufacturer = list((data.manufacturer_data or {}).items())[:MAX_PARTS]
        service = list((data.service_data or {}).items())[:MAX_PARTS]
        advert = self.heard[address] = Advert(
            address=address,
            name=str(data.local_name or device.name or "")[:248],
            rssi=int(data.rssi or 0),
            manufacturer={int(k): bytes(v) for k, v in manufacturer},
            service={str(k).lower(): bytes(v) for k, v in service},
            services=tuple(str(each).lower() for each in (data.service_uuids or [])[:MAX_PARTS]),
            handle=device,
        )
        for hearer in list(self._hearers):
            hearer(advert)

    async def find(self, wanted: Callable[[Advert], bool], timeout_s: float) -> Advert | None:
        """The first device that is heard and wanted.  Raises: DeviceError, DriverError."""
        found: asyncio.Future[Advert] = asyncio.get_running_loop().create_future()

        def hear(advert: Advert) -> None:
            if not found.done() and wanted(advert):
                found.set_result(advert)

        async with self.use(hear):
            for advert in list(self.heard.values()):
                hear(advert)
            try:
                async with asyncio.timeout(timeout_s):
                    return await found
            except TimeoutError:
                return None


class Connection:
    """A connection to one device.  Nothing is retried here.  lost: called when the device goes by itself."""

    def __init__(
        self, advert: Advert, *, adapter: str, timeout_s: float, pair: bool, lost: Callable[[], None]
    ) -> None:
        options: dict[str, Any] = {"bluez": {"adapter": adapter}} if adapter else {}
        self._address = advert.address
        self._client: Any = _bleak().BleakClient(
            advert.handle,
            disconnected_callback=lambda _: lost(),
            timeout=timeout_s,
            pair=pair,
            **options,
        )

    @property
    def is_open(self) -> bool:
        return bool(self._client.is_connected)

    async def open(self) -> None:
        """Raises: DeviceError."""
        await self._ask(self._client.connect(), "connect")

    async def close(self) -> None:
        try:
            await self._client.disconnect()
        except _failures() as error:
            log.debug("! disconnecting %s: %s", self._address, error)  # it is gone anyway

    def abilities(self, uuid: str) -> frozenset[str]:
        """What a characteristic can do: read, write, write-without-response, notify, indicate.  Raises: DriverError."""
        try:
            found = self._client.services.get_characteristic(uuid)
        except _failures() as error:  # two of the same UUID
            raise DriverError(f"{uuid}: {_text(error)}") from error
        if found is None:
            raise DriverError(f"{self._address} has no characteristic {uuid}")
        return frozenset(found.properties)

    async def read(self, uuid: str) -> bytes:
        """Raises: DeviceError."""
        return bytes(await self._ask(self._client.read_gatt_char(uuid), f"read {uuid}"))

    async def write(self, uuid: str, data: bytes, *, response: bool | None) -> None:
        """Raises: DeviceError."""
        await self._ask(self._client.write_gatt_char(uuid, data, response=response), f"write {uuid}")

    async def listen(self, uuid: str, hear: Callable[[bytes], None]) -> None:
        """Have notifications told, from the event loop.  Raises: DeviceError."""
        await self._ask(
            self._client.start_notify(uuid, lambda _, data: hear(bytes(data))), f"listen to {uuid}"
        )

    async def _ask(self, call: Any, what: str) -> Any:
        try:
            return await call
        except _failures() as error:
            raise DeviceError(f"cannot {what} of {self._address}: {_text(error)}") from error


def _text(error: BaseException) -> str:
    return str(error)[:200] or type(error).__name__
