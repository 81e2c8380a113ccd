"""Bytes of Bluetooth LE and the values in them."""

import base64
import contextlib
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappers.ble.codec import MAX_BYTES, address_of, decode, encode, full_uuid, layout_of, place_of
from mappers.framework.driver import DriverError, Property, Settings
from mappers.framework.errors import ValueRefused


def prop(type_: str, **settings: Any) -> Property:
    return Property(name="p", type=type_, writable=True, settings=Settings(settings))


def read(data: bytes, type_: str = "INT", **settings: Any) -> Any:
    return decode(data, layout_of(prop(type_, **settings)))


@pytest.mark.parametrize(
    ("data", "type_", "settings", "value"),
    [
        ("6400", "INT", {}, 100),  # unsigned and as long as its bytes
        ("f0d8ff", "INT", {}, 0xFFD8F0),
        ("c409", "FLOAT", {"dataType": "int16", "scale": 0.01}, 25.0),
        ("18fc", "FLOAT", {"dataType": "int16", "scale": 0.01}, -10.0),
        ("09c4", "FLOAT", {"dataType": "int16", "scale": "0.01", "byteOrder": "big"}, 25.0),
        ("32", "FLOAT", {"dataType": "uint8", "scale": 1, "offset": -40}, 10.0),
        ("ffffff", "INT", {"dataType": "int24"}, -1),
        ("0000c841", "FLOAT", {}, 25.0),
        ("cdcccc3d", "FLOAT", {}, 0.1),  # not 0.10000000149
        ("7fff000000c841", "FLOAT", {"startIndex": 3}, 25.0),
        ("0401", "FLOAT", {"dataType": "sfloat"}, 260.0),
        ("6ef1", "FLOAT", {"dataType": "sfloat"}, 36.6),
        ("6c0100ff", "FLOAT", {"dataType": "medfloat"}, 36.4),
        ("0100", "BOOLEAN", {}, True),
        ("0000", "BOOLEAN", {}, False),
        ("54656d7000", "STRING", {}, "Temp"),
        ("0102", "BYTES", {}, b"\x01\x02"),
        ("aabb0102", "BYTES", {"dataConverter": {"startIndex": 3, "endIndex": 2}}, b"\x02\x01"),
        ("f0", "INT", {"dataConverter": {"shiftRight": 4}}, 15),
        ("01c8", "INT", {"decimalDigits": True}, 1200),  # as KubeEdge's
        (
            "0190",
            "FLOAT",
            {
                "byteOrder": "big",
                "dataType": "uint16",
                "dataConverter": '{"orderOfOperations":[{"operationType":"Divide","operationValue":"10"},'
                '{"operationType":"subtract","operationValue":5}]}',
            },
            35.0,
        ),
    ],
)
def test_reading(data: str, type_: str, settings: dict[str, Any], value: Any) -> None:
    assert read(bytes.fromhex(data), type_, **settings) == value


@pytest.mark.parametrize(
    ("data", "type_", "settings"),
    [
        (b"", "INT", {}),
        (b"\1", "INT", {"dataType": "int16"}),
        (b"\1\2", "FLOAT", {}),
        (b"\1\2", "INT", {"startIndex": 4}),
        (b"\1\2", "INT", {"endIndex": 2}),
        (b"\xff\xfe", "STRING", {}),
        (b"\xff\x07", "FLOAT", {"dataType": "sfloat"}),
        (struct.pack("<f", float("nan")), "FLOAT", {}),
        (bytes(MAX_BYTES + 1), "BYTES", {}),
        (b"", "BOOLEAN", {}),
    ],
)
def test_bytes_that_are_no_value(data: bytes, type_: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueRefused):
        read(data, type_, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"dataType": "int12"},
        {"byteOrder": "middle"},
        {"scale": 0},
        {"startIndex": 512},
        {"startIndex": "x"},
        {"dataConverter": "nonsense"},
        {"dataConverter": {"shiftLeft": 64}},
        {"dataConverter": {"orderOfOperations": [{"operationType": "power", "operationValue": 2}]}},
        {"dataConverter": {"orderOfOperations": [{"operationType": "divide", "operationValue": 0}]}},
        {"dataWrite": {"on": "no base64!"}},
    ],
)
def test_settings_that_are_wrong(settings: dict[str, Any]) -> None:
    with pytest.raises(DriverError):
        layout_of(prop("INT", **settings))


