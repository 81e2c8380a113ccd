"""What a delete does to an object: it goes, or it is marked and waits for its grace or its finalizers.  Pure."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Protocol

from beehive import clock
from cloudcore.standalone import crds
from cloudcore.standalone.ids import NAMESPACES, PODS
from cloudcore.standalone.kinds import Kind
from cloudcore.standalone.status import conflict

Json = dict[str, Any]
FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteOptions:
    """metav1.DeleteOptions.  `grace_s` None means the object's own."""

    grace_s: int | None = None
    uid: str = ""
    resource_version: str = ""
    propagation: str = ""
    dry_run: bool = False


class Marked(Enum):
    """What is left to do with an object that is to be deleted."""

    GOES = "goes"
    WAITS = "waits"
    AS_BEFORE = "as before"


class Identity(Protocol):
    """Of a stored object."""

    @property
    def name(self) -> str: ...
    @property
    def uid(self) -> str: ...
    @property
    def revision(self) -> int: ...


def check(kind: Kind, head: Identity, options: DeleteOptions) -> None:
    """Whether this is the object that is meant.  Raises ApiError (Conflict)."""
    if options.uid and options.uid != head.uid:
        raise conflict(
            kind.kind,
            kind.group,
            head.name,
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({head.uid}). "
            "The object might have been deleted and then recreated",
        )
    if options.resource_version and options.resource_version != str(head.revision):
        raise conflict(
            kind.kind,
            kind.group,
            head.name,
            f"the ResourceVersion in the precondition ({options.resource_version}) does not match the "
            f"ResourceVersion in record ({head.revision}). The object might have been modified",
        )


def mark(kind: Kind, body: Json, options: DeleteOptions, now: datetime) -> Marked:
    """Change `body` into what it is while it is being deleted."""
    metadata = body["metadata"]
    before = copy.deepcopy(metadata)
    grace = _grace(kind, body, options.grace_s)
    finalizers = [
        item
        for item in metadata.get("finalizers") or ()
        if item not in (FOREGROUND, ORPHAN) or not options.propagation
    ]
    if options.propagation == "Foreground" and FOREGROUND not in finalizers:
        finalizers.append(FOREGROUND)
    elif options.propagation == "Orphan" and ORPHAN not in finalizers:
        finalizers.append(ORPHAN)
    if kind.key == crds.KEY and crds.CLEANUP not in finalizers and "deletionTimestamp" not in metadata:
        finalizers.append(crds.CLEANUP)
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
    waits = bool(finalizers) or grace > 0 or has_spec_finalizers(kind, body)
    if not waits:
        if kind.key == PODS:
            metadata.setdefault("deletionTimestamp", clock.rfc3339(now))
            metadata["deletionGracePeriodSeconds"] = 0
        return Marked.GOES
    current = metadata.get("deletionGracePeriodSeconds")
    first = "deletionTimestamp" not in metadata
    if first or (kind.key == PODS and current is not None and grace < current):
        metadata["deletionTimestamp"] = clock.rfc3339(now + timedelta(seconds=grace))
        if kind.key not in (NAMESPACES, crds.KEY):
            metadata["deletionGracePeriodSeconds"] = grace
        if kind.key == crds.KEY:
            crds.mark_terminating(body, clock.rfc3339(now))
        elif kind.generation and first:
            metadata["generation"] = metadata.get("generation", 0) + 1
        if kind.key == NAMESPACES:
            body.setdefault("status", {})["phase"] = "Terminating"
    return Marked.AS_BEFORE if metadata == before else Marked.WAITS


def has_spec_finalizers(kind: Kind, body: Json) -> bool:
    """Whether a namespace has not been emptied yet."""
    return kind.key == NAMESPACES and bool((body.get("spec") or {}).get("finalizers"))


def _grace(kind: Kind, body: Json, asked: int | None) -> int:
    """Seconds a pod is given; everything else goes at once."""
    if kind.key != PODS:
        return 0
    spec, status = body.get("spec") or {}, body.get("status") or {}
    grace = spec.get("terminationGracePeriodSeconds", 30) if asked is None else asked
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    return max(int(grace), 0) if asked == 0 or grace >= 0 else 1
