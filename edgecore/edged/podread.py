"""Decoding and checking a pod.  Pure.

`decode_pod` is the only way in.  It refuses, naming the field, whatever could not become a safe path, label or container.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from edgecore.edged import quantity
from edgecore.edged.errors import BadPod
from edgecore.edged.pod import (
    MAX_ID,
    ClaimVolume,
    Container,
    DownwardFile,
    KeyToPath,
    ObjectMeta,
    Pod,
    Probe,
    Quantity,
    ResourceRequirements,
    Volume,
    Wire,
)

# Bounds on what one object may make us hold (P9); an API server refuses objects beyond 1.5 MiB itself.
MAX_POD_BYTES = 3 * 1024 * 1024
MAX_CONTAINERS = 250
MAX_ENV = 20_000

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*\Z")
_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,127}\Z")
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}\Z")


class PodKey(Wire, frozen=True, kw_only=True):
    """Who a pod is, for one whose rest cannot be read."""

    metadata: ObjectMeta


class _OnlyUid(Wire, frozen=True, kw_only=True):
    uid: str = ""


class _Unreadable(Wire, frozen=True, kw_only=True):
    metadata: _OnlyUid = _OnlyUid()


_pod_decoder = msgspec.json.Decoder()


def decode_key(raw: bytes | msgspec.Raw) -> ObjectMeta:
    """Only the metadata of a pod.  Raises BadPod when not even that can be used."""
    try:
        meta = msgspec.convert(_drop_null(_pod_decoder.decode(raw)), PodKey).metadata
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as err:
        raise BadPod(f"cannot read pod: {err}") from err
    _check_key(meta)
    return meta


def decode_uid(raw: bytes | msgspec.Raw) -> str:
    """The UID of a pod whose metadata cannot be used otherwise; empty when not even that can be read."""
    try:
        uid = msgspec.json.decode(raw, type=_Unreadable).metadata.uid
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return ""
    return uid if _UID.match(uid) else ""


def decode_pod(raw: bytes | msgspec.Raw) -> Pod:
    """A pod that is safe to run.  Raises BadPod, whose text names the field."""
    if len(memoryview(raw)) > MAX_POD_BYTES:
        raise BadPod(f"cannot read pod: more than {MAX_POD_BYTES} bytes")
    try:
        pod = msgspec.convert(_drop_null(_pod_decoder.decode(raw)), Pod)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as err:
        raise BadPod(f"cannot read pod: {err}") from err
    if any(v.ephemeral is not None for v in pod.spec.volumes):
        claimed = [_claimed(pod, v) for v in pod.spec.volumes]
        pod = msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, volumes=claimed))
    check(pod)
    return pod


def _claimed(pod: Pod, volume: Volume) -> Volume:
    """A volume whose claim is made for the pod, as the claim that it becomes."""
    if volume.ephemeral is None or volume.persistent_volume_claim is not None:
        return volume
    claim = ClaimVolume(claim_name=f"{pod.name}-{volume.name}", owned=True)
    return msgspec.structs.replace(volume, ephemeral=None, persistent_volume_claim=claim)


def _drop_null(value: Any) -> Any:
    """Go writes null for empty lists and times; to us they are absent."""
    if isinstance(value, dict):
        return {k: _drop_null(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_drop_null(v) for v in value]
    return value


def is_name(text: str) -> bool:
    """Whether a name of an object at the API may become the name of a folder."""
    return bool(_SUBDOMAIN.match(text))


def _check_key(meta: ObjectMeta) -> None:
    if not _SUBDOMAIN.match(meta.name):
        raise BadPod(f"metadata.name is not a DNS subdomain: {meta.name[:64]!r}")
    if not _LABEL.match(meta.namespace):
        raise BadPod(f"metadata.namespace is not a DNS label: {meta.namespace[:64]!r}")
    if not _UID.match(meta.uid):
        raise BadPod(f"metadata.uid cannot be used: {meta.uid[:64]!r}")


def check(pod: Pod) -> None:
    """Refuse what edged could not run safely.  Raises BadPod."""
    _check_key(pod.metadata)
    spec = pod.spec
    if not spec.containers:
        raise BadPod("spec.containers is empty")
    if len(pod.every_container()) > MAX_CONTAINERS:
        raise BadPod(f"spec.containers: more than {MAX_CONTAINERS}")
    if spec.restart_policy not in ("Always", "OnFailure", "Never"):
        raise BadPod(f"spec.restartPolicy: unknown value {spec.restart_policy[:32]!r}")
    for name, amount in spec.overhead.items():
        check_amount(f"spec.overhead[{name[:64]}]", amount)
    if spec.resources is not None:
        _check_resources("spec", spec.resources)
    context = spec.security_context
    ids = [
        ("runAsUser", context.run_as_user),
        ("runAsGroup", context.run_as_group),
        ("fsGroup", context.fs_group),
    ]
    for field, value in [*ids, *(("supplementalGroups", group) for group in context.supplemental_groups)]:
        if value is not None and not 0 <= value <= MAX_ID:
            raise BadPod(f"spec.securityContext.{field} must be between 0 and {MAX_ID}: {value}")
    volumes = _check_volumes(spec.volumes)
    seen: set[str] = set()
    for field, group in (
        ("initContainers", spec.init_containers),
        ("containers", spec.containers),
        ("ephemeralContainers", spec.ephemeral_containers),
    ):
        for i, c in enumerate(group):
            where = f"spec.{field}[{i}]"
            if c.name in seen:
                raise BadPod(f"{where}.name: {c.name[:64]!r} is there twice")
            seen.add(c.name)
            _check_container(where, c, volumes)
            _check_devices(where, c, spec.volumes)


def _check_container(where: str, c: Container, volumes: set[str]) -> None:
    if not _LABEL.match(c.name):
        raise BadPod(f"{where}.name is not a DNS label: {c.name[:64]!r}")
    if c.restart_policy not in ("", "Always", "OnFailure", "Never"):
        raise BadPod(f"{where}.restartPolicy: unknown value {c.restart_policy[:32]!r}")
    if len(c.env) > MAX_ENV:
        raise BadPod(f"{where}.env: more than {MAX_ENV}")
    for i, env in enumerate(c.env):
        if not env.name or "=" in env.name or "\0" in env.name:
            raise BadPod(f"{where}.env[{i}].name cannot be used: {env.name[:64]!r}")
    for i, m in enumerate(c.volume_mounts):
        at = f"{where}.volumeMounts[{i}]"
        if m.name not in volumes:
            raise BadPod(f"{at}.name: no volume {m.name[:64]!r}")
        if not m.mount_path or ":" in m.mount_path or "\0" in m.mount_path:
            raise BadPod(f"{at}.mountPath cannot be used: {m.mount_path[:64]!r}")
        if m.sub_path:
            check_relative(f"{at}.subPath", m.sub_path)
        if m.sub_path_expr and m.sub_path:
            raise BadPod(f"{at}: subPath and subPathExpr exclude each other")
        if m.mount_propagation not in ("", "None", "HostToContainer", "Bidirectional"):
            raise BadPod(f"{at}.mountPropagation: unknown value {m.mount_propagation[:32]!r}")
    for i, port in enumerate(c.ports):
        if not 0 < port.container_port < 65536 or not 0 <= port.host_port < 65536:
            raise BadPod(f"{where}.ports[{i}] must be between 1 and 65535")
        if port.protocol not in ("TCP", "UDP", "SCTP"):
            raise BadPod(f"{where}.ports[{i}].protocol: unknown value {port.protocol[:32]!r}")
    _check_resources(where, c.resources)
    for field, probe in (
        ("livenessProbe", c.liveness_probe),
        ("readinessProbe", c.readiness_probe),
        ("startupProbe", c.startup_probe),
    ):
        if probe is not None:
            _check_probe(f"{where}.{field}", probe)


def _check_devices(where: str, c: Container, volumes: list[Volume]) -> None:
    claims = {v.name for v in volumes if v.persistent_volume_claim is not None}
    mounted = {m.name for m in c.volume_mounts}
    for i, d in enumerate(c.volume_devices):
        at = f"{where}.volumeDevices[{i}]"
        if d.name not in claims:
            raise BadPod(f"{at}.name: no volume {d.name[:64]!r} that is a claim")
        if d.name in mounted:
            raise BadPod(f"{at}.name: {d.name[:64]!r} is in volumeMounts, too")
        path = d.device_path
        if not path.startswith("/") or ".." in path.split("/") or ":" in path or "\0" in path:
            raise BadPod(f"{at}.devicePath cannot be used: {path[:64]!r}")


def _check_resources(where: str, resources: ResourceRequirements) -> None:
    for kind, amounts in (("limits", resources.limits), ("requests", resources.requests)):
        for name, amount in amounts.items():
            check_amount(f"{where}.resources.{kind}[{name[:64]}]", amount)


def check_amount(where: str, amount: Quantity) -> None:
    """A quantity that is not negative.  Raises BadPod."""
    try:
        value = quantity.parse(amount)
    except ValueError as err:
        raise BadPod(f"{where}: {err}") from err
    if value < 0:
        raise BadPod(f"{where} is negative")


def _check_probe(where: str, probe: Probe) -> None:
    actions = [a for a in (probe.exec, probe.http_get, probe.tcp_socket, probe.grpc) if a is not None]
    if len(actions) != 1:
        raise BadPod(f"{where} needs exactly one of exec, httpGet, tcpSocket, grpc")
    for name in ("initial_delay_seconds", "timeout_seconds", "period_seconds"):
        if getattr(probe, name) < 0:
            raise BadPod(f"{where}.{name} is negative")


def _check_volumes(volumes: list[Volume]) -> set[str]:
    names: set[str] = set()
    for i, v in enumerate(volumes):
        if v.empty_dir is not None and v.empty_dir.size_limit is not None:
            check_amount(f"spec.volumes[{i}].emptyDir.sizeLimit", v.empty_dir.size_limit)
        where = f"spec.volumes[{i}]"
        if not _LABEL.match(v.name):
            raise BadPod(f"{where}.name is not a DNS label: {v.name[:64]!r}")
        if v.name in names:
            raise BadPod(f"{where}.name: {v.name[:64]!r} is there twice")
        names.add(v.name)
        known = (
            v.config_map,
            v.secret,
            v.empty_dir,
            v.host_path,
            v.downward_api,
            v.projected,
            v.persistent_volume_claim,
            v.csi,
            v.image,
        )
        if sum(k is not None for k in known) != 1:
            raise BadPod(f"{where} ({v.name}) is of a kind that is not supported here")
        if v.persistent_volume_claim is not None and not _SUBDOMAIN.match(
            v.persistent_volume_claim.claim_name
        ):
            name = v.persistent_volume_claim.claim_name
            raise BadPod(f"{where}.persistentVolumeClaim.claimName cannot be used: {name[:64]!r}")
        if v.csi is not None and not _SUBDOMAIN.match(v.csi.driver):
            raise BadPod(f"{where}.csi.driver cannot be used: {v.csi.driver[:64]!r}")
        for source in (v.config_map, v.secret):
            if source is not None:
                _check_items(where, source.items)
        if v.downward_api is not None:
            _check_files(where, v.downward_api.items)
        if v.host_path is not None:
            path = v.host_path.path
            if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
                raise BadPod(f"{where}.hostPath.path cannot be used: {path[:64]!r}")
        for p in v.projected.sources if v.projected is not None else ():
            for projected in (p.config_map, p.secret):
                if projected is not None:
                    _check_items(where, projected.items)
            if p.downward_api is not None:
                _check_files(where, p.downward_api.items)
            if p.service_account_token is not None:
                check_relative(where, p.service_account_token.path)
    return names


def _check_items(where: str, items: list[KeyToPath]) -> None:
    for item in items:
        if not _KEY.match(item.key):
            raise BadPod(f"{where}: key cannot be used: {item.key[:64]!r}")
        check_relative(where, item.path)


def _check_files(where: str, items: list[DownwardFile]) -> None:
    for item in items:
        check_relative(where, item.path)


def check_relative(where: str, path: str) -> None:
    """A path inside a volume: relative, without `..`.  Raises BadPod."""
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts or "\0" in path or len(path) > 4096:
        raise BadPod(f"{where}: path cannot be used: {path[:64]!r}")
    if path.startswith(".."):
        raise BadPod(f"{where}: path must not start with '..': {path[:64]!r}")
