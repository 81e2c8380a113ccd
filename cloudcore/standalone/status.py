"""The errors of the API, as metav1.Status: one exception class, one constructor per reason clients switch on.

Source: apimachinery, pkg/api/errors/errors.go (texts and codes), and the recorded answers in tests/vectors/apiserver."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One fault of one field.  `reason` is a metav1.CauseType; `text` starts with the kind of fault."""

    reason: str
    field: str
    text: str

    def as_json(self) -> Json:
        body: Json = {}
        if self.reason:
            body["reason"] = self.reason
        body["message"] = self.text
        if self.field:
            body["field"] = self.field
        return body


def required(field: str, detail: str = "") -> Cause:
    return Cause(
        reason="FieldValueRequired",
        field=field,
        text=f"Required value: {detail}" if detail else "Required value",
    )


def invalid_value(field: str, value: object, detail: str) -> Cause:
    return Cause(
        reason="FieldValueInvalid", field=field, text=f"Invalid value: {show(value)}: {detail}".rstrip(": ")
    )


def forbidden_field(field: str, detail: str) -> Cause:
    return Cause(reason="FieldValueForbidden", field=field, text=f"Forbidden: {detail}")


def not_found_field(field: str, value: object) -> Cause:
    return Cause(reason="FieldValueNotFound", field=field, text=f"Not found: {show(value)}")


def duplicate(field: str, value: object) -> Cause:
    return Cause(reason="FieldValueDuplicate", field=field, text=f"Duplicate value: {show(value)}")


def unsupported(field: str, value: object, supported: Sequence[str]) -> Cause:
    known = ", ".join(f'"{item}"' for item in supported)
    return Cause(
        reason="FieldValueNotSupported",
        field=field,
        text=f"Unsupported value: {show(value)}: supported values: {known}",
    )


def too_long(field: str, limit: int) -> Cause:
    return Cause(
        reason="FieldValueTooLong", field=field, text=f"Too long: may not be more than {limit} bytes"
    )


def show(value: object) -> str:
    """A value as Go's field errors print it."""
    if value is None:
        return "null"
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class ApiError(Exception):
    """An answer that is not a success.  Everything the API refuses ends as one of these."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Json | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.retry_after_s = retry_after_s

    def as_json(self) -> Json:
        body: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = self.details
        body["code"] = self.code
        return body


def success(details: Json | None = None, code: int | None = None) -> Json:
    body: Json = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if details:
        body["details"] = details
    if code:
        body["code"] = code
    return body


def qualified(resource: str, group: str) -> str:
    return f"{resource}.{group}" if group else resource


def _details(name: str, group: str, kind: str, causes: Sequence[Cause] = ()) -> Json:
    body: Json = {}
    if name:
        body["name"] = name
    if group:
        body["group"] = group
    if kind:
        body["kind"] = kind
    if causes:
        body["causes"] = [cause.as_json() for cause in causes]
    return body


def not_found(resource: str, group: str, name: str) -> ApiError:
    return ApiError(
        404,
        "NotFound",
        f'{qualified(resource, group)} "{name}" not found',
        details=_details(name, group, resource),
    )


def no_such_resource() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource", details={})


def already_exists(resource: str, group: str, name: str) -> ApiError:
    return ApiError(
        409,
        "AlreadyExists",
        f'{qualified(resource, group)} "{name}" already exists',
        details=_details(name, group, resource),
    )


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def conflict(resource: str, group: str, name: str, why: str = MODIFIED) -> ApiError:
    return ApiError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {qualified(resource, group)} "{name}": {why}',
        details=_details(name, group, resource),
    )


def apply_conflict(causes: Sequence[Cause], message: str) -> ApiError:
    return ApiError(409, "Conflict", message, details={"causes": [cause.as_json() for cause in causes]})


def invalid(kind: str, group: str, name: str, causes: Sequence[Cause]) -> ApiError:
    """422 with every fault; the message joins them as Kubernetes does."""
    texts = [f"{cause.field}: {cause.text}" for cause in causes]
    joined = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    return ApiError(
        422,
        "Invalid",
        f'{qualified(kind, group)} "{name}" is invalid: {joined}',
        details=_details(name, group, kind, causes),
    )


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(resource: str, group: str, name: str, why: str, causes: Sequence[Cause] = ()) -> ApiError:
    text = (
        f'{qualified(resource, group)} "{name}" is forbidden: {why}'
        if name
        else (f"{qualified(resource, group)} is forbidden: {why}")
    )
    return ApiError(403, "Forbidden", text, details=_details(name, group, resource, causes))


def forbidden_path(why: str) -> ApiError:
    return ApiError(403, "Forbidden", why, details={})


def method_not_allowed() -> ApiError:
    return ApiError(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
        details={},
    )


def not_acceptable(available: str) -> ApiError:
    return ApiError(
        406,
        "NotAcceptable",
        f"406: Not Acceptable\n\nAvailable representations: {available}",
        details={},
    )


def unsupported_media_type(accepted: Sequence[str]) -> ApiError:
    return ApiError(
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(accepted),
    )


def expired(message: str) -> ApiError:
    return ApiError(410, "Expired", message)


def too_large(limit: int) -> ApiError:
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def not_implemented(message: str) -> ApiError:
    return ApiError(501, "NotImplemented", message)


def internal(message: str) -> ApiError:
    return ApiError(500, "InternalError", f"Internal error occurred: {message}", details={})


def unavailable(message: str) -> ApiError:
    return ApiError(503, "ServiceUnavailable", message, retry_after_s=1)
