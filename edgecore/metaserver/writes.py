"""What becomes of a write that is made while the cloud cannot be reached.  Pure.

Of kinds that the operator names, a write is taken, shown to the node's clients at once, and sent when the cloud is back, in the
name of the account that made it.  There is at most one for each object: later ones are folded into it, so that a client which
writes each second for a week leaves one.

The rule when it is sent, and the cloud's object is another meanwhile:

| written offline                    | it counts                                                                       |
|------------------------------------|---------------------------------------------------------------------------------|
| create                             | unless an object of that name is there: then the cloud's stays                  |
| update that says a resourceVersion | unless the object changed in the cloud since then: then the cloud's stays       |
| update without one                 | always: the edge's replaces the cloud's                                         |
| merge patch                        | always, for the members that it names; the others stay as the cloud has them    |
| strategic merge patch              | the same; in a list that is told apart by a key, for the items that it names    |
| JSON patch                         | as a merge patch of the members that it changed here; a list is one member      |
| server-side apply                  | as the cloud judges it then, by who owns what                                   |
| delete                             | for the object that was seen here, by its UID; one that was made anew stays     |

What the cloud refuses for good is dropped and counted.  A write whose answer was lost is sent again: it counts as done when the
cloud's object says all that it wanted.

A strategic merge patch is sent as what it is.  Several of one object become one (`strategic`); where that cannot be said, the
list that they are about is sent whole, as it is shown here.  A server-side apply is sent as what it is, so that its manager
owns what it names; what it took back is removed then, and shown until then.  A scale is a merge patch of `spec.replicas`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from beehive import kinds
from beehive.errors import ProtocolError
from beehive.jsonpatch import PatchError, PatchFailed, json_patch
from beehive.mergepatch import merge_patch
from beehive.message import UNREADABLE
from edgecore.metaserver.objects import Gvr
from edgecore.metaserver.request import Info

Verb = Literal["create", "update", "patch", "delete"]
Json = dict[str, Any]

PENDING = "skerry.dev/pending"
"""An annotation of what is shown: the verb that waits.  It is never sent."""
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
MAX_DEPTH = 64
NEVER = frozenset(
    {"pods", "nodes", "leases.coordination.k8s.io", "serviceaccounts", "tokenreviews.authentication.k8s.io"}
)
"""What cannot be written offline: the node itself acts on them, or they are worth nothing later."""


NOTHING = msgspec.Raw(b"null")


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """One that waits, as it is kept.

    group … name: of the object.   account: who wrote.   body: the whole object, or the patch; none for a delete.
    form: of a patch: a merge patch, a strategic one, or a server-side apply.   shown: the object as clients see it.
    base: the cloud's resourceVersion that it builds on; conditional: whether it counts only on that.   uid: of what is deleted.
    query: options for the cloud.   at_ms: when the first of it was written."""

    seq: int
    verb: Verb
    group: str
    version: str
    resource: str
    namespace: str
    name: str
    account: str
    at_ms: int
    body: msgspec.Raw = NOTHING
    form: str = MERGE
    shown: msgspec.Raw = NOTHING
    base: str = ""
    conditional: bool = False
    uid: str = ""
    query: dict[str, str] = {}

    @property
    def gvr(self) -> Gvr:
        return Gvr(self.group, self.version, self.resource)

    @property
    def where(self) -> tuple[Gvr, str, str]:
        return self.gvr, self.namespace, self.name


class Clash(Exception):
    """The write cannot be taken on top of what is shown; the text says why."""


class CannotApply(Exception):
    """Only the cloud can make of this what it means; the text says why."""


def kind_name(group: str, resource: str) -> str:
    """As `kubectl` and the configuration write it."""
    return f"{resource}.{group}" if group else resource


_AWAY = "the cloud cannot be reached from this node now"
_REASONS = {
    ("serviceaccounts", "token"): "only it can sign tokens; those of pods are kept on the node",
    ("pods", "eviction"): "only it knows what may be evicted",
    ("pods", "binding"): "it places pods",
    ("pods", ""): "it says which pods there are: edgecore restart starts the containers of one again",
    ("nodes", ""): "it says what a node is to take: labels, taints and cordons are set there",
}


def why_not(info: Info, kind: str) -> str:
    """Why a write cannot be made without the cloud."""
    reason = _REASONS.get((kind, info.subresource)) or _REASONS.get((kind, ""))
    if reason:
        return f"{_AWAY}, and {reason}"
    if info.subresource:
        return f"{_AWAY}, and {kind}/{info.subresource} cannot be written without it"
    if kind in NEVER:
        return f"{_AWAY}, and {kind} cannot be written without it"
    return f"{_AWAY}, and writes of {kind} are not kept until it is back (offlineWrites in edgecore.yaml)"


def read_object(body: bytes) -> Json:
    """Raises ProtocolError."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise ProtocolError(f"cannot read the object: {error}") from error
    if not isinstance(found, dict):
        raise ProtocolError("what was sent is no object")
    return found


