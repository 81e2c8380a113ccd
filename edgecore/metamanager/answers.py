"""What the cloud's answer to a request means.  Pure.

A stock hub answers with the object, with `"OK"`, with `{"Object":…,"Err":…}` or with `{"ErrStatus":…}`, always as operation
`response`; ours may also send operation `error` with a Failure.  Here all become a value or one of our errors."""

from __future__ import annotations

from typing import Any

import msgspec

from beehive.errors import Conflict, NotFound, ProtocolError, Refused, SkerryError, Unavailable
from beehive.message import FINAL_REASONS, UNREADABLE, Failure, Message, Op

_LATER = frozenset({408, 429})


class _Status(msgspec.Struct, frozen=True, kw_only=True):
    """The part of metav1.Status that decides."""

    status: str = ""
    message: str = ""
    reason: str = ""
    code: int = 0


class _ErrStatus(msgspec.Struct, frozen=True, kw_only=True):
    status: _Status | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="ErrStatus")


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    object: msgspec.Raw | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="Object")
    err: msgspec.Raw | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="Err")
    status: _Status | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="ErrStatus")


class AlreadyExists(Conflict):
    """The object is there already; `existing` is it, if the cloud sent it along."""

    reason = "AlreadyExists"

    def __init__(self, text: str, existing: msgspec.Raw | None) -> None:
        super().__init__(text)
        self.existing = existing


def read(answer: Message) -> msgspec.Raw | None:
    """The object that was asked for, or None for a plain OK.

    Raises: NotFound, Refused, AlreadyExists, Conflict, Unavailable (the cloud may do it later), ProtocolError."""
    content = answer.content
    if answer.route.operation == Op.ERROR:
        raise _failure(answer)
    text = bytes(content).lstrip()
    if text[:1] != b"{":
        return None if answer.is_ok or text[:4] == b"null" else content
    found = answer.decode(_Answer)
    if found.status is not msgspec.UNSET:
        raise _error(found.status, None)
    if found.object is msgspec.UNSET or found.err is msgspec.UNSET:
        return content
    existing = None if bytes(found.object).strip() == b"null" else msgspec.Raw(bytes(found.object))
    if bytes(found.err).lstrip()[:1] == b"{":
        wrapped = _decode(found.err)
        if wrapped.status is not msgspec.UNSET and (wrapped.status.code or wrapped.status.reason):
            raise _error(wrapped.status, existing)
    return existing


def is_final(error: SkerryError) -> bool:
    """Whether sending the same again cannot help."""
    return isinstance(error, Refused | Conflict | ProtocolError)


def _decode(raw: msgspec.Raw) -> _ErrStatus:
    try:
        return msgspec.json.decode(raw, type=_ErrStatus)
    except UNREADABLE as error:
        raise ProtocolError(f"cannot read an answer: {error}") from error


def _error(status: _Status, existing: msgspec.Raw | None) -> SkerryError:
    text = status.message[:256] or status.reason or f"status {status.code}"
    match status.code:
        case 404:
            return NotFound(text)
        case 409 if status.reason == AlreadyExists.reason:
            return AlreadyExists(text, existing)
        case 409:
            return Conflict(text)
        case code if 400 <= code < 500 and code not in _LATER:
            return Refused(text, reason=status.reason or None)
    return Unavailable(text)


_BY_REASON: dict[str, Any] = dict.fromkeys(FINAL_REASONS, Refused) | {
    "NotFound": NotFound,
    "Conflict": Conflict,
}


def _failure(answer: Message) -> SkerryError:
    try:
        failure = answer.decode(Failure)
    except ProtocolError:  # an `error` of a stock peer is plain text
        return Unavailable(answer.text()[:256])
    text = f"{failure.message[:256]}"
    if failure.reason == AlreadyExists.reason:
        return AlreadyExists(text, None)
    kind = _BY_REASON.get(failure.reason, Unavailable)
    if kind is Refused:
        return Refused(text, reason=failure.reason)
    error: SkerryError = kind(text)
    return error
