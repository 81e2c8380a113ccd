"""What a node may do.  Pure; denies by default.

The rules are Kubernetes' node authorizer and NodeRestriction admission, put in terms of the link's messages: a node sees what
its own pods refer to, and changes its own Node, Lease, pods' statuses, and its devices' statuses.  Identity is the verified
certificate's; nothing in a frame is believed about who sent it.

| message                                   | allowed when                                                                  |
|-------------------------------------------|-------------------------------------------------------------------------------|
| node insert, update, query; nodepatch     | own name; no restricted label, taint, owner reference or finalizer is changed |
| lease insert, update, query               | `kube-node-lease/<own name>`                                                  |
| pod insert                                | a mirror pod of this node that refers to nothing                              |
| pod delete                                | the pod is bound to this node, or does not exist                              |
| podpatch, podstatus                       | the same, and only `status` is changed                                        |
| configmap, secret query                   | a pod bound to this node refers to it                                         |
| persistentvolumeclaim query               | a pod bound to this node uses it                                              |
| claimstatus update                        | the same; it says that its volume has its size there, and nothing else        |
| persistentvolume, volumeattachment query  | claimed by such a claim; attached to this node (judged on the object read)    |
| csinode update                            | own name; it says which drivers are there and nothing else                    |
| runtimeclass, csidriver query             | one by name; they say how this cluster's nodes run pods, to all of them       |
| serviceaccounttoken query                 | bound to a pod on this node, by name and UID, of that account, and no longer  |
|                                           | and for nobody else than a volume of that pod asks                            |
| event insert, update, patch               | about this node, or a pod or device on it; no foreign source host             |
| certificatesigningrequest insert, query   | its name ends with the node's; the subject is the node; serving or client     |
| twin, state, membership                   | the device hangs on this node                                                 |
| anything else                             | never                                                                         |
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from beehive.errors import ProtocolError
from beehive.message import UNREADABLE, Message, Op
from beehive.resource import Resource
from cloudcore.errors import Forbidden
from cloudcore.identity import pki

MAX_DRIVERS = 64
"""Of storage, on one node."""
LEASE_NAMESPACE = "kube-node-lease"
MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
SIGNERS = frozenset(
    {"kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet", "kubeedge.io/metaserver"}
)
DEFAULT_TOKEN_S = 3607
"""What the API server puts into the volumes that it adds to pods; TokenRequest's own default is 3600."""

# NodeRestriction: what a kubelet may set of the labels in Kubernetes' own domains.
# Source: kubernetes, pkg/apis/core/... kubeletapis.IsKubeletLabel; the last two are KubeEdge's
_LABELS = frozenset(
    {
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "node-role.kubernetes.io/edge",
        "node-role.kubernetes.io/agent",
    }
)
_LABEL_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFacts:
    """What is decided by about one pod.  `tokens`: the audiences its volumes ask for ("" is the API's own) → seconds."""

    node: str
    uid: str
    service_account: str = "default"
    tokens: Mapping[str, int] = field(default_factory=dict)


class View(Protocol):
    """What the authorizer has to know of the cluster."""

    def pod(self, namespace: str, name: str) -> PodFacts | None: ...

    def refers(self, node: str, kind: str, namespace: str, name: str) -> bool:
        """Whether a pod bound to `node` refers to the object (kind as on the wire)."""
        ...

    def node_object(self, node: str) -> bytes | None: ...

    def device_node(self, namespace: str, name: str) -> str | None: ...


def check(node: str, message: Message, target: Resource, view: View) -> None:
    """Raises Forbidden with the reason; ProtocolError when the content cannot be read."""
    rule = _RULES.get((target.type, message.route.operation))
    if rule is None:
        raise Forbidden(f"node {node} may not {message.route.operation} {target.type}")
    rule(node, message, target, view)


def check_device(node: str, namespace: str, name: str, view: View) -> None:
    """Whether `node` may report about this device.  Raises Forbidden."""
    owner = view.device_node(namespace, name)
    if owner != node:
        raise Forbidden(f"device {namespace}/{name} is not on node {node}")


