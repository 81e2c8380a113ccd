"""The errors of edged.  An object that is neither here nor to be had now is beehive.errors.Unavailable.

SkerryError
  EdgedError
    CriError            a call to the container runtime failed
      NotFound          ... because the object is not there (for a removal: done)
    BadPod              the pod object cannot be run as it is written
    Held                a container cannot be started now; `reason` goes into its waiting state
    VolumeError         a volume cannot be prepared now
    RoomComing          a pod waits until others have ended for it
"""

from __future__ import annotations

from beehive.errors import SkerryError


class EdgedError(SkerryError):
    """Root of what edged raises."""


class CriError(EdgedError):
    """A call to the runtime failed.

    retryable: the runtime was away, busy or slow; the same call may succeed later.  When it is False the runtime has
    judged the request itself and will judge it the same way again.
    said: the runtime's own words, for events and conditions, which have them bare.
    """

    reason = "RuntimeError"

    def __init__(self, message: str, *, retryable: bool, code: str = "", said: str = "") -> None:
        super().__init__(message)
        self.retryable = retryable
        self.code = code
        self.said = said or message


class NotFound(CriError):
    """The runtime has no such sandbox, container or image."""

    def __init__(self, message: str, *, said: str = "") -> None:
        super().__init__(message, retryable=False, code="NOT_FOUND", said=said)


class BadPod(EdgedError):
    """A pod that cannot be run as written; the message names the field."""

    reason = "InvalidPod"


class Held(EdgedError):
    """A container is held back; `reason` is the kubelet's waiting reason."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class VolumeError(EdgedError):
    """A volume cannot be prepared."""

    reason = "FailedMount"


class RoomComing(EdgedError):
    """There is room for a pod as soon as those have ended that are ending for it."""

    reason = "Preempting"
