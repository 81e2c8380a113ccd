"""Answer get and list, in every form: the whole object, its metadata, or a table.  Pure over the store."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from beehive.printing import printed
from beehive.printing.printed import partial
from cloudcore.standalone import selectors
from cloudcore.standalone.forms import present
from cloudcore.standalone.kinds import Kind
from cloudcore.standalone.negotiation import Form
from cloudcore.standalone.requests import Target, whole_number
from cloudcore.standalone.status import ApiError, bad_request, expired, forbidden_field, invalid, unsupported
from cloudcore.standalone.store import Expired, Match, Record, Store

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """The validated options of a list or watch."""

    labels: selectors.LabelSelector
    fields: selectors.FieldSelector
    namespace: str
    limit: int
    start: tuple[str, str] | None
    """Continue after this (namespace, name)."""
    continued_revision: int | None
    revision: int | None
    """The resourceVersion asked for; None when absent."""
    match: str

    def matcher(self) -> Match | None:
        labels, fields, namespace = self.labels, self.fields, self.namespace
        if not labels and not fields and not namespace:
            return None

        def matches(record: Record) -> bool:
            if namespace and record.namespace != namespace:
                return False
            if labels and not labels.matches(record.labels):
                return False
            if fields:
                values = {
                    **record.fields,
                    "metadata.name": record.name,
                    "metadata.namespace": record.namespace,
                }
                for path in list(values):
                    if path.startswith("involvedObject."):
                        values[path.replace("involvedObject", "regarding")] = values[path]
                return fields.matches(values)
            return True

        return matches


def parse_query(kind: Kind, target: Target, query: Mapping[str, str], *, watch: bool) -> Query:
    """Raises ApiError."""
    try:
        labels = selectors.parse_labels(query.get("labelSelector", ""))
        fields = selectors.parse_fields(
            query.get("fieldSelector", ""), selectors.supported_fields(kind.key, kind.selectable)
        )
    except selectors.BadSelector as error:
        raise bad_request(str(error)) from error
    if target.name:
        fields = selectors.FieldSelector((*fields.terms, ("metadata.name", target.name, True)))
    limit = whole_number(query, "limit") or 0
    revision = revision_of(query.get("resourceVersion", ""), watch=watch)
    match = query.get("resourceVersionMatch", "")
    if match and not watch:
        if "resourceVersion" not in query or query["resourceVersion"] == "":
            raise _list_options(
                "resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided"
            )
        if match == "Exact" and revision == 0:
            raise _list_options(
                "resourceVersionMatch", 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
            )
    if match not in ("", "Exact", "NotOlderThan"):
        raise invalid(
            "ListOptions",
            "meta.k8s.io",
            "",
            [unsupported("resourceVersionMatch", match, ("Exact", "NotOlderThan", ""))],
        )
    start, continued = None, None
    token = query.get("continue", "")
    if token and not watch:
        start, continued = _read_token(token)
    return Query(
        labels=labels,
        fields=fields,
        namespace=target.namespace if kind.namespaced else "",
        limit=max(limit, 0),
        start=start,
        continued_revision=continued,
        revision=revision,
        match=match,
    )


def _list_options(field: str, text: str) -> ApiError:
    return invalid("ListOptions", "meta.k8s.io", "", [forbidden_field(field, text)])


_REVISION = re.compile(r"[0-9]{1,18}")


def revision_of(text: str, *, watch: bool) -> int | None:
    """A resourceVersion as a client gives it; None for none.  Raises ApiError."""
    if not text:
        return None
    if not _REVISION.fullmatch(text):
        detail = f'resourceVersion: Invalid value: "{text[:64]}": strconv.ParseUint: parsing "{text[:64]}": invalid syntax'
        if watch:
            raise ApiError(500, "", detail)
        raise bad_request(f"invalid resource version: {detail}")
    return int(text)


def _why_not_json(token: str) -> str:
    """In the words of Go's decoder."""
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except (binascii.Error, ValueError):
        return "illegal base64 data at input byte 0"
    first = raw.decode("latin-1").lstrip(" \t\r\n")[:1]
    if not first:
        return "unexpected end of JSON input"
    return (
        "it is not one of ours"
        if first == "{"
        else f"invalid character '{first}' looking for beginning of value"
    )


