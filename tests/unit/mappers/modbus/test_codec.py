import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappers.framework.driver import DriverError, Property, Settings
from mappers.framework.errors import ValueRefused
from mappers.modbus import codec
from mappers.modbus.codec import Field, Register
from mappers.modbus.driver import line_of, unit_of


def prop(type_: str = "INT", **settings: Any) -> Property:
    return Property(
        name="p", type=type_, settings=Settings({"register": "HoldingRegister", "offset": 0, **settings})
    )


@pytest.mark.parametrize(
    ("type_", "settings", "words", "value"),
    [
        ("INT", {}, [0xFFFF], 65535),  # unsigned, as KubeEdge reads it
        ("INT", {"dataType": "int16"}, [0xFFFF], -1),
        ("INT", {"limit": 2}, [1, 0], 65536),
        ("INT", {"limit": "2", "isRegisterSwap": "true"}, [1, 0], 1),
        ("INT", {"isSwap": True}, [0x0100], 1),
        ("INT", {"limit": 2, "isSwap": True, "isRegisterSwap": True}, [0x4433, 0x2211], 0x11223344),
        ("INT", {"dataType": "int32"}, [0xFFFF, 0xFFFE], -2),
        ("INT", {"limit": 4}, [0, 0, 0, 7], 7),
        ("FLOAT", {"limit": 2}, list(struct.unpack(">HH", struct.pack(">f", 21.5))), 21.5),
        ("FLOAT", {"dataType": "int16", "scale": "0.1"}, [231], 23.1),
        ("FLOAT", {"DataType": "Int16", "Scale": 0.1}, [0xFFFF], -0.1),
        ("DOUBLE", {"dataType": "double"}, list(struct.unpack(">4H", struct.pack(">d", -1.25))), -1.25),
        ("BOOLEAN", {}, [0], False),
        ("BOOLEAN", {}, [1], True),
        ("STRING", {"limit": 3}, [0x6162, 0x6300, 0], "abc"),
        ("STRING", {"limit": 2, "isSwap": True}, [0x6261, 0x6463], "abcd"),
    ],
)
def test_registers_read_as_the_visitor_says(
    type_: str, settings: dict[str, Any], words: list[int], value: object
) -> None:
    field = codec.field_of(prop(type_, **settings))
    assert field.count == len(words)
    assert codec.decode(words, field) == value
    assert codec.encode(codec.decode(words, field), field) == words


def test_whole_numbers_lose_what_is_behind_the_point() -> None:
    row = prop(dataType="int16", scale=0.1)
    assert codec.whole(codec.decode([0xFFFF - 18], codec.field_of(row)), row) == -1


def test_coils_are_single_or_packed_lowest_first() -> None:
    field = codec.field_of(prop("INT", register="CoilRegister", limit=4))
    assert codec.decode_bits([True, False, True, False], field) == 5
    single = codec.field_of(prop("BOOLEAN", register="coilregister"))
    assert codec.decode_bits([True] + [False] * 7, single) is True  # servers fill the byte
    assert codec.encode_bit(True, single) is True
    assert codec.encode_bit(0, single) is False
    with pytest.raises(ValueRefused):
        codec.encode_bit(2, single)
    with pytest.raises(ValueRefused):
        codec.encode_bit(1, field)


@pytest.mark.parametrize(
    "settings",
    [
        {"register": "Flux"},
        {"offset": 65536},
        {"offset": -1},
        {"offset": 65535, "limit": 2},
        {"limit": 126, "dataType": "string"},
        {"limit": 3},
        {"limit": 1, "dataType": "float32"},
        {"dataType": "complex"},
        {"scale": 0},
        {"scale": "nan"},
        {"register": "CoilRegister", "dataType": "float32"},
        {"offset": "here"},
    ],
)
def test_what_a_visitor_cannot_mean_is_named(settings: dict[str, Any]) -> None:
    with pytest.raises(DriverError):
        codec.field_of(prop(**settings))


def test_what_does_not_fit_is_refused() -> None:
    field = codec.field_of(prop(dataType="int16"))
    for value in (40000, -40000, "7", None, float("nan")):
        with pytest.raises(ValueRefused):
            codec.encode(value, field)
    with pytest.raises(ValueRefused):
        codec.encode("abcde", codec.field_of(prop("STRING", limit=2)))
    with pytest.raises(ValueRefused):
        codec.decode([], field)
    with pytest.raises(ValueRefused):
        codec.decode([0xFFFF], codec.field_of(prop("STRING")))


@given(
    st.sampled_from(["int16", "uint16", "int32", "uint32", "int64", "uint64"]),
    st.data(),
    st.booleans(),
    st.booleans(),
)
def test_what_is_written_reads_back(data_type: str, data: st.DataObject, swap: bool, words: bool) -> None:
    bits = int(data_type.lstrip("uint"))
    low = 0 if data_type[0] == "u" else -(2 ** (bits - 1))
    value = data.draw(st.integers(low, low + 2**bits - 1))
    field = Field(
        register=Register.HOLDING,
        offset=0,
        count=bits // 16,
        data_type=data_type,
        swap_bytes=swap,
        swap_words=words,
    )
    assert codec.decode(codec.encode(value, field), field) == value


def test_a_line_is_told_from_either_spelling() -> None:
    tcp = line_of(Settings({"ip": "10.0.0.5", "port": "1502", "slaveID": 3}))
    assert (tcp.host, tcp.port, tcp.device) == ("10.0.0.5", 1502, "")
    rtu = line_of(
        Settings({"serialName": "/dev/ttyS1", "baudRate": "19200", "parity": "Even", "timeout": 500})
    )
    assert (rtu.device, rtu.baud_rate, rtu.parity, rtu.timeout_s) == ("/dev/ttyS1", 19200, "E", 0.5)
    assert unit_of(Settings({"slaveId": "7"})) == 7
    assert unit_of(Settings({"unitId": 9})) == 9
    for bad in (
        {},
        {"communicateMode": "RTU"},
        {"communicateMode": "UDP", "ip": "a"},
        {"serialPort": "a", "parity": "x"},
    ):
        with pytest.raises(DriverError):
            line_of(Settings(bad))
    with pytest.raises(DriverError):
        unit_of(Settings({"slaveID": 300}))