def check_volume(node: str, raw: bytes, view: View) -> None:
    """Whether `node` may see this PersistentVolume, given as read.  Raises Forbidden."""
    claim = _dict(_dict(_load(raw), "spec"), "claimRef")
    if not view.refers(
        node, "persistentvolumeclaim", str(claim.get("namespace", "")), str(claim.get("name", ""))
    ):
        raise Forbidden(f"no pod on node {node} uses this volume")


def check_attachment(node: str, raw: bytes) -> None:
    """Whether `node` may see this VolumeAttachment, given as read.  Raises Forbidden."""
    if _dict(_load(raw), "spec").get("nodeName") != node:
        raise Forbidden(f"the attachment is not to node {node}")


def restricted_label(name: str) -> bool:
    """Whether a node may not set this label on itself."""
    domain = name.partition("/")[0] if "/" in name else ""
    if domain == "node-restriction.kubernetes.io" or domain.endswith(".node-restriction.kubernetes.io"):
        return True
    ours = any(domain == base or domain.endswith("." + base) for base in ("kubernetes.io", "k8s.io"))
    if not ours or name in _LABELS:
        return False
    return not any(domain == base or domain.endswith("." + base) for base in _LABEL_DOMAINS)


# -- rules ---------------------------------------------------------------------------------------------------------


def _own_node(node: str, message: Message, target: Resource, view: View) -> None:
    if target.name != node:
        raise Forbidden(f"node {node} may not touch node {target.name or 'without name'}")
    operation = message.route.operation
    if operation == Op.QUERY:
        return
    patch = operation == Op.PATCH
    body = _load(message.text().encode() if patch else bytes(message.content))
    meta = _dict(body, "metadata")
    if meta.get("name", node) != node:
        raise Forbidden(f"node {node} may not name itself {meta.get('name')!r}")
    # one that registers is judged by itself, and told if the Node exists
    raw = None if operation == Op.INSERT else view.node_object(node)
    current = _load(raw) if raw is not None else {}
    held = _dict(current, "metadata")
    _labels(node, _dict(meta, "labels"), _dict(held, "labels"), whole=not patch and bool(current))
    for name in ("ownerReferences", "finalizers"):
        if name in meta and (meta[name] or []) != (held.get(name) or []):
            raise Forbidden(f"node {node} may not change its {name}")
    spec = _dict(body, "spec")
    if patch and spec:
        raise Forbidden(f"node {node} may not change its spec by a status patch")
    # a list that lacks some is old, and is not used; one that has more is an attempt
    known = _dict(current, "spec").get("taints") or []
    if operation == Op.UPDATE and any(taint not in known for taint in spec.get("taints") or []):
        raise Forbidden(f"node {node} may not change its taints")
    if spec.get("configSource") is not None:
        raise Forbidden(f"node {node} may not set its configSource")


def _labels(node: str, wanted: dict[str, Any], held: dict[str, Any], *, whole: bool) -> None:
    names = set(wanted) | (set(held) if whole else set())
    for name in sorted(names):
        if wanted.get(name) != held.get(name) and restricted_label(name):
            raise Forbidden(f"node {node} may not change its label {name[:80]}")


def _own_storage(node: str, message: Message, target: Resource, view: View) -> None:
    del view
    if target.name != node:
        raise Forbidden(f"node {node} may not say what storage node {target.name or 'without name'} has")
    body = _load(bytes(message.content))
    meta, spec = _dict(body, "metadata"), _dict(body, "spec")
    if meta.get("name", node) != node:
        raise Forbidden(f"node {node} may not name itself {str(meta.get('name'))[:80]}")
    extra = (set(body) - {"apiVersion", "kind", "metadata", "spec"}) | (set(meta) - {"name"})
    extra |= set(spec) - {"drivers"}
    if extra:
        raise Forbidden(f"node {node} may only say which drivers it has, not {', '.join(sorted(extra))[:80]}")
    drivers = spec.get("drivers") or []
    if not isinstance(drivers, list) or len(drivers) > MAX_DRIVERS:
        raise Forbidden(f"node {node} may not have more than {MAX_DRIVERS} drivers")