def _read_token(token: str) -> tuple[tuple[str, str], int]:
    try:
        raw = msgspec.json.decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, _, name = raw["start"].rpartition("/")
        return (namespace, name.rstrip("\0")), int(raw["rv"])
    except (
        binascii.Error,
        msgspec.DecodeError,
        UnicodeDecodeError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
    ):
        raise bad_request(
            f"invalid continue token: continue key is not valid: {_why_not_json(token)}"
        ) from None


def _make_token(record: Record, revision: int) -> str:
    start = f"{record.namespace}/{record.name}\0" if record.namespace else f"{record.name}\0"
    raw = msgspec.json.encode({"v": "meta.k8s.io/v1", "rv": revision, "start": start})
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def check_revision(store: Store, wanted: int | None) -> None:
    """A list must not be older than asked.  Raises ApiError (504)."""
    if wanted is not None and wanted > store.revision:
        raise ApiError(
            504,
            "Timeout",
            f"Timeout: Too large resource version: {wanted}, current: {store.revision}",
            details={
                "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                "retryAfterSeconds": 1,
            },
            retry_after_s=1,
        )


def body_in(kind: Kind, record: Record) -> bytes:
    """The object's JSON in `kind`'s version."""
    if kind.views is None and kind.storage_version in ("", kind.version):
        return record.body
    return msgspec.json.encode(present(kind, record.decode()))


def _records_at(kind: Kind, store: Store, query: Query, revision: int) -> list[Record]:
    """What a list begun at `revision` goes on with.  Raises ApiError (410) when that is too long ago."""
    try:
        if revision > store.revision:
            raise Expired(revision, store.revision)
        return store.select_at(kind.key, revision, query.namespace, query.matcher())
    except Expired as error:
        if query.continued_revision is None:
            raise expired(str(error)) from error
        raise expired(
            "The provided continue parameter is too old to display a consistent list result. You must start a new "
            "list without the continue parameter."
        ) from error


def list_bytes(kind: Kind, store: Store, query: Query, form: Form, now: datetime, include: str) -> bytes:
    """The answer to a list."""
    check_revision(store, query.revision)
    exact = query.revision if query.match == "Exact" else None
    revision = query.continued_revision or exact or store.revision
    if revision == store.revision:
        records = store.select(kind.key, query.namespace, query.matcher())
    else:
        records = _records_at(kind, store, query, revision)
    if query.start is not None:
        records = [record for record in records if (record.namespace, record.name) > query.start]
    metadata: Json = {"resourceVersion": str(revision)}
    if query.limit and len(records) > query.limit:
        if not query.labels and not query.fields:
            metadata["remainingItemCount"] = len(records) - query.limit
        records = records[: query.limit]
        metadata["continue"] = _make_token(records[-1], revision)
    if form.shape == "Table":
        rows = [row(kind, present(kind, record.decode()), now, include) for record in records]
        return msgspec.json.encode(table(kind, rows, metadata))
    if form.shape:
        return msgspec.json.encode(
            {
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "items": [partial(record.decode()) for record in records],
            }
        )
    head = msgspec.json.encode({"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": metadata})
    items = [body_in(kind, record) for record in records]
    if not kind.custom:
        # items of a typed list do not repeat kind and apiVersion, which every stored object begins with
        prefix = len(f'{{"kind":"{kind.kind}","apiVersion":"{kind.api_version}",')
        items = [b"{" + item[prefix:] for item in items]
    return head[:-1] + b',"items":[' + b",".join(items) + b"]}"


def object_bytes(kind: Kind, body: Json, form: Form, now: datetime, include: str) -> bytes:
    """One object in the wanted form."""
    if form.shape == "Table":
        version = body["metadata"].get("resourceVersion", "")
        return msgspec.json.encode(
            table(kind, [row(kind, body, now, include)], {"resourceVersion": version} if version else {})
        )
    if form.shape:
        return msgspec.json.encode(partial(body))
    return msgspec.json.encode(body)


def table(kind: Kind, rows: list[Json], metadata: Json, *, definitions: bool = True) -> Json:
    shown = printed.columns(kind.key, kind.columns if kind.custom else None) if definitions else []
    return printed.table(shown, rows, metadata)


def row(kind: Kind, body: Json, now: datetime, include: str) -> Json:
    return printed.row(
        printed.cells(kind.key, body, now, kind.columns if kind.custom else None), body, include
    )
