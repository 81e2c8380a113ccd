"""Which lists of the built-in kinds a strategic merge patch merges by key, and which as sets.  Pure data.

Neither the models of the `kubernetes` package nor the schemas that a server tells of carry all of this, so it is written down.
Source: the `+patchStrategy` and `+patchMergeKey` markers of k8s.io/api."""

from __future__ import annotations

MERGE_KEYS: dict[tuple[str, str], str] = {
    ("V1ObjectMeta", "ownerReferences"): "uid",
    ("V1PodSpec", "containers"): "name",
    ("V1PodSpec", "initContainers"): "name",
    ("V1PodSpec", "ephemeralContainers"): "name",
    ("V1PodSpec", "volumes"): "name",
    ("V1PodSpec", "imagePullSecrets"): "name",
    ("V1PodSpec", "hostAliases"): "ip",
    ("V1PodSpec", "topologySpreadConstraints"): "topologyKey",
    ("V1PodSpec", "schedulingGates"): "name",
    ("V1PodSpec", "resourceClaims"): "name",
    ("V1PodStatus", "conditions"): "type",
    ("V1PodStatus", "podIPs"): "ip",
    ("V1PodStatus", "hostIPs"): "ip",
    ("V1PodStatus", "resourceClaimStatuses"): "name",
    ("V1Container", "ports"): "containerPort",
    ("V1Container", "env"): "name",
    ("V1Container", "volumeMounts"): "mountPath",
    ("V1Container", "volumeDevices"): "devicePath",
    ("V1EphemeralContainer", "ports"): "containerPort",
    ("V1EphemeralContainer", "env"): "name",
    ("V1EphemeralContainer", "volumeMounts"): "mountPath",
    ("V1EphemeralContainer", "volumeDevices"): "devicePath",
    ("V1ServiceSpec", "ports"): "port",
    ("V1ServiceStatus", "conditions"): "type",
    ("V1ServiceAccount", "secrets"): "name",
    ("V1NodeStatus", "conditions"): "type",
    ("V1NodeStatus", "addresses"): "type",
    ("V1NamespaceStatus", "conditions"): "type",
    ("V1PersistentVolumeClaimStatus", "conditions"): "type",
    ("V1DeploymentStatus", "conditions"): "type",
    ("V1ReplicaSetStatus", "conditions"): "type",
    ("V1DaemonSetStatus", "conditions"): "type",
    ("V1StatefulSetStatus", "conditions"): "type",
    ("V1JobStatus", "conditions"): "type",
    ("V2HorizontalPodAutoscalerStatus", "conditions"): "type",
    ("V1PodDisruptionBudgetStatus", "conditions"): "type",
    ("V1MutatingWebhookConfiguration", "webhooks"): "name",
    ("V1ValidatingWebhookConfiguration", "webhooks"): "name",
}
"""(model, field) to the key of strategic merge patch."""

PRIMITIVE_MERGE = frozenset(
    {
        ("V1ObjectMeta", "finalizers"),
        ("V1NodeSpec", "podCIDRs"),
    }
)
"""Lists of scalars that merge as sets."""

_PODS = {"metadata": "V1ObjectMeta", "spec": "V1PodSpec"}
_META = {"metadata": "V1ObjectMeta"}


def _workload(name: str) -> dict[str, str]:
    return {**_META, "spec": f"V1{name}Spec", "status": f"V1{name}Status"}


