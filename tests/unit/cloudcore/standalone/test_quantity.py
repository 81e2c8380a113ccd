from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudcore.standalone.quantity import BadQuantity, canonical, parse


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("0.5", "500m"),
        ("64Mi", "64Mi"),
        ("1024Mi", "1Gi"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("1e3", "1e3"),
        ("0", "0"),
        ("1000", "1k"),
        ("100", "100"),
        ("0.1Gi", "107374182400m"),
        ("110", "110"),
    ],
)
def test_canonical_form(text: str, want: str) -> None:
    assert canonical(text) == want


@pytest.mark.parametrize("text", ["lots", "", "1 Gi", "1GiB", "--1", "1e99", True])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(BadQuantity):
        parse(text)


@given(st.integers(0, 10**12), st.sampled_from(["", "m", "k", "M", "Ki", "Mi", "Gi"]))
def test_the_canonical_form_is_the_same_amount(number: int, suffix: str) -> None:
    text = f"{number}{suffix}"
    assert parse(canonical(text)) == parse(text)
    assert canonical(canonical(text)) == canonical(text)
    assert parse("2Ki") == Decimal(2048)