def _own_lease(node: str, message: Message, target: Resource, view: View) -> None:
    del view
    if (target.namespace, target.name) != (LEASE_NAMESPACE, node):
        raise Forbidden(f"node {node} may only use the lease {LEASE_NAMESPACE}/{node}")
    if message.route.operation != Op.QUERY:
        meta = _dict(_load(bytes(message.content)), "metadata")
        if meta.get("name", node) != node or meta.get("namespace", LEASE_NAMESPACE) != LEASE_NAMESPACE:
            raise Forbidden(f"node {node} may only use the lease {LEASE_NAMESPACE}/{node}")


def _mirror_pod(node: str, message: Message, target: Resource, view: View) -> None:
    body = _load(bytes(message.content))
    meta, spec = _dict(body, "metadata"), _dict(body, "spec")
    if MIRROR_ANNOTATION not in _dict(meta, "annotations"):
        raise Forbidden(f"node {node} may only create mirror pods")
    if (meta.get("namespace", target.namespace), meta.get("name", target.name)) != (
        target.namespace,
        target.name,
    ):
        raise Forbidden("the pod's name is not the one in the request")
    if spec.get("nodeName") != node:
        raise Forbidden(f"node {node} may only create pods for itself")
    owners = meta.get("ownerReferences")
    raw = view.node_object(node)
    uid = _dict(_load(raw), "metadata").get("uid") if raw is not None else None
    if not (
        isinstance(owners, list)
        and len(owners) == 1
        and isinstance(owners[0], dict)
        and owners[0].get("kind") == "Node"
        and owners[0].get("apiVersion") == "v1"
        and owners[0].get("name") == node
        and uid
        and owners[0].get("uid") == uid
        and owners[0].get("controller") is True
    ):
        raise Forbidden("a mirror pod must have its node as its one owner")
    if spec.get("serviceAccountName") or spec.get("serviceAccount"):
        raise Forbidden("a mirror pod must not name a service account")
    if spec.get("resourceClaims"):
        raise Forbidden("a mirror pod must not name resource claims")
    if spec.get("imagePullSecrets"):
        raise Forbidden("a mirror pod must not refer to secrets")
    for found in _mentions(spec):
        raise Forbidden(f"a mirror pod must not refer to {found}")


def _own_pod(node: str, message: Message, target: Resource, view: View) -> None:
    if not target.name:
        if message.route.operation == Op.UPDATE:
            return  # a list of old pod statuses: judged one by one by `check_status_item`
        raise Forbidden("a pod must be named")
    pod = view.pod(target.namespace, target.name)
    if pod is not None and pod.node != node:
        raise Forbidden(f"pod {target.namespace}/{target.name} is not on node {node}")


def _pod_patch(node: str, message: Message, target: Resource, view: View) -> None:
    _own_pod(node, message, target, view)
    body = _load(message.text().encode())
    extra = set(body) - {"metadata", "status", "kind", "apiVersion"}
    meta = set(_dict(body, "metadata")) - {"uid", "name", "namespace", "resourceVersion", "creationTimestamp"}
    if extra or meta:
        what = ", ".join(sorted(extra | meta))[:120]
        raise Forbidden(f"node {node} may only change the status of a pod, not its {what}")


def _referred(node: str, message: Message, target: Resource, view: View) -> None:
    del message
    if not target.name or not view.refers(node, target.type, target.namespace, target.name):
        raise Forbidden(f"no pod on node {node} refers to {target.type} {target.namespace}/{target.name}")


def _grown_claim(node: str, message: Message, target: Resource, view: View) -> None:
    kind = "persistentvolumeclaim"
    if not target.name or not view.refers(node, kind, target.namespace, target.name):
        raise Forbidden(f"no pod on node {node} refers to {kind} {target.namespace}/{target.name}")
    body = _load(bytes(message.content))
    if set(body) != {"metadata"} or set(_dict(body, "metadata")) != {"uid"}:
        raise Forbidden(f"node {node} may only say that a claim's volume has its size")


def _judged_later(node: str, message: Message, target: Resource, view: View) -> None:
    del message, view
    if not target.name:
        raise Forbidden(f"node {node} may not list {target.type}s")


def _by_name(node: str, message: Message, target: Resource, view: View) -> None:
    """Source: Kubernetes' node authorizer, which lets every node read these."""
    del message, view
    if not target.name:
        raise Forbidden(f"node {node} may not list {target.type}s")


