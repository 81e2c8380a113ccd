"""How server-side apply tells the items of lists apart, which lists are sets, and which structs are one value.

The keys of strategic merge patches, which an edge needs as well, are in `beehive.mergekeys`.

The models of the `kubernetes` package do not carry this, so it is written down here.
Source: the `+patchStrategy`, `+patchMergeKey`, `+listType`, `+listMapKey` and `+structType` markers of k8s.io/api."""

from __future__ import annotations

from beehive.mergekeys import MERGE_KEYS

RETAIN_KEYS = frozenset(
    {
        ("V1DeploymentSpec", "strategy"),
        ("V1PodSpec", "volumes"),
        ("V1PodSpec", "resourceClaims"),
    }
)
"""Fields for which a client may send $retainKeys."""

APPLY_KEYS: dict[tuple[str, str], tuple[str, ...]] = {
    **{place: (key,) for place, key in MERGE_KEYS.items()},
    ("V1Container", "ports"): ("containerPort", "protocol"),
    ("V1EphemeralContainer", "ports"): ("containerPort", "protocol"),
    ("V1PodSpec", "topologySpreadConstraints"): ("topologyKey", "whenUnsatisfiable"),
    ("V1ServiceSpec", "ports"): ("port", "protocol"),
    ("V1CustomResourceDefinitionStatus", "conditions"): ("type",),
    ("V1CertificateSigningRequestStatus", "conditions"): ("type",),
    ("V1EndpointSlice", "ports"): (),
    ("V1ResourceRequirements", "claims"): ("name",),
}
"""(model, field) to the keys by which server-side apply tells list items apart; empty is an atomic list."""

KEY_DEFAULTS: dict[str, str] = {"protocol": "TCP"}
"""What an absent key field counts as."""

APPLY_SETS = frozenset(
    {
        ("V1ObjectMeta", "finalizers"),
        ("V1NodeSpec", "podCIDRs"),
        ("V1ServiceSpec", "externalIPs"),
    }
)

ATOMIC_STRUCTS = frozenset(
    {
        "V1LabelSelector",
        "V1NodeSelector",
        "V1NodeSelectorTerm",
        "V1ConfigMapKeySelector",
        "V1SecretKeySelector",
        "V1ObjectFieldSelector",
        "V1ResourceFieldSelector",
        "V1FileKeySelector",
        "V1LocalObjectReference",
        "V1ObjectReference",
        "V1SecretReference",
        "V1TypedLocalObjectReference",
        "V1TypedObjectReference",
        "V1OwnerReference",
        "V1ScopeSelector",
        "V1RoleRef",
        "RbacV1Subject",
        "V1JSONSchemaProps",
    }
)

ATOMIC_MAPS = frozenset(
    {
        ("V1PodSpec", "nodeSelector"),
        ("V1ServiceSpec", "selector"),
        ("V1ReplicationControllerSpec", "selector"),
        ("V1EndpointSlice", "endpoints"),
    }
)

QUANTITIES = frozenset(
    {
        ("V1ResourceRequirements", "limits"),
        ("V1ResourceRequirements", "requests"),
        ("V1VolumeResourceRequirements", "limits"),
        ("V1VolumeResourceRequirements", "requests"),
        ("V1NodeStatus", "capacity"),
        ("V1NodeStatus", "allocatable"),
        ("V1PodSpec", "overhead"),
        ("V1PersistentVolumeSpec", "capacity"),
        ("V1PersistentVolumeClaimStatus", "capacity"),
        ("V1PersistentVolumeClaimStatus", "allocatedResources"),
        ("V1ContainerStatus", "allocatedResources"),
        ("V1ResourceQuotaSpec", "hard"),
        ("V1ResourceQuotaStatus", "hard"),
        ("V1ResourceQuotaStatus", "used"),
        ("V1LimitRangeItem", "default"),
        ("V1LimitRangeItem", "defaultRequest"),
        ("V1LimitRangeItem", "max"),
        ("V1LimitRangeItem", "min"),
        ("V1LimitRangeItem", "maxLimitRequestRatio"),
        ("V1EmptyDirVolumeSource", "sizeLimit"),
        ("V1ResourceFieldSelector", "divisor"),
        ("V1Overhead", "podFixed"),
        ("V1CSIStorageCapacity", "capacity"),
    }
)
"""Fields that hold a quantity or a map of them."""
