"""What the cloud is told about this node, and when: registration, status, lease.  Pure.

A status is told when something in it changed, and otherwise rarely; towards a stock hub also every ten seconds, since there
conditions and a lease are the only signs of life, while ours keeps the lease from the link's keepalives.
Source: kubelet, kubelet_node_status.go and nodelease; protocol notes on the hub, 6.2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from beehive.errors import ProtocolError
from beehive.message import UNREADABLE

HEARTBEAT_S = 10.0
"""The kubelet's nodeStatusUpdateFrequency, and how often its lease is renewed."""

LEASE_S = 40
LEASE_NAMESPACE = "kube-node-lease"

_KEPT_LABELS = ("kubernetes.io/hostname",)
"""Labels that somebody may have set to something better than we know."""


_MACHINE_LABELS = (
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
)
"""Facts of the machine, by which pods are placed: nobody knows them better."""


class Reporter(msgspec.Struct):
    """Decides whether a status is news.  report_s: how often one is sent that is not."""

    report_s: float
    _told: Mapping[str, Any] = msgspec.field(default_factory=dict)
    _at: float = 0.0

    def forget(self) -> None:
        """A new session, or another Node object: tell everything again."""
        self._told = {}

    def patch(self, status: bytes, now: float, *, heartbeat: bool) -> bytes | None:
        """The strategic merge patch to send now, or None.

        heartbeat: the peer judges our life by the conditions' times.   Raises: ProtocolError."""
        fields = decode_object(status)
        plain = _without_times(fields)
        due = self.report_s if not heartbeat else HEARTBEAT_S
        if plain == self._told and now - self._at < due:
            return None
        only_times = plain == self._told and heartbeat and now - self._at < self.report_s
        self._told = plain
        self._at = now
        if only_times:
            return msgspec.json.encode({"status": {"conditions": fields.get("conditions", [])}})
        addresses = fields.get("addresses")
        if isinstance(addresses, list):
            # they would be merged by type: an address that is gone would stay
            fields = {**fields, "addresses": [{"$patch": "replace"}, *addresses]}
        return msgspec.json.encode({"status": fields})


def connection(status: bytes, *, since: str, away_s: float, at: str) -> bytes:
    """A node's status with what it can say of its link: that it is there, since when, and how long it was not.

    away_s: 0 when that is not known.   at: now.   The hub says it when the link is gone.   Raises: ProtocolError."""
    fields = decode_object(status)
    before = f", after {away_s:.0f} s without" if away_s else ""
    common = {"reason": "LinkUp", "lastHeartbeatTime": at, "lastTransitionTime": since}
    said = [
        {"type": "CloudConnected", "status": "True", "message": f"linked since {since}{before}", **common},
        {"type": "Autonomous", "status": "False", "message": "the cloud says what runs here", **common},
    ]
    conditions = fields.get("conditions")
    held = conditions if isinstance(conditions, list) else []
    return msgspec.json.encode({**fields, "conditions": [*held, *said]})


def _without_times(fields: Mapping[str, Any]) -> dict[str, Any]:
    conditions = fields.get("conditions")
    if not isinstance(conditions, list):
        return dict(fields)
    plain = [
        {key: value for key, value in condition.items() if key != "lastHeartbeatTime"}
        for condition in conditions
        if isinstance(condition, dict)
    ]
    return {**fields, "conditions": plain}


def label_patch(wanted: bytes, existing: bytes) -> bytes | None:
    """The patch that gives the existing Node the labels it registers with, or None.  Raises: ProtocolError.

    Labels that are there beside them are left alone: they are the operators'."""
    ours, theirs = _labels(wanted), _labels(existing)
    missing = {
        key: value
        for key, value in ours.items()
        if theirs.get(key) != value and not (key in _KEPT_LABELS and key in theirs)
    }
    return msgspec.json.encode({"metadata": {"labels": missing}}) if missing else None


def machine_labels(wanted: bytes) -> dict[str, str]:
    """Those labels of the Node to register that say what the machine is.  Raises: ProtocolError."""
    return {key: value for key, value in _labels(wanted).items() if key in _MACHINE_LABELS}


def own_labels_patch(ours: Mapping[str, str], existing: bytes) -> bytes | None:
    """The patch that takes back what somebody made of the machine's labels, or None.

    Raises: ProtocolError.   Source: kubelet, pkg/kubelet/kubelet_node_status.go (updateDefaultLabels)."""
    theirs = _labels(existing)
    changed = {key: value for key, value in ours.items() if theirs.get(key) != value}
    return msgspec.json.encode({"metadata": {"labels": changed}}) if changed else None


def _labels(node: bytes) -> dict[str, str]:
    metadata = decode_object(node).get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    return dict(labels) if isinstance(labels, dict) else {}


def new_lease(node: str, renewed: str) -> dict[str, Any]:
    """A lease to create."""
    return {
        "metadata": {"name": node, "namespace": LEASE_NAMESPACE},
        "spec": {"holderIdentity": node, "leaseDurationSeconds": LEASE_S, "renewTime": renewed},
    }


def renewed_lease(existing: bytes, node: str, renewed: str) -> dict[str, Any]:
    """The lease as it came, renewed.  Raises: ProtocolError."""
    lease = decode_object(existing)
    spec = lease.get("spec")
    fresh = {"holderIdentity": node, "leaseDurationSeconds": LEASE_S, "renewTime": renewed}
    return {**lease, "spec": {**(spec if isinstance(spec, dict) else {}), **fresh}}


def decode_object(text: bytes) -> dict[str, Any]:
    """Raises: ProtocolError."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except UNREADABLE as error:
        raise ProtocolError(f"cannot read an object: {error}") from error
