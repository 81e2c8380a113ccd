"""Bluetooth LE: characteristics of a device that is connected to, or what it advertises.

Settings: README.md beside this file."""

import asyncio
import time
from collections.abc import Callable

from mappers.ble import codec
from mappers.ble.codec import Place
from mappers.ble.radio import Advert, Connection, Scan
from mappers.framework.convert import Value
from mappers.framework.driver import Around, DeviceError, Driver, DriverError, Property, Settings
from mappers.framework.errors import NothingYet, ValueRefused

DISCOVER_S = 5.0
MAX_OPEN_S = 9.0  # what the framework gives `open`, less a little


def pick(place: Place, advert: Advert) -> bytes | str | int | None:
    """What an advertisement says for a property; None for nothing.  Pure."""
    match place.source:
        case "manufacturer":
            return advert.manufacturer.get(place.company)
        case "service":
            return advert.service.get(place.uuid)
        case "name":
            return advert.name or None
        case "rssi":
            return advert.rssi
    return None


class Ble(Driver):
    """One device.  It is connected to only if a property needs it."""

    protocol = "ble"

    async def open(self) -> None:
        settings = self.settings
        self.address = codec.address_of(settings)
        self.name = settings.text("name", "")
        self.adapter = settings.text("adapter", "")
        if not self.address and not self.name:
            raise DriverError("setting 'macAddress' is missing, and 'name' too")
        self.timeout_s = min(max(settings.number("timeout", 8.0), 0.1), MAX_OPEN_S)
        self.max_age_s = settings.number("maxAge", 60.0)
        self.places: dict[str, Place | DriverError] = {}
        for prop in self.properties.values():
            try:  # a property with wrong settings says so when it is read, and the others work
                self.places[prop.name] = codec.place_of(prop)
                codec.layout_of(prop)
            except DriverError as error:
                self.places[prop.name] = error
        good = [place for place in self.places.values() if isinstance(place, Place)]
        self.heard: dict[str, bytes | str | int] = {}  # last of what comes by itself, by property
        self.heard_at: float | None = None  # the last advertisement
        self.began = time.monotonic()
        self.renewed = False
        self.scan = Scan.of(self.adapter)
        self.connection: Connection | None = None
        self.subscribed: set[str] = set()
        try:
            if any(place.source != "characteristic" for place in good) or not good:
                await self.scan.enter(self._on_advert)
            if any(place.source == "characteristic" for place in good):
                await self._connect()
        except BaseException:
            await self.close()
            raise

    async def _connect(self) -> None:
        began = time.monotonic()
        async with self.scan.connecting:
            advert = await self.scan.find(self._is_it, self._left(began))
            if advert is None:
                raise DeviceError(f"nothing is heard of {self.address or self.name}")
            connection = Connection(
                advert,
                adapter=self.adapter,
                timeout_s=self._left(began),
                pair=self.settings.flag("pair"),
                lost=lambda: None,  # the next reading finds it out
            )
            self.connection = connection
            await connection.open()
        for prop in self.properties.values():
            place = self.places[prop.name]
            if isinstance(place, Place) and place.source == "characteristic":
                try:
                    await self._listen(prop, place, connection)
                except DriverError as error:
                    self.places[prop.name] = error

    def _left(self, began: float) -> float:
        return max(began + self.timeout_s - time.monotonic(), 0.1)

    async def _listen(self, prop: Property, place: Place, connection: Connection) -> None:
        abilities = connection.abilities(place.uuid)
        sends = bool(abilities & {"notify", "indicate"})
        if place.notify and not sends:
            raise DriverError(f"characteristic {place.uuid} does not notify")
        if sends and (place.notify or (place.notify is None and "read" not in abilities)):
            # several properties may be parts of one characteristic; it is subscribed to once
            if place.uuid not in self.subscribed:
                self.subscribed.add(place.uuid)
                await connection.listen(place.uuid, self._hearer(place.uuid))
        elif "read" not in abilities and not prop.writable:
            raise DriverError(f"characteristic {place.uuid} can neither be read nor does it notify")

    def _hearer(self, uuid: str) -> Callable[[bytes], None]:
        def hear(data: bytes) -> None:
            for name, place in self.places.items():
                if isinstance(place, Place) and place.source == "characteristic" and place.uuid == uuid:
                    self._take(self.properties[name], data)

        return hear

    async def close(self) -> None:
        await self.scan.leave(self._on_advert)
        connection, self.connection = self.connection, None
        if connection is not None:
            await connection.close()

    # --- what comes by itself

    def _is_it(self, advert: Advert) -> bool:
        return advert.address == self.address if self.address else advert.name == self.name

    def _on_advert(self, advert: Advert) -> None:
        if not self._is_it(advert):
            return
        self.heard_at = time.monotonic()
        self.renewed = False
        for name, place in self.places.items():
            if isinstance(place, Place):
                said = pick(place, advert)
                if said is not None and (place.source != "rssi" or name not in self.heard):
                    self._take(self.properties[name], said)
                elif said is not None:
                    self.heard[name] = said  # it differs each time: told in its cycle only

    def _take(self, prop: Property, said: bytes | str | int) -> None:
        if self.heard.get(prop.name) == said:
            return
        self.heard[prop.name] = said
        try:
            value = self._value(prop, said)
        except (ValueRefused, DriverError):
            return  # said when it is read
        self.changed(prop.name, value)

    def _value(self, prop: Property, said: bytes | str | int) -> Value:
        return codec.decode(said, codec.layout_of(prop)) if isinstance(said, bytes) else said

    # --- what is asked

    async def read(self, prop: Property) -> Value:
        place = self._place(prop)
        if place.source != "characteristic":
            return await self._advertised(prop)
        connection = self._connected()
        if place.uuid in self.subscribed and prop.name in self.heard:
            return self._value(prop, self.heard[prop.name])
        if "read" not in connection.abilities(place.uuid):
            sends = place.uuid in self.subscribed
            raise NothingYet(f"{prop.name} {'was not sent so far' if sends else 'can only be set'}")
        return self._value(prop, await connection.read(place.uuid))

    async def _advertised(self, prop: Property) -> Value:
        silent = time.monotonic() - (self.heard_at or self.began)
        if self.max_age_s and silent > self.max_age_s:
            raise DeviceError(f"nothing was heard of {self.address or self.name} for {self.max_age_s:g} s")
        if self.max_age_s and silent > self.max_age_s / 2 and not self.renewed:
            self.renewed = True  # once in a silence
            await self.scan.again()
        if prop.name not in self.heard:
            raise NothingYet(f"nothing was heard of {prop.name} so far")
        return self._value(prop, self.heard[prop.name])

    async def write(self, prop: Property, value: Value) -> None:
        place = self._place(prop)
        if place.source != "characteristic":
            raise DriverError(f"{prop.name} is advertised and cannot be set")
        data = codec.encode(value, codec.layout_of(prop), prop.type)
        connection = self._connected()
        if not connection.abilities(place.uuid) & {"write", "write-without-response"}:
            raise DriverError(f"characteristic {place.uuid} cannot be written")
        await connection.write(place.uuid, data, response=place.response)

    def _place(self, prop: Property) -> Place:
        found = self.places.get(prop.name)
        if found is None:
            found = codec.place_of(prop)
        if isinstance(found, DriverError):
            raise found
        return found

    def _connected(self) -> Connection:
        if self.connection is None or not self.connection.is_open:
            raise DeviceError(f"{self.address or self.name} has ended the connection")
        return self.connection

    async def state(self) -> str:
        if self.connection is None and self.heard_at is None:
            return "unknown"
        return "online"

    @classmethod
    async def discover(cls, settings: Settings) -> list[Around]:
        """Devices that are heard within `seconds`."""
        scan = Scan.of(settings.text("adapter", ""))
        async with scan.use(lambda advert: None):
            await asyncio.sleep(min(max(settings.number("seconds", DISCOVER_S), 0.1), 60.0))
            heard = sorted(scan.heard.values(), key=lambda advert: -advert.rssi)
        return [_around(advert) for advert in heard]


def _around(advert: Advert) -> Around:
    about = {"rssi": f"{advert.rssi} dBm"}
    for company, data in sorted(advert.manufacturer.items()):
        about[f"companyID 0x{company:04x}"] = data[:32].hex()
    for uuid, data in sorted(advert.service.items()):
        about[f"serviceUUID {short(uuid)}"] = data[:32].hex()
    if advert.services:
        about["services"] = " ".join(short(uuid) for uuid in advert.services)
    return Around(
        identity=advert.address, name=advert.name, settings={"macAddress": advert.address}, about=about
    )


def short(uuid: str) -> str:
    """The 16 bits of a UUID that the Bluetooth SIG assigned, else all of it."""
    return uuid[4:8] if uuid.startswith("0000") and uuid.endswith("-0000-1000-8000-00805f9b34fb") else uuid
