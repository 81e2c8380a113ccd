"""How a property names a pin.  Pure."""

from dataclasses import dataclass

from mappers.framework.convert import Value
from mappers.framework.driver import DriverError, Property
from mappers.framework.errors import ValueRefused

_KEYS = ("pin", "line", "gpio-pin-number")
_ON, _OFF = ("on", "high", "true", "1"), ("off", "low", "false", "0")
BIASES = ("as-is", "disabled", "pull-up", "pull-down")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """number: of the chip's line.  active_low: the value is the other way round."""

    number: int
    output: bool
    active_low: bool = False
    bias: str = "as-is"


def pin_of(prop: Property) -> Pin:
    """Raises: DriverError naming the setting."""
    settings = prop.settings
    key = next((key for key in _KEYS if key in settings), "pin")
    number = settings.integer(key)
    if not 0 <= number <= 0xFFFF:
        raise DriverError(f"setting {key!r} is out of range: {number}")
    direction = settings.text("direction", "out" if prop.writable else "in").lower()
    if direction not in ("in", "out"):
        raise DriverError(f"setting 'direction' is not in or out: {direction[:64]!r}")
    bias = settings.text("bias", "as-is").lower()
    if bias not in BIASES:
        raise DriverError(f"setting 'bias' is not one of {', '.join(BIASES)}: {bias[:64]!r}")
    return Pin(number=number, output=direction == "out", active_low=settings.flag("activeLow"), bias=bias)


def level_of(value: Value) -> bool:
    """What a desired value means for a pin.  Raises: ValueRefused."""
    text = str(value).lower()
    if text in _ON:
        return True
    if text in _OFF:
        return False
    raise ValueRefused(f"a pin is on or off, not {value!r:.64}")


def value_of(*, level: bool, prop: Property) -> Value:
    """A pin's level as the property's type: ON and OFF where that is a STRING."""
    if prop.type == "STRING":
        return "ON" if level else "OFF"
    return int(level) if prop.type == "INT" else level
