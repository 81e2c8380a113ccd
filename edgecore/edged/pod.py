"""The part of a Kubernetes Pod that edged uses, decoded and checked.  Pure.

`decode_pod` is the only way in.  It refuses, naming the field, whatever could not become a safe path, label or container;
fields that edged does not use are ignored, so that a newer API stays readable.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from edgecore.edged import quantity
from edgecore.edged.errors import BadPod

# Bounds on what one object may make us hold (P9); an API server refuses objects beyond 1.5 MiB itself.
MAX_POD_BYTES = 3 * 1024 * 1024
MAX_CONTAINERS = 250
MAX_ENV = 20_000

HOLD_ANNOTATION = "edge.kubeedge.io/hold-upgrade"

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*\Z")
_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,127}\Z")
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}\Z")

IntOrString = int | str
Quantity = str | int | float


class _Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of all wire types: Kubernetes' camelCase, unknown fields ignored, defaults left out."""


class ObjectMeta(_Wire, frozen=True, kw_only=True):
    name: str
    namespace: str = "default"
    uid: str
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: str = ""
    deletion_timestamp: str = ""
    deletion_grace_period_seconds: int | None = None


class FieldRef(_Wire, frozen=True, kw_only=True):
    field_path: str
    api_version: str = "v1"


class ResourceFieldRef(_Wire, frozen=True, kw_only=True):
    resource: str
    container_name: str = ""
    divisor: Quantity = "0"


class KeyRef(_Wire, frozen=True, kw_only=True):
    name: str = ""
    key: str
    optional: bool = False


class EnvVarSource(_Wire, frozen=True, kw_only=True):
    field_ref: FieldRef | None = None
    resource_field_ref: ResourceFieldRef | None = None
    config_map_key_ref: KeyRef | None = None
    secret_key_ref: KeyRef | None = None


class EnvVar(_Wire, frozen=True, kw_only=True):
    name: str
    value: str = ""
    value_from: EnvVarSource | None = None


class NameRef(_Wire, frozen=True, kw_only=True):
    name: str = ""
    optional: bool = False


class EnvFrom(_Wire, frozen=True, kw_only=True):
    prefix: str = ""
    config_map_ref: NameRef | None = None
    secret_ref: NameRef | None = None


class ContainerPort(_Wire, frozen=True, kw_only=True):
    container_port: int
    host_port: int = 0
    protocol: str = "TCP"
    name: str = ""
    host_ip: str = msgspec.field(name="hostIP", default="")


class VolumeMount(_Wire, frozen=True, kw_only=True):
    name: str
    mount_path: str
    read_only: bool = False
    sub_path: str = ""
    sub_path_expr: str = ""
    mount_propagation: str = ""


class ResourceRequirements(_Wire, frozen=True, kw_only=True):
    limits: dict[str, Quantity] = {}
    requests: dict[str, Quantity] = {}


class ExecAction(_Wire, frozen=True, kw_only=True):
    command: list[str] = []


class HttpHeader(_Wire, frozen=True, kw_only=True):
    name: str
    value: str = ""


class HttpGetAction(_Wire, frozen=True, kw_only=True):
    port: IntOrString
    path: str = "/"
    host: str = ""
    scheme: str = "HTTP"
    http_headers: list[HttpHeader] = []


class TcpSocketAction(_Wire, frozen=True, kw_only=True):
    port: IntOrString
    host: str = ""


class GrpcAction(_Wire, frozen=True, kw_only=True):
    port: int
    service: str = ""


class SleepAction(_Wire, frozen=True, kw_only=True):
    seconds: int


class Probe(_Wire, frozen=True, kw_only=True):
    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    tcp_socket: TcpSocketAction | None = None
    grpc: GrpcAction | None = None
    initial_delay_seconds: int = 0
    timeout_seconds: int = 1
    period_seconds: int = 10
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace_period_seconds: int | None = None


class LifecycleHandler(_Wire, frozen=True, kw_only=True):
    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    tcp_socket: TcpSocketAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(_Wire, frozen=True, kw_only=True):
    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None


class Capabilities(_Wire, frozen=True, kw_only=True):
    add: list[str] = []
    drop: list[str] = []


class Profile(_Wire, frozen=True, kw_only=True):
    """A seccomp or AppArmor profile."""

    type: str
    localhost_profile: str | None = None