def test_writing() -> None:
    for type_, settings, value, data in [
        ("INT", {"dataType": "uint8"}, 200, b"\xc8"),
        ("FLOAT", {"dataType": "int16", "scale": 0.01}, 21.5, b"\x66\x08"),
        ("FLOAT", {"dataType": "float32", "byteOrder": "big"}, 1.0, b"\x3f\x80\0\0"),
        ("BOOLEAN", {}, True, b"\1"),
        ("STRING", {}, "é", "é".encode()),
        ("BYTES", {}, b"\0\1", b"\0\1"),
        ("STRING", {"dataWrite": {"ON": base64.b64encode(b"\x56\1").decode()}}, "on", b"\x56\1"),
        ("BOOLEAN", {"dataWrite": '{"true":"AQI="}', "startIndex": 3}, True, b"\1\2"),
    ]:
        assert encode(value, layout_of(prop(type_, **settings)), type_) == data  # type: ignore[arg-type]
    for type_, settings, value in [
        ("INT", {"dataType": "uint8"}, 256),
        ("FLOAT", {"dataType": "float32"}, 1e39),
        ("STRING", {"dataWrite": {"ON": "AQ=="}}, "off"),
        ("STRING", {}, "x" * 513),
    ]:
        with pytest.raises(ValueRefused):
            encode(value, layout_of(prop(type_, **settings)), type_)  # type: ignore[arg-type]
    for settings in (
        {},
        {"startIndex": 1, "dataType": "uint8"},
        {"dataType": "uint8", "dataConverter": {"shiftLeft": 1}},
    ):
        with pytest.raises(DriverError):
            encode(1, layout_of(prop("INT", **settings)), "INT")


KINDS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 24, 32, 40, 48, 56, 64)]


@given(st.sampled_from(KINDS), st.sampled_from(["little", "big"]), st.data())
def test_what_is_written_is_read_back(kind: str, order: str, data: st.DataObject) -> None:
    bits = int(kind.lstrip("uint"))
    low, high = (0, 2**bits - 1) if kind[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    value = data.draw(st.integers(low, high))
    layout = layout_of(prop("INT", dataType=kind, byteOrder=order))
    assert decode(encode(value, layout, "INT"), layout) == value


@given(
    st.binary(max_size=600),
    st.sampled_from(["INT", "FLOAT", "BOOLEAN", "STRING", "BYTES"]),
    st.sampled_from(["", "sfloat", "medfloat", "float64", *KINDS]),
    st.integers(-1, 20),
    st.integers(-1, 20),
)
def test_any_bytes_are_a_value_or_refused(data: bytes, type_: str, kind: str, start: int, end: int) -> None:
    with contextlib.suppress(ValueRefused):
        read(data, type_, dataType=kind, startIndex=max(start, 0), endIndex=end, scale=1e300)


def test_places_and_names() -> None:
    full = "00002a6e-0000-1000-8000-00805f9b34fb"
    assert full_uuid("2A6E", "k") == full_uuid("0x2a6e", "k") == full_uuid(full.upper(), "k") == full
    assert place_of(prop("INT", characteristicUUID="2a6e", notify="true")).notify is True
    assert place_of(prop("INT", companyID="0x0499")).company == 0x0499
    assert place_of(prop("INT", serviceUUID="fcd2")).source == "service"
    assert place_of(prop("INT", source="rssi")).source == "rssi"
    for settings in ({}, {"characteristicUUID": "temp"}, {"companyID": 65536}, {"source": "air"}):
        with pytest.raises(DriverError):
            place_of(prop("INT", **settings))
    assert address_of(Settings({"MACAddress": "c4-7c-8d-00-00-01"})) == "C4:7C:8D:00:00:01"
    with pytest.raises(DriverError):
        address_of(Settings({"macAddress": "c4:7c"}))
