"""An Application as a request to the API server: method, path, query, body.  Pure.

Source: protocol notes on the hub, 6.9; Kubernetes API conventions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from beehive import application
from beehive.application import Application, Options, PatchInfo, Target, Verb
from beehive.errors import ProtocolError
from beehive.message import UNREADABLE

T = TypeVar("T")

JSON = "application/json"
PATCH_TYPES = frozenset(
    {
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One HTTP request."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = JSON


class _Write(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Of CreateOptions, UpdateOptions and PatchOptions."""

    dry_run: list[str] | None = None
    field_manager: str = ""
    field_validation: str = ""
    force: bool | None = None

    def query(self) -> dict[str, str]:
        found = {"fieldManager": self.field_manager, "fieldValidation": self.field_validation}
        if self.dry_run:
            found["dryRun"] = self.dry_run[0]
        if self.force is not None:
            found["force"] = "true" if self.force else "false"
        return {key: value for key, value in found.items() if value}


def options_of(app: Application) -> Options:
    """Of a get, list or watch.  Raises ProtocolError."""
    return _read(app.option, Options)


def selection(options: Options) -> dict[str, str]:
    """The query that selects as the options do."""
    found = {"labelSelector": options.label_selector, "fieldSelector": options.field_selector}
    return {key: value for key, value in found.items() if value}


def make(app: Application) -> Call:
    """The request of any Application but a watch.  Raises ProtocolError: it cannot be one."""
    plain = application.pass_through(app.key)
    if plain is not None:
        if app.verb != Verb.GET:
            raise ProtocolError(f"verb {app.verb!r} on {plain} is not known here")
        return Call(method="GET", path=plain)
    target = application.parse_key(app.key)
    subresource = _subresource(app.subresource)
    match app.verb:
        case Verb.GET:
            options = options_of(app)
            query = {"resourceVersion": options.resource_version} if options.resource_version else {}
            return Call(method="GET", path=_named(target, subresource), query=query)
        case Verb.LIST:
            return Call(method="GET", path=_whole(target), query=_list_query(options_of(app)))
        case Verb.CREATE:
            path = _named(target, subresource) if target.name else _whole(target)
            query = _read(app.option, _Write).query()
            return Call(method="POST", path=path, query=query, body=_body(app), content_type=_form(app))
        case Verb.UPDATE | Verb.UPDATE_STATUS:
            subresource = "status" if app.verb == Verb.UPDATE_STATUS else subresource
            query = _read(app.option, _Write).query()
            path = _named(target, subresource)
            return Call(method="PUT", path=path, query=query, body=_body(app), content_type=_form(app))
        case Verb.DELETE:
            body = app.option or b"{}"
            _read(body, dict[str, Any])
            return Call(method="DELETE", path=_named(target, subresource), body=body)
        case Verb.PATCH:
            return _patch(app, target)
        case _:
            raise ProtocolError(f"verb {app.verb[:64]!r} is not known here")


def _patch(app: Application, target: Target) -> Call:
    info = _read(app.option, PatchInfo)
    if info.patch_type not in PATCH_TYPES:
        raise ProtocolError(f"patch type {info.patch_type[:64]!r} is not known here")
    if info.name and info.name != target.name:
        raise ProtocolError("the patch names another object than the key")
    parts = info.subresources or []
    if len(parts) > 1:
        raise ProtocolError("a patch of more than one subresource is not known here")
    return Call(
        method="PATCH",
        path=_named(target, _subresource(parts[0] if parts else app.subresource)),
        query=_read(bytes(info.options), _Write).query(),
        body=info.data or b"",
        content_type=info.patch_type,
    )


def _list_query(options: Options) -> dict[str, str]:
    found = selection(options)
    if options.limit:
        found["limit"] = str(options.limit)
    for key, value in (
        ("continue", options.continue_),
        ("resourceVersion", options.resource_version),
        ("resourceVersionMatch", options.resource_version_match),
    ):
        if value:
            found[key] = value
    return found


def _named(target: Target, subresource: str) -> str:
    if not target.name:
        raise ProtocolError(f"key {target.key} names no object")
    return f"{target.path}/{subresource}" if subresource else target.path


def _whole(target: Target) -> str:
    if target.name:
        target = Target(
            group=target.group,
            version=target.version,
            resource=target.resource,
            namespace=target.namespace,
        )
    return target.path


def _subresource(name: str) -> str:
    if name and not (name.isascii() and name.isalpha() and name.islower() and len(name) < 64):
        raise ProtocolError(f"{name[:64]!r} is no subresource")
    return name


def _body(app: Application) -> bytes:
    if not app.body:
        raise ProtocolError(f"the {app.verb} has no body")
    return app.body


def _form(app: Application) -> str:
    protobuf = app.body is not None and app.body.startswith(application.PROTOBUF_MARK)
    return application.PROTOBUF if protobuf else JSON


def _read(data: bytes | None, as_type: type[T]) -> T:
    try:
        return msgspec.json.decode(data or b"{}", type=as_type)
    except UNREADABLE as error:
        raise ProtocolError(f"cannot read the options: {error}") from error
