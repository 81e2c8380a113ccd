"""What people made here, as manifests that `kubectl apply` takes on another cluster.  Pure.

Left out: what every cluster has of its own, what controllers make from what is exported, nodes and what nodes report, and
of each object what only a server writes: status, uid, versions, addresses it was given, tokens it was mounted."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from cloudcore.standalone import volumes
from cloudcore.standalone.admission import MIRROR, NO_EVICT, SYSTEM_PRIORITIES
from cloudcore.standalone.controllers.endpoints import MANAGED_BY, MANAGER, OLD_MANAGED_BY, OLD_MANAGER
from cloudcore.standalone.controllers.jobs import NAME_LABEL, UID_LABEL
from cloudcore.standalone.ids import Key
from cloudcore.standalone.kinds import Kind

Json = dict[str, Any]
SYSTEM_NAMESPACES = frozenset({"default", "kube-system", "kube-public", "kube-node-lease"})
OWN_NAMESPACE = "kubeedge"
"""Where the hub keeps its own: keys, tokens, sessions.  Not anybody's work, and secret."""
SERVER_ONLY = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
    "ownerReferences",
    "generateName",
    "finalizers",
)
ANNOTATIONS = (
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision",
    "deprecated.daemonset.template.generation",
    "batch.kubernetes.io/cronjob-scheduled-timestamp",
)
LEFT_OUT = frozenset(
    {
        ("", "events"),
        ("", "nodes"),
        ("coordination.k8s.io", "leases"),
        ("apps", "controllerrevisions"),
        ("certificates.k8s.io", "certificatesigningrequests"),
        ("storage.k8s.io", "csinodes"),
        ("storage.k8s.io", "volumeattachments"),
    }
)
_FIRST: dict[Key, int] = {
    ("", "namespaces"): 0,
    ("apiextensions.k8s.io", "customresourcedefinitions"): 1,
    ("", "serviceaccounts"): 3,
    ("", "secrets"): 3,
    ("", "configmaps"): 3,
    ("", "services"): 4,
    ("", "pods"): 6,
}
_WORKLOADS = frozenset({"apps", "batch"})
_JOB_LABELS = (NAME_LABEL, UID_LABEL, "controller-uid", "job-name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One file; in the order of their names they can be applied."""

    file_name: str
    body: Json


def manifests(objects: Iterable[tuple[Kind, Json]]) -> list[Manifest]:
    """`objects` are all that are stored, each with its kind."""
    found = []
    for kind, body in objects:
        if not _made_by_people(kind, body):
            continue
        clean = _clean(kind, body)
        metadata = clean["metadata"]
        where = metadata.get("namespace") or "cluster"
        plural = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
        name = re.sub(r"[^a-zA-Z0-9._-]", "_", f"{where}-{plural}-{metadata['name']}")[:200]
        found.append(Manifest(file_name=f"{_rank(kind)}-{name}.yaml", body=clean))
    return sorted(found, key=lambda item: item.file_name)


def _rank(kind: Kind) -> int:
    if kind.key in _FIRST:
        return _FIRST[kind.key]
    if kind.group in _WORKLOADS:
        return 6
    if kind.custom:
        return 5
    return 4 if kind.namespaced else 2


def _made_by_people(kind: Kind, body: Json) -> bool:
    metadata = body["metadata"]
    name, namespace = metadata["name"], metadata.get("namespace", "")
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    if kind.key in LEFT_OUT or namespace == OWN_NAMESPACE or "deletionTimestamp" in metadata:
        return False
    if any(owner.get("controller") for owner in metadata.get("ownerReferences") or ()):
        return False
    if labels.get("kubernetes.io/bootstrapping") or MIRROR in annotations:
        return False
    if labels.get(MANAGED_BY) == MANAGER or labels.get(OLD_MANAGED_BY) == OLD_MANAGER:
        return False
    match kind.key:
        case ("", "namespaces"):
            return name not in SYSTEM_NAMESPACES and name != OWN_NAMESPACE
        case ("", "serviceaccounts"):
            return bool(name != "default" or body.get("imagePullSecrets") or body.get("secrets"))
        case ("", "configmaps"):
            return bool(name != "kube-root-ca.crt")
        case ("", "secrets"):
            return body.get("type") != "kubernetes.io/service-account-token"
        case ("", "services"):
            return (namespace, name) != ("default", "kubernetes")
        case ("scheduling.k8s.io", "priorityclasses"):
            return name not in SYSTEM_PRIORITIES
        case ("storage.k8s.io", "storageclasses"):
            return bool(name != volumes.DEFAULT_CLASS)
        case ("", "persistentvolumes"):
            return bool(annotations.get(volumes.PROVISIONED_BY) != volumes.PROVISIONER)
    return True


def _clean(kind: Kind, body: Json) -> Json:
    body = copy.deepcopy(body)
    body.pop("status", None)
    metadata = {name: value for name, value in body["metadata"].items() if name not in SERVER_ONLY}
    annotations = {n: v for n, v in (metadata.pop("annotations", None) or {}).items() if n not in ANNOTATIONS}
    if annotations:
        metadata["annotations"] = annotations
    body["metadata"] = metadata
    rule = _RULES.get(kind.key)
    if rule is not None:
        rule(body)
    if not metadata.get("labels", True):
        del metadata["labels"]
    return body


def _namespace(body: Json) -> None:
    body.pop("spec", None)
    body["metadata"].get("labels", {}).pop("kubernetes.io/metadata.name", None)


def _service(body: Json) -> None:
    spec = body["spec"]
    if spec.get("clusterIP") != "None":
        for name in ("clusterIP", "clusterIPs"):
            spec.pop(name, None)


def _pod(body: Json) -> None:
    spec = body["spec"]
    tokens = {
        volume["name"]
        for volume in spec.get("volumes") or ()
        if volume["name"].startswith("kube-api-access-")
    }
    spec["volumes"] = [volume for volume in spec.get("volumes") or () if volume["name"] not in tokens]
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        mounts = [m for m in container.get("volumeMounts") or () if m["name"] not in tokens]
        container.pop("volumeMounts", None)
        if mounts:
            container["volumeMounts"] = mounts
    added = [
        {"key": key, "operator": "Exists", "effect": effect, "tolerationSeconds": 300}
        for key, effect in NO_EVICT
    ]
    spec["tolerations"] = [item for item in spec.get("tolerations") or () if item not in added]
    for name in ("volumes", "tolerations"):
        if not spec[name]:
            del spec[name]
    for name in ("nodeName", "priority", "preemptionPolicy", "ephemeralContainers"):
        spec.pop(name, None)


def _job(body: Json) -> None:
    spec = body["spec"]
    if spec.get("manualSelector"):
        return
    spec.pop("selector", None)
    for metadata in (body["metadata"], spec["template"].get("metadata") or {}):
        for label in _JOB_LABELS:
            (metadata.get("labels") or {}).pop(label, None)


def _claim(body: Json) -> None:
    """A claim on one of our folders becomes one on whatever the other cluster makes volumes of."""
    annotations = body["metadata"].get("annotations") or {}
    for name in [
        item for item in annotations if item.startswith(("pv.kubernetes.io/", "volume.kubernetes.io/"))
    ]:
        del annotations[name]
    _unprotect(body)
    if body["spec"].get("storageClassName") == volumes.DEFAULT_CLASS:
        del body["spec"]["storageClassName"]
        body["spec"].pop("volumeName", None)


def _volume(body: Json) -> None:
    """Ready to be bound again."""
    _unprotect(body)
    annotations = body["metadata"].get("annotations") or {}
    annotations.pop(volumes.BOUND_BY_US, None)
    for field in ("uid", "resourceVersion"):
        (body["spec"].get("claimRef") or {}).pop(field, None)


def _unprotect(body: Json) -> None:
    ours = (volumes.CLAIM_IN_USE, volumes.VOLUME_IN_USE)
    kept = [item for item in body["metadata"].pop("finalizers", None) or () if item not in ours]
    if kept:
        body["metadata"]["finalizers"] = kept


_RULES: dict[Key, Callable[[Json], None]] = {
    ("", "namespaces"): _namespace,
    ("", "services"): _service,
    ("", "pods"): _pod,
    ("batch", "jobs"): _job,
    ("", "persistentvolumeclaims"): _claim,
    ("", "persistentvolumes"): _volume,
}
