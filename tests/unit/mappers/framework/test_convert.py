import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappers.framework.convert import from_text, to_text
from mappers.framework.errors import ValueRefused


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        ("INT", "-5", -5),
        ("FLOAT", "1e3", 1000.0),
        ("DOUBLE", "0.1", 0.1),
        ("BOOLEAN", "T", True),
        ("STRING", "", ""),
        ("STRING", "a b", "a b"),
        ("BYTES", "abc", b"abc"),
        ("BYTES", "base64:AP8=", b"\x00\xff"),
        ("INT", "", None),
        ("BOOLEAN", "", None),
    ],
)
def test_from_text(type_: str, text: str, value: object) -> None:
    got = from_text(text, type_)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("type_", "text"),
    [("INT", "1.0"), ("FLOAT", "nan"), ("BOOLEAN", "yes"), ("BYTES", "base64:!"), ("ODD", "x")],
)
def test_from_text_refuses(type_: str, text: str) -> None:
    with pytest.raises(ValueRefused):
        from_text(text, type_)


@pytest.mark.parametrize(
    ("type_", "value", "text"),
    [
        ("INT", 5, "5"),
        ("INT", 5.0, "5"),
        ("INT", True, "1"),
        ("FLOAT", 21.0, "21"),
        ("FLOAT", 0.1, "0.1"),
        ("FLOAT", 1e21, "1000000000000000000000"),
        ("FLOAT", 1e-7, "0.0000001"),
        ("FLOAT", -0.0, "0"),
        ("DOUBLE", "1.50", "1.50"),
        ("BOOLEAN", 1, "true"),
        ("BOOLEAN", "False", "false"),
        ("STRING", 5, "5"),
        ("STRING", {"a": 1}, '{"a":1}'),
        ("BYTES", b"\x00", "base64:AA=="),
        ("BYTES", b"abc", "abc"),
        ("BYTES", b"", ""),
    ],
)
def test_to_text(type_: str, value: object, text: str) -> None:
    assert to_text(value, type_) == text


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("INT", 5.5), ("INT", None), ("INT", 2**63), ("INT", "x"), ("FLOAT", math.nan), ("FLOAT", 1e39), ("FLOAT", [1]),
        ("BOOLEAN", 2), ("BOOLEAN", None), ("STRING", None), ("STRING", object()), ("STRING", "x" * 5000), ("STRING", "\x00"),
    ],
)  # fmt: skip
def test_to_text_refuses(type_: str, value: object) -> None:
    with pytest.raises(ValueRefused):
        to_text(value, type_)


@given(
    st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.binary(max_size=50)
)
def test_what_is_written_reads_back_the_same(number: int, real: float, data: bytes) -> None:
    assert from_text(to_text(number, "INT"), "INT") == number
    assert from_text(to_text(real, "DOUBLE"), "DOUBLE") == real
    assert from_text(to_text(data, "BYTES"), "BYTES") == (data or None)
    assert "e" not in to_text(real, "DOUBLE")