@dataclass(frozen=True, slots=True)
class Patched:
    """What a patch makes of what is shown.   body: what is sent.   form: as what.   shown: the object after it."""

    body: Json
    form: str
    shown: Json


def apply_patch(form: str, body: bytes, target: Json, gvr: Gvr) -> Patched:
    """A patch on top of what is shown.  A server-side apply is shown as its lists merge, and can be folded as such a patch.

    Raises CannotApply (its form), ProtocolError (it cannot be read), PatchFailed (it does not fit), PatchError (it is none)."""
    if form == JSON_PATCH:
        shown = _patched(body, target)
        return Patched(diff(target, shown), MERGE, shown)
    if form not in (MERGE, STRATEGIC, APPLY):
        raise CannotApply(f"a patch of type {form} needs the cloud: use a merge patch, or replace the object")
    patch = read_object(body)
    if form == MERGE or kinds.is_custom(gvr.group):
        return Patched(patch, MERGE, merge_patch(target, patch))
    from beehive import mergekeys  # few write offline
    from beehive.strategicpatch import strategic_merge

    return Patched(patch, STRATEGIC, strategic_merge(target, patch, mergekeys.model(gvr.group, gvr.plural)))


def _patched(body: bytes, target: Json) -> Json:
    try:
        operations = msgspec.json.decode(body)
    except UNREADABLE as error:
        raise ProtocolError(f"cannot read the patch: {error}") from error
    found = json_patch(target, operations)
    if not isinstance(found, dict):
        raise PatchFailed("the patch leaves no object")
    return found


def diff(before: Json, after: Json) -> Json:
    """The merge patch that leads from one to the other; a list is one value."""
    found: Json = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            if inner := diff(old, value):
                found[key] = inner
        elif key not in before or msgspec.json.encode(old) != msgspec.json.encode(value):  # 0 is not false
            found[key] = value
    return found


def read_apply(body: bytes) -> Json:
    """What a server-side apply wants: JSON, which is what kubectl sends, or YAML.  Raises ProtocolError."""
    if body.lstrip()[:1] == b"{":
        return read_object(body)
    import yaml  # seldom needed, and 2 MB

    try:
        found = yaml.safe_load(body)
    except (yaml.YAMLError, RecursionError, UnicodeError) as error:
        raise ProtocolError(f"cannot read the object: {str(error)[:256]}") from error
    return read_object(msgspec.json.encode(found) if isinstance(found, dict) else b"null")


def stays_apply(before: Write | None, manager: str) -> bool:
    """Whether a server-side apply can be sent as one after what waits; else it is folded into that as a merge patch."""
    if before is None:
        return True
    return before.verb == "patch" and before.form == APPLY and before.query.get("fieldManager", "") == manager


def scale_of(item: Json) -> Json:
    """The Scale of an object with `spec.replicas`, as far as its clients read it.   Source: autoscaling/v1."""
    metadata = item.get("metadata") or {}
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": {"replicas": (item.get("spec") or {}).get("replicas", 1)},
        "status": {"replicas": (item.get("status") or {}).get("replicas", 0)},
    }


def replicas(scale: Json) -> int:
    """How many a Scale asks for.  Raises ProtocolError."""
    wanted = (
        (scale.get("spec") or {}).get("replicas", 0) if isinstance(scale.get("spec") or {}, dict) else None
    )
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 0:
        raise ProtocolError("spec.replicas is not a number of replicas")
    return wanted


def fold(before: Write | None, after: Write, patched: Json | None = None) -> Write | None:
    """What waits for an object after another write to it; None when nothing does any more.

    after: its `base` is the cloud's version if nothing waited.   patched: of a patch, what is shown with it.
    Raises Clash."""
    if before is None:
        return after
    if before.account != after.account:
        raise Clash("a write of another account to it waits for the cloud")
    kept: dict[str, Any] = {"seq": before.seq, "at_ms": before.at_ms, "base": before.base}
    if before.verb == "delete":
        raise Clash("it is being deleted: that waits for the cloud")
    if before.verb == "create":
        if after.verb == "delete":
            return None
        body = after.body if after.verb == "update" else encoded(patched or {})
        return msgspec.structs.replace(after, verb="create", body=body, uid="", conditional=False, **kept)
    if after.verb == "delete":
        return msgspec.structs.replace(after, **kept)
    if after.verb == "patch" and before.verb == "patch" and APPLY in (before.form, after.form):
        if before.form != after.form:
            raise Clash("a server-side apply of it waits for the cloud")
        return msgspec.structs.replace(after, **kept)
    if after.verb == "patch" and before.verb == "patch":
        joined, form = _join(before, after, patched or {})
        return msgspec.structs.replace(after, body=encoded(joined), form=form, **kept)
    if after.verb == "patch":
        # a patch of what was replaced: all of it is sent
        return msgspec.structs.replace(
            after, verb="update", body=encoded(patched or {}), conditional=before.conditional, **kept
        )
    conditional = after.conditional or (before.verb == "update" and before.conditional)
    return msgspec.structs.replace(after, conditional=conditional, **kept)


