"""What the kernel's w1_therm driver writes about a DS18B20.  Pure.  Source: Linux, Documentation/w1/slaves/w1_therm.rst."""

import re

_POWER_ON = 85000  # what the sensor holds before its first conversion
_LINE = re.compile(r"t=(-?\d{1,7})$", re.MULTILINE)


FAMILIES = {
    "10": "DS18S20",
    "12": "DS2406",
    "22": "DS1822",
    "28": "DS18B20",
    "3b": "DS1825",
    "42": "DS28EA00",
}
"""What the first two digits of an address say.  Source: Linux, drivers/w1/w1_family.h."""


def temperature(text: str) -> float:
    """Degrees celsius of a file `w1_slave`.  Raises: ValueError saying what is wrong with the reading."""
    if not text:
        raise ValueError("the sensor did not answer")
    if " YES" not in text.partition("\n")[0]:
        raise ValueError("the checksum is wrong")
    found = _LINE.search(text.strip())
    if found is None:
        raise ValueError("there is no temperature")
    milli = int(found[1])
    if text.startswith("00 00 00 00 00 00 00 00 00"):
        raise ValueError("the bus is shorted to ground")  # all zeros have a right checksum
    if milli == _POWER_ON and text.startswith("50 05"):
        raise ValueError("the sensor has just been powered on")
    if not -55000 <= milli <= 125000:
        raise ValueError(f"the temperature is out of the sensor's range: {milli}")
    return milli / 1000
