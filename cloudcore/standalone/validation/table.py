"""Which rules an object of a built-in kind has to keep: what is wrong, as causes with the field they are about.  Pure.

`on_create` and `on_update` are called with defaulted objects.  Source: kubernetes, pkg/apis/*/validation, for the rules
that clients meet; the texts are those of the recordings in tests/vectors/apiserver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from cloudcore.standalone.ids import Key
from cloudcore.standalone.status import (
    Cause,
)
from cloudcore.standalone.validation import definitions, others, pods, workloads
from cloudcore.standalone.validation.metadata import on_metadata

Json = dict[str, Any]

_APPS = "apps"
_RBAC = "rbac.authorization.k8s.io"
_CREATE: dict[Key, Callable[[Json], Iterator[Cause]]] = {
    ("", "pods"): pods.pod,
    (_APPS, "deployments"): workloads.deployment,
    (_APPS, "replicasets"): workloads.workload,
    (_APPS, "daemonsets"): workloads.workload,
    (_APPS, "statefulsets"): workloads.workload,
    ("batch", "jobs"): workloads.job,
    ("batch", "cronjobs"): workloads.cronjob,
    ("", "configmaps"): others.config_data,
    ("", "secrets"): others.secret,
    ("", "services"): others.service,
    ("", "nodes"): others.node,
    ("coordination.k8s.io", "leases"): others.lease,
    (_RBAC, "rolebindings"): others.role_ref,
    (_RBAC, "clusterrolebindings"): others.role_ref,
    ("", "persistentvolumeclaims"): others.claim,
    ("autoscaling", "horizontalpodautoscalers"): workloads.autoscaler,
    ("certificates.k8s.io", "certificatesigningrequests"): others.csr,
    ("apiextensions.k8s.io", "customresourcedefinitions"): definitions.definition,
}
_UPDATE: dict[Key, Callable[[Json, Json], Iterator[Cause]]] = {
    ("", "pods"): pods.pod_update,
    (_APPS, "deployments"): workloads.selector_kept,
    (_APPS, "replicasets"): workloads.selector_kept,
    (_APPS, "daemonsets"): workloads.selector_kept,
    (_APPS, "statefulsets"): workloads.statefulset_update,
    ("batch", "jobs"): workloads.job_update,
    ("node.k8s.io", "runtimeclasses"): others.handler_kept,
    ("", "configmaps"): others.immutable_data,
    ("", "secrets"): others.secret_update,
    ("", "services"): others.service_update,
    ("", "persistentvolumeclaims"): others.claim_update,
    (_RBAC, "rolebindings"): others.role_ref_kept,
    (_RBAC, "clusterrolebindings"): others.role_ref_kept,
    ("apiextensions.k8s.io", "customresourcedefinitions"): definitions.definition_update,
}


def on_create(key: Key, body: Json) -> list[Cause]:
    """Everything wrong with a new object of a built-in kind, its metadata included."""
    causes = list(on_metadata(key, body["metadata"]))
    rule = _CREATE.get(key)
    if rule is not None:
        causes += rule(body)
    return causes


def on_update(key: Key, body: Json, old: Json) -> list[Cause]:
    """Everything wrong with replacing `old` by `body`."""
    causes = list(on_metadata(key, body["metadata"]))
    rule = _CREATE.get(key)
    if rule is not None:
        causes += rule(body)
    change = _UPDATE.get(key)
    if change is not None:
        causes += change(body, old)
    return causes
