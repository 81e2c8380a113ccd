"""Whether an object is one of its kind: its types and fields, its defaults, and the rules that it has to keep.  Pure."""

from __future__ import annotations

from typing import Any

from cloudcore.standalone import coretypes, crds, defaults, quantity, rules, schema
from cloudcore.standalone.forms import check_type
from cloudcore.standalone.kinds import Kind
from cloudcore.standalone.requests import WriteOptions
from cloudcore.standalone.status import bad_request, forbidden_field, invalid
from cloudcore.standalone.validation.metadata import on_metadata
from cloudcore.standalone.validation.table import on_create, on_update

Json = dict[str, Any]


def conform(kind: Kind, body: Json, options: WriteOptions) -> tuple[Json, list[str]]:
    """Check apiVersion, kind and the types of fields; drop unknown fields, or refuse them under Strict."""
    check_type(kind, body)
    handled = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
    try:
        if kind.schema is None:
            clean, unknown = coretypes.decode(kind.model or "", body)
        else:
            metadata, faults = coretypes.decode("V1ObjectMeta", body.get("metadata") or {})
            clean, unknown = schema.prune(kind.schema, body)
            clean["metadata"] = metadata
            unknown = [f"metadata.{item}" for item in faults] + unknown
    except (coretypes.WrongType, quantity.BadQuantity) as error:
        raise bad_request(handled + str(error)) from error
    clean["kind"], clean["apiVersion"] = kind.kind, kind.api_version
    clean.setdefault("metadata", {})
    faults = [f'unknown field "{item}"' for item in unknown]
    if faults and options.field_validation == "Strict":
        raise bad_request(f"{handled}strict decoding error: {', '.join(faults)}")
    return clean, faults if options.field_validation == "Warn" else []


def fill(kind: Kind, body: Json) -> None:
    """Give a new or changed object the defaults of its kind."""
    if kind.schema is not None:
        schema.apply_defaults(kind.schema, body)
    elif kind.views is None:
        defaults.apply(kind.key, body)


def check(kind: Kind, body: Json, old: Json | None, subresource: str = "") -> None:
    """Whether an object may be stored so.  old: what it replaces.  Raises ApiError (Invalid)."""
    if kind.schema is not None:
        causes = list(on_metadata(kind.key, body["metadata"], custom=True))
        causes += schema.validate(kind.schema, body)
        if kind.scale is not None:
            causes += crds.scale_faults(kind.scale, body)
        if kind.rules is not None:
            blocked = any(cause.reason in rules.BLOCKING for cause in causes)
            causes += [rules.UNCHECKED] if blocked else rules.evaluate(kind.rules, body, old)
    elif old is None:
        causes = on_create(kind.key, body)
    elif subresource == "status":
        causes = list(on_metadata(kind.key, body["metadata"]))
    else:
        causes = on_update(kind.key, body, old)
    if kind.key == crds.KEY and subresource != "status" and not causes:
        known = [] if old is None else crds.rule_faults(old).causes
        causes = [cause for cause in crds.rule_faults(body).causes if cause not in known]
    if old is not None and "deletionTimestamp" in old["metadata"]:
        before = old["metadata"].get("finalizers") or []
        added = [item for item in body["metadata"].get("finalizers") or () if item not in before]
        if added:
            listed = ", ".join(f'"{item}"' for item in added)
            causes.append(
                forbidden_field(
                    "metadata.finalizers",
                    "no new finalizers can be added if the object is being deleted, found new finalizers "
                    f"[]string{{{listed}}}",
                )
            )
    if causes:
        raise invalid(kind.kind, kind.group, body["metadata"].get("name", ""), causes)
