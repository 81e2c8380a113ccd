"""How `kubectl get` prints the kinds of the core group, but pods.  Pure.

Source: kubernetes, pkg/printers/internalversion/printers.go, and the recorded tables."""

from __future__ import annotations

from datetime import datetime

from beehive.printing.cells import (
    AGE,
    NAME,
    NONE,
    UNKNOWN,
    Cell,
    Json,
    Row,
    age,
    count,
    field,
    get,
    name_of,
    pairs,
)


def _node_status(body: Json, now: datetime) -> str:
    ready = next((c for c in get(body, "status.conditions") or () if c.get("type") == "Ready"), None)
    words = ["Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"]
    if get(body, "spec.unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _roles(body: Json, now: datetime) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = get(body, "metadata.labels") or {}
    roles = sorted(
        {name.removeprefix(prefix) for name in labels if name.startswith(prefix) and name != prefix}
        | ({labels["kubernetes.io/role"]} if labels.get("kubernetes.io/role") else set())
    )
    return ",".join(roles) or NONE


def _address(kind: str) -> Cell:
    return lambda body, now: next(
        (item.get("address") for item in get(body, "status.addresses") or () if item.get("type") == kind),
        NONE,
    )


def _kernel(body: Json, now: datetime) -> str:
    version = get(body, "status.nodeInfo.kernelVersion") or UNKNOWN
    machine = get(body, "status.nodeInfo.architecture")
    return f"{version} ({machine})" if machine else version


def _ports(body: Json, now: datetime) -> str:
    texts = []
    for port in get(body, "spec.ports") or ():
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
    last = get(body, "series.lastObservedTime") or body.get("lastTimestamp") or body.get("eventTime")
    first = body.get("firstTimestamp") or body.get("eventTime")
    count = get(body, "series.count") or body.get("count") or 1
    text = age(last or first, now)
    return f"{text} (x{count} over {age(first, now)})" if count > 1 else text


def _event_object(body: Json, now: datetime) -> str:
    regarding = body.get("involvedObject") or body.get("regarding") or {}
    return f"{regarding.get('kind', '').lower()}/{regarding.get('name', '')}"


def _event_source(body: Json, now: datetime) -> str:
    """Source: formatEventSource."""
    source = body.get("source") or body.get("deprecatedSource") or {}
    return ", ".join(part for part in (source.get("component"), source.get("host")) if part) or str(
        body.get("reportingComponent") or body.get("reportingController") or ""
    )


def _endpoints(body: Json, now: datetime) -> str:
    found = []
    for subset in body.get("subsets") or ():
        for address in subset.get("addresses") or ():
            found += [f"{address['ip']}:{port['port']}" for port in subset.get("ports") or ()] or [
                address["ip"]
            ]
    return ",".join(found[:3]) + (f" + {len(found) - 3} more..." if len(found) > 3 else "") or NONE


def modes(path: str) -> Cell:
    short = {
        "ReadWriteOnce": "RWO",
        "ReadOnlyMany": "ROX",
        "ReadWriteMany": "RWX",
        "ReadWriteOncePod": "RWOP",
    }
    return lambda body, now: ",".join(short.get(item, item) for item in get(body, path) or ())


def _claim_status(body: Json, now: datetime) -> str:
    return "Terminating" if "deletionTimestamp" in body["metadata"] else get(body, "status.phase") or ""


def _volume_claim(body: Json, now: datetime) -> str:
    claim = get(body, "spec.claimRef")
    return f"{claim.get('namespace')}/{claim.get('name')}" if claim else ""


def _quota(prefix: str, *, wanted: bool) -> Cell:
    def cell(body: Json, now: datetime) -> str:
        hard, used = get(body, "status.hard") or {}, get(body, "status.used") or {}
        return ", ".join(
            f"{name}: {used.get(name, '0')}/{limit}"
            for name, limit in sorted(hard.items())
            if name.startswith(prefix) == wanted
        )

    return cell


ROWS: dict[tuple[str, str], tuple[Row, ...]] = {
    ("", "nodes"): (
        NAME,
        ("Status", "string", 0, _node_status),
        ("Roles", "string", 0, _roles),
        AGE,
        ("Version", "string", 0, field("status.nodeInfo.kubeletVersion")),
        ("Internal-IP", "string", 1, _address("InternalIP")),
        ("External-IP", "string", 1, _address("ExternalIP")),
        ("OS-Image", "string", 1, lambda body, now: get(body, "status.nodeInfo.osImage") or UNKNOWN),
        ("Kernel-Version", "string", 1, _kernel),
        (
            "Container-Runtime",
            "string",
            1,
            lambda body, now: get(body, "status.nodeInfo.containerRuntimeVersion") or UNKNOWN,
        ),
    ),
    ("", "namespaces"): (NAME, ("Status", "string", 0, field("status.phase")), AGE),
    ("", "configmaps"): (NAME, ("Data", "string", 0, count("data", "binaryData")), AGE),
    ("", "secrets"): (
        NAME,
        ("Type", "string", 0, field("type")),
        ("Data", "string", 0, count("data")),
        AGE,
    ),
    ("", "serviceaccounts"): (NAME, ("Secrets", "string", 0, count("secrets")), AGE),
    ("", "services"): (
        NAME,
        ("Type", "string", 0, field("spec.type")),
        ("Cluster-IP", "string", 0, lambda body, now: get(body, "spec.clusterIP") or NONE),
        ("External-IP", "string", 0, _external),
        ("Port(s)", "string", 0, _ports),
        AGE,
        ("Selector", "string", 1, pairs("spec.selector")),
    ),
    ("", "endpoints"): (NAME, ("Endpoints", "string", 0, _endpoints), AGE),
    ("", "events"): (
        ("Last Seen", "string", 0, _event_seen),
        ("Type", "string", 0, field("type")),
        ("Reason", "string", 0, field("reason")),
        ("Object", "string", 0, _event_object),
        ("Subobject", "string", 1, field("involvedObject.fieldPath")),
        ("Source", "string", 1, _event_source),
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
        ("Name", "string", 1, name_of),
    ),
    ("", "persistentvolumeclaims"): (
        NAME,
        ("Status", "string", 0, _claim_status),
        ("Volume", "string", 0, field("spec.volumeName")),
        ("Capacity", "string", 0, field("status.capacity.storage")),
        ("Access Modes", "string", 0, modes("status.accessModes")),
        ("StorageClass", "string", 0, field("spec.storageClassName")),
        ("VolumeAttributesClass", "string", 0, field("spec.volumeAttributesClassName", "<unset>")),
        AGE,
        ("VolumeMode", "string", 1, field("spec.volumeMode")),
    ),
    ("", "persistentvolumes"): (
        NAME,
        ("Capacity", "string", 0, field("spec.capacity.storage")),
        ("Access Modes", "string", 0, modes("spec.accessModes")),
        ("Reclaim Policy", "string", 0, field("spec.persistentVolumeReclaimPolicy")),
        ("Status", "string", 0, field("status.phase")),
        ("Claim", "string", 0, _volume_claim),
        ("StorageClass", "string", 0, field("spec.storageClassName")),
        ("VolumeAttributesClass", "string", 0, field("spec.volumeAttributesClassName", "<unset>")),
        ("Reason", "string", 0, field("status.reason")),
        AGE,
        ("VolumeMode", "string", 1, field("spec.volumeMode")),
    ),
    ("", "resourcequotas"): (
        NAME,
        ("Request", "string", 0, _quota("limits", wanted=False)),
        ("Limit", "string", 0, _quota("limits", wanted=True)),
        AGE,
    ),
    ("", "limitranges"): (NAME, ("Created At", "date", 0, field("metadata.creationTimestamp"))),
}