FIELDS: dict[str, dict[str, str]] = {
    "V1ObjectMeta": {},
    "V1Pod": {**_PODS, "status": "V1PodStatus"},
    "V1PodSpec": {
        "containers": "V1Container",
        "ephemeralContainers": "V1EphemeralContainer",
        "initContainers": "V1Container",
        "volumes": "V1Volume",
    },
    "V1PodStatus": {},
    "V1Container": {},
    "V1EphemeralContainer": {},
    "V1Volume": {"ephemeral": "V1EphemeralVolumeSource"},
    "V1EphemeralVolumeSource": {"volumeClaimTemplate": "V1PersistentVolumeClaimTemplate"},
    "V1PodTemplate": {**_META, "template": "V1PodTemplateSpec"},
    "V1PodTemplateSpec": _PODS,
    **{
        model: fields
        for name in ("DaemonSet", "Deployment", "ReplicaSet")
        for model, fields in (
            (f"V1{name}", _workload(name)),
            (f"V1{name}Spec", {"template": "V1PodTemplateSpec"}),
            (f"V1{name}Status", {}),
        )
    },
    "V1StatefulSet": _workload("StatefulSet"),
    "V1StatefulSetSpec": {"template": "V1PodTemplateSpec", "volumeClaimTemplates": "V1PersistentVolumeClaim"},
    "V1StatefulSetStatus": {},
    "V1Job": _workload("Job"),
    "V1JobSpec": {"template": "V1PodTemplateSpec"},
    "V1JobStatus": {},
    "V1JobTemplateSpec": {**_META, "spec": "V1JobSpec"},
    "V1CronJob": {**_META, "spec": "V1CronJobSpec"},
    "V1CronJobSpec": {"jobTemplate": "V1JobTemplateSpec"},
    "V1Service": _workload("Service"),
    "V1ServiceSpec": {},
    "V1ServiceStatus": {},
    "V1Node": _workload("Node"),
    "V1NodeSpec": {},
    "V1NodeStatus": {},
    "V1Namespace": {**_META, "status": "V1NamespaceStatus"},
    "V1NamespaceStatus": {},
    "V1PersistentVolumeClaim": {**_META, "status": "V1PersistentVolumeClaimStatus"},
    "V1PersistentVolumeClaimStatus": {},
    "V1PodDisruptionBudget": {**_META, "status": "V1PodDisruptionBudgetStatus"},
    "V1PodDisruptionBudgetStatus": {},
    "V2HorizontalPodAutoscaler": {**_META, "status": "V2HorizontalPodAutoscalerStatus"},
    "V2HorizontalPodAutoscalerStatus": {},
}
"""model → field → the model of its value or items: only what leads to a list that merges.  Of models that are not here nothing
but their metadata does."""

MODELS: dict[tuple[str, str], str] = {
    ("", "pods"): "V1Pod",
    ("", "services"): "V1Service",
    ("", "nodes"): "V1Node",
    ("", "namespaces"): "V1Namespace",
    ("", "serviceaccounts"): "V1ServiceAccount",
    ("", "persistentvolumeclaims"): "V1PersistentVolumeClaim",
    ("", "podtemplates"): "V1PodTemplate",
    ("apps", "daemonsets"): "V1DaemonSet",
    ("apps", "deployments"): "V1Deployment",
    ("apps", "replicasets"): "V1ReplicaSet",
    ("apps", "statefulsets"): "V1StatefulSet",
    ("batch", "jobs"): "V1Job",
    ("batch", "cronjobs"): "V1CronJob",
    ("policy", "poddisruptionbudgets"): "V1PodDisruptionBudget",
    ("autoscaling", "horizontalpodautoscalers"): "V2HorizontalPodAutoscaler",
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"): "V1MutatingWebhookConfiguration",
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"): "V1ValidatingWebhookConfiguration",
}
"""(group, plural) to the model, for whoever has no types at hand."""
OTHER = "V1ConfigMap"
"""What any other built-in kind is patched as: nothing but its metadata has lists that merge."""


def model(group: str, plural: str) -> str:
    return MODELS.get((group, plural), OTHER)


def child(model: str | None, field: str) -> str | None:
    """The model of a field's value, or of its items; None where no list below merges."""
    return FIELDS.get(model, _META).get(field) if model is not None else None


def merge_key(model: str | None, field: str) -> str | None:
    """The member by which items of that list are told apart; None when the list is one value, or a set."""
    return MERGE_KEYS.get((model, field)) if model is not None else None


def is_set(model: str | None, field: str) -> bool:
    return model is not None and (model, field) in PRIMITIVE_MERGE
