"""What `kubectl get` prints: an object to the cells of its row.  Pure; `now` is given for ages.

Source: kubernetes, pkg/printers/internalversion/printers.go, and the recorded tables."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from cloudcore.standalone.kinds import Kind
from cloudcore.standalone.selectors import to_text

Json = dict[str, Any]
NONE, UNKNOWN = "<none>", "<unknown>"
Cell = Callable[[Json, datetime], Any]


def age(then: str | None, now: datetime) -> str:
    """How long ago, as kubectl says it: 5s, 3m2s, 4h, 2d3h, 5y."""
    if not then:
        return UNKNOWN
    try:
        at = datetime.fromisoformat(then)
    except ValueError:
        return "<invalid>"
    seconds = int((now - at.astimezone(UTC)).total_seconds())
    if seconds < -1:
        return "<invalid>"
    return duration(max(seconds, 0))


def duration(seconds: int) -> str:
    """Source: apimachinery, pkg/util/duration HumanDuration."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 730:
        return f"{days}d"
    if days < 2920:
        return f"{days // 365}y{days % 365}d" if days % 365 else f"{days // 365}y"
    return f"{days // 365}y"


def _get(body: Any, path: str, default: Any = None) -> Any:
    for part in path.split("."):
        if not isinstance(body, dict) or part not in body:
            return default
        body = body[part]
    return body


def _field(path: str, default: Any = "") -> Cell:
    return lambda body, now: _get(body, path, default)


def _name(body: Json, now: datetime) -> str:
    name: str = body["metadata"]["name"]
    return name


def _age(body: Json, now: datetime) -> str:
    return age(_get(body, "metadata.creationTimestamp"), now)


def _count(*paths: str) -> Cell:
    return lambda body, now: sum(len(_get(body, path) or ()) for path in paths)


def _pod_ready(body: Json, now: datetime) -> str:
    statuses = _get(body, "status.containerStatuses") or []
    total = len(_get(body, "spec.containers") or ())
    return f"{sum(item.get('ready') is True for item in statuses)}/{total}"


def pod_status(body: Json, now: datetime) -> str:
    """The STATUS column of a pod.  Source: printPod."""
    status = body.get("status") or {}
    reason = status.get("reason") or status.get("phase") or "Unknown"
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            reason = "SchedulingGated"
    initializing = False
    init_specs = {item["name"]: item for item in _get(body, "spec.initContainers") or ()}
    for index, container in enumerate(status.get("initContainerStatuses") or ()):
        state = container.get("state") or {}
        ended = state.get("terminated")
        always = init_specs.get(container.get("name", ""), {}).get("restartPolicy") == "Always"
        if ended is not None and ended.get("exitCode") == 0:
            continue
        if always and container.get("started"):
            continue
        if ended is not None:
            reason = ended.get("reason") or (
                f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended.get('exitCode')}"
            )
            reason = f"Init:{reason}"
        elif state.get("waiting", {}).get("reason", "PodInitializing") != "PodInitializing":
            reason = "Init:" + state["waiting"]["reason"]
        else:
            reason = f"Init:{index}/{len(init_specs)}"
        initializing = True
        break
    if not initializing:
        running = False
        for container in reversed(status.get("containerStatuses") or ()):
            state = container.get("state") or {}
            waiting, ended = state.get("waiting"), state.get("terminated")
            if waiting is not None and waiting.get("reason"):
                reason = waiting["reason"]
            elif ended is not None:
                reason = ended.get("reason") or (
                    f"Signal:{ended['signal']}"
                    if ended.get("signal")
                    else f"ExitCode:{ended.get('exitCode')}"
                )
            elif container.get("ready") and "running" in state:
                running = True
        if reason == "Completed" and running:
            ready = any(
                item.get("type") == "Ready" and item.get("status") == "True"
                for item in status.get("conditions") or ()
            )
            reason = "Running" if ready else "NotReady"
    if "deletionTimestamp" in body["metadata"]:
        if status.get("reason") == "NodeLost":
            return "Unknown"
        if status.get("phase") not in ("Succeeded", "Failed"):
            return "Terminating"
    return str(reason)


