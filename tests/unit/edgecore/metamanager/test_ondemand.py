"""What was asked for, for pods, and that no pod needs any more."""

from __future__ import annotations

import json
from typing import Any

from edgecore.metamanager import ondemand
from edgecore.metamanager.records import Row


def row(kind: str, name: str, spec: Any = None, namespace: str = "") -> Row:
    key = f"{namespace or 'null'}/{kind}/{name}"
    value = json.dumps({"metadata": {"name": name}, "spec": spec or {}}).encode()
    return Row(key=key, type=kind, namespace=namespace, name=name, uid=name, version=1, value=value)


ROWS = [
    row("runtimeclass", "crun"),
    row("runtimeclass", "gone"),
    row("persistentvolumeclaim", "data", {"volumeName": "pv1"}, "ns"),
    row("persistentvolumeclaim", "data", {"volumeName": "pv2"}, "other"),
    row("persistentvolumeclaim", "p-own", {"volumeName": "pv3"}, "ns"),
    row("persistentvolume", "pv1", {"csi": {"driver": "disks"}}),
    row("persistentvolume", "pv2", {"csi": {"driver": "others"}}),
    row("persistentvolume", "pv3", {"local": {"path": "/x"}}),
    row("csidriver", "disks"),
    row("csidriver", "others"),
    row("csidriver", "inline"),
    row("volumeattachment", "a1", {"source": {"persistentVolumeName": "pv1"}}),
    row("volumeattachment", "a2", {"source": {"persistentVolumeName": "pv2"}}),
]
POD = row(
    "pod",
    "p",
    {
        "runtimeClassName": "crun",
        "volumes": [
            {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "own", "ephemeral": {"volumeClaimTemplate": {}}},
            {"name": "i", "csi": {"driver": "inline"}},
            {"name": "e", "emptyDir": {}},
        ],
    },
    "ns",
)


def by_kind(rows: list[Row]) -> dict[str, list[Row]]:
    return {kind: [r for r in rows if r.type == kind] for kind in ondemand.KINDS}


def test_what_pods_refer_to_stays_with_what_that_refers_to() -> None:
    assert sorted(ondemand.unused([POD], by_kind(ROWS))) == [
        "null/csidriver/others",
        "null/persistentvolume/pv2",
        "null/runtimeclass/gone",
        "null/volumeattachment/a2",
        "other/persistentvolumeclaim/data",
    ]
    assert len(ondemand.unused([], by_kind(ROWS))) == len(ROWS)


def test_nothing_goes_while_something_cannot_be_read() -> None:
    broken = Row(key="ns/pod/q", type="pod", namespace="ns", name="q", uid="q", version=1, value=b"{")
    assert ondemand.unused([POD, broken], by_kind(ROWS)) == []
    claim = Row(
        key="ns/persistentvolumeclaim/data",
        type="persistentvolumeclaim",
        namespace="ns",
        name="data",
        uid="x",
        version=1,
        value=b'{"spec":3}',
    )
    assert ondemand.unused([POD], by_kind([claim, ROWS[0]])) == []
