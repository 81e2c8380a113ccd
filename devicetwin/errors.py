"""Errors of the device half.

SkerryError
└── TwinError          a request about a device cannot be done; `code` is HTTP's, as KubeEdge's answers on MQTT carry
"""

from beehive.errors import SkerryError

BAD_REQUEST = 400
NOT_FOUND = 404


class TwinError(SkerryError):
    """A request about a twin cannot be done.  `code` goes into the answer, `reason` into conditions."""

    def __init__(self, code: int, text: str, *, reason: str = "InvalidValue") -> None:
        super().__init__(text)
        self.code = code
        self.reason = reason