def _restarts(body: Json, now: datetime) -> str:
    total, last = 0, ""
    for container in _get(body, "status.containerStatuses") or ():
        total += container.get("restartCount", 0)
        finished = _get(container, "lastState.terminated.finishedAt") or ""
        last = max(last, finished)
    return f"{total} ({age(last, now)} ago)" if total and last else str(total)


def _gates(body: Json, now: datetime) -> str:
    gates = _get(body, "spec.readinessGates") or ()
    if not gates:
        return NONE
    conditions = {item["type"]: item.get("status") for item in _get(body, "status.conditions") or ()}
    return f"{sum(conditions.get(gate.get('conditionType')) == 'True' for gate in gates)}/{len(gates)}"


def _node_status(body: Json, now: datetime) -> str:
    ready = next((c for c in _get(body, "status.conditions") or () if c.get("type") == "Ready"), None)
    words = ["Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"]
    if _get(body, "spec.unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _roles(body: Json, now: datetime) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = _get(body, "metadata.labels") or {}
    roles = sorted(
        {name.removeprefix(prefix) for name in labels if name.startswith(prefix) and name != prefix}
        | ({labels["kubernetes.io/role"]} if labels.get("kubernetes.io/role") else set())
    )
    return ",".join(roles) or NONE


def _address(kind: str) -> Cell:
    return lambda body, now: next(
        (item.get("address") for item in _get(body, "status.addresses") or () if item.get("type") == kind),
        NONE,
    )


def _kernel(body: Json, now: datetime) -> str:
    version = _get(body, "status.nodeInfo.kernelVersion") or UNKNOWN
    machine = _get(body, "status.nodeInfo.architecture")
    return f"{version} ({machine})" if machine else version


def _containers(part: str, path: str = "spec.template.spec") -> Cell:
    return lambda body, now: ",".join(item.get(part, "") for item in _get(body, f"{path}.containers") or ())


def _selector(path: str) -> Cell:
    return lambda body, now: to_text(_get(body, path))


def _plain_selector(path: str) -> Cell:
    def cell(body: Json, now: datetime) -> str:
        value = _get(body, path) or {}
        return ",".join(f"{k}={v}" for k, v in sorted(value.items())) or NONE

    return cell


def _ports(body: Json, now: datetime) -> str:
    texts = []
    for port in _get(body, "spec.ports") or ():
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        texts.append(f"{port.get('port')}{node}/{port.get('protocol', 'TCP')}")
    return ",".join(texts) or NONE


def _external(body: Json, now: datetime) -> str:
    spec = body.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName"))
    if spec.get("externalIPs"):
        return ",".join(spec["externalIPs"])
    return "<pending>" if spec.get("type") == "LoadBalancer" else NONE


def _event_seen(body: Json, now: datetime) -> str:
    last = _get(body, "series.lastObservedTime") or body.get("lastTimestamp") or body.get("eventTime")
    first = body.get("firstTimestamp") or body.get("eventTime")
    count = _get(body, "series.count") or body.get("count") or 1
    text = age(last or first, now)
    return f"{text} (x{count} over {age(first, now)})" if count > 1 else text


def _event_object(body: Json, now: datetime) -> str:
    regarding = body.get("involvedObject") or body.get("regarding") or {}
    return f"{regarding.get('kind', '').lower()}/{regarding.get('name', '')}"


def _rollout(done: str, wanted: str) -> Cell:
    return lambda body, now: f"{_get(body, done, 0)}/{_get(body, wanted, 0)}"


def _job_status(body: Json, now: datetime) -> str:
    conditions = {
        item["type"] for item in _get(body, "status.conditions") or () if item.get("status") == "True"
    }
    for name, text in (("Complete", "Complete"), ("Failed", "Failed"), ("Suspended", "Suspended")):
        if name in conditions:
            return text
    return "Terminating" if "deletionTimestamp" in body["metadata"] else "Running"


def _completions(body: Json, now: datetime) -> str:
    done, wanted = _get(body, "status.succeeded", 0), _get(body, "spec.completions")
    if wanted is not None:
        return f"{done}/{wanted}"
    parallel = _get(body, "spec.parallelism", 0)
    return f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"


def _job_duration(body: Json, now: datetime) -> str:
    start, end = _get(body, "status.startTime"), _get(body, "status.completionTime")
    if not start:
        return ""
    until = datetime.fromisoformat(end) if end else now
    return duration(max(int((until - datetime.fromisoformat(start)).total_seconds()), 0))


def _ago(path: str) -> Cell:
    return lambda body, now: age(_get(body, path), now) if _get(body, path) else NONE


def _slice_ports(body: Json, now: datetime) -> str:
    return ",".join(str(port.get("port")) for port in body.get("ports") or ()) or "<unset>"


def _slice_addresses(body: Json, now: datetime) -> str:
    found = [address for item in body.get("endpoints") or () for address in item.get("addresses") or ()]
    return ",".join(found[:3]) + (f" + {len(found) - 3} more..." if len(found) > 3 else "") or "<unset>"


def _endpoints(body: Json, now: datetime) -> str:
    found = []
    for subset in body.get("subsets") or ():
        for address in subset.get("addresses") or ():
            found += [f"{address['ip']}:{port['port']}" for port in subset.get("ports") or ()] or [
                address["ip"]
            ]
    return ",".join(found[:3]) + (f" + {len(found) - 3} more..." if len(found) > 3 else "") or NONE


def _role_ref(body: Json, now: datetime) -> str:
    ref = body.get("roleRef") or {}
    return f"{ref.get('kind')}/{ref.get('name')}"


def _subjects(kind: str) -> Cell:
    def cell(body: Json, now: datetime) -> str:
        found = [item for item in body.get("subjects") or () if item.get("kind") == kind]
        if kind == "ServiceAccount":
            return ", ".join(f"{item.get('namespace')}/{item.get('name')}" for item in found)
        return ", ".join(item.get("name", "") for item in found)

    return cell


def _modes(path: str) -> Cell:
    short = {
        "ReadWriteOnce": "RWO",
        "ReadOnlyMany": "ROX",
        "ReadWriteMany": "RWX",
        "ReadWriteOncePod": "RWOP",
    }
    return lambda body, now: ",".join(short.get(item, item) for item in _get(body, path) or ())


def _claim_status(body: Json, now: datetime) -> str:
    return "Terminating" if "deletionTimestamp" in body["metadata"] else _get(body, "status.phase") or ""


def _volume_claim(body: Json, now: datetime) -> str:
    claim = _get(body, "spec.claimRef")
    return f"{claim.get('namespace')}/{claim.get('name')}" if claim else ""


def _quota(prefix: str, *, wanted: bool) -> Cell:
    def cell(body: Json, now: datetime) -> str:
        hard, used = _get(body, "status.hard") or {}, _get(body, "status.used") or {}
        return ", ".join(
            f"{name}: {used.get(name, '0')}/{limit}"
            for name, limit in sorted(hard.items())
            if name.startswith(prefix) == wanted
        )

    return cell


def _scale_target(body: Json, now: datetime) -> str:
    return f"{_get(body, 'spec.scaleTargetRef.kind')}/{_get(body, 'spec.scaleTargetRef.name')}"


def _scale_metrics(body: Json, now: datetime) -> str:
    """What is wanted of each metric, and what it was last."""
    have = {}
    for item in _get(body, "status.currentMetrics") or ():
        source = item.get("resource") or item.get("containerResource") or {}
        have[item.get("type"), source.get("name")] = source.get("current") or {}
    found = []
    for item in _get(body, "spec.metrics") or ():
        source = item.get("resource") or item.get("containerResource")
        if not source:
            found.append(f"{item.get('type')}: <unknown>")
            continue
        target, current = source.get("target") or {}, have.get((item.get("type"), source.get("name")), {})
        share = target.get("averageUtilization")
        wanted = f"{share}%" if share is not None else target.get("averageValue", "<auto>")
        seen = current.get("averageUtilization" if share is not None else "averageValue")
        said = "<unknown>" if seen is None else f"{seen}%" if share is not None else seen
        found.append(f"{source.get('name')}: {said}/{wanted}")
    more = f" + {len(found) - 2} more..." if len(found) > 2 else ""
    return ", ".join(found[:2]) + more or NONE


def _class_name(body: Json, now: datetime) -> str:
    notes = body["metadata"].get("annotations") or {}
    default = notes.get("storageclass.kubernetes.io/is-default-class") == "true"
    return _name(body, now) + (" (default)" if default else "")


def _requested(body: Json, now: datetime) -> str:
    seconds = _get(body, "spec.expirationSeconds")
    return duration(seconds) if isinstance(seconds, int) else NONE


def _request_state(body: Json, now: datetime) -> str:
    """Source: extractCSRStatus."""
    types = {item.get("type") for item in _get(body, "status.conditions") or ()}
    state = "Denied" if "Denied" in types else "Approved" if "Approved" in types else "Pending"
    if "Failed" in types:
        state += ",Failed"
    return state + (",Issued" if _get(body, "status.certificate") else "")


Row = tuple[str, str, int, Cell]
NAME: Row = ("Name", "string", 0, _name)
AGE: Row = ("Age", "string", 0, _age)
_WORKLOAD: tuple[Row, ...] = (
    ("Containers", "string", 1, _containers("name")),
    ("Images", "string", 1, _containers("image")),
    ("Selector", "string", 1, _selector("spec.selector")),
)
COLUMNS: dict[tuple[str, str], tuple[Row, ...]] = {
    ("", "pods"): (
        NAME,
        ("Ready", "string", 0, _pod_ready),
        ("Status", "string", 0, pod_status),
        ("Restarts", "string", 0, _restarts),
        AGE,
        ("IP", "string", 1, lambda body, now: _get(body, "status.podIP") or NONE),
        ("Node", "string", 1, lambda body, now: _get(body, "spec.nodeName") or NONE),
        ("Nominated Node", "string", 1, lambda body, now: _get(body, "status.nominatedNodeName") or NONE),
        ("Readiness Gates", "string", 1, _gates),
    ),
    ("", "nodes"): (
        NAME,
        ("Status", "string", 0, _node_status),
        ("Roles", "string", 0, _roles),
        AGE,
        ("Version", "string", 0, _field("status.nodeInfo.kubeletVersion")),
        ("Internal-IP", "string", 1, _address("InternalIP")),
        ("External-IP", "string", 1, _address("ExternalIP")),
        ("OS-Image", "string", 1, lambda body, now: _get(body, "status.nodeInfo.osImage") or UNKNOWN),
        ("Kernel-Version", "string", 1, _kernel),
        (
            "Container-Runtime",
            "string",
            1,
            lambda body, now: _get(body, "status.nodeInfo.containerRuntimeVersion") or UNKNOWN,
        ),
    ),
    ("", "namespaces"): (NAME, ("Status", "string", 0, _field("status.phase")), AGE),
    ("", "configmaps"): (NAME, ("Data", "string", 0, _count("data", "binaryData")), AGE),
    ("", "secrets"): (
        NAME,
        ("Type", "string", 0, _field("type")),
        ("Data", "string", 0, _count("data")),
        AGE,
    ),
    ("", "serviceaccounts"): (NAME, ("Secrets", "string", 0, _count("secrets")), AGE),
    ("", "services"): (
        NAME,
        ("Type", "string", 0, _field("spec.type")),
        ("Cluster-IP", "string", 0, lambda body, now: _get(body, "spec.clusterIP") or NONE),
        ("External-IP", "string", 0, _external),
        ("Port(s)", "string", 0, _ports),
        AGE,
        ("Selector", "string", 1, _plain_selector("spec.selector")),
    ),
    ("", "endpoints"): (NAME, ("Endpoints", "string", 0, _endpoints), AGE),
    ("", "events"): (
        ("Last Seen", "string", 0, _event_seen),
        ("Type", "string", 0, _field("type")),
        ("Reason", "string", 0, _field("reason")),
        ("Object", "string", 0, _event_object),
        ("Subobject", "string", 1, _field("involvedObject.fieldPath")),
        ("Source", "string", 1, _field("source.component")),
        (
            "Message",
            "string",
            0,
            lambda body, now: str(body.get("message") or body.get("note") or "").strip(),
        ),
        (
            "First Seen",
            "string",
            1,
            lambda body, now: age(body.get("firstTimestamp") or body.get("eventTime"), now),
        ),
        ("Count", "string", 1, lambda body, now: body.get("count") or 1),
        ("Name", "string", 1, _name),
    ),
    ("", "persistentvolumeclaims"): (
        NAME,
        ("Status", "string", 0, _claim_status),
        ("Volume", "string", 0, _field("spec.volumeName")),
        ("Capacity", "string", 0, _field("status.capacity.storage")),
        ("Access Modes", "string", 0, _modes("status.accessModes")),
        ("StorageClass", "string", 0, _field("spec.storageClassName")),
        ("VolumeAttributesClass", "string", 0, _field("spec.volumeAttributesClassName", "<unset>")),
        AGE,
        ("VolumeMode", "string", 1, _field("spec.volumeMode")),
    ),
    ("", "persistentvolumes"): (
        NAME,
        ("Capacity", "string", 0, _field("spec.capacity.storage")),
        ("Access Modes", "string", 0, _modes("spec.accessModes")),
        ("Reclaim Policy", "string", 0, _field("spec.persistentVolumeReclaimPolicy")),
        ("Status", "string", 0, _field("status.phase")),
        ("Claim", "string", 0, _volume_claim),
        ("StorageClass", "string", 0, _field("spec.storageClassName")),
        ("VolumeAttributesClass", "string", 0, _field("spec.volumeAttributesClassName", "<unset>")),
        ("Reason", "string", 0, _field("status.reason")),
        AGE,
        ("VolumeMode", "string", 1, _field("spec.volumeMode")),
    ),
    ("", "resourcequotas"): (
        NAME,
        ("Request", "string", 0, _quota("limits", wanted=False)),
        ("Limit", "string", 0, _quota("limits", wanted=True)),
        AGE,
    ),
    ("", "limitranges"): (NAME, ("Created At", "date", 0, _field("metadata.creationTimestamp"))),
    ("autoscaling", "horizontalpodautoscalers"): (
        NAME,
        ("Reference", "string", 0, _scale_target),
        ("Targets", "string", 0, _scale_metrics),
        ("MinPods", "string", 0, _field("spec.minReplicas", "<unset>")),
        ("MaxPods", "integer", 0, _field("spec.maxReplicas", 0)),
        ("Replicas", "integer", 0, _field("status.currentReplicas", 0)),
        AGE,
    ),
    ("policy", "poddisruptionbudgets"): (
        NAME,
        ("Min Available", "string", 0, _field("spec.minAvailable", "N/A")),
        ("Max Unavailable", "string", 0, _field("spec.maxUnavailable", "N/A")),
        ("Allowed Disruptions", "integer", 0, _field("status.disruptionsAllowed", 0)),
        AGE,
    ),
    ("storage.k8s.io", "storageclasses"): (
        ("Name", "string", 0, _class_name),
        ("Provisioner", "string", 0, _field("provisioner")),
        ("ReclaimPolicy", "string", 0, _field("reclaimPolicy", "Delete")),
        ("VolumeBindingMode", "string", 0, _field("volumeBindingMode", "Immediate")),
        ("AllowVolumeExpansion", "string", 0, lambda body, now: bool(body.get("allowVolumeExpansion"))),
        AGE,
    ),
    ("certificates.k8s.io", "certificatesigningrequests"): (
        NAME,
        AGE,
        ("SignerName", "string", 0, _field("spec.signerName")),
        ("Requestor", "string", 0, _field("spec.username")),
        ("RequestedDuration", "string", 0, _requested),
        ("Condition", "string", 0, _request_state),
    ),
    ("networking.k8s.io", "networkpolicies"): (
        NAME,
        ("Pod-Selector", "string", 0, _selector("spec.podSelector")),
        AGE,
    ),
    ("networking.k8s.io", "ingressclasses"): (
        NAME,
        ("Controller", "string", 0, _field("spec.controller")),
        ("Parameters", "string", 0, _field("spec.parameters.name", NONE)),
        AGE,
    ),
    ("node.k8s.io", "runtimeclasses"): (NAME, ("Handler", "string", 0, _field("handler")), AGE),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"): (
        NAME,
        ("Webhooks", "integer", 0, _count("webhooks")),
        AGE,
    ),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"): (
        NAME,
        ("Webhooks", "integer", 0, _count("webhooks")),
        AGE,
    ),
    ("apps", "deployments"): (
        NAME,
        ("Ready", "string", 0, _rollout("status.readyReplicas", "spec.replicas")),
        ("Up-to-date", "string", 0, _field("status.updatedReplicas", 0)),
        ("Available", "string", 0, _field("status.availableReplicas", 0)),
        AGE,
        *_WORKLOAD,
    ),
    ("apps", "replicasets"): (
        NAME,
        ("Desired", "string", 0, _field("spec.replicas", 0)),
        ("Current", "string", 0, _field("status.replicas", 0)),
        ("Ready", "string", 0, _field("status.readyReplicas", 0)),
        AGE,
        *_WORKLOAD,
    ),
    ("apps", "statefulsets"): (
        NAME,
        ("Ready", "string", 0, _rollout("status.readyReplicas", "spec.replicas")),
        AGE,
        *_WORKLOAD[:2],
    ),
    ("apps", "daemonsets"): (
        NAME,
        ("Desired", "string", 0, _field("status.desiredNumberScheduled", 0)),
        ("Current", "string", 0, _field("status.currentNumberScheduled", 0)),
        ("Ready", "string", 0, _field("status.numberReady", 0)),
        ("Up-to-date", "string", 0, _field("status.updatedNumberScheduled", 0)),
        ("Available", "string", 0, _field("status.numberAvailable", 0)),
        ("Node Selector", "string", 0, _plain_selector("spec.template.spec.nodeSelector")),
        AGE,
        *_WORKLOAD,
    ),
    ("batch", "jobs"): (
        NAME,
        ("Status", "string", 0, _job_status),
        ("Completions", "string", 0, _completions),
        ("Duration", "string", 0, _job_duration),
        AGE,
        *_WORKLOAD,
    ),
    ("batch", "cronjobs"): (
        NAME,
        ("Schedule", "string", 0, _field("spec.schedule")),
        ("Timezone", "string", 0, lambda body, now: _get(body, "spec.timeZone") or NONE),
        ("Suspend", "string", 0, lambda body, now: str(bool(_get(body, "spec.suspend")))),
        ("Active", "string", 0, _count("status.active")),
        ("Last Schedule", "string", 0, _ago("status.lastScheduleTime")),
        AGE,
        ("Containers", "string", 1, _containers("name", "spec.jobTemplate.spec.template.spec")),
        ("Images", "string", 1, _containers("image", "spec.jobTemplate.spec.template.spec")),
    ),
    ("coordination.k8s.io", "leases"): (NAME, ("Holder", "string", 0, _field("spec.holderIdentity")), AGE),
    ("discovery.k8s.io", "endpointslices"): (
        NAME,
        ("AddressType", "string", 0, _field("addressType")),
        ("Ports", "string", 0, _slice_ports),
        ("Endpoints", "string", 0, _slice_addresses),
        AGE,
    ),
    ("apiextensions.k8s.io", "customresourcedefinitions"): (
        NAME,
        ("Created At", "string", 0, _field("metadata.creationTimestamp")),
    ),
    ("rbac.authorization.k8s.io", "roles"): (
        NAME,
        ("Created At", "string", 0, _field("metadata.creationTimestamp")),
    ),
    ("rbac.authorization.k8s.io", "clusterroles"): (
        NAME,
        ("Created At", "string", 0, _field("metadata.creationTimestamp")),
    ),
    ("rbac.authorization.k8s.io", "rolebindings"): (
        NAME,
        ("Role", "string", 0, _role_ref),
        AGE,
        ("Users", "string", 1, _subjects("User")),
        ("Groups", "string", 1, _subjects("Group")),
        ("ServiceAccounts", "string", 1, _subjects("ServiceAccount")),
    ),
    ("rbac.authorization.k8s.io", "clusterrolebindings"): (
        NAME,
        ("Role", "string", 0, _role_ref),
        AGE,
        ("Users", "string", 1, _subjects("User")),
        ("Groups", "string", 1, _subjects("Group")),
        ("ServiceAccounts", "string", 1, _subjects("ServiceAccount")),
    ),
    ("scheduling.k8s.io", "priorityclasses"): (
        NAME,
        ("Value", "string", 0, _field("value", 0)),
        ("Global-Default", "string", 0, lambda body, now: "true" if body.get("globalDefault") else "false"),
        AGE,
    ),
    ("networking.k8s.io", "ingresses"): (
        NAME,
        ("Class", "string", 0, lambda body, now: _get(body, "spec.ingressClassName") or NONE),
        (
            "Hosts",
            "string",
            0,
            lambda body, now: (
                ",".join(rule.get("host", "*") for rule in _get(body, "spec.rules") or ()) or "*"
            ),
        ),
        AGE,
    ),
}
DEFAULT: tuple[Row, ...] = (NAME, AGE)


