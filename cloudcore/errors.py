"""Errors of the cloud half.

SkerryError
├── ApiError              the Kubernetes API answered with a failure; `status` is its metav1.Status
│   ├── ApiUnavailable    (Unavailable) away, overloaded, broken answer: try again
│   ├── ApiRefused        (Refused) understood and refused: trying again unchanged cannot help
│   │   ├── ApiNotFound   (NotFound)
│   │   └── ApiExists     a create found the name taken
│   ├── ApiConflict       (Conflict) changed since it was read
│   └── ApiGone           the resourceVersion is too old to watch from: list again
├── JoinRefused           (Refused) a node may not join; the text says why in one sentence
└── Forbidden             (Refused) the authorizer said no to a node"""

from __future__ import annotations

import msgspec

from beehive.errors import Conflict, NotFound, Refused, SkerryError, Unavailable


class StatusDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The part of metav1.StatusDetails that somebody reads."""

    name: str = ""
    kind: str = ""
    group: str = ""
    retryAfterSeconds: int = 0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """metav1.Status, complete: a stock edge fails on one that is not."""

    status: str = "Failure"
    message: str = ""
    reason: str = ""
    code: int = 500
    metadata: dict[str, str] = {}
    details: StatusDetails | None = None


class ApiError(SkerryError):
    """A failure that the API answered, or that kept it from answering."""

    def __init__(self, status: Status, *, doing: str = "") -> None:
        text = f"cannot {doing}: {status.message}" if doing else status.message
        super().__init__(text)
        self.status = status
        self.reason = status.reason or "Error"


class ApiUnavailable(ApiError, Unavailable):
    def __init__(self, status: Status, *, doing: str = "", retry_after_s: float | None = None) -> None:
        ApiError.__init__(self, status, doing=doing)
        self.retry_after_s = retry_after_s


class ApiRefused(ApiError, Refused):
    def __init__(self, status: Status, *, doing: str = "") -> None:
        ApiError.__init__(self, status, doing=doing)


class ApiNotFound(ApiRefused, NotFound):
    pass


class ApiExists(ApiRefused):
    pass


class ApiConflict(ApiError, Conflict):
    pass


class ApiGone(ApiError):
    pass


class JoinRefused(Refused):
    """`reason` is one of BadToken, TokenUsed, TokenExpired, NameTaken, BadName, BadRequest, TooMany."""


class Forbidden(Refused):
    reason = "Forbidden"


def from_status(status: Status, *, doing: str = "", retry_after_s: float | None = None) -> ApiError:
    """The error for a failure status, by its code and reason."""
    code = status.code
    if code == 404:
        return ApiNotFound(status, doing=doing)
    if code == 409:
        return (
            ApiExists(status, doing=doing)
            if status.reason == "AlreadyExists"
            else ApiConflict(status, doing=doing)
        )
    if code == 410 or status.reason in ("Expired", "Gone"):
        return ApiGone(status, doing=doing)
    if code in (401, 408, 429) or code >= 500:
        # 401: a token that expires is read again, so trying again can help
        if retry_after_s is None and status.details is not None and status.details.retryAfterSeconds:
            retry_after_s = float(status.details.retryAfterSeconds)
        return ApiUnavailable(status, doing=doing, retry_after_s=retry_after_s)
    return ApiRefused(status, doing=doing)


def unavailable(message: str, *, doing: str = "") -> ApiUnavailable:
    """The API could not be reached, or broke off."""
    return ApiUnavailable(
        Status(message=message, reason="ServiceUnavailable", code=503), doing=doing, retry_after_s=None
    )


def forbidden(message: str, *, kind: str = "", name: str = "") -> Status:
    """What the API would say to somebody who may not."""
    return Status(message=message, reason="Forbidden", code=403, details=StatusDetails(name=name, kind=kind))
