"""Errors of mappers.

SkerryError
├── DriverError        a driver file cannot be used: its author's to fix
├── DeviceError        the device does not answer, or answers wrongly; trying again can help
├── NothingYet         there is no value so far, and that is no fault
└── ValueRefused       a value does not fit its property; trying it again cannot help
"""

from beehive.errors import SkerryError


class DriverError(SkerryError):
    """The driver file cannot be used."""

    reason = "DriverError"


class DeviceError(SkerryError):
    """Raise it from a driver when the device does not answer.  Any other exception counts as one, with a traceback in the
    log."""

    reason = "DeviceError"


class ValueRefused(SkerryError):
    """The value cannot be what the property's type says."""

    reason = "InvalidValue"


class NothingYet(SkerryError):
    """Raise it from `read` of a device that sends by itself and has not sent yet.  Nothing is reported and nothing logged."""

    reason = "NothingYet"