class SecurityContext(_Wire, frozen=True, kw_only=True):
    capabilities: Capabilities | None = None
    privileged: bool = False
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    read_only_root_filesystem: bool = False
    allow_privilege_escalation: bool | None = None
    proc_mount: str = ""
    seccomp_profile: Profile | None = None
    app_armor_profile: Profile | None = None


class Sysctl(_Wire, frozen=True, kw_only=True):
    name: str
    value: str


class PodSecurityContext(_Wire, frozen=True, kw_only=True):
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    supplemental_groups: list[int] = []
    fs_group: int | None = None
    sysctls: list[Sysctl] = []
    seccomp_profile: Profile | None = None
    app_armor_profile: Profile | None = None


class ResizePolicy(_Wire, frozen=True, kw_only=True):
    resource_name: str
    restart_policy: str = "NotRequired"


class ExitCodes(_Wire, frozen=True, kw_only=True):
    operator: str
    values: list[int] = []


class RestartRule(_Wire, frozen=True, kw_only=True):
    action: str
    exit_codes: ExitCodes | None = None


class Container(_Wire, frozen=True, kw_only=True):
    name: str
    image: str = ""
    command: list[str] = []
    args: list[str] = []
    working_dir: str = ""
    ports: list[ContainerPort] = []
    env_from: list[EnvFrom] = []
    env: list[EnvVar] = []
    resources: ResourceRequirements = ResourceRequirements()
    resize_policy: list[ResizePolicy] = []
    restart_policy: str = ""
    restart_policy_rules: list[RestartRule] = []
    volume_mounts: list[VolumeMount] = []
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    termination_message_path: str = "/dev/termination-log"
    termination_message_policy: str = "File"
    image_pull_policy: str = ""
    security_context: SecurityContext | None = None
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    # of ephemeral containers only: whose processes it sees
    target_container_name: str = ""

    @property
    def pull_policy(self) -> str:
        """The API server's default where none is written: Always for :latest, else IfNotPresent."""
        if self.image_pull_policy:
            return self.image_pull_policy
        last = self.image.rpartition("/")[2]
        tagged = "@" in last or (":" in last and not last.endswith(":latest"))
        return "IfNotPresent" if tagged else "Always"


class KeyToPath(_Wire, frozen=True, kw_only=True):
    key: str
    path: str
    mode: int | None = None


class ConfigMapVolume(_Wire, frozen=True, kw_only=True):
    name: str = ""
    items: list[KeyToPath] = []
    default_mode: int = 0o644
    optional: bool = False


class SecretVolume(_Wire, frozen=True, kw_only=True):
    secret_name: str = ""
    items: list[KeyToPath] = []
    default_mode: int = 0o644
    optional: bool = False


class EmptyDirVolume(_Wire, frozen=True, kw_only=True):
    medium: str = ""
    size_limit: Quantity | None = None


class HostPathVolume(_Wire, frozen=True, kw_only=True):
    path: str
    type: str = ""


class DownwardFile(_Wire, frozen=True, kw_only=True):
    path: str
    field_ref: FieldRef | None = None
    resource_field_ref: ResourceFieldRef | None = None
    mode: int | None = None


class DownwardVolume(_Wire, frozen=True, kw_only=True):
    items: list[DownwardFile] = []
    default_mode: int = 0o644


class SecretProjection(_Wire, frozen=True, kw_only=True):
    name: str = ""
    items: list[KeyToPath] = []
    optional: bool = False


class TokenProjection(_Wire, frozen=True, kw_only=True):
    path: str
    audience: str = ""
    expiration_seconds: int = 3600


class DownwardProjection(_Wire, frozen=True, kw_only=True):
    items: list[DownwardFile] = []


class Projection(_Wire, frozen=True, kw_only=True):
    config_map: SecretProjection | None = None
    secret: SecretProjection | None = None
    downward_api: DownwardProjection | None = msgspec.field(name="downwardAPI", default=None)
    service_account_token: TokenProjection | None = None


class ProjectedVolume(_Wire, frozen=True, kw_only=True):
    sources: list[Projection] = []
    default_mode: int = 0o644


class ClaimVolume(_Wire, frozen=True, kw_only=True):
    """owned: made for this pod alone, of a template in it."""

    claim_name: str
    read_only: bool = False
    owned: bool = False


class EphemeralVolume(_Wire, frozen=True, kw_only=True):
    """A claim that lives as long as its pod; the API's controller makes it."""


