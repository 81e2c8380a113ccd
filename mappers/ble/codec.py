"""Bytes of Bluetooth LE characteristics and advertisements, and the values in them.  Pure.

Numbers are little-endian unless said otherwise (Bluetooth Core Specification, volume 3 part F, 3.2.4).  A visitor's settings
say which bytes count and what they are; KubeEdge's `dataConverter` and `dataWrite` are understood beside our own keys, but
numbers are read from the bytes and not from their decimal digits, unless `decimalDigits` asks for it.   Source: protocol notes
on mappers, E.3."""

import base64
import binascii
import math
import re
import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NoReturn

import msgspec

from mappers.framework.convert import Value, to_text
from mappers.framework.driver import DriverError, Property, Settings
from mappers.framework.errors import ValueRefused

MAX_BYTES = 512
"""The longest value that an attribute can have.  Source: Bluetooth Core Specification, volume 3 part F, 3.2.9."""
_BASE_UUID = "-0000-1000-8000-00805f9b34fb"
_SHORT = re.compile(r"(?:0x)?([0-9a-f]{4}|[0-9a-f]{8})")
_ADDRESS = re.compile(r"[0-9A-F]{2}(:[0-9A-F]{2}){5}")
_INTEGER = re.compile(r"(u?)int(8|16|24|32|40|48|56|64)?")
_FLOATS = {"float32": 4, "float64": 8, "sfloat": 2, "medfloat": 4}
_OPERATIONS = ("add", "subtract", "multiply", "divide")
# Special values of IEEE 11073 floats: not a number, not at this resolution, infinities, reserved.
_NO_SFLOAT = {0x07FF, 0x0800, 0x07FE, 0x0802, 0x0801}
_NO_MEDFLOAT = {0x7FFFFF, 0x800000, 0x7FFFFE, 0x800002, 0x800001}

