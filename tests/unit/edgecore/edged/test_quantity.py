from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecore.edged import quantity


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("1", 10**9),
        ("250m", 250 * 10**6),
        ("0.5", 5 * 10**8),
        (".5", 5 * 10**8),
        ("64Mi", 64 * 2**20 * 10**9),
        ("1.5Gi", 3 * 2**29 * 10**9),
        ("1e3", 10**12),
        ("2E", 2 * 10**27),
        ("1n", 1),
        ("0.1n", 1),
        ("-1", -(10**9)),
        (4, 4 * 10**9),
        (0.5, 5 * 10**8),
        ("100u", 100_000),
    ],
)
def test_parse(text: str | float, nano: int) -> None:
    assert quantity.parse(text) == nano


@pytest.mark.parametrize(
    "text", ["", "x", "1x", "1 Mi", "1e", "--1", "1e999", "9" * 100, "1\n", "NaN", "0x1"]
)
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantity.parse(text)


def test_rounding_is_up() -> None:
    assert quantity.milli(quantity.parse("1u")) == 1
    assert quantity.units(quantity.parse("1500m")) == 2


def test_what_is_too_large_is_the_most_there_is() -> None:
    assert quantity.units(quantity.parse("99999999999Ei")) == 2**63 - 1
    assert quantity.milli(quantity.parse("9E")) == 2**63 - 1


@given(st.integers(min_value=0, max_value=10**15))
def test_whole_numbers_come_back(n: int) -> None:
    assert quantity.units(quantity.parse(str(n))) == n
    assert quantity.milli(quantity.parse(f"{n}m")) == n


@given(st.text(max_size=40))
def test_any_text_parses_or_is_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        quantity.parse(text)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("2048Ki", "2Mi"),
        ("1.5Gi", "1536Mi"),
        ("1000000", "1M"),
        ("1e3", "1k"),
        ("0.5", "500m"),
        ("0", "0"),
        (3, "3"),
    ],
)
def test_a_quantity_is_shown_as_kubernetes_does(written: str | int, shown: str) -> None:
    assert quantity.show(written) == shown


def test_sums_are_shown_in_the_way_of_a_part() -> None:
    whole = quantity.text(quantity.parse("1Mi") + quantity.parse("1Mi"))
    assert quantity.show(whole, like="1Mi") == "2Mi"
    assert quantity.show(quantity.text(quantity.parse("1M") * 2), like="1M") == "2M"
    assert quantity.show_bytes(1500) == "1500"