class CsiVolume(_Wire, frozen=True, kw_only=True):
    driver: str
    read_only: bool = False
    fs_type: str = ""
    volume_attributes: dict[str, str] = {}
    node_publish_secret_ref: NameRef | None = None


class Volume(_Wire, frozen=True, kw_only=True):
    name: str
    csi: CsiVolume | None = None
    ephemeral: EphemeralVolume | None = None
    config_map: ConfigMapVolume | None = None
    secret: SecretVolume | None = None
    empty_dir: EmptyDirVolume | None = None
    host_path: HostPathVolume | None = None
    downward_api: DownwardVolume | None = msgspec.field(name="downwardAPI", default=None)
    projected: ProjectedVolume | None = None
    persistent_volume_claim: ClaimVolume | None = None


class HostAlias(_Wire, frozen=True, kw_only=True):
    ip: str
    hostnames: list[str] = []


class DnsOption(_Wire, frozen=True, kw_only=True):
    name: str
    value: str | None = None


class DnsConfig(_Wire, frozen=True, kw_only=True):
    nameservers: list[str] = []
    searches: list[str] = []
    options: list[DnsOption] = []


class Toleration(_Wire, frozen=True, kw_only=True):
    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


class PodOs(_Wire, frozen=True, kw_only=True):
    name: str = ""


class ReadinessGate(_Wire, frozen=True, kw_only=True):
    condition_type: str


class LocalRef(_Wire, frozen=True, kw_only=True):
    name: str = ""


class PodSpec(_Wire, frozen=True, kw_only=True):
    containers: list[Container]
    init_containers: list[Container] = []
    ephemeral_containers: list[Container] = []
    volumes: list[Volume] = []
    restart_policy: str = "Always"
    termination_grace_period_seconds: int | None = None
    active_deadline_seconds: int | None = None
    dns_policy: str = "ClusterFirst"
    dns_config: DnsConfig | None = None
    service_account_name: str = ""
    automount_service_account_token: bool | None = None
    node_name: str = ""
    host_network: bool = False
    host_pid: bool = msgspec.field(name="hostPID", default=False)
    host_ipc: bool = msgspec.field(name="hostIPC", default=False)
    share_process_namespace: bool = False
    security_context: PodSecurityContext = PodSecurityContext()
    image_pull_secrets: list[LocalRef] = []
    hostname: str = ""
    subdomain: str = ""
    set_hostname_as_fqdn: bool = msgspec.field(name="setHostnameAsFQDN", default=False)
    host_aliases: list[HostAlias] = []
    priority: int | None = None
    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    overhead: dict[str, Quantity] = {}
    os: PodOs | None = None
    runtime_class_name: str | None = None
    enable_service_links: bool = True
    readiness_gates: list[ReadinessGate] = []


class Condition(_Wire, frozen=True, kw_only=True):
    type: str
    status: str
    observed_generation: int = 0
    last_probe_time: str | None = None
    last_transition_time: str | None = None
    reason: str = ""
    message: str = ""


class StateRunning(_Wire, frozen=True, kw_only=True):
    started_at: str | None = None


class StateTerminated(_Wire, frozen=True, kw_only=True):
    # required, so that 0 is written too
    exit_code: int
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    container_id: str = msgspec.field(name="containerID", default="")


class StateWaiting(_Wire, frozen=True, kw_only=True):
    reason: str = ""
    message: str = ""


class State(_Wire, frozen=True, kw_only=True):
    waiting: StateWaiting | None = None
    running: StateRunning | None = None
    terminated: StateTerminated | None = None