class _BoundRef(msgspec.Struct, frozen=True, kw_only=True):
    kind: str = ""
    name: str = ""
    uid: str = ""


class _TokenSpec(msgspec.Struct, frozen=True, kw_only=True):
    audiences: list[str] | None = None
    expirationSeconds: int | None = None
    boundObjectRef: _BoundRef | None = None


class _TokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    spec: _TokenSpec = _TokenSpec()


def _token(node: str, message: Message, target: Resource, view: View) -> None:
    spec = message.decode(_TokenRequest).spec
    bound = spec.boundObjectRef
    if bound is None or bound.kind != "Pod" or not bound.name or not bound.uid:
        raise Forbidden("a token must be bound to a pod by name and uid")
    pod = view.pod(target.namespace, bound.name)
    if pod is None or pod.node != node or pod.uid != bound.uid:
        raise Forbidden(f"pod {target.namespace}/{bound.name} with that uid is not on node {node}")
    if pod.service_account != target.name:
        raise Forbidden(f"pod {target.namespace}/{bound.name} does not use service account {target.name}")
    wanted = spec.expirationSeconds or 0
    for audience in spec.audiences or [""]:
        longest = pod.tokens.get(audience)
        if longest is None:
            raise Forbidden(f"no volume of the pod asks for a token for audience {audience[:80]!r}")
        if wanted > max(longest, DEFAULT_TOKEN_S):
            raise Forbidden(f"no volume of the pod asks for a token of {wanted} s")


class _Ref(msgspec.Struct, frozen=True, kw_only=True):
    kind: str = ""
    namespace: str = ""
    name: str = ""


class _EventSource(msgspec.Struct, frozen=True, kw_only=True):
    host: str = ""


class _EventMeta(msgspec.Struct, frozen=True, kw_only=True):
    name: str = ""
    namespace: str = ""