def columns(kind: Kind) -> list[Json]:
    if kind.custom:
        found = [_column("Name", "string", 0, "name")]
        for column in kind.columns:
            found.append(
                _column(
                    column.name,
                    column.type,
                    column.priority,
                    column.format,
                    column.description
                    or f"Custom resource definition column (in JSONPath format): {column.json_path}",
                )
            )
        return found
    return [
        _column(name, kind_of, priority, "name" if name == "Name" else "")
        for name, kind_of, priority, _ in COLUMNS.get(kind.key, DEFAULT)
    ]


def _column(name: str, kind: str, priority: int, form: str = "", text: str = "") -> Json:
    return {"name": name, "type": kind, "format": form, "description": text or name, "priority": priority}


def cells(kind: Kind, body: Json, now: datetime) -> list[Any]:
    if kind.custom:
        return [_name(body, now), *(_custom_cell(body, c.json_path, c.type, now) for c in kind.columns)]
    return [cell(body, now) for _, _, _, cell in COLUMNS.get(kind.key, DEFAULT)]


def _custom_cell(body: Json, path: str, kind: str, now: datetime) -> Any:
    found = json_path(body, path)
    if not found:
        return None
    if kind == "date":
        return age(found[0], now) if isinstance(found[0], str) else UNKNOWN
    if len(found) > 1 or kind == "string":
        texts = [
            value if isinstance(value, str) else json.dumps(value, separators=(",", ":")) for value in found
        ]
        return ",".join(texts)
    return found[0]


_STEP = re.compile(
    r"\.(?P<field>(?:\\.|[^.\[\]\\])+)"
    r"|\['(?P<quoted>[^']+)'\]"
    r"|\[(?P<index>-?\d+|\*)\]"
    r"|\[\?\(@\.(?P<test>[\w.]+)\s*==\s*['\"](?P<value>[^'\"]*)['\"]\)\]"
)


def json_path(body: Any, path: str) -> list[Any]:
    """The JSONPath forms that printer columns use: fields, indexes, `[*]` and `[?(@.a=="b")]`."""
    found = [body]
    text = path if path.startswith((".", "[")) else "." + path
    for step in _STEP.finditer(text):
        following: list[Any] = []
        for value in found:
            name = step["field"] or step["quoted"]
            if name is not None:
                name = name.replace("\\.", ".")
                if isinstance(value, dict) and value.get(name) is not None:
                    following.append(value[name])
            elif isinstance(value, list):
                if step["index"] == "*":
                    following += value
                elif step["index"] is not None:
                    index = int(step["index"])
                    following += value[index : index + 1] if index >= 0 else value[index:][:1]
                else:
                    following += [item for item in value if str(_get(item, step["test"])) == step["value"]]
        found = following
    return found
