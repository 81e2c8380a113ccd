"""Values in Modbus registers and coils.  Pure.

A visitor's settings become a `Field`; `decode` and `encode` go between the field's 16-bit words (or bits) and a value.
Words are put in order first (`isRegisterSwap`), then their bytes (`isSwap`), then everything is read big-endian, as
KubeEdge's mapper does.  Source: protocol notes on mappers, section E.1."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from mappers.framework.convert import Value
from mappers.framework.driver import DriverError, Property
from mappers.framework.errors import ValueRefused

MAX_WORDS, MAX_BITS = 125, 2000  # of one request, by the Modbus specification
LAST_ADDRESS = 0xFFFF


class Register(Enum):
    """KubeEdge's names, and in the value the way this driver says them."""

    COIL = "CoilRegister"
    DISCRETE = "DiscreteInputRegister"
    INPUT = "InputRegister"
    HOLDING = "HoldingRegister"

    @property
    def is_bits(self) -> bool:
        return self in (Register.COIL, Register.DISCRETE)


_REGISTERS = {
    name: register
    for register, names in {
        Register.COIL: ("coilregister", "coil", "coils"),
        Register.DISCRETE: ("discreteinputregister", "discreteinput", "discrete"),
        Register.INPUT: ("inputregister", "input"),
        Register.HOLDING: ("holdingregister", "holding"),
    }.items()
    for name in names
}
# Format of a number without byte order; its size says how many words it needs.
_NUMBERS = {
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}
_BY_WORDS = {1: "uint16", 2: "uint32", 4: "uint64"}
_TEXTS = ("string", "bytes")
_OTHER_NAMES = {"boolean": "bool", "double": "float64"}
_BY_MODEL = {
    "INT": "int",
    "FLOAT": "float",
    "DOUBLE": "float",
    "BOOLEAN": "bool",
    "STRING": "string",
    "BYTES": "bytes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Where a property is, and what it means.  count: words, or bits of coils and discrete inputs."""

    register: Register
    offset: int
    count: int
    data_type: str
    scale: float = 1.0
    swap_bytes: bool = False
    swap_words: bool = False


def field_of(prop: Property) -> Field:
    """Read a visitor.  Raises: DriverError naming the setting."""
    settings = prop.settings
    name = settings.text("register")
    register = _REGISTERS.get(name.lower())
    if register is None:
        known = ", ".join(r.value for r in Register)
        raise DriverError(f"setting 'register' is not one of {known}: {name[:64]!r}")
    asked = settings.integer("limit", 0)
    data_type = _data_type(settings.text("dataType", _BY_MODEL.get(prop.type, "")).lower(), register, asked)
    count = asked or _natural_count(data_type, register)
    offset = settings.integer("offset")
    if not 1 <= count <= (MAX_BITS if register.is_bits else MAX_WORDS):
        raise DriverError(f"setting 'limit' is out of range: {count}")
    if not 0 <= offset <= LAST_ADDRESS + 1 - count:
        raise DriverError(f"setting 'offset' is out of range: {offset}")
    needed = _natural_count(data_type, register)
    if data_type in _NUMBERS and not register.is_bits and count != needed:
        raise DriverError(f"a {data_type} takes {needed} registers, setting 'limit' says {count}")
    scale = settings.number("scale", 1.0)
    if scale == 0 or not math.isfinite(scale):
        raise DriverError("setting 'scale' is 0 or no number")
    return Field(
        register=register,
        offset=offset,
        count=count,
        data_type=data_type,
        scale=scale,
        swap_bytes=settings.flag("isSwap"),
        swap_words=settings.flag("isRegisterSwap"),
    )


def _data_type(name: str, register: Register, count: int) -> str:
    """The exact type.  `int` and `float` mean the one that fills `count` words, whole numbers unsigned, as KubeEdge has it."""
    name = _OTHER_NAMES.get(name, name)
    if register.is_bits:
        if name not in ("bool", "int"):
            raise DriverError(f"coils and discrete inputs hold bool or int, not {name[:64]!r}")
        return name
    if name == "int":
        name = _BY_WORDS.get(count or 1, "")
    elif name == "float":
        name = "float64" if count == 4 else "float32"
    if name not in _NUMBERS and name not in _TEXTS and name != "bool":
        raise DriverError(f"setting 'dataType' is unknown, or does not fit 'limit': {name[:64]!r}")
    return name


def _natural_count(data_type: str, register: Register) -> int:
    if register.is_bits or data_type not in _NUMBERS:
        return 1
    return struct.calcsize(">" + _NUMBERS[data_type]) // 2


def _reordered(raw: bytes, field: Field) -> bytes:
    """Words in order, then bytes; doing it twice gives the same again."""
    words = [raw[i : i + 2] for i in range(0, len(raw), 2)]
    if field.swap_words:
        words.reverse()
    if field.swap_bytes:
        words = [word[::-1] for word in words]
    return b"".join(words)


def decode_bits(bits: Sequence[bool], field: Field) -> Value:
    """Raises: ValueRefused if the device sent fewer than were asked for."""
    if len(bits) < field.count:
        raise ValueRefused(f"the device sent {len(bits)} bits instead of {field.count}")
    bits = bits[: field.count]
    if field.data_type == "bool":
        return bool(bits[0])
    raw = bytes(
        sum(bool(bit) << i for i, bit in enumerate(bits[start : start + 8]))
        for start in range(0, len(bits), 8)
    )
    return _scaled(int.from_bytes(_reordered(raw, field), "big"), field)


def decode(words: Sequence[int], field: Field) -> Value:
    """Raises: ValueRefused if the words are no such value."""
    if len(words) < field.count:
        raise ValueRefused(f"the device sent {len(words)} registers instead of {field.count}")
    raw = _reordered(b"".join(word.to_bytes(2, "big") for word in words[: field.count]), field)
    if field.data_type == "bool":
        return any(raw)
    if field.data_type == "bytes":
        return raw
    if field.data_type == "string":
        try:
            return raw.rstrip(b"\0 ").decode()
        except UnicodeDecodeError as error:
            raise ValueRefused(f"the registers hold no text: {raw[:32].hex()}") from error
    (number,) = struct.unpack(">" + _NUMBERS[field.data_type], raw)
    return _scaled(number, field)


def _scaled(number: int | float, field: Field) -> int | float:
    if field.scale == 1:
        return number
    # 0.1 is not a tenth: without rounding 231 at scale 0.1 would read 23.100000000000001
    product = float(number) * field.scale
    return float(f"{product:.12g}")


def whole(value: Value, prop: Property) -> Value:
    """A number as its property's type; parts of a whole one are cut off, as KubeEdge's mapper does."""
    return (
        math.trunc(value)
        if prop.type == "INT" and isinstance(value, float) and math.isfinite(value)
        else value
    )


def encode_bit(value: Value, field: Field) -> bool:
    """Raises: ValueRefused."""
    if field.count != 1:
        raise ValueRefused("only single coils can be written")
    if value in (0, 1, True, False) and not isinstance(value, str | bytes | None):
        return bool(value)
    raise ValueRefused(f"a coil is on or off, not {value!r:.64}")


def encode(value: Value, field: Field) -> list[int]:
    """The words that read back as `value`.  Raises: ValueRefused if it does not fit."""
    raw = _reordered(_packed(value, field), field)
    return [int.from_bytes(raw[i : i + 2], "big") for i in range(0, len(raw), 2)]


def _packed(value: Value, field: Field) -> bytes:
    size = field.count * 2
    if field.data_type in _TEXTS:
        raw = value.encode() if isinstance(value, str) else value
        if not isinstance(raw, bytes) or len(raw) > size:
            raise ValueRefused(f"the value does not fit into {size} bytes")
        return raw.ljust(size, b"\0")
    if not isinstance(value, int | float):
        raise ValueRefused(f"the value is not a number: {value!r:.64}")
    if field.data_type == "bool":
        return int(bool(value)).to_bytes(size, "big")
    if field.scale != 1:
        value = float(f"{value / field.scale:.12g}")
    code = _NUMBERS[field.data_type]
    try:
        number = value if code in "fd" else round(value)
        return struct.pack(">" + code, number)
    except (struct.error, OverflowError, ValueError) as error:
        raise ValueRefused(f"the value does not fit a {field.data_type}: {error}") from error
