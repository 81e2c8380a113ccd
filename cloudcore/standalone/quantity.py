"""Kubernetes quantities: parse, compare, and write them in canonical form.  Pure.

Source: apimachinery, pkg/api/resource/quantity.go.  Amounts are exact (`Decimal`)."""

from __future__ import annotations

import re
from decimal import ROUND_UP, Context, Decimal, localcontext
from functools import lru_cache

_FORM = re.compile(
    r"^([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|[eE][-+]?[0-9]+)?$"
)
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY_NAME = {power: name for name, power in _BINARY.items()}
_DECIMAL_NAME = {power: name for name, power in _DECIMAL.items()}

LONGEST = 64
"""Characters of a quantity: more than any amount needs, few enough to be exact with."""
_EXACT = Context(prec=2 * LONGEST)

BAD = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


class BadQuantity(ValueError):
    """The text is not a quantity; the message is the one Kubernetes gives."""


def parse(text: str | int | float) -> Decimal:
    """The amount.  Raises BadQuantity."""
    return _parse(text) if isinstance(text, str) else _amount(text)


def _amount(text: str | int | float) -> Decimal:
    with localcontext(_EXACT):
        return _split(text)[0]


_parse = lru_cache(maxsize=4096)(_amount)
"""The same few amounts are asked for again and again: a scheduler compares every pod with every node."""


def canonical(text: str | int | float) -> str:
    """The same amount with the largest suffix that leaves no fraction, in the family it was written in."""
    with localcontext(_EXACT):
        return _canonical(*_split(text))


def _canonical(amount: Decimal, family: str) -> str:
    amount = amount.quantize(Decimal("1e-9"), rounding=ROUND_UP)
    if family == "binary":
        if abs(amount) >= 1024 and amount == amount.to_integral_value():
            for power in range(6, 0, -1):
                unit = Decimal(1024) ** power
                if amount % unit == 0:
                    return f"{int(amount / unit)}{_BINARY_NAME[power]}"
        if amount == amount.to_integral_value():
            return str(int(amount))
    if amount == 0:
        return "0"
    for power in range(18, -10, -3):
        scaled = amount.scaleb(-power)
        if scaled == scaled.to_integral_value():
            if family == "exponent":
                return f"{int(scaled)}e{power}" if power else str(int(scaled))
            return f"{int(scaled)}{_DECIMAL_NAME[power]}"
    raise AssertionError("a quantity was rounded to nano units before")


def _split(text: str | int | float) -> tuple[Decimal, str]:
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise BadQuantity(BAD)
    match = _FORM.match(str(text))
    if match is None or match.end() > LONGEST:
        raise BadQuantity(BAD)
    number, suffix = Decimal(match[1]), match[2] or ""
    if suffix in _BINARY:
        return number * Decimal(1024) ** _BINARY[suffix], "binary"
    if suffix in _DECIMAL:
        return number.scaleb(_DECIMAL[suffix]), "decimal"
    exponent = int(suffix[1:])
    if abs(exponent) > 30:
        raise BadQuantity(BAD)
    return number.scaleb(exponent), "exponent"