class EventBody(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an Event that is judged."""

    metadata: _EventMeta = _EventMeta()
    involvedObject: _Ref = _Ref()
    source: _EventSource = _EventSource()
    reportingInstance: str = ""


class EventPatch(msgspec.Struct, frozen=True, kw_only=True):
    """What a patch of an event carries: the event as the edge knows it, and a strategic merge patch as text."""

    event: msgspec.Raw
    patchData: str = ""


def _event(node: str, message: Message, target: Resource, view: View) -> None:
    if message.route.operation == Op.PATCH:
        patch = message.decode(EventPatch)
        try:
            body = msgspec.json.decode(patch.event, type=EventBody)
        except UNREADABLE as error:
            raise ProtocolError(f"cannot read the event: {error}") from error
        forbidden = set(_load(patch.patchData.encode())) - {
            "count",
            "lastTimestamp",
            "message",
            "series",
            "metadata",
            "eventTime",
            "firstTimestamp",
            "type",
            "reason",
        }
        if forbidden:
            raise Forbidden(f"node {node} may not change {', '.join(sorted(forbidden))[:80]} of an event")
    else:
        body = message.decode(EventBody)
    meta = body.metadata
    if meta.namespace not in ("", target.namespace) or meta.name not in ("", target.name):
        raise Forbidden("the event's name is not the one in the request")
    about = body.involvedObject
    if about.kind == "Pod" and about.namespace and about.namespace != target.namespace:
        raise Forbidden("an event lives in its object's namespace")
    _about_own(node, body, view)


def check_event(node: str, raw: bytes, view: View) -> None:
    """Whether an event that is there is `node`'s to change.  Raises Forbidden."""
    try:
        body = msgspec.json.decode(raw, type=EventBody)
    except UNREADABLE as error:
        raise Forbidden(f"node {node} may not change an event that cannot be read") from error
    _about_own(node, body, view)


def _about_own(node: str, body: EventBody, view: View) -> None:
    for host in (body.source.host, body.reportingInstance):
        if host not in ("", node):
            raise Forbidden(f"node {node} may not speak for host {host[:80]}")
    about = body.involvedObject
    match about.kind:
        case "Node":
            if about.name != node:
                raise Forbidden(f"node {node} may not report about node {about.name[:80]}")
        case "Pod":
            pod = view.pod(about.namespace, about.name)
            if pod is not None and pod.node != node:
                raise Forbidden(f"pod {about.namespace}/{about.name} is not on node {node}")
        case "Device":
            check_device(node, about.namespace, about.name, view)
        case _:
            raise Forbidden(f"node {node} may not report about a {about.kind[:40] or 'nothing'}")


class _CsrSpec(msgspec.Struct, frozen=True, kw_only=True):
    request: str = ""
    signerName: str = ""


class _Csr(msgspec.Struct, frozen=True, kw_only=True):
    spec: _CsrSpec = _CsrSpec()


def _csr(node: str, message: Message, target: Resource, view: View) -> None:
    del view
    if target.name != f"metaserver-csr-{node}":
        raise Forbidden(f"node {node} may only use the request metaserver-csr-{node}")
    if message.route.operation == Op.QUERY:
        return
    spec = message.decode(_Csr).spec
    if spec.signerName not in SIGNERS:
        raise Forbidden(f"node {node} may not ask signer {spec.signerName[:80]!r}")
    try:
        name, groups = pki.request_subject(base64.b64decode(spec.request, validate=True))
    except (ValueError, pki.BadRequest) as error:
        raise ProtocolError(f"cannot read the signing request: {error}") from error
    if name != f"system:node:{node}" or groups != {"system:nodes"}:
        raise Forbidden(f"node {node} may only ask for a certificate of its own name")


_RULES = {
    ("node", Op.INSERT): _own_node,
    ("node", Op.UPDATE): _own_node,
    ("node", Op.QUERY): _own_node,
    ("nodepatch", Op.PATCH): _own_node,
    ("csinode", Op.UPDATE): _own_storage,
    ("lease", Op.INSERT): _own_lease,
    ("lease", Op.UPDATE): _own_lease,
    ("lease", Op.QUERY): _own_lease,
    ("pod", Op.INSERT): _mirror_pod,
    ("pod", Op.DELETE): _own_pod,
    ("podpatch", Op.PATCH): _pod_patch,
    ("podstatus", Op.UPDATE): _own_pod,
    ("configmap", Op.QUERY): _referred,
    ("secret", Op.QUERY): _referred,
    ("persistentvolumeclaim", Op.QUERY): _referred,
    ("claimstatus", Op.UPDATE): _grown_claim,
    ("persistentvolume", Op.QUERY): _judged_later,
    ("volumeattachment", Op.QUERY): _judged_later,
    ("runtimeclass", Op.QUERY): _by_name,
    ("csidriver", Op.QUERY): _by_name,
    ("serviceaccounttoken", Op.QUERY): _token,
    ("event", Op.INSERT): _event,
    ("event", Op.UPDATE): _event,
    ("event", Op.PATCH): _event,
    ("certificatesigningrequest", Op.INSERT): _csr,
    ("certificatesigningrequest", Op.QUERY): _csr,
}


# -- reading ---------------------------------------------------------------------------------------------------------


def _load(data: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise ProtocolError(f"cannot read the content: {error}") from error
    if not isinstance(value, dict):
        raise ProtocolError("cannot read the content: it is no object")
    return value


def _dict(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ProtocolError(f"cannot read the content: {key} is no object")
    return found


_MENTIONS = {
    "secret": "secrets",
    "secretRef": "secrets",
    "secretKeyRef": "secrets",
    "configMap": "configmaps",
    "configMapRef": "configmaps",
    "configMapKeyRef": "configmaps",
    "persistentVolumeClaim": "persistentvolumeclaims",
    "ephemeral": "persistentvolumeclaims",
    "serviceAccountToken": "service account tokens",
    "clusterTrustBundle": "cluster trust bundles",
    "podCertificate": "pod certificates",
    "nodePublishSecretRef": "secrets",
}


def _mentions(spec: dict[str, Any]) -> list[str]:
    """What a pod's spec refers to, wherever it says so."""
    found: list[str] = []
    stack: list[Any] = [
        spec.get("volumes"),
        spec.get("containers"),
        spec.get("initContainers"),
        spec.get("ephemeralContainers"),
    ]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            found += [what for key, what in _MENTIONS.items() if value.get(key) is not None]
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
    return found