class ContainerStatusJson(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The fields that Kubernetes never leaves out have no default here."""

    name: str
    state: State = State()
    last_state: State = State()
    ready: bool = False
    restart_count: int = 0
    image: str = ""
    image_id: str = msgspec.field(name="imageID", default="")
    container_id: str | msgspec.UnsetType = msgspec.field(name="containerID", default=msgspec.UNSET)
    started: bool | msgspec.UnsetType | None = msgspec.UNSET
    # what it runs with, which during a resize is not yet what its spec says
    resources: ResourceRequirements | msgspec.UnsetType = msgspec.UNSET
    allocated_resources: dict[str, Quantity] | msgspec.UnsetType = msgspec.UNSET


class HostIp(_Wire, frozen=True, kw_only=True):
    ip: str


class PodStatus(_Wire, frozen=True, kw_only=True):
    observed_generation: int = 0
    phase: str = ""
    conditions: list[Condition] = []
    message: str = ""
    reason: str = ""
    host_ip: str = msgspec.field(name="hostIP", default="")
    host_ips: list[HostIp] = msgspec.field(name="hostIPs", default_factory=list)
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: list[HostIp] = msgspec.field(name="podIPs", default_factory=list)
    start_time: str | None = None
    init_container_statuses: list[ContainerStatusJson] = []
    container_statuses: list[ContainerStatusJson] = []
    ephemeral_container_statuses: list[ContainerStatusJson] = []
    qos_class: str = ""


class Pod(_Wire, frozen=True, kw_only=True):
    metadata: ObjectMeta
    spec: PodSpec
    status: PodStatus = PodStatus()

    @property
    def uid(self) -> str:
        return self.metadata.uid

    @property
    def namespace(self) -> str:
        return self.metadata.namespace

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def deleting(self) -> bool:
        return bool(self.metadata.deletion_timestamp)

    @property
    def on_hold(self) -> bool:
        """Whether it was sent to start only when somebody at the edge says so."""
        return self.metadata.annotations.get(HOLD_ANNOTATION) == "true"

    @property
    def grace_period_s(self) -> int:
        """Seconds its containers get to end; the deletion's word before the spec's; never under one, as in a kubelet."""
        if self.deleting and self.metadata.deletion_grace_period_seconds is not None:
            return max(1, self.metadata.deletion_grace_period_seconds)
        if self.spec.termination_grace_period_seconds is not None:
            return max(1, self.spec.termination_grace_period_seconds)
        return 30

    def all_containers(self) -> list[Container]:
        """What the pod consists of: init and app containers."""
        return [*self.spec.init_containers, *self.spec.containers]

    def every_container(self) -> list[Container]:
        """All of them and the ephemeral ones, which were added while it ran and count for nothing but themselves."""
        return [*self.all_containers(), *self.spec.ephemeral_containers]

    def container(self, name: str) -> Container:
        """The container of that name; raises KeyError."""
        for c in self.every_container():
            if c.name == name:
                return c
        raise KeyError(name)

    def field_path(self, name: str) -> str:
        """Where a container is in the pod, as a kubelet's events have it."""
        for field, found in (
            ("initContainers", self.spec.init_containers),
            ("ephemeralContainers", self.spec.ephemeral_containers),
        ):
            if any(c.name == name for c in found):
                return f"spec.{field}{{{name}}}"
        return f"spec.containers{{{name}}}"

    def is_sidecar(self, container: Container) -> bool:
        """Whether it is an init container that keeps running beside the others."""
        return container.restart_policy == "Always" and any(
            c.name == container.name for c in self.spec.init_containers
        )


class PodKey(_Wire, frozen=True, kw_only=True):
    """Who a pod is, for one whose rest cannot be read."""

    metadata: ObjectMeta


class _OnlyUid(_Wire, frozen=True, kw_only=True):
    uid: str = ""


class _Unreadable(_Wire, frozen=True, kw_only=True):
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
    for kind, amounts in (("limits", c.resources.limits), ("requests", c.resources.requests)):
        for name, amount in amounts.items():
            check_amount(f"{where}.resources.{kind}[{name[:64]}]", amount)
    for field, probe in (
        ("livenessProbe", c.liveness_probe),
        ("readinessProbe", c.readiness_probe),
        ("startupProbe", c.startup_probe),
    ):
        if probe is not None:
            _check_probe(f"{where}.{field}", probe)


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


def qos_class(pod: Pod) -> str:
    """Guaranteed, Burstable or BestEffort, by the kubelet's rule (only cpu and memory count)."""
    guaranteed = True
    anything = False
    for c in pod.all_containers():
        limits = {k: quantity.parse(v) for k, v in c.resources.limits.items() if k in ("cpu", "memory")}
        requests = {k: quantity.parse(v) for k, v in c.resources.requests.items() if k in ("cpu", "memory")}
        limits = {k: v for k, v in limits.items() if v}
        requests = {k: v for k, v in requests.items() if v}
        anything = anything or bool(limits or requests)
        for name in ("cpu", "memory"):
            if name not in limits or requests.get(name, limits[name]) != limits[name]:
                guaranteed = False
    if not anything:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"
