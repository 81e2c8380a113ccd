"""Serve one watch: initial state, events, bookmarks, in the wanted form.  An iterator of bytes; api.py writes them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from beehive.printing.printed import partial
from cloudcore.standalone import listing
from cloudcore.standalone.forms import present
from cloudcore.standalone.kinds import Kind
from cloudcore.standalone.listing import Query
from cloudcore.standalone.negotiation import Form
from cloudcore.standalone.requests import whole_number
from cloudcore.standalone.status import ApiError, expired
from cloudcore.standalone.store import Expired, Record, TooSlow
from cloudcore.standalone.verbs import Resources

Json = dict[str, Any]
BOOKMARK_S = 30.0
"""How long a watcher that asked for bookmarks may hear nothing."""
LONGEST_S = 3600.0
"""A watch ends after this time at the latest; clients resume."""
PIECE = 32 * 1024
"""Bytes written at once, where events are not larger."""
INITIAL_END = "k8s.io/initial-events-end"


async def events(
    kind: Kind, resources: Resources, query: Query, options: Mapping[str, str], form: Form
) -> AsyncGenerator[bytes, None]:
    """Chunks to write, each of one or more whole events.  Ends after timeoutSeconds, or with an ERROR event."""
    store = resources.store
    include = options.get("includeObject", "Metadata")
    painter = _Painter(kind, form, include, resources)
    bookmarks = _truth(options.get("allowWatchBookmarks"))
    initial = _truth(options.get("sendInitialEvents"))
    seconds = whole_number(options, "timeoutSeconds")
    ends = resources.now().timestamp() + min(float(seconds), LONGEST_S) if seconds else None
    replay = query.revision in (None, 0) and options.get("sendInitialEvents", "") not in ("false", "0")
    since = None if replay or initial else query.revision
    try:
        subscription = store.subscribe(kind.key, since, query.matcher())
    except Expired as error:
        yield painter.error(expired(str(error)))
        return
    with subscription:
        # nothing is awaited between subscribing and this list, so no event can be missed or come twice
        if replay or initial:
            records = store.select(kind.key, query.namespace, query.matcher())
            end = painter.bookmark(store.revision, {INITIAL_END: "true"}) if initial and bookmarks else b""
            for piece in pieces((painter.event("ADDED", record) for record in records), end):
                yield piece
            del records
        else:
            yield b""
        floor = query.revision or 0
        while True:
            wait = BOOKMARK_S if ends is None else min(BOOKMARK_S, ends - resources.now().timestamp())
            if wait <= 0:
                return
            try:
                batch = await subscription.next(wait)
            except TooSlow as error:
                yield painter.error(expired(str(error)))
                return
            if batch:
                for piece in pieces(
                    painter.event(event.type, event.record)
                    for event in batch
                    if not floor or event.record.revision > floor
                ):
                    yield piece
                del batch
            else:
                # nothing to write still gives the writer a moment to see that its client is gone
                yield painter.bookmark(store.revision, None) if bookmarks else b""


def pieces(events: Iterable[bytes], end: bytes = b"") -> Iterator[bytes]:
    """Whole events, joined up to PIECE bytes; at least one piece, and `end` in the last.

    A TLS connection keeps buffers as large as the largest write it ever saw, and a watch lives long."""
    piece: list[bytes] = []
    size = 0
    for event in events:
        if size and size + len(event) > PIECE:
            yield b"".join(piece)
            piece, size = [], 0
        piece.append(event)
        size += len(event)
    yield b"".join((*piece, end))


def _truth(value: str | None) -> bool:
    return value is not None and value.lower() not in ("", "0", "false")


class _Painter:
    """Events as bytes.  Of a table only the first carries the columns."""

    def __init__(self, kind: Kind, form: Form, include: str, resources: Resources) -> None:
        self._kind = kind
        self._form = form
        self._include = include
        self._resources = resources
        self._columns = True

    def event(self, kind: str, record: Record) -> bytes:
        if not self._form.shape:
            return (
                b'{"type":"' + kind.encode() + b'","object":' + listing.body_in(self._kind, record) + b"}\n"
            )
        return self._shaped(kind, present(self._kind, record.decode()))

    def _shaped(self, kind: str, body: Json) -> bytes:
        if self._form.shape == "Table":
            now: datetime = self._resources.now()
            rows = [listing.row(self._kind, body, now, self._include)]
            version = {"resourceVersion": body["metadata"].get("resourceVersion", "")}
            shown = listing.table(self._kind, rows, version, definitions=self._columns)
            self._columns = False
        else:
            shown = partial(body)
        return msgspec.json.encode({"type": kind, "object": shown}) + b"\n"

    def bookmark(self, revision: int, annotations: dict[str, str] | None) -> bytes:
        metadata: Json = {"resourceVersion": str(revision), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        body: Json = {"kind": self._kind.kind, "apiVersion": self._kind.api_version, "metadata": metadata}
        if self._form.shape == "Table":
            shown = listing.table(self._kind, [], {"resourceVersion": str(revision)}, definitions=False)
            shown["rows"] = [{"cells": [], "object": partial(body)}]
            body = shown
        elif self._form.shape:
            body = partial(body)
        return msgspec.json.encode({"type": "BOOKMARK", "object": body}) + b"\n"

    def error(self, error: ApiError) -> bytes:
        return msgspec.json.encode({"type": "ERROR", "object": error.as_json()}) + b"\n"
