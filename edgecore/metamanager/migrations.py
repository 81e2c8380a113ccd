"""The shape of the store's file, as numbered steps that are never edited once released.

A step takes a `sqlite_utils.Database` whose connection is inside a transaction; the store commits it together with the
level that it leads to, so that a process killed anywhere finds either the shape before or the shape after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Step = Callable[[Any], None]


def _first(db: Any) -> None:
    # what the cloud told us; `value` is the object's JSON as it came, `version` its resourceVersion
    db["meta"].create(
        {
            "key": str,
            "type": str,
            "namespace": str,
            "name": str,
            "uid": str,
            "version": int,
            "value": bytes,
            "checksum": int,
        },
        pk="key",
        not_null={"type", "namespace", "name", "uid", "version", "value", "checksum"},
    )
    db["meta"].create_index(["type", "namespace"], index_name="meta_by_type")
    # what the cloud has not acknowledged yet; `message` is the frame as it goes out
    db["outbox"].create(
        {"seq": int, "key": str, "kind": str, "at_ms": int, "message": bytes, "checksum": int},
        pk="seq",
        not_null={"key", "kind", "at_ms", "message", "checksum"},
    )
    db["outbox"].create_index(["key"], index_name="outbox_by_key", unique=True)
    # everything else that a part wants to find again
    db["state"].create(
        {"key": str, "value": bytes, "checksum": int}, pk="key", not_null={"value", "checksum"}
    )


def _sealed(db: Any) -> None:
    """Secrets are sealed from here on, which the store did before this step; an edgecore that cannot open them is kept out."""


STEPS: tuple[Step, ...] = (_first, _sealed)
"""STEPS[n] leads from level n to level n + 1."""

SEALED = 2
"""The first level whose files hold no secret that is not sealed."""

LATEST = len(STEPS)
