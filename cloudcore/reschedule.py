"""How long the cloud waits before it takes the pods of a node that fell silent elsewhere.  Pure.

A node says it in an annotation, `skerry.dev/reschedule-after`: `never`, or a time such as `300s`, `10m`, `12h`.  Without one
its group (apps.kubeedge.io NodeGroup, named by the node's label) does, by the same annotation; without that the cloud's own
default, which is never: pods of a silent node run on, and missing information is no reason to end them (P5).

Pods that tolerate an unreachable node for ever, as those of a DaemonSet do, are never taken away.  With a time, a pod counts as
ended in the cloud once its node was silent for so long: another takes its place where one is wanted, and the node ends it when
it is back.  A StatefulSet's pod keeps its name until then, so that there are never two of one."""

from __future__ import annotations

import re
from typing import Any

from cloudcore.objects import Object, annotation

Json = dict[str, Any]

ANNOTATION = "skerry.dev/reschedule-after"
GROUP_LABEL = "apps.kubeedge.io/belonging-to"
NEVER = "never"
TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_TIME = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s)?")


def read(text: str) -> float | None:
    """Seconds; None for never.  Raises ValueError: neither."""
    if text == NEVER:
        return None
    found = _TIME.fullmatch(text)
    if not found or not text:
        raise ValueError(f"{text[:32]!r} is neither never nor a time such as 300s, 10m or 12h")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(hours * 3600 + minutes * 60 + seconds)


def choose(own: str, group: str, default: float | None) -> float | None:
    """own, group: the annotation of the node and of its group, empty without one.  What cannot be read is never."""
    for text in (own, group):
        if text:
            try:
                return read(text)
            except ValueError:
                return None
    return default


def of_node(node: Object) -> str:
    """The node's own annotation."""
    return annotation(node, ANNOTATION)


def group_of(node: Object) -> str:
    """The name of the node's group, or an empty text."""
    return (node.labels or {}).get(GROUP_LABEL, "")


def stays(tolerations: list[Json]) -> bool:
    """Whether a pod tolerates an unreachable node for ever."""
    return any(
        item.get("effect") in (None, "", "NoExecute")
        and item.get("tolerationSeconds") is None
        and (item.get("key") or "") in ("", TAINTS[1])
        and (item.get("operator") == "Exists" or item.get("key"))
        for item in tolerations
    )


def tolerations(before: list[Json], after_s: float | None) -> list[Json]:
    """A pod's tolerations with those of a node that is away set to `after_s`; the others as they are.

    A cluster allows to add some to a pod that exists, and to change their time.   Source: kubernetes, pkg/apis/core/validation,
    validateOnlyAddedTolerations."""
    out, missing = [], set(TAINTS)
    for item in before:
        if item.get("key") in TAINTS and item.get("effect") == "NoExecute":
            missing.discard(item["key"])
            item = {key: value for key, value in item.items() if key != "tolerationSeconds"}
            if after_s is not None:
                item["tolerationSeconds"] = int(after_s)
        out.append(item)
    for key in TAINTS:
        if key in missing and not _everything(before):
            made: Json = {"key": key, "operator": "Exists", "effect": "NoExecute"}
            out.append(made if after_s is None else {**made, "tolerationSeconds": int(after_s)})
    return out


def _everything(found: list[Json]) -> bool:
    return any(
        not item.get("key") and item.get("operator") == "Exists" and not item.get("effect") for item in found
    )
