"""Objects that a node asked for when a pod needed them, and that the cloud does not take back: which nobody needs.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from beehive.message import UNREADABLE
from edgecore.metamanager.records import Row

KINDS = ("runtimeclass", "persistentvolumeclaim", "persistentvolume", "csidriver", "volumeattachment")


class _Named(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    claim_name: str = ""
    driver: str = ""


class _Volume(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    name: str = ""
    persistent_volume_claim: _Named | None = None
    ephemeral: _Named | None = None
    csi: _Named | None = None


class _PodSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    runtime_class_name: str | None = None
    volumes: list[_Volume] | None = None


class _Pod(msgspec.Struct, frozen=True, kw_only=True):
    spec: _PodSpec = _PodSpec()


class _Source(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    persistent_volume_name: str | None = None


class _Spec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Of a claim, a volume or an attachment."""

    volume_name: str | None = None
    csi: _Named | None = None
    source: _Source | None = None


class _Other(msgspec.Struct, frozen=True, kw_only=True):
    spec: _Spec = _Spec()


def unused(pods: Iterable[Row], rows: Mapping[str, Iterable[Row]]) -> list[str]:
    """Keys of the rows, by kind, that no pod of this node refers to; none while one of the pods cannot be read."""
    classes, claims, drivers = set(), set(), set()
    try:
        for pod in pods:
            spec = msgspec.json.decode(pod.value, type=_Pod).spec
            classes.add(spec.runtime_class_name)
            for volume in spec.volumes or ():
                if volume.persistent_volume_claim is not None:
                    claims.add((pod.namespace, volume.persistent_volume_claim.claim_name))
                if volume.ephemeral is not None:
                    claims.add((pod.namespace, f"{pod.name}-{volume.name}"))
                if volume.csi is not None:
                    drivers.add(volume.csi.driver)
        used_claims = [r for r in rows["persistentvolumeclaim"] if (r.namespace, r.name) in claims]
        bound = {_spec(row).volume_name for row in used_claims}
        volumes = [row for row in rows["persistentvolume"] if row.name in bound]
        drivers |= {found.csi.driver for row in volumes if (found := _spec(row)).csi is not None}
        attached = [
            row
            for row in rows["volumeattachment"]
            if (source := _spec(row).source) is not None and source.persistent_volume_name in bound
        ]
    except UNREADABLE:
        return []
    kept = {row.key for row in (*used_claims, *volumes, *attached)}
    kept |= {row.key for row in rows["runtimeclass"] if row.name in classes}
    kept |= {row.key for row in rows["csidriver"] if row.name in drivers}
    return [row.key for kind in KINDS for row in rows[kind] if row.key not in kept]


def _spec(row: Row) -> _Spec:
    return msgspec.json.decode(row.value, type=_Other).spec
