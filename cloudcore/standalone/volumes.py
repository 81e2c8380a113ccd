"""Which volume a claim gets, and where a pod that has claims can go.  Pure.

Volumes are `local` and `hostPath` ones that people make, and folders that this server hands out itself for classes
whose provisioner is PROVISIONER: a folder on the node that the pod goes to, made there when it is first mounted.
Source: kubernetes, pkg/controller/volume/persistentvolume and pkg/scheduler/framework/plugins/volumebinding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from cloudcore.standalone import quantity
from cloudcore.standalone.controllers.placement import Node, term_matches
from cloudcore.standalone.selectors import BadSelector, from_object

Json = dict[str, Any]
PROVISIONER = "skerry.dev/node-folder"
DEFAULT_CLASS = "node-folder"
IS_DEFAULT = "storageclass.kubernetes.io/is-default-class"
OLD_IS_DEFAULT = "storageclass.beta.kubernetes.io/is-default-class"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
BOUND_BY_US = "pv.kubernetes.io/bound-by-controller"
BIND_DONE = "pv.kubernetes.io/bind-completed"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
CLAIM_IN_USE = "kubernetes.io/pvc-protection"
VOLUME_IN_USE = "kubernetes.io/pv-protection"
HOSTNAME = "kubernetes.io/hostname"
WRONG_NODE = "node(s) didn't match PersistentVolume's node affinity"
NO_VOLUME = "node(s) didn't find available persistent volumes to bind"


def default_class(classes: Iterable[Json]) -> str:
    """The class of claims that name none: the newest that is marked; empty when none is."""
    marked = []
    for item in classes:
        metadata = item["metadata"]
        notes = metadata.get("annotations") or {}
        if "true" in (notes.get(IS_DEFAULT), notes.get(OLD_IS_DEFAULT)):
            marked.append((metadata.get("creationTimestamp", ""), metadata["name"]))
    return max(marked, default=("", ""))[1]


def folder_class() -> Json:
    """The class that every control plane has: folders on the node that runs the pod.  Data outlives the claim."""
    return {
        "metadata": {"name": DEFAULT_CLASS, "annotations": {IS_DEFAULT: "true"}},
        "provisioner": PROVISIONER,
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Retain",
    }


def class_name(claim: Json) -> str:
    return claim["spec"].get("storageClassName") or ""


def waits(claim: Json, classes: Mapping[str, Json]) -> bool:
    """Whether the claim gets its volume only when a pod that uses it is given a node."""
    found = classes.get(class_name(claim))
    return found is not None and found.get("volumeBindingMode") == "WaitForFirstConsumer"


def provisions(claim: Json, classes: Mapping[str, Json]) -> bool:
    """Whether this server makes volumes for the claim's class."""
    found = classes.get(class_name(claim))
    selects = claim["spec"].get("selector") or claim["spec"].get("volumeName")
    return found is not None and found.get("provisioner") == PROVISIONER and not selects


def refers(volume: Json, claim: Json) -> bool:
    """Whether the volume names this claim, by itself or because it was bound to it."""
    reference = volume["spec"].get("claimRef")
    if not reference:
        return False
    metadata = claim["metadata"]
    named = (reference.get("namespace"), reference.get("name")) == (metadata["namespace"], metadata["name"])
    return named and reference.get("uid") in (None, "", metadata["uid"])


def on_node(volume: Json, node: Node) -> bool:
    """Whether the volume can be used on the node."""
    required = (volume["spec"].get("nodeAffinity") or {}).get("required")
    if not required:
        return True
    return any(term_matches(term, node) for term in required.get("nodeSelectorTerms") or ())


def fits(volume: Json, claim: Json) -> bool:
    """Whether a free volume is what the claim asks for."""
    have, want = volume["spec"], claim["spec"]
    if "deletionTimestamp" in volume["metadata"]:
        return False
    if have.get("claimRef") and not refers(volume, claim):
        return False
    if (have.get("volumeMode") or "Filesystem") != (want.get("volumeMode") or "Filesystem"):
        return False
    if not set(want.get("accessModes") or ()) <= set(have.get("accessModes") or ()):
        return False
    if _storage(have.get("capacity")) < _storage((want.get("resources") or {}).get("requests")):
        return False
    if refers(volume, claim):
        return True
    if (have.get("storageClassName") or "") != class_name(claim):
        return False
    if not want.get("selector"):
        return True
    try:
        selector = from_object(want["selector"])
    except BadSelector:
        return False
    return selector is not None and selector.matches(volume["metadata"].get("labels") or {})


