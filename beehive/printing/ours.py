"""The printer columns of our own custom kinds, for an edge that holds their objects and never their definitions.  Pure data.

The definitions are in `deploy/crds`; the tests compare."""

from __future__ import annotations

from beehive.printing.custom import AGE, Column


def _column(name: str, path: str, kind: str = "string", *, priority: int = 0, text: str = "") -> Column:
    return Column(name=name, type=kind, json_path=path, priority=priority, description=text)


_DEVICES, _SKERRY, _OPERATIONS = "devices.kubeedge.io", "skerry.dev", "operations.kubeedge.io"
_JOB = (_column("Phase", ".status.phase"), _column("Reason", ".status.reason", priority=1), AGE)

COLUMNS: dict[tuple[str, str, str], tuple[Column, ...]] = {
    (_DEVICES, "v1beta1", "devices"): (
        _column("Node", ".spec.nodeName"),
        _column("Model", ".spec.deviceModelRef.name"),
        _column("Protocol", ".spec.protocol.protocolName"),
        _column("Desired", ".spec.properties[*].desired.value", text="The first desired value"),
        AGE,
    ),
    (_DEVICES, "v1beta1", "devicemodels"): (_column("Protocol", ".spec.protocol"), AGE),
    (_DEVICES, "v1beta1", "devicestatuses"): (
        _column("State", ".status.state"),
        _column("Property", ".status.twins[0].propertyName", text="First property reported"),
        _column("Reading", ".status.twins[0].reported.value", text="Its last value"),
        _column("Last Online", ".status.lastOnlineTime", "date"),
        _column("Second Property", ".status.twins[1].propertyName", priority=1),
        _column("Second Reading", ".status.twins[1].reported.value", priority=1),
        AGE,
    ),
    (_SKERRY, "v1alpha1", "devicecalls"): (
        _column("Device", ".spec.deviceName"),
        _column("Method", ".spec.method"),
        _column("Phase", ".status.phase"),
        _column("Result", ".status.result"),
    ),
    (_SKERRY, "v1alpha1", "hardwarerules"): (
        _column("Subsystem", ".spec.match.subsystem"),
        _column("Vendor", ".spec.match.vendor"),
        _column("Product", ".spec.match.product"),
        _column("Accept", ".spec.accept", "boolean"),
    ),
    (_SKERRY, "v1alpha1", "devicecandidates"): (
        _column("Node", ".spec.nodeName"),
        _column("Model", ".spec.model"),
        _column("DevNode", ".spec.devNode"),
        _column("Phase", ".status.phase"),
        _column("Accepted", ".spec.accepted", "boolean"),
        _column("Device", ".status.device"),
    ),
    (_OPERATIONS, "v1alpha2", "nodeupgradejobs"): _JOB,
    (_OPERATIONS, "v1alpha2", "imageprepulljobs"): _JOB,
    (_OPERATIONS, "v1alpha2", "configupdatejobs"): _JOB,
}
"""(group, version, plural) of each that has other columns than its age."""
