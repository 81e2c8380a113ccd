"""Kubernetes quantities ("250m", "64Mi", "1e3") as integers.  Pure.

A quantity is kept as an int of nano-units, the smallest step that Kubernetes has, so nothing is rounded on the way in.
Source: k8s.io/apimachinery, api/resource, the grammar in the comment of Quantity.
"""

from __future__ import annotations

import re

NANO = 10**9

_FORM = re.compile(
    r"([+-]?)(\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:([eE][+-]?\d{1,2})|([numkMGTPE]|[KMGTPE]i))?\Z"
)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def parse(text: str | int | float) -> int:
    """Nano-units of a quantity, rounded away from zero as Kubernetes does.  Raises ValueError."""
    match = _FORM.match(str(text))
    if match is None:
        raise ValueError(f"not a quantity: {str(text)[:64]!r}")
    sign, number, exponent, suffix = match.groups()
    whole, _, fraction = number.partition(".")
    value = int((whole or "0") + fraction)
    power = 9 - len(fraction)
    if exponent:
        power += int(exponent[1:])
    elif suffix in _DECIMAL:
        power += _DECIMAL[suffix]
    elif suffix:
        value <<= _BINARY[suffix]
    scale: int = 10 ** abs(power)
    nano = value * scale if power >= 0 else -(-value // scale)
    return -nano if sign == "-" else nano


def milli(nano: int) -> int:
    """Thousandths, rounded up."""
    return -(-nano // 10**6)


def units(nano: int) -> int:
    """Whole units, rounded up."""
    return -(-nano // NANO)