def _join(before: Write, after: Write, shown: Json) -> tuple[Json, str]:
    """One patch for two, and its form.  Raises Clash."""
    first, second = read_object(bytes(before.body)), read_object(bytes(after.body))
    if before.form == after.form == MERGE:
        return merge_patch(first, second, keep_nulls=True), MERGE
    from beehive import mergekeys
    from edgecore.metaserver import strategic

    model = mergekeys.model(after.group, after.resource)
    try:
        if before.form == MERGE:
            first = strategic.from_merge_patch(first, model)
        if after.form == MERGE:
            second = strategic.from_merge_patch(second, model)
        return strategic.join(first, second, shown, model), STRATEGIC
    except strategic.CannotJoin as error:
        raise Clash(
            f"another patch of it waits for the cloud, and the two cannot be sent as one: {error}"
        ) from error


def show(
    body: Json, gvr: Gvr, *, verb: str, version: int, uid: str, namespace: str, name: str, born: str = ""
) -> Json:
    """The object as clients of this node see it while the write waits.   born: when, of one that was made here."""
    metadata = dict(body.get("metadata") or {})
    metadata |= {"name": name, "uid": uid, "resourceVersion": str(version)}
    if born:
        metadata["creationTimestamp"] = born
    if namespace:
        metadata["namespace"] = namespace
    metadata["annotations"] = {**(metadata.get("annotations") or {}), PENDING: verb}
    return {"apiVersion": gvr.api_version, "kind": gvr.kind, **body, "metadata": metadata}


def to_send(write: Write) -> bytes | None:
    """The body of a create or an update as the cloud gets it."""
    if write.verb not in ("create", "update"):
        return None
    body = read_object(bytes(write.body))
    metadata = dict(body.get("metadata") or {})
    annotations = {
        key: value for key, value in (metadata.pop("annotations", None) or {}).items() if key != PENDING
    }
    metadata["name"] = write.name
    if write.namespace:
        metadata["namespace"] = write.namespace
    if annotations:
        metadata["annotations"] = annotations
    for key in ("resourceVersion", "uid", "creationTimestamp", "managedFields", "selfLink", "generation"):
        if write.verb == "create" or key == "resourceVersion":
            metadata.pop(key, None)
    if write.verb == "update" and write.conditional:
        metadata["resourceVersion"] = write.base
    return msgspec.json.encode({**body, "metadata": metadata})


def is_done(write: Write, there: Json) -> bool:
    """Whether the cloud's object says all that the write wanted: it was sent before, and its answer was lost."""
    if write.verb == "delete":
        return (there.get("metadata") or {}).get("uid") != write.uid
    wanted = read_object(to_send(write) or bytes(write.body))
    if write.verb == "patch" and write.form == STRATEGIC:
        return _is_patched(write, there, wanted)
    metadata: Mapping[str, Any] = wanted.get("metadata") or {}
    wanted["metadata"] = {key: metadata[key] for key in ("labels", "annotations") if key in metadata}
    wanted.pop("status", None)
    return _says(there, wanted)


def _is_patched(write: Write, there: Json, patch: Json) -> bool:
    from beehive import mergekeys
    from beehive.strategicpatch import strategic_merge

    try:
        return strategic_merge(there, patch, mergekeys.model(write.group, write.resource)) == there
    except PatchError:
        return False


def _says(there: Any, wanted: Any, depth: int = 0) -> bool:
    if depth > MAX_DEPTH:
        return False
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(
            _says(there.get(key), value, depth + 1) for key, value in wanted.items()
        )
    if isinstance(wanted, list) and isinstance(there, list):
        # the cloud fills in the defaults of what is in a list
        return len(there) == len(wanted) and all(
            _says(one, other, depth + 1) for one, other in zip(there, wanted, strict=True)
        )
    return bool(there == wanted) or (wanted in ({}, [], "") and there is None)


def encoded(value: Json) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
