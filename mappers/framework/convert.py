"""Values of properties between a driver's Python types and the text on the wire.  Pure.

INT int, FLOAT and DOUBLE float, BOOLEAN bool, STRING str, BYTES bytes (base64 on the wire when it is no plain text).
Numbers go without exponent and without trailing zeros, as KubeEdge's peers write and some of them read.
Source: protocol notes on mappers, section C."""

import base64
import binascii
import math
from decimal import Decimal
from typing import Any

import msgspec

from beehive.apis.devices import check_value, parse_bool
from mappers.framework.errors import ValueRefused

Value = int | float | bool | str | bytes | None

_BASE64 = "base64:"


def from_text(text: str, type_: str) -> Value:
    """Read a desired value.  type_: the model's.  None for an empty text: nothing is wanted.  Raises: ValueRefused."""
    if text == "" and type_ != "STRING":
        return None
    wrong = check_value(text, type_)
    if wrong:
        raise ValueRefused(f"the value {wrong}")
    match type_:
        case "INT":
            return int(text)
        case "FLOAT" | "DOUBLE":
            return float(text)
        case "BOOLEAN":
            return parse_bool(text)
        case "BYTES":
            return _bytes(text)
        case _:
            return text


def _bytes(text: str) -> bytes:
    if not text.startswith(_BASE64):
        return text.encode()
    try:
        return base64.b64decode(text[len(_BASE64) :], validate=True)
    except binascii.Error as error:
        raise ValueRefused(f"the value is not base64: {error}") from error


def to_text(value: Any, type_: str) -> str:
    """Write what a driver read, as the model's type.  Raises: ValueRefused if it is no such value.

    None is no value, so it is refused too: a driver that could not read should raise."""
    match type_:
        case "INT":
            text = _int(value)
        case "FLOAT" | "DOUBLE":
            text = _float(value)
        case "BOOLEAN":
            text = _bool(value)
        case "BYTES" if isinstance(value, bytes | bytearray | memoryview):
            text = _plain(bytes(value))
        case _:
            text = _text(value)
    wrong = check_value(text, type_)
    if wrong:
        raise ValueRefused(f"the value {wrong}")
    return text


def _int(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool | int):
        return str(int(value))
    if isinstance(value, str):
        return value.strip()
    raise ValueRefused(f"the value is not an INT: {value!r:.64}")


def _float(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    if not isinstance(value, bool | int | float | Decimal) or not math.isfinite(value):
        raise ValueRefused(f"the value is not a number: {value!r:.64}")
    number = Decimal(repr(float(value)))  # repr is the shortest text that reads back the same
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def _bool(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value in (0, 1):
        return "true" if value else "false"
    if isinstance(value, str):
        try:
            return "true" if parse_bool(value.strip()) else "false"
        except ValueError:
            pass
    raise ValueRefused(f"the value is not a BOOLEAN: {value!r:.64}")


def _plain(value: bytes) -> str:
    try:
        text = value.decode("ascii")
    except UnicodeDecodeError:
        text = ""
    if text and text.isprintable() and not text.startswith(_BASE64):
        return text
    return _BASE64 + base64.b64encode(value).decode() if value else ""


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        raise ValueRefused("there is no value")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _float(value)
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, msgspec.EncodeError) as error:
        raise ValueRefused(f"the value cannot be written: {error}") from error