Source = Literal["characteristic", "manufacturer", "service", "name", "rssi"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Which bytes of a value count, and what they are.

    kind: `int16`, `float32`, `bool`, `string`, `bytes` and so on.   start, end: the first and the last byte, None for all from
    there; end before start takes them the other way round.   shift: bits to the left, negative to the right.   operations: in
    order.   scale, offset: the number is multiplied by the one and the other added, after that.   values: bytes that are
    written for a value, by its text."""

    kind: str
    big: bool = False
    start: int = 0
    end: int | None = None
    shift: int = 0
    operations: tuple[tuple[str, float], ...] = ()
    scale: float = 1.0
    offset: float = 0.0
    digits: bool = False
    values: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a property's value is.  uuid: of the characteristic, or of the service whose data is advertised.  company: of a
    manufacturer's data.  notify: None follows the characteristic.  response: of writing, None follows the characteristic."""

    source: Source
    uuid: str = ""
    company: int = 0
    notify: bool | None = None
    response: bool | None = None


def full_uuid(text: str, key: str) -> str:
    """A UUID in full, from itself or from the 16 or 32 bits that the Bluetooth SIG assigned.  Raises: DriverError."""
    low = text.strip().lower()
    short = _SHORT.fullmatch(low)
    if short is not None:
        return short[1].rjust(8, "0") + _BASE_UUID
    try:
        return str(uuid.UUID(low))
    except ValueError:
        raise DriverError(
            f"setting {key!r} is no UUID like 2a6e or 00002a6e{_BASE_UUID}: {text[:64]!r}"
        ) from None


def address_of(settings: Settings) -> str:
    """The Device's `macAddress` in capitals, empty when there is none.  Raises: DriverError."""
    text = settings.text("macAddress", "").strip().upper().replace("-", ":")
    if text and not _ADDRESS.fullmatch(text):
        raise DriverError(f"setting 'macAddress' is not like AA:BB:CC:DD:EE:FF: {text[:64]!r}")
    return text


def place_of(prop: Property) -> Place:
    """Raises: DriverError naming the setting."""
    settings = prop.settings
    said = settings.text("source", "").lower()
    if not said:
        if "characteristicUUID" in settings:
            said = "characteristic"
        elif "companyID" in settings:
            said = "manufacturer"
        else:
            said = "service" if "serviceUUID" in settings else ""
    match said:
        case "characteristic":
            return Place(
                source="characteristic",
                uuid=full_uuid(settings.text("characteristicUUID"), "characteristicUUID"),
                notify=settings.flag("notify") if "notify" in settings else None,
                response=settings.flag("response") if "response" in settings else None,
            )
        case "manufacturer":
            company = settings.integer("companyID")
            if not 0 <= company <= 0xFFFF:
                raise DriverError("setting 'companyID' is not between 0 and 0xffff")
            return Place(source="manufacturer", company=company)
        case "service":
            return Place(source="service", uuid=full_uuid(settings.text("serviceUUID"), "serviceUUID"))
        case "name":
            return Place(source="name")
        case "rssi":
            return Place(source="rssi")
        case "":
            raise DriverError(
                f"{prop.name} has neither 'characteristicUUID' nor 'companyID' nor 'serviceUUID' nor 'source'"
            )
    raise DriverError(
        f"setting 'source' is not characteristic, manufacturer, service, name or rssi: {said[:64]!r}"
    )


def layout_of(prop: Property) -> Layout:
    """Raises: DriverError naming the setting."""
    settings = prop.settings
    order = settings.text("byteOrder", "little").lower()
    if order not in ("little", "big"):
        raise DriverError(f"setting 'byteOrder' is not little or big: {order[:64]!r}")
    converter = Settings(_map(settings, "dataConverter"))
    start = _index(settings if "startIndex" in settings else converter, "startIndex", 0)
    end = _index(settings if "endIndex" in settings else converter, "endIndex", -1)
    left, right = _bits(converter, "shiftLeft"), _bits(converter, "shiftRight")
    scale = settings.number("scale", 1.0)
    if not math.isfinite(scale) or scale == 0:
        raise DriverError("setting 'scale' is 0, or no number")
    return Layout(
        kind=_kind(settings.text("dataType", "").lower(), prop),
        big=order == "big",
        start=start,
        end=None if end < 0 else end,
        shift=left or -right,
        operations=_operations(converter.get("orderOfOperations")),
        scale=scale,
        offset=settings.number("offset", 0.0),
        digits=settings.flag("decimalDigits"),
        values=_written(_map(settings, "dataWrite")),
    )


def _kind(said: str, prop: Property) -> str:
    """What `dataType` names; KubeEdge's own names leave the length to the bytes that come."""
    match said:
        case "" | "int" | "float" | "double" | "string" | "boolean" | "bytes":
            default = {"BOOLEAN": "bool", "STRING": "string", "BYTES": "bytes", "INT": "uint"}
            return default.get(prop.type, "float")
        case "bool":
            return said
    if _INTEGER.fullmatch(said) or said in _FLOATS:
        return said
    raise DriverError(f"setting 'dataType' is unknown: {said[:64]!r}")


def _index(settings: Settings, key: str, default: int) -> int:
    value = settings.integer(key, default)
    if not -1 <= value < MAX_BYTES:
        raise DriverError(f"setting {key!r} is not between 0 and {MAX_BYTES - 1}")
    return value


def _bits(settings: Settings, key: str) -> int:
    value = settings.integer(key, 0)
    if not 0 <= value <= 63:
        raise DriverError(f"setting {key!r} is not between 0 and 63")
    return value


def _map(settings: Settings, key: str) -> Mapping[str, Any]:
    """A setting that is a mapping; DMI carries it as JSON."""
    value = settings.get(key)
    if isinstance(value, str) and value:
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            value = False
    if value in (None, ""):
        return {}
    if not isinstance(value, Mapping):
        raise DriverError(f"setting {key!r} is no mapping")
    return value


def _operations(value: Any) -> tuple[tuple[str, float], ...]:
    if value is None:
        return ()
    wrong = "setting 'orderOfOperations' is not a list of operationType and operationValue"
    if not isinstance(value, list) or len(value) > 16:
        raise DriverError(wrong)
    found = []
    for item in value:
        row = Settings(item) if isinstance(item, Mapping) else Settings()
        what, number = row.text("operationType", "").lower(), row.number("operationValue", 0.0)
        if what not in _OPERATIONS or not math.isfinite(number) or (what == "divide" and number == 0):
            raise DriverError(wrong)
        found.append((what, number))
    return tuple(found)


def _written(values: Mapping[str, Any]) -> dict[str, bytes]:
    found = {}
    for name, text in values.items():
        try:
            found[str(name).lower()] = base64.b64decode(str(text), validate=True)
        except binascii.Error as error:
            raise DriverError(f"setting 'dataWrite' has no base64 for {str(name)[:64]!r}") from error
    return found


# --- reading -------------------------------------------------------------------------------------------------------------


def decode(data: bytes, layout: Layout) -> Value:
    """The value in some bytes.  Raises: ValueRefused."""
    part = _part(data, layout)
    match layout.kind:
        case "bytes":
            return part
        case "string":
            try:
                return part.rstrip(b"\0").decode()
            except UnicodeDecodeError:
                raise ValueRefused(f"the bytes {part[:16].hex()} are no UTF-8") from None
        case "bool":
            if not part:
                raise ValueRefused("there are no bytes")
            return any(part)
    number = _digits(part) if layout.digits else _number(part, layout)
    if layout.shift:
        number = int(number)
        number = number << layout.shift if layout.shift > 0 else number >> -layout.shift
    return _scaled(number, layout)


def _part(data: bytes, layout: Layout) -> bytes:
    if len(data) > MAX_BYTES:
        raise ValueRefused(f"{len(data)} bytes are more than a characteristic can have")
    start, end = layout.start, layout.end
    if end is None:
        part = data[start:]
        missing = len(data) < start
    elif end >= start:
        part = data[start : end + 1]
        missing = len(data) <= end
    else:
        part = data[end : start + 1][::-1]
        missing = len(data) <= start
    if missing:
        raise ValueRefused(f"{len(data)} bytes came, too few: {data[:16].hex()}")
    return part


def _digits(part: bytes) -> int:
    """KubeEdge's way: the decimal texts of the bytes, one after the other."""
    if not part or len(part) > 6:
        raise ValueRefused(f"{len(part)} bytes are no number in decimal digits")
    return int("".join(str(byte) for byte in part))


def _number(part: bytes, layout: Layout) -> int | float:
    order: Literal["little", "big"] = "big" if layout.big else "little"
    integer = _INTEGER.fullmatch(layout.kind)
    if integer is not None:
        size = int(integer[2] or 0) // 8 or min(len(part), 8)
        return int.from_bytes(_exactly(part, size), order, signed=not integer[1])
    size = _FLOATS.get(layout.kind, len(part))
    part = _exactly(part, size)
    if layout.kind in ("sfloat", "medfloat"):
        return _medical(int.from_bytes(part, order), size)
    if size not in (4, 8):
        raise ValueRefused(f"{size} bytes are no float; set dataType, e.g. int16 with a scale")
    (number,) = struct.unpack((">" if layout.big else "<") + ("f" if size == 4 else "d"), part)
    if not math.isfinite(number):
        raise ValueRefused("the value is not a number")
    return float(f"{number:.7g}") if size == 4 else float(number)


def _exactly(part: bytes, size: int) -> bytes:
    if not size or len(part) < size:
        raise ValueRefused(f"{len(part)} bytes came, too few for a value: {part[:16].hex()}")
    return part[:size]


def _medical(raw: int, size: int) -> float:
    """A float of IEEE 11073-20601: a signed exponent of ten above a signed mantissa."""
    bits = 12 if size == 2 else 24
    mantissa, exponent = raw & ((1 << bits) - 1), raw >> bits
    if mantissa in (_NO_SFLOAT if size == 2 else _NO_MEDFLOAT):
        raise ValueRefused("the device says that there is no value")
    if mantissa >> (bits - 1):
        mantissa -= 1 << bits
    top = 4 if size == 2 else 8
    if exponent >> (top - 1):
        exponent -= 1 << top
    return float(f"{mantissa}e{exponent}")


def _scaled(number: int | float, layout: Layout) -> Value:
    for what, operand in layout.operations:
        match what:
            case "add":
                number = number + operand
            case "subtract":
                number = number - operand
            case "multiply":
                number = number * operand
            case _:
                number = number / operand
    if layout.scale == 1.0 and layout.offset == 0.0 and isinstance(number, int):
        return number
    result = float(f"{number * layout.scale + layout.offset:.12g}")
    if not math.isfinite(result):
        raise ValueRefused("the value is not a number")
    return result


# --- writing -------------------------------------------------------------------------------------------------------------


def encode(value: Value, layout: Layout, type_: str) -> bytes:
    """The bytes that set a value.  type_: the model's.  Raises: DriverError, ValueRefused."""
    if layout.values:
        text = to_text(value, type_)
        found = layout.values.get(text.lower())
        if found is None:
            raise ValueRefused(f"'dataWrite' has nothing for {text[:64]!r}")
        return found
    if layout.start or layout.end is not None:
        raise DriverError("a part of a characteristic cannot be written; give its bytes in 'dataWrite'")
    match layout.kind:
        case "bytes" | "string":
            data = value if isinstance(value, bytes) else str(value).encode()
            if len(data) > MAX_BYTES:
                raise ValueRefused(f"{len(data)} bytes are more than a characteristic can have")
            return data
        case "bool":
            return bytes([bool(value)])
    if layout.shift or layout.operations or layout.digits:
        raise DriverError(
            "what 'dataConverter' reads cannot be written; use scale and offset, or 'dataWrite'"
        )
    if not isinstance(value, bool | int | float):
        raise ValueRefused(f"not a number: {value!r:.64}")
    return _packed(
        value if layout.scale == 1.0 and not layout.offset else (value - layout.offset) / layout.scale, layout
    )


def _packed(number: float, layout: Layout) -> bytes:
    order: Literal["little", "big"] = "big" if layout.big else "little"
    integer = _INTEGER.fullmatch(layout.kind)
    if integer is not None:
        if not integer[2]:
            _unsized()
        try:
            return round(number).to_bytes(int(integer[2]) // 8, order, signed=not integer[1])
        except OverflowError:
            raise ValueRefused(f"{number:g} does not fit {layout.kind}") from None
    if layout.kind not in ("float32", "float64"):
        _unsized()
    try:
        return struct.pack((">" if layout.big else "<") + ("f" if layout.kind == "float32" else "d"), number)
    except OverflowError:
        raise ValueRefused(f"{number:g} does not fit {layout.kind}") from None


def _unsized() -> NoReturn:
    raise DriverError(
        "to be written, a number needs setting 'dataType' with its length, e.g. uint8 or float32"
    )
