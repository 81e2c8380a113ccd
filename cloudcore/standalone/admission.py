"""What the server itself adds to or refuses about an object before it is stored.  Reads the store, writes nothing.

Stands for the default admission plug-ins: NamespaceLifecycle, ServiceAccount, DefaultTolerationSeconds, Priority,
RuntimeClass, TaintNodesByCondition, and for the allocation of service addresses."""

from __future__ import annotations

import hashlib
import ipaddress
import random
import uuid
from collections.abc import Callable
from typing import Any

from cloudcore.standalone import limits, podresources, volumes
from cloudcore.standalone.kinds import Kind
from cloudcore.standalone.status import Cause, forbidden, invalid, invalid_value, not_found
from cloudcore.standalone.store import Record, Store

Json = dict[str, Any]
SERVICE_NETWORK = ipaddress.IPv4Network("10.96.0.0/16")
NODE_PORTS = range(30000, 32768)
NAMESPACES = ("", "namespaces")
RANGES, QUOTAS = ("", "limitranges"), ("", "resourcequotas")
PRIORITIES = ("scheduling.k8s.io", "priorityclasses")
RUNTIMES = ("node.k8s.io", "runtimeclasses")
GROWING = (limits.CLAIMS, limits.SERVICES)
"""Kinds whose objects may ask for more later on."""
MIRROR = "kubernetes.io/config.mirror"
NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Letters of generated names: no vowels, so no words."""
NO_EVICT = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
)
SYSTEM_PRIORITIES = {"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}
TOKEN_SECONDS = 3607


class Admission:
    """`rng` makes names, uids and addresses: nothing that must not be guessed."""

    def __init__(self, store: Store, rng: random.Random) -> None:
        self._store = store
        self._rng = rng
        self._rules: dict[tuple[str, str], Callable[[Json], None]] = {
            ("", "pods"): self._pod,
            ("", "services"): self._service,
            ("", "nodes"): self._node,
            ("", "persistentvolumeclaims"): self._claim,
            ("", "persistentvolumes"): self._volume,
            ("apps", "daemonsets"): self._daemonset,
            ("batch", "jobs"): self._job,
        }

    def suffix(self, length: int = 5) -> str:
        return "".join(self._rng.choices(NAME_LETTERS, k=length))

    def uid(self) -> str:
        """A new UUID, version 4.  It names objects and keeps no secret."""
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    def check_namespace(self, kind: Kind, namespace: str, name: str) -> None:
        """New objects need a living namespace.  Raises ApiError."""
        found = self._store.head(NAMESPACES, "", namespace)
        if found is None:
            raise not_found("namespaces", "", namespace)
        if found.fields.get("status.phase") == "Terminating":
            raise forbidden(
                kind.plural,
                kind.group,
                name,
                f"unable to create new content in namespace {namespace} because it is being terminated",
                [
                    Cause(
                        reason="NamespaceTerminating",
                        field="metadata.namespace",
                        text=f"namespace {namespace} is being terminated",
                    )
                ],
            )

    def on_create(self, kind: Kind, body: Json) -> None:
        """Change `body`, already defaulted, in place.  Raises ApiError."""
        rule = self._rules.get(kind.key)
        if rule is not None:
            rule(body)

    def check_limits(self, kind: Kind, body: Json, old: Json | None) -> None:
        """Hold a finished object to the LimitRanges and ResourceQuotas of its namespace.  Raises ApiError."""
        namespace = body["metadata"].get("namespace", "")
        if not namespace or (old is not None and kind.key not in GROWING):
            return
        name = body["metadata"].get("name", "")
        if self._store.count(RANGES):
            faults = limits.range_faults(kind.key, body, self._ranges(namespace))
            if faults:
                text = faults[0] if len(faults) == 1 else "[" + ", ".join(faults) + "]"
                raise forbidden(kind.plural, kind.group, name, text)
        if not self._store.count(QUOTAS):
            return
        for record in self._store.select(QUOTAS, namespace):
            quota = record.decode()
            hard = (quota.get("spec") or {}).get("hard") or {}
            if not limits.concerned(kind.key, hard):
                continue
            keys = [key for key in {*self._store.resources(), kind.key} if limits.concerned(key, hard)]
            objects = ((key, item.decode()) for key in keys for item in self._store.newest(key, namespace))
            fault = limits.quota_fault(quota, kind.key, body, limits.used(quota, objects), old)
            if fault:
                raise forbidden(kind.plural, kind.group, name, fault)

    def _ranges(self, namespace: str) -> list[Json]:
        return [record.decode() for record in self._store.select(RANGES, namespace)]

    def on_update(self, kind: Kind, body: Json, old: Json) -> None:
        if kind.key == ("", "services"):
            for field in ("clusterIP", "clusterIPs"):
                if (
                    field in old["spec"]
                    and field not in body["spec"]
                    and body["spec"]["type"] != "ExternalName"
                ):
                    body["spec"][field] = old["spec"][field]
            self._service(body, old)

    # pods --------------------------------------------------------------------------------------------

    def _pod(self, body: Json) -> None:
        spec = body.get("spec")
        if not isinstance(spec, dict):
            return
        metadata = body["metadata"]
        mirror = MIRROR in (metadata.get("annotations") or {})
        if not mirror:
            self._service_account(metadata.get("namespace", ""), metadata, spec)
        if self._store.count(RANGES):
            limits.default_pod(body, self._ranges(metadata.get("namespace", "")))
        self._priority(spec)
        if not mirror:
            self._runtime_class(metadata, spec)
        tolerations = spec.setdefault("tolerations", [])
        for key, effect in NO_EVICT:
            if not any(
                item.get("key") in (key, None, "") and item.get("effect") in (effect, None, "")
                for item in tolerations
            ):
                tolerations.append(
                    {"key": key, "operator": "Exists", "effect": effect, "tolerationSeconds": 300}
                )
        body["status"] = {"phase": "Pending", "qosClass": podresources.qos_class(spec)}
        if spec.get("schedulingGates"):
            body["status"]["conditions"] = [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "SchedulingGated",
                    "message": "Scheduling is blocked due to non-empty scheduling gates",
                }
            ]

    def _service_account(self, namespace: str, metadata: Json, spec: Json) -> None:
        name = spec.setdefault("serviceAccountName", "default")
        spec["serviceAccount"] = name
        account = self._store.head(("", "serviceaccounts"), namespace, name)
        if account is None:
            raise forbidden(
                "pods",
                "",
                metadata.get("name", ""),
                f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found',
            )
        value = account.decode()
        if not spec.get("imagePullSecrets") and value.get("imagePullSecrets"):
            spec["imagePullSecrets"] = value["imagePullSecrets"]
        wanted = spec.get("automountServiceAccountToken", value.get("automountServiceAccountToken", True))
        if wanted:
            self._mount_token(spec)

    def _mount_token(self, spec: Json) -> None:
        where = "/var/run/secrets/kubernetes.io/serviceaccount"
        containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
        bare = [
            container
            for container in containers
            if not any(mount.get("mountPath") == where for mount in container.get("volumeMounts") or ())
        ]
        if not bare:
            return
        name = f"kube-api-access-{self.suffix()}"
        for container in bare:
            container.setdefault("volumeMounts", []).append(
                {"name": name, "readOnly": True, "mountPath": where}
            )
        spec.setdefault("volumes", []).append(
            {
                "name": name,
                "projected": {
                    "sources": [
                        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                        {
                            "configMap": {
                                "name": "kube-root-ca.crt",
                                "items": [{"key": "ca.crt", "path": "ca.crt"}],
                            }
                        },
                        {
                            "downwardAPI": {
                                "items": [
                                    {
                                        "path": "namespace",
                                        "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                                    }
                                ]
                            }
                        },
                    ],
                    "defaultMode": 0o644,
                },
            }
        )

    def _priority(self, spec: Json) -> None:
        name = spec.get("priorityClassName", "")
        value, policy = 0, "PreemptLowerPriority"
        if not name:
            marked = [record.decode() for record in self._store.select(PRIORITIES)]
            general = min(
                (item for item in marked if item.get("globalDefault")),
                key=lambda item: item["value"],
                default=None,
            )
            if general is not None:
                name = spec["priorityClassName"] = general["metadata"]["name"]
        if name:
            found = self._store.head(PRIORITIES, "", name)
            if found is not None:
                stored = found.decode()
                value, policy = stored.get("value", 0), stored.get("preemptionPolicy", policy)
            elif name in SYSTEM_PRIORITIES:
                value = SYSTEM_PRIORITIES[name]
            else:
                raise forbidden("pods", "", "", f"no PriorityClass with name {name} was found")
        spec["priority"] = value
        spec.setdefault("preemptionPolicy", policy)

    def _runtime_class(self, metadata: Json, spec: Json) -> None:
        """What a pod needs beside its containers, and where it may run, by the runtime it wants.

        Source: Kubernetes' plugin/pkg/admission/runtimeclass/admission.go."""

        def refused(why: str) -> Exception:
            return forbidden("pods", "", metadata.get("name", ""), f"pod rejected: {why}")

        name, chosen = spec.get("runtimeClassName"), {}
        if name:
            found = self._store.head(RUNTIMES, "", name)
            if found is None:
                raise refused(f'RuntimeClass "{name}" not found')
            chosen = found.decode()
        fixed = (chosen.get("overhead") or {}).get("podFixed") or {}
        if not fixed and spec.get("overhead"):
            raise refused("Pod Overhead set without corresponding RuntimeClass defined Overhead")
        if fixed and podresources.amounts(spec.get("overhead") or fixed) != podresources.amounts(fixed):
            raise refused("Pod's Overhead doesn't match RuntimeClass's defined Overhead")
        if fixed:
            spec["overhead"] = fixed
        where = chosen.get("scheduling") or {}
        selector = spec.get("nodeSelector") or {}
        for key, value in (where.get("nodeSelector") or {}).items():
            if selector.get(key, value) != value:
                raise refused(
                    f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
                    f"pod.spec.nodeSelector[{key}] = {selector[key]}"
                )
            selector[key] = value
        if selector:
            spec["nodeSelector"] = selector
        tolerations = spec.get("tolerations") or []
        spec["tolerations"] = [
            *tolerations,
            *(t for t in where.get("tolerations") or [] if t not in tolerations),
        ]

    # others ------------------------------------------------------------------------------------------

    def _node(self, body: Json) -> None:
        taints = body["spec"].setdefault("taints", [])
        key = "node.kubernetes.io/not-ready"
        if not any(taint.get("key") == key and taint.get("effect") == "NoSchedule" for taint in taints):
            taints.append({"key": key, "effect": "NoSchedule"})

    def _claim(self, body: Json) -> None:
        spec = body["spec"]
        if "storageClassName" not in spec:
            classes = (record.decode() for record in self._store.select(("storage.k8s.io", "storageclasses")))
            name = volumes.default_class(classes)
            if name:
                spec["storageClassName"] = name
        _finalize(body, volumes.CLAIM_IN_USE)

    def _volume(self, body: Json) -> None:
        _finalize(body, volumes.VOLUME_IN_USE)

    def _daemonset(self, body: Json) -> None:
        annotations = body["metadata"].setdefault("annotations", {})
        annotations.setdefault("deprecated.daemonset.template.generation", "1")

    def _job(self, body: Json) -> None:
        spec, metadata = body["spec"], body["metadata"]
        if spec.get("manualSelector"):
            return
        uid, name = metadata["uid"], metadata["name"]
        labels = {
            "batch.kubernetes.io/controller-uid": uid,
            "batch.kubernetes.io/job-name": name,
            "controller-uid": uid,
            "job-name": name,
        }
        spec["template"]["metadata"].setdefault("labels", {}).update(labels)
        spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
        template_labels = spec["template"]["metadata"]["labels"]
        metadata["labels"] = {**template_labels, **(metadata.get("labels") or {})}

    def _service(self, body: Json, old: Json | None = None) -> None:
        spec = body["spec"]
        if spec["type"] == "ExternalName":
            for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                spec.pop(field, None)
            return
        wanted = spec.get("clusterIP")
        name = body["metadata"].get("name", "")
        if wanted in (None, ""):
            wanted = self._free_address(f"{body['metadata'].get('namespace')}/{name}")
        elif wanted != "None" and (old is None or old["spec"].get("clusterIP") != wanted):
            self._claim_address(name, wanted)
        spec["clusterIP"], spec["clusterIPs"] = wanted, [wanted]
        if spec["type"] in ("NodePort", "LoadBalancer"):
            taken = {port for record in self._services() for port in _node_ports(record.decode())}
            for port in spec.get("ports") or ():
                if not port.get("nodePort"):
                    free = [number for number in NODE_PORTS if number not in taken]
                    port["nodePort"] = self._rng.choice(free)
                    taken.add(port["nodePort"])

    def _services(self) -> list[Record]:
        return self._store.select(("", "services"))

    def _taken(self) -> set[str]:
        return {record.fields.get("spec.clusterIP", "") for record in self._services()}

    def _free_address(self, seed: str) -> str:
        taken, size = self._taken(), SERVICE_NETWORK.num_addresses
        start = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "big")
        for step in range(size):
            index = 256 + (start + step) % (size - 512)
            address = str(SERVICE_NETWORK[index])
            if address not in taken:
                return address
        raise forbidden("services", "", "", "no service address is free")

    def _claim_address(self, name: str, wanted: str) -> None:
        try:
            address = ipaddress.ip_address(wanted)
        except ValueError:
            raise invalid(
                "Service",
                "",
                name,
                [invalid_value("spec.clusterIPs[0]", wanted, "must be a valid IP address")],
            ) from None
        if address not in SERVICE_NETWORK:
            raise invalid(
                "Service",
                "",
                name,
                [
                    invalid_value(
                        "spec.clusterIPs",
                        [wanted],
                        f"failed to allocate IP {wanted}: the provided IP ({wanted}) is not in the valid range. "
                        f"The range of valid IPs is {SERVICE_NETWORK}",
                    )
                ],
            )
        if wanted in self._taken():
            raise invalid(
                "Service",
                "",
                name,
                [
                    invalid_value(
                        "spec.clusterIPs",
                        [wanted],
                        f"failed to allocate IP {wanted}: provided IP is already allocated",
                    )
                ],
            )


def _finalize(body: Json, name: str) -> None:
    finalizers = body["metadata"].setdefault("finalizers", [])
    if name not in finalizers:
        finalizers.append(name)


def _node_ports(service: Json) -> list[int]:
    return [port["nodePort"] for port in service["spec"].get("ports") or () if port.get("nodePort")]
