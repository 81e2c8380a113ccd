"""Kubernetes quantities ("250m", "64Mi", "1e3") as integers.  Pure.

A quantity is kept as an int of nano-units, the smallest step that Kubernetes has, so nothing is rounded on the way in.
Source: k8s.io/apimachinery, api/resource, the grammar in the comment of Quantity.
"""

from __future__ import annotations

import re

NANO = 10**9
MOST = 2**63 - 1
"""What Kubernetes has for anything larger."""

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
    return min(MOST, -(-nano // 10**6))


def units(nano: int) -> int:
    """Whole units, rounded up."""
    return min(MOST, -(-nano // NANO))


def text(nano: int) -> str:
    """A quantity that was read, to be shown: whole units, or thousandths of them."""
    return str(nano // NANO) if nano % NANO == 0 else f"{milli(nano)}m"


def show(written: str | int | float, *, like: str | int | float | None = None) -> str:
    """As Kubernetes writes a quantity: the same amount with the largest suffix that leaves a whole number.

    like: a quantity whose way of writing (powers of 2 or of 10) is taken over; the quantity's own when left out.
    """
    nano = parse(written)
    whole, rest = divmod(nano, NANO)
    if rest:
        return f"{milli(nano)}m"
    if re.search(r"[KMGTPE]i\Z", str(written if like is None else like)):
        return show_bytes(whole)
    steps = [(suffix, 10**power) for suffix, power in _DECIMAL.items() if power > 0]
    return _largest(whole, steps)


def show_bytes(amount: int) -> str:
    """Bytes with the largest binary suffix that leaves a whole number."""
    return _largest(amount, [(suffix, 1 << shift) for suffix, shift in _BINARY.items()])


def _largest(amount: int, steps: list[tuple[str, int]]) -> str:
    for suffix, step in reversed(steps):
        if amount and amount % step == 0:
            return f"{amount // step}{suffix}"
    return str(amount)
