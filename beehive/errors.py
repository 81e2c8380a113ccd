"""The root of every error that Skerry raises on purpose.

    SkerryError
    ├── ProtocolError      the peer sent what it must not send: theirs
    ├── ConfigError        the operator's file or flags cannot be used: theirs, with every fault listed
    ├── Unavailable        what was needed is not there now; trying again later can help
    ├── Refused            the other side understood and said no; trying again unchanged cannot help
    │   └── NotFound       it does not exist
    └── Conflict           somebody else changed it first; read again, then decide

Packages add their own leaves.  Anything else that is raised is a bug."""

from __future__ import annotations

import os
import re


class SkerryError(Exception):
    """Base of all expected errors.  `reason` is CamelCase, for conditions and events."""

    reason = "Error"


class ProtocolError(SkerryError):
    """The peer broke the protocol; the text says where."""

    reason = "ProtocolError"


class ConfigError(SkerryError):
    """A configuration cannot be used.  `faults` holds one line per fault, each naming its key."""

    reason = "InvalidConfiguration"

    def __init__(self, faults: list[str] | str) -> None:
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("; ".join(self.faults))


class Unavailable(SkerryError):
    """Not now: offline, restarting, overloaded.  `retry_after_s` is the peer's wish, if it had one."""

    reason = "Unavailable"

    def __init__(self, text: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class Refused(SkerryError):
    """The other side said no for good."""

    reason = "Refused"

    def __init__(self, text: str, *, reason: str | None = None) -> None:
        super().__init__(text)
        if reason is not None:
            self.reason = reason


class NotFound(Refused):
    """What was asked for does not exist."""

    reason = "NotFound"


class Conflict(SkerryError):
    """The object changed since it was read."""

    reason = "Conflict"


def system_words(error: OSError) -> str:
    """What the system says of an error, as `Connection refused`: without the number and the address that asyncio puts there.

    A name with several addresses gives one error made of theirs; the first counts."""
    if type(error).__module__ == "ssl":  # its numbers are none of the system's
        told = getattr(error, "verify_message", None) or getattr(error, "reason", None)
        return str(told or error.strerror or error).replace("_", " ").lower()
    number = error.errno
    if number is None and (first := re.search(r"\[Errno (\d{1,4})\]", str(error))):
        number = int(first[1])
    if number is not None and number > 0:
        return os.strerror(number)
    return error.strerror or str(error) or "no answer"
