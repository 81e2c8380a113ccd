"""What a node may ask of this API: to read itself and what its own pods refer to, and nothing else.

Nodes do not need this API: they speak to the hub, which judges every message (cloudcore/identity/authorizer.py).  Whoever
comes here in the group system:nodes gets less than Kubernetes' node authorizer gives, never more: no writes, no lists,
whatever roles are bound to that group.

| what                                   | allowed when                            |
|----------------------------------------|-----------------------------------------|
| get node, get its lease                | the node's own                          |
| get pod                                | it is bound to the node                 |
| get configmap, secret, claim           | a pod bound to the node refers to it    |
| what every authenticated user may do   | always: discovery, questions about itself |
| anything else                          | never                                   |
"""

from __future__ import annotations

from beehive.errors import ProtocolError
from cloudcore import objects
from cloudcore.edgecontroller.references import closure
from cloudcore.standalone.authn import User
from cloudcore.standalone.store import Store

GROUP = "system:nodes"
PREFIX = "system:node:"
LEASE_NAMESPACE = "kube-node-lease"
_WIRE = {"configmaps": "configmap", "secrets": "secret", "persistentvolumeclaims": "persistentvolumeclaim"}


def node_of(user: User) -> str | None:
    """The node's name; None when `user` is no node, empty when it is in the group but has no node's name."""
    if GROUP not in user.groups and not user.name.startswith(PREFIX):
        return None
    return user.name.removeprefix(PREFIX) if user.name.startswith(PREFIX) and GROUP in user.groups else ""


def may_get(store: Store, node: str, group: str, resource: str, namespace: str, name: str) -> bool:
    """Whether `node` may get this object."""
    if not node or not name:
        return False
    where = (group, resource)
    if where == ("", "nodes"):
        return name == node
    if where == ("coordination.k8s.io", "leases"):
        return (namespace, name) == (LEASE_NAMESPACE, node)
    if where == ("", "pods"):
        record = store.get(("", "pods"), namespace, name)
        return record is not None and record.fields.get("spec.nodeName") == node
    if group == "" and resource in _WIRE:
        return _refers(store, node, _WIRE[resource], namespace, name)
    return False


def _refers(store: Store, node: str, wire: str, namespace: str, name: str) -> bool:
    pods = store.select(("", "pods"), namespace, lambda record: record.fields.get("spec.nodeName") == node)
    for record in pods:
        try:
            refs = closure(objects.read(objects.POD, record.body)).refs
        except ProtocolError:
            continue  # a pod that cannot be read gives no rights
        if (wire, namespace, name) in refs:
            return True
    return False


def reason(node: str) -> str:
    """Why not, as Kubernetes says it."""
    return f"no relationship found between node '{node}' and this object"
