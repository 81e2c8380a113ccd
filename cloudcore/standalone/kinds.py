"""The table of kinds that this API server stores and serves.

One row per kind: where it lives, what it is called, and which subresources it has.  Behaviour of single kinds is in
defaults.py, validation/ and controllers/; everything else works from the row alone.  CustomResourceDefinitions add
rows at run time (see crds.py)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from beehive.printing.custom import Column
from cloudcore.standalone.rules import Node

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
STATUS = ("status",)
SCALED = ("scale", "status")
POD_STREAMS = frozenset({"log", "exec", "attach", "portforward", "proxy"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalePaths:
    """Where a custom resource keeps its replicas (dotted, without the leading dot)."""

    spec: str
    status: str
    selector: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kind:
    """One row.  `model` names the definition in the generated core types; custom kinds have a `schema` instead."""

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    list_kind: str
    short: tuple[str, ...] = ()
    namespaced: bool = True
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = VERBS
    model: str | None = None
    generation: bool = False
    """metadata.generation is kept (it counts changes of spec)."""
    returns_deleted: bool = False
    """A delete answers with the object instead of a Status."""
    passive: str = ""
    """Set when the kind is stored but nothing acts on it: the sentence of the Warning header."""
    virtual: bool = False
    """Never stored: reviews, which are only created, and measurements, which are only read."""
    storage_version: str = ""
    custom: bool = False
    columns: tuple[Column, ...] = ()
    schema: dict[str, Any] | None = None
    rules: Node | None = None
    """The validation rules of a custom kind, compiled."""
    scale: ScalePaths | None = None
    selectable: tuple[str, ...] = ()
    views: tuple[str, str] | None = None
    """(group, plural) of the kind whose stored objects this one shows in another shape (see shapes.py)."""

    @property
    def key(self) -> tuple[str, str]:
        """What objects of this kind are stored under; the same for all versions."""
        return self.views or (self.group, self.plural)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def has_status(self) -> bool:
        return "status" in self.subresources

    def __repr__(self) -> str:
        return f"Kind({self.api_version}, {self.kind})"


def _row(
    api_version: str,
    kind: str,
    plural: str,
    *short: str,
    cluster: bool = False,
    sub: tuple[str, ...] = (),
    model: str | None = None,
    **more: Any,
) -> Kind:
    group, _, version = api_version.rpartition("/")
    return Kind(
        group=group,
        version=version,
        kind=kind,
        plural=plural,
        singular=kind.lower(),
        list_kind=f"{kind}List",
        short=short,
        namespaced=not cluster,
        subresources=sub,
        model=model or "V1" + kind,
        **more,
    )


ALL = ("all",)
EXTENSIONS = ("api-extensions",)
NO_WEBHOOKS = "this server stores webhook and policy configurations but does not call them"
NO_NETWORK = "this server stores this kind but programs no network with it"
NO_STORAGE = "this server stores this kind but provisions no storage with it"
CREATE = ("create",)

POD_SUBRESOURCES = (
    "attach",
    "binding",
    "ephemeralcontainers",
    "eviction",
    "exec",
    "log",
    "portforward",
    "proxy",
    "resize",
    "status",
)

CORE: tuple[Kind, ...] = (
    _row("v1", "Binding", "bindings", verbs=CREATE, virtual=True),
    _row("v1", "ConfigMap", "configmaps", "cm"),
    _row("v1", "Endpoints", "endpoints", "ep"),
    _row("v1", "Event", "events", "ev", model="CoreV1Event"),
    _row("v1", "LimitRange", "limitranges", "limits"),
    _row(
        "v1",
        "Namespace",
        "namespaces",
        "ns",
        cluster=True,
        sub=("finalize", "status"),
        verbs=tuple(verb for verb in VERBS if verb != "deletecollection"),
    ),
    _row("v1", "Node", "nodes", "no", cluster=True, sub=("proxy", "status")),
    _row(
        "v1",
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        "pvc",
        sub=STATUS,
        returns_deleted=True,
    ),
    _row(
        "v1",
        "PersistentVolume",
        "persistentvolumes",
        "pv",
        cluster=True,
        sub=STATUS,
        returns_deleted=True,
    ),
    _row(
        "v1",
        "Pod",
        "pods",
        "po",
        categories=ALL,
        sub=POD_SUBRESOURCES,
        returns_deleted=True,
        generation=True,
    ),
    _row("v1", "PodTemplate", "podtemplates", returns_deleted=True),
    _row("v1", "ResourceQuota", "resourcequotas", "quota", sub=STATUS, returns_deleted=True),
    _row("v1", "Secret", "secrets"),
    _row("v1", "ServiceAccount", "serviceaccounts", "sa", sub=("token",), returns_deleted=True),
    _row("v1", "Service", "services", "svc", categories=ALL, sub=STATUS, returns_deleted=True),
    _row("apps/v1", "ControllerRevision", "controllerrevisions"),
    _row("apps/v1", "DaemonSet", "daemonsets", "ds", categories=ALL, sub=STATUS, generation=True),
    _row("apps/v1", "Deployment", "deployments", "deploy", categories=ALL, sub=SCALED, generation=True),
    _row("apps/v1", "ReplicaSet", "replicasets", "rs", categories=ALL, sub=SCALED, generation=True),
    _row("apps/v1", "StatefulSet", "statefulsets", "sts", categories=ALL, sub=SCALED, generation=True),
    _row("events.k8s.io/v1", "Event", "events", "ev", model="EventsV1Event", views=("", "events")),
    _row(
        "authentication.k8s.io/v1",
        "SelfSubjectReview",
        "selfsubjectreviews",
        cluster=True,
        verbs=CREATE,
        virtual=True,
    ),
    _row("authentication.k8s.io/v1", "TokenReview", "tokenreviews", cluster=True, verbs=CREATE, virtual=True),
    _row(
        "authorization.k8s.io/v1",
        "LocalSubjectAccessReview",
        "localsubjectaccessreviews",
        verbs=CREATE,
        virtual=True,
    ),
    _row(
        "authorization.k8s.io/v1",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        cluster=True,
        verbs=CREATE,
        virtual=True,
    ),
    _row(
        "authorization.k8s.io/v1",
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
        cluster=True,
        verbs=CREATE,
        virtual=True,
    ),
    _row(
        "authorization.k8s.io/v1",
        "SubjectAccessReview",
        "subjectaccessreviews",
        cluster=True,
        verbs=CREATE,
        virtual=True,
    ),
    _row(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        "hpa",
        categories=ALL,
        sub=STATUS,
        model="V2HorizontalPodAutoscaler",
    ),
    _row(
        "autoscaling/v1",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        "hpa",
        categories=ALL,
        sub=STATUS,
        views=("autoscaling", "horizontalpodautoscalers"),
    ),
    _row("batch/v1", "CronJob", "cronjobs", "cj", categories=ALL, sub=STATUS, generation=True),
    _row("batch/v1", "Job", "jobs", categories=ALL, sub=STATUS, generation=True),
    _row(
        "certificates.k8s.io/v1",
        "CertificateSigningRequest",
        "certificatesigningrequests",
        "csr",
        cluster=True,
        sub=("approval", "status"),
    ),
    _row("networking.k8s.io/v1", "IngressClass", "ingressclasses", cluster=True, passive=NO_NETWORK),
    _row(
        "networking.k8s.io/v1", "Ingress", "ingresses", "ing", sub=STATUS, passive=NO_NETWORK, generation=True
    ),
    _row(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        "networkpolicies",
        "netpol",
        passive=NO_NETWORK,
        generation=True,
    ),
    _row(
        "policy/v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        "pdb",
        sub=STATUS,
        generation=True,
    ),
    _row("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", cluster=True),
    _row("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", cluster=True),
    _row("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
    _row("rbac.authorization.k8s.io/v1", "Role", "roles"),
    _row("storage.k8s.io/v1", "CSIDriver", "csidrivers", cluster=True, passive=NO_STORAGE),
    _row("storage.k8s.io/v1", "CSINode", "csinodes", cluster=True, passive=NO_STORAGE),
    _row("storage.k8s.io/v1", "StorageClass", "storageclasses", "sc", cluster=True),
    _row(
        "storage.k8s.io/v1",
        "VolumeAttachment",
        "volumeattachments",
        cluster=True,
        sub=STATUS,
        passive=NO_STORAGE,
    ),
    _row(
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        cluster=True,
        categories=EXTENSIONS,
        passive=NO_WEBHOOKS,
        generation=True,
    ),
    _row(
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        cluster=True,
        categories=EXTENSIONS,
        passive=NO_WEBHOOKS,
        generation=True,
    ),
    _row(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "crd",
        "crds",
        cluster=True,
        categories=EXTENSIONS,
        sub=STATUS,
        generation=True,
    ),
    _row("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", "pc", cluster=True, generation=True),
    _row("coordination.k8s.io/v1", "Lease", "leases"),
    _row("node.k8s.io/v1", "RuntimeClass", "runtimeclasses", cluster=True),
    _row("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", generation=True),
)

PREFERRED = {"events.k8s.io": "v1"}


@dataclass(slots=True)
class Registry:
    """Which kinds exist now.  Core rows stay; custom rows come and go with their definitions."""

    _by_path: dict[tuple[str, str, str], Kind] = field(default_factory=dict)
    _by_kind: dict[tuple[str, str, str], Kind] = field(default_factory=dict)
    _stored: dict[tuple[str, str], Kind] = field(default_factory=dict)
    generation: int = 0
    """Counts changes, so that discovery documents can be cached."""

    @classmethod
    def core(cls) -> Registry:
        registry = cls()
        for row in CORE:
            registry._add(row)
        return registry

    def by_path(self, group: str, version: str, plural: str) -> Kind | None:
        return self._by_path.get((group, version, plural))

    def by_kind(self, group: str, version: str, kind: str) -> Kind | None:
        return self._by_kind.get((group, version, kind))

    def stored(self, key: tuple[str, str]) -> Kind | None:
        """The row in whose version objects under `key` are stored."""
        return self._stored.get(key)

    def group_kind(self, group: str, kind: str) -> Kind | None:
        return next((row for row in self if row.group == group and row.kind == kind), None)

    def replace_custom(self, key: tuple[str, str], rows: Iterable[Kind]) -> None:
        """Serve `rows` (all served versions of one definition; none to stop serving it)."""
        for table in (self._by_path, self._by_kind):
            for path in [path for path, row in table.items() if row.custom and row.key == key]:
                del table[path]
        self._stored.pop(key, None)
        for row in rows:
            self._add(row)
        self.generation += 1

    def add(self, rows: Iterable[Kind]) -> None:
        """Serve `rows` from now on."""
        for row in rows:
            self._add(row)
        self.generation += 1

    def _add(self, row: Kind) -> None:
        self._by_path[row.group, row.version, row.plural] = row
        self._by_kind[row.group, row.version, row.kind] = row
        if not row.virtual and row.views is None and row.version == (row.storage_version or row.version):
            self._stored[row.key] = row

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._by_path.values())

    def stored_kinds(self) -> list[Kind]:
        return list(self._stored.values())

    def group_versions(self) -> dict[str, list[str]]:
        """Group to its versions, preferred first, in the order they became known."""
        found: dict[str, list[str]] = {}
        for row in self:
            versions = found.setdefault(row.group, [])
            if row.version not in versions:
                versions.append(row.version)
        for versions in found.values():
            versions.sort(key=version_rank, reverse=True)
        return found


def version_rank(version: str) -> tuple[int, int, int]:
    """Order of Kubernetes versions: v2 above v1 above v1beta2 above v1beta1 above v1alpha1 above anything else."""
    body = version.removeprefix("v")
    for rank, mark in ((1, "alpha"), (2, "beta")):
        major, found, minor = body.partition(mark)
        if found and major.isdigit():
            return (rank, int(major), int(minor) if minor.isdigit() else 0)
    return (3, int(body), 0) if body.isdigit() else (0, 0, 0)
