"""The answers of the API server as HTTP.  It decides nothing."""

from __future__ import annotations

from datetime import datetime

import msgspec
from aiohttp import web

from cloudcore.standalone import listing
from cloudcore.standalone.kinds import Kind
from cloudcore.standalone.negotiation import Form, dump_yaml
from cloudcore.standalone.requests import WriteOptions
from cloudcore.standalone.status import ApiError
from cloudcore.standalone.verbs import Outcome


def answer(code: int, data: bytes, form: Form, warnings: list[str] | None = None) -> web.Response:
    headers: list[tuple[str, str]] = [("Cache-Control", "no-cache, private")]
    for text in warnings or ():
        quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")[:512]
        headers.append(("Warning", f'299 - "{quoted}"'))
    if form.yaml:
        data = dump_yaml(msgspec.json.decode(data))
    response = web.Response(
        status=code, body=data, content_type="application/yaml" if form.yaml else "application/json"
    )
    for name, value in headers:
        response.headers.add(name, value)
    return response


def error(error: ApiError) -> web.Response:
    response = web.Response(
        status=error.code, body=msgspec.json.encode(error.as_json()), content_type="application/json"
    )
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def text(code: int, text: str) -> web.Response:
    return web.Response(status=code, text=text, content_type="text/plain", charset="utf-8")


def tagged(request: web.Request, data: bytes, tag: str, content_type: str) -> web.Response:
    """A document that clients may keep."""
    quoted = f'"{tag}"'
    headers = {"ETag": quoted, "Vary": "Accept", "Cache-Control": "public"}
    if request.headers.get("If-None-Match") == quoted:
        return web.Response(status=304, headers=headers)
    headers["Content-Type"] = content_type
    return web.Response(body=data, headers=headers)


def written(
    outcome: Outcome, kind: Kind, form: Form, duplicates: list[str], options: WriteOptions, now: datetime
) -> web.Response:
    """What came of a write.   duplicates: fields that the body had twice."""
    warnings = list(outcome.warnings)
    if options.field_validation == "Warn":
        warnings += [f'duplicate field "{item}"' for item in duplicates]
    body = outcome.body
    if form.shape and body.get("kind") == kind.kind:
        data = listing.object_bytes(kind, body, form, now, "Metadata")
    else:
        data = msgspec.json.encode(body)
    return answer(201 if outcome.created else 200, data, form, warnings)
