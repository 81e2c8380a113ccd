"""Kinds and their plurals, for whoever has no discovery at hand.  Pure.

An edge without a link must know that `pods` are Pods, and both ends must spell a kind alike in a message's path.  The table
holds what an edge commonly has; everything else is guessed as KubeEdge guesses.

Source: KubeEdge's pkg/metaserver/util (unsafeKindToResource and its reverse); protocol notes on the metaserver, 5.4."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """One kind that an API server serves."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


_CLUSTER = False
_DEVICES = "devices.kubeedge.io"

TABLE: tuple[Kind, ...] = (
    Kind("", "v1", "pods", "Pod", short=("po",)),
    Kind("", "v1", "configmaps", "ConfigMap", short=("cm",)),
    Kind("", "v1", "secrets", "Secret"),
    Kind("", "v1", "services", "Service", short=("svc",)),
    Kind("", "v1", "endpoints", "Endpoints", short=("ep",)),
    Kind("", "v1", "events", "Event", short=("ev",)),
    Kind("", "v1", "serviceaccounts", "ServiceAccount", short=("sa",)),
    Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", short=("pvc",)),
    Kind("", "v1", "persistentvolumes", "PersistentVolume", _CLUSTER, ("pv",)),
    Kind("", "v1", "namespaces", "Namespace", _CLUSTER, ("ns",)),
    Kind("", "v1", "nodes", "Node", _CLUSTER, ("no",)),
    Kind("apps", "v1", "deployments", "Deployment", short=("deploy",)),
    Kind("apps", "v1", "daemonsets", "DaemonSet", short=("ds",)),
    Kind("apps", "v1", "replicasets", "ReplicaSet", short=("rs",)),
    Kind("apps", "v1", "statefulsets", "StatefulSet", short=("sts",)),
    Kind("batch", "v1", "jobs", "Job"),
    Kind("batch", "v1", "cronjobs", "CronJob", short=("cj",)),
    Kind("coordination.k8s.io", "v1", "leases", "Lease"),
    Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
    Kind("networking.k8s.io", "v1", "ingresses", "Ingress", short=("ing",)),
    Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", short=("netpol",)),
    Kind("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment", _CLUSTER),
    Kind("certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", _CLUSTER),
    Kind(_DEVICES, "v1beta1", "devices", "Device"),
    Kind(_DEVICES, "v1beta1", "devicemodels", "DeviceModel"),
    Kind(_DEVICES, "v1beta1", "devicestatuses", "DeviceStatus"),
    Kind(
        "policy.kubeedge.io",
        "v1alpha1",
        "serviceaccountaccesses",
        "ServiceAccountAccess",
        short=("saaccess",),
    ),
    Kind("apps.kubeedge.io", "v1alpha1", "nodegroups", "NodeGroup", _CLUSTER, ("ng",)),
    Kind("apps.kubeedge.io", "v1alpha1", "edgeapplications", "EdgeApplication", short=("eapp",)),
    Kind("rules.kubeedge.io", "v1", "rules", "Rule"),
    Kind("rules.kubeedge.io", "v1", "ruleendpoints", "RuleEndpoint"),
)
"""The first row of a wire spelling is the kind that the hub pushes under it by itself."""

BUILT_IN = frozenset(
    {"", "apps", "autoscaling", "batch", "policy", "extensions"}
    | {
        f"{name}.k8s.io"
        for name in (
            *("admissionregistration", "apiextensions", "apiregistration", "authentication", "authorization"),
            *(
                "certificates",
                "coordination",
                "discovery",
                "events",
                "flowcontrol.apiserver",
                "internal.apiserver",
            ),
            *("metrics", "networking", "node", "rbac.authorization", "resource", "scheduling", "storage"),
        )
    }
)
"""The groups of an API server's own.  Others of the same ending are custom kinds (`gateway.networking.k8s.io`)."""


def is_custom(group: str) -> bool:
    """Whether the kinds of that group come from definitions."""
    return group not in BUILT_IN


MEASURED: tuple[Kind, ...] = (
    Kind("metrics.k8s.io", "v1beta1", "nodes", "NodeMetrics", _CLUSTER),
    Kind("metrics.k8s.io", "v1beta1", "pods", "PodMetrics"),
)
"""What is read only, and never held: how much nodes and pods use."""

_BY_RESOURCE = {(row.group, row.plural): row for row in (*TABLE, *MEASURED)}
_BY_WIRE: dict[str, Kind] = {}
for _row in TABLE:
    _BY_WIRE.setdefault(_row.kind.lower(), _row)


def known(group: str, plural: str) -> Kind | None:
    """The row of a resource, whatever version."""
    return _BY_RESOURCE.get((group, plural))


def by_wire(wire: str) -> Kind | None:
    """The kind that a message's path means by its second part."""
    return _BY_WIRE.get(wire)


def wire_kind(plural: str) -> str:
    """How a message's path spells the kind of `plural`: KubeEdge's guess, also where it is wrong (`leases` stay)."""
    if plural in ("endpoints", "leases", "podstatus", "nodestatus"):
        return plural
    if plural == "endpointslices":
        return "endpointslice"
    if plural.endswith("ies"):
        return plural[:-3] + "y"
    if plural.endswith("ses"):
        return plural[:-2]
    return plural[:-1] if plural.endswith("s") else plural


def kind_name(group: str, plural: str) -> str:
    """The Kind of a resource: from the table, else a guess with a capital first letter."""
    row = known(group, plural)
    if row is not None:
        return row.kind
    word = wire_kind(plural)
    return word[:1].upper() + word[1:]