def best(claim: Json, volumes: Iterable[Json], node: Node | None = None) -> Json | None:
    """The volume for a claim: one that was made for it, or the smallest that fits (and can be used on `node`)."""
    wanted = claim["spec"].get("volumeName")
    found = [
        volume
        for volume in volumes
        if (not wanted or volume["metadata"]["name"] == wanted)
        and (node is None or on_node(volume, node))
        and fits(volume, claim)
    ]
    return min(
        found,
        key=lambda item: (
            not refers(item, claim),
            _storage(item["spec"].get("capacity")),
            item["metadata"]["name"],
        ),
        default=None,
    )


def _storage(amounts: Any) -> Decimal:
    try:
        return quantity.parse((amounts or {}).get("storage", "0"))
    except (quantity.BadQuantity, AttributeError):
        return Decimal(0)


def provisioned(claim: Json, classes: Mapping[str, Json], node: Node, root: str) -> Json:
    """The volume to make for a claim on a node.  `root`: the folder on nodes in which volumes are."""
    made_for = classes[class_name(claim)]
    metadata = claim["metadata"]
    name = f"pvc-{metadata['uid']}"
    where = (made_for.get("parameters") or {}).get("path") or root
    hostname = node.labels.get(HOSTNAME)
    if hostname:
        expression = {"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": [hostname]}]}
    else:
        expression = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node.name]}]}
    return {
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "capacity": {
                "storage": ((claim["spec"].get("resources") or {}).get("requests") or {})["storage"]
            },
            "accessModes": claim["spec"].get("accessModes") or ["ReadWriteOnce"],
            "volumeMode": "Filesystem",
            "persistentVolumeReclaimPolicy": made_for.get("reclaimPolicy", "Delete"),
            "storageClassName": class_name(claim),
            "hostPath": {
                "path": f"{where.rstrip('/')}/{metadata['namespace']}_{metadata['name']}_{name}",
                "type": "DirectoryOrCreate",
            },
            "nodeAffinity": {"required": {"nodeSelectorTerms": [expression]}},
            "claimRef": reference(claim),
        },
    }


def reference(claim: Json) -> Json:
    metadata = claim["metadata"]
    return {
        "kind": "PersistentVolumeClaim",
        "apiVersion": "v1",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }


def claim_names(spec: Json) -> list[str]:
    """The claims that a pod's volumes are."""
    found = (
        (volume.get("persistentVolumeClaim") or {}).get("claimName") for volume in spec.get("volumes") or ()
    )
    return [name for name in found if name]


@dataclass(frozen=True, slots=True)
class Needs:
    """What a pod's claims ask of its node.

    fault: why the pod can go nowhere now; refuse: why it cannot go to one node (empty when it can); waiting: claims
    that get their volume when the pod has been given its node."""

    fault: str
    refuse: Callable[[Node], str]
    waiting: tuple[Json, ...] = ()


def needs(
    spec: Json, claims: Mapping[str, Json], volumes: Mapping[str, Json], classes: Mapping[str, Json]
) -> Needs:
    """`claims`: of the pod's namespace, by name."""
    bound: list[Json] = []
    waiting: list[Json] = []
    for name in claim_names(spec):
        claim = claims.get(name)
        if claim is None:
            return Needs(f'persistentvolumeclaim "{name}" not found', _anywhere)
        if "deletionTimestamp" in claim["metadata"]:
            return Needs(f'persistentvolumeclaim "{name}" is being deleted', _anywhere)
        phase = (claim.get("status") or {}).get("phase")
        if phase == "Lost":
            return Needs(f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume', _anywhere)
        if phase == "Bound":
            volume = volumes.get(claim["spec"].get("volumeName") or "")
            if volume is None:
                return Needs(
                    f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume', _anywhere
                )
            bound.append(volume)
        elif waits(claim, classes) and not claim["spec"].get("volumeName"):
            waiting.append(claim)
        else:
            return Needs("pod has unbound immediate PersistentVolumeClaims", _anywhere)

    def refuse(node: Node) -> str:
        if not all(on_node(volume, node) for volume in bound):
            return WRONG_NODE
        left = list(volumes.values())
        for claim in waiting:
            found = best(claim, left, node)
            if found is not None:
                left.remove(found)
            elif not provisions(claim, classes):
                return NO_VOLUME
        return ""

    return Needs("", refuse, tuple(waiting))


def _anywhere(node: Node) -> str:
    return ""
