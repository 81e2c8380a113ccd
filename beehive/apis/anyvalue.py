"""Values of `configData` in the wrappers that DMI carries them in, both ways.  Pure.

KubeEdge's edgecore sends every number as a 32-bit float, which corrupts whole numbers above 2^24.  Ours sends whole numbers as
Int64Value; a number that a 32-bit float would not keep goes as text, nested values go as JSON text.  KubeEdge's mappers read
exactly these kinds and silently miss others.   Source: protocol notes on DMI section 6."""

import struct
from typing import Any

import msgspec
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage
from google.protobuf.wrappers_pb2 import (
    BoolValue,
    DoubleValue,
    FloatValue,
    Int32Value,
    Int64Value,
    StringValue,
)


def to_any(value: Any) -> AnyMessage | None:
    """Wrap a JSON value; None for null, which is left out.  Total."""
    wrapped: ProtoMessage
    match value:
        case None:
            return None
        case bool():
            wrapped = BoolValue(value=value)
        case int() if -(2**63) <= value < 2**63:
            wrapped = Int64Value(value=value)
        case float() if value.is_integer() and abs(value) < 2**53:
            wrapped = Int64Value(value=int(value))
        case float() if _is_single(value):
            wrapped = FloatValue(value=value)
        case str():
            wrapped = StringValue(value=value)
        case _:
            wrapped = StringValue(value=msgspec.json.encode(value).decode())
    packed = AnyMessage()
    packed.Pack(wrapped)
    return packed


def _is_single(value: float) -> bool:
    """Whether a mapper that rounds a 32-bit float to seven digits gets the number back."""
    try:
        single: float = struct.unpack("f", struct.pack("f", value))[0]
    except (OverflowError, struct.error):
        return False
    return float(f"{single:.7g}") == value


def from_any(packed: AnyMessage) -> Any:
    """The value in a wrapper; None for one that is damaged or of no known kind.  32-bit floats come with seven digits."""
    try:
        for kind in (StringValue, BoolValue, Int64Value, Int32Value, DoubleValue):
            if packed.Is(kind.DESCRIPTOR):
                wrapped = kind()
                packed.Unpack(wrapped)
                return wrapped.value
        if packed.Is(FloatValue.DESCRIPTOR):
            single = FloatValue()
            packed.Unpack(single)
            return float(f"{single.value:.7g}")
    except DecodeError:
        return None
    return None
