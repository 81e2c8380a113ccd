"""Modbus devices, over TCP or a serial line (RTU).   Settings: README.md beside this file."""

from mappers.framework.convert import Value
from mappers.framework.driver import Driver, DriverError, Property, Settings
from mappers.modbus import codec
from mappers.modbus.bus import Bus, Line

_PARITIES = {"": "N", "n": "N", "none": "N", "e": "E", "even": "E", "o": "O", "odd": "O"}
_SERIAL = ("serialPort", "serialName")


def line_of(settings: Settings) -> Line:
    """Read a Device's connection settings.  Raises: DriverError naming the setting."""
    timeout = settings.number("timeout", 2.0)
    if timeout > 60:  # manifests in circulation have seconds and milliseconds
        timeout /= 1000
    if timeout <= 0:
        raise DriverError("setting 'timeout' is not positive")
    device = next((settings.text(key) for key in _SERIAL if settings.get(key)), "")
    mode = settings.text("communicateMode", "RTU" if device else "TCP").upper()
    if mode == "TCP":
        host = settings.text("ip", settings.get("host"))
        return Line(host=host, port=settings.integer("port", 502), timeout_s=timeout)
    if mode != "RTU":
        raise DriverError(f"setting 'communicateMode' is not TCP or RTU: {mode[:64]!r}")
    if not device:
        raise DriverError("setting 'serialPort' is missing")
    parity = _PARITIES.get(settings.text("parity", "").lower())
    if parity is None:
        raise DriverError("setting 'parity' is not none, even or odd")
    return Line(
        device=device,
        baud_rate=settings.integer("baudRate", 9600),
        data_bits=settings.integer("dataBits", 8),
        stop_bits=settings.integer("stopBits", 1),
        parity=parity,
        timeout_s=timeout,
    )


def unit_of(settings: Settings) -> int:
    """The device's number on its line.  Raises: DriverError."""
    key = next((key for key in ("slaveID", "unitID", "deviceID") if key in settings), "slaveID")
    unit = settings.integer(key, 1)
    if not 0 <= unit <= 255:
        raise DriverError(f"setting {key!r} is out of range: {unit}")
    return unit


class Modbus(Driver):
    """One unit on a line that other devices may share."""

    protocol = "modbus"

    async def open(self) -> None:
        self.unit = unit_of(self.settings)
        bus = Bus.use(line_of(self.settings))
        try:
            await bus.connect()
        except BaseException:
            bus.leave()
            raise
        self.bus = bus

    async def close(self) -> None:
        self.bus.leave()

    async def read(self, prop: Property) -> Value:
        field = codec.field_of(prop)
        found = await self.bus.read(self.unit, field)
        decode = codec.decode_bits if field.register.is_bits else codec.decode
        return codec.whole(decode(found, field), prop)

    async def write(self, prop: Property, value: Value) -> None:
        field = codec.field_of(prop)
        match field.register:
            case codec.Register.COIL:
                await self.bus.write_coil(self.unit, field.offset, value=codec.encode_bit(value, field))
            case codec.Register.HOLDING:
                await self.bus.write_words(self.unit, field.offset, codec.encode(value, field))
            case _:
                raise DriverError(f"{prop.name}: a {field.register.value} cannot be written")
