"""Failures as a Kubernetes API server answers them: a metav1.Status with the code, reason and sentence that clients know.
Pure.

Source: apimachinery, pkg/api/errors/errors.go; recorded answers of an API server."""

from __future__ import annotations

from typing import Any

import msgspec

from beehive.errors import SkerryError
from beehive.message import UNREADABLE
from edgecore.metaserver.request import Info


class ApiError(SkerryError):
    """An answer that is not a success.  `raw`: a Status that came from the cloud, passed on as it is."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        retry_after_s: int = 0,
        raw: bytes = b"",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.retry_after_s = retry_after_s
        self.raw = raw

    def body(self) -> bytes:
        """The Status as JSON."""
        if self.raw:
            return self.raw
        found: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if self.details is not None:
            found["details"] = self.details
        found["code"] = self.code
        return msgspec.json.encode(found)


class _Status(msgspec.Struct, frozen=True, kw_only=True):
    code: int = 0
    reason: str = ""
    message: str = ""


def relayed(raw: bytes, reason: str = "") -> ApiError:
    """The failure that the cloud answered: its Status as it is, or, if that is not whole, a 500 with `reason`."""
    try:
        found = msgspec.json.decode(raw, type=_Status)
    except UNREADABLE:
        found = _Status()
    if 400 <= found.code <= 599:
        return ApiError(found.code, found.reason, found.message, raw=raw)
    return internal(found.message or reason or "the cloud refused without saying why")


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(user: str, info: Info) -> ApiError:
    """As the RBAC authorizer says it."""
    if info.path:
        return ApiError(
            403,
            "Forbidden",
            f'forbidden: User "{user}" cannot {info.verb} path "{info.path}"',
            details={},
        )
    what = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    where = f'in the namespace "{info.namespace}"' if info.namespace else "at the cluster scope"
    named = f' "{info.name}"' if info.name else ""
    return ApiError(
        403,
        "Forbidden",
        f"{_qualified(info)}{named} is forbidden: "
        f'User "{user}" cannot {info.verb} resource "{what}" in API group "{info.group}" {where}',
        details=_details(info),
    )


def not_found(info: Info) -> ApiError:
    return ApiError(404, "NotFound", f'{_qualified(info)} "{info.name}" not found', details=_details(info))


def already_exists(info: Info, name: str) -> ApiError:
    message = f'{_qualified(info)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details={**_details(info), "name": name})


def conflict(info: Info, why: str) -> ApiError:
    message = f'Operation cannot be fulfilled on {_qualified(info)} "{info.name}": {why}'
    return ApiError(409, "Conflict", message, details=_details(info))


def does_not_fit(why: str) -> ApiError:
    """A patch that is one, but not of this object."""
    return ApiError(422, "Invalid", f"the patch cannot be applied: {why}", details={})


def bad_list_options(why: str) -> ApiError:
    """why: `<field>: <sentence>`."""
    message = f'ListOptions.meta.k8s.io "" is invalid: {why}'
    field, _, text = why.partition(": ")
    reason = "FieldValueNotSupported" if text.startswith("Unsupported") else "FieldValueForbidden"
    causes = [{"reason": reason, "message": text, "field": field}]
    details = {"group": "meta.k8s.io", "kind": "ListOptions", "causes": causes}
    return ApiError(422, "Invalid", message, details=details)


def too_new(wanted: int, current: int) -> ApiError:
    """A list or watch from a version that is not here yet.   Source: apiserver, pkg/storage/errors.go."""
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    text = f"Too large resource version: {wanted}, current: {current}"
    details = {"causes": causes, "retryAfterSeconds": 1}
    return ApiError(504, "Timeout", f"Timeout: {text}", details=details, retry_after_s=1)


def no_such_resource() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource", details={})


def method_not_allowed() -> ApiError:
    return ApiError(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
        details={},
    )


def not_acceptable() -> ApiError:
    return ApiError(
        406,
        "NotAcceptable",
        "406: Not Acceptable\n\nAvailable representations: application/json, application/json;stream=watch",
        details={},
    )


def timed_out(message: str) -> ApiError:
    return ApiError(504, "Timeout", f"Timeout: {message}", details={"retryAfterSeconds": 1}, retry_after_s=1)


def expired(version: str, oldest: int) -> ApiError:
    return ApiError(410, "Expired", f"too old resource version: {version} ({oldest})")


def too_large(limit: int) -> ApiError:
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def unsupported_media_type(accepted: str) -> ApiError:
    return ApiError(
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: " + accepted,
    )


def too_many(message: str) -> ApiError:
    return ApiError(429, "TooManyRequests", message, details={"retryAfterSeconds": 1}, retry_after_s=1)


def internal(message: str) -> ApiError:
    return ApiError(500, "InternalError", f"Internal error occurred: {message}", details={})


def unavailable(message: str) -> ApiError:
    """Without a time to try again at: Go's clients would wait through it ten times before their user reads the sentence."""
    return ApiError(503, "ServiceUnavailable", message)


def _qualified(info: Info) -> str:
    return f"{info.resource}.{info.group}" if info.group else info.resource


def _details(info: Info) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if info.name:
        found["name"] = info.name
    if info.group:
        found["group"] = info.group
    found["kind"] = info.resource
    return found
