"""The part of a Kubernetes Pod that edged uses, as types.  Pure.

podread.decode_pod is the only way in.  Fields that edged does not use are ignored, so that a newer API stays readable.
"""

from __future__ import annotations

import msgspec

# of users and groups
MAX_ID = 2**31 - 1

HOLD_ANNOTATION = "edge.kubeedge.io/hold-upgrade"

IntOrString = int | str
Quantity = str | int | float


class Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of all wire types: Kubernetes' camelCase, unknown fields ignored, defaults left out."""


class ObjectMeta(Wire, frozen=True, kw_only=True):
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


class FieldRef(Wire, frozen=True, kw_only=True):
    field_path: str
    api_version: str = "v1"


class ResourceFieldRef(Wire, frozen=True, kw_only=True):
    resource: str
    container_name: str = ""
    divisor: Quantity = "0"


class KeyRef(Wire, frozen=True, kw_only=True):
    name: str = ""
    key: str
    optional: bool = False


class EnvVarSource(Wire, frozen=True, kw_only=True):
    field_ref: FieldRef | None = None
    resource_field_ref: ResourceFieldRef | None = None
    config_map_key_ref: KeyRef | None = None
    secret_key_ref: KeyRef | None = None


class EnvVar(Wire, frozen=True, kw_only=True):
    name: str
    value: str = ""
    value_from: EnvVarSource | None = None


class NameRef(Wire, frozen=True, kw_only=True):
    name: str = ""
    optional: bool = False


class EnvFrom(Wire, frozen=True, kw_only=True):
    prefix: str = ""
    config_map_ref: NameRef | None = None
    secret_ref: NameRef | None = None


class ContainerPort(Wire, frozen=True, kw_only=True):
    container_port: int
    host_port: int = 0
    protocol: str = "TCP"
    name: str = ""
    host_ip: str = msgspec.field(name="hostIP", default="")


class VolumeMount(Wire, frozen=True, kw_only=True):
    name: str
    mount_path: str
    read_only: bool = False
    sub_path: str = ""
    sub_path_expr: str = ""
    recursive_read_only: str = "Disabled"
    mount_propagation: str = ""


class VolumeDevice(Wire, frozen=True, kw_only=True):
    """A volume as a raw device."""

    name: str
    device_path: str


class ResourceRequirements(Wire, frozen=True, kw_only=True):
    limits: dict[str, Quantity] = {}
    requests: dict[str, Quantity] = {}


class ExecAction(Wire, frozen=True, kw_only=True):
    command: list[str] = []


class HttpHeader(Wire, frozen=True, kw_only=True):
    name: str
    value: str = ""


class HttpGetAction(Wire, frozen=True, kw_only=True):
    port: IntOrString
    path: str = "/"
    host: str = ""
    scheme: str = "HTTP"
    http_headers: list[HttpHeader] = []


class TcpSocketAction(Wire, frozen=True, kw_only=True):
    port: IntOrString
    host: str = ""


class GrpcAction(Wire, frozen=True, kw_only=True):
    port: int
    service: str = ""


class SleepAction(Wire, frozen=True, kw_only=True):
    seconds: int


class Probe(Wire, frozen=True, kw_only=True):
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


class LifecycleHandler(Wire, frozen=True, kw_only=True):
    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    tcp_socket: TcpSocketAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(Wire, frozen=True, kw_only=True):
    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None
    stop_signal: str = ""


class Capabilities(Wire, frozen=True, kw_only=True):
    add: list[str] = []
    drop: list[str] = []


class Profile(Wire, frozen=True, kw_only=True):
    """A seccomp or AppArmor profile."""

    type: str
    localhost_profile: str | None = None


class SecurityContext(Wire, frozen=True, kw_only=True):
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


class Sysctl(Wire, frozen=True, kw_only=True):
    name: str
    value: str


class PodSecurityContext(Wire, frozen=True, kw_only=True):
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    supplemental_groups: list[int] = []
    supplemental_groups_policy: str = "Merge"
    fs_group: int | None = None
    fs_group_change_policy: str = "Always"
    sysctls: list[Sysctl] = []
    seccomp_profile: Profile | None = None
    app_armor_profile: Profile | None = None


class ResizePolicy(Wire, frozen=True, kw_only=True):
    resource_name: str
    restart_policy: str = "NotRequired"


class ExitCodes(Wire, frozen=True, kw_only=True):
    operator: str
    values: list[int] = []


class RestartRule(Wire, frozen=True, kw_only=True):
    action: str
    exit_codes: ExitCodes | None = None


class Container(Wire, frozen=True, kw_only=True):
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
    volume_devices: list[VolumeDevice] = []
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


class KeyToPath(Wire, frozen=True, kw_only=True):
    key: str
    path: str
    mode: int | None = None


class ConfigMapVolume(Wire, frozen=True, kw_only=True):
    name: str = ""
    items: list[KeyToPath] = []
    default_mode: int = 0o644
    optional: bool = False


class SecretVolume(Wire, frozen=True, kw_only=True):
    secret_name: str = ""
    items: list[KeyToPath] = []
    default_mode: int = 0o644
    optional: bool = False


class EmptyDirVolume(Wire, frozen=True, kw_only=True):
    medium: str = ""
    size_limit: Quantity | None = None


class HostPathVolume(Wire, frozen=True, kw_only=True):
    path: str
    type: str = ""


class DownwardFile(Wire, frozen=True, kw_only=True):
    path: str
    field_ref: FieldRef | None = None
    resource_field_ref: ResourceFieldRef | None = None
    mode: int | None = None


class DownwardVolume(Wire, frozen=True, kw_only=True):
    items: list[DownwardFile] = []
    default_mode: int = 0o644


class SecretProjection(Wire, frozen=True, kw_only=True):
    name: str = ""
    items: list[KeyToPath] = []
    optional: bool = False


class TokenProjection(Wire, frozen=True, kw_only=True):
    path: str
    audience: str = ""
    expiration_seconds: int = 3600


class DownwardProjection(Wire, frozen=True, kw_only=True):
    items: list[DownwardFile] = []


class Projection(Wire, frozen=True, kw_only=True):
    config_map: SecretProjection | None = None
    secret: SecretProjection | None = None
    downward_api: DownwardProjection | None = msgspec.field(name="downwardAPI", default=None)
    service_account_token: TokenProjection | None = None
    cluster_trust_bundle: UnservedProjection | None = None
    pod_certificate: UnservedProjection | None = None


class UnservedProjection(Wire, frozen=True, kw_only=True):
    """One of a kind that is not served here."""

    optional: bool = False


class ProjectedVolume(Wire, frozen=True, kw_only=True):
    sources: list[Projection] = []
    default_mode: int = 0o644


class ClaimVolume(Wire, frozen=True, kw_only=True):
    """owned: made for this pod alone, of a template in it."""

    claim_name: str
    read_only: bool = False
    owned: bool = False


class EphemeralVolume(Wire, frozen=True, kw_only=True):
    """A claim that lives as long as its pod; the API's controller makes it."""


class CsiVolume(Wire, frozen=True, kw_only=True):
    driver: str
    read_only: bool = False
    fs_type: str = ""
    volume_attributes: dict[str, str] = {}
    node_publish_secret_ref: NameRef | None = None


class ImageVolume(Wire, frozen=True, kw_only=True):
    """The files of an image, which the runtime mounts."""

    reference: str = ""
    pull_policy: str = ""


class Volume(Wire, frozen=True, kw_only=True):
    name: str
    image: ImageVolume | None = None
    csi: CsiVolume | None = None
    ephemeral: EphemeralVolume | None = None
    config_map: ConfigMapVolume | None = None
    secret: SecretVolume | None = None
    empty_dir: EmptyDirVolume | None = None
    host_path: HostPathVolume | None = None
    downward_api: DownwardVolume | None = msgspec.field(name="downwardAPI", default=None)
    projected: ProjectedVolume | None = None
    persistent_volume_claim: ClaimVolume | None = None


class HostAlias(Wire, frozen=True, kw_only=True):
    ip: str
    hostnames: list[str] = []


class DnsOption(Wire, frozen=True, kw_only=True):
    name: str
    value: str | None = None


class DnsConfig(Wire, frozen=True, kw_only=True):
    nameservers: list[str] = []
    searches: list[str] = []
    options: list[DnsOption] = []


class Toleration(Wire, frozen=True, kw_only=True):
    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


class PodOs(Wire, frozen=True, kw_only=True):
    name: str = ""


class ReadinessGate(Wire, frozen=True, kw_only=True):
    condition_type: str


class LocalRef(Wire, frozen=True, kw_only=True):
    name: str = ""


class PodSpec(Wire, frozen=True, kw_only=True):
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
    host_users: bool = True
    share_process_namespace: bool = False
    security_context: PodSecurityContext = PodSecurityContext()
    image_pull_secrets: list[LocalRef] = []
    hostname: str = ""
    subdomain: str = ""
    set_hostname_as_fqdn: bool = msgspec.field(name="setHostnameAsFQDN", default=False)
    hostname_override: str = ""
    host_aliases: list[HostAlias] = []
    priority: int | None = None
    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    overhead: dict[str, Quantity] = {}
    # of the pod as a whole; nothing where only its containers say
    resources: ResourceRequirements | None = None
    os: PodOs | None = None
    runtime_class_name: str | None = None
    enable_service_links: bool = True
    readiness_gates: list[ReadinessGate] = []
    resource_claims: list[LocalRef] = []


class Condition(Wire, frozen=True, kw_only=True):
    type: str
    status: str
    observed_generation: int = 0
    last_probe_time: str | None = None
    last_transition_time: str | None = None
    reason: str = ""
    message: str = ""


class StateRunning(Wire, frozen=True, kw_only=True):
    started_at: str | None = None


class StateTerminated(Wire, frozen=True, kw_only=True):
    # required, so that 0 is written too
    exit_code: int
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    container_id: str = msgspec.field(name="containerID", default="")


class StateWaiting(Wire, frozen=True, kw_only=True):
    reason: str = ""
    message: str = ""


class State(Wire, frozen=True, kw_only=True):
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


class HostIp(Wire, frozen=True, kw_only=True):
    ip: str


class PodStatus(Wire, frozen=True, kw_only=True):
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


class Pod(Wire, frozen=True, kw_only=True):
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
    def strict_groups(self) -> bool:
        """Whether its containers may have no groups but those that it names."""
        return self.spec.security_context.supplemental_groups_policy == "Strict"

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

    def is_mapped(self) -> bool:
        """Whether ports of this machine lead into its network."""
        ports = (p for c in self.every_container() for p in c.ports)
        return not self.spec.host_network and any(p.host_port > 0 for p in ports)

    def image_references(self) -> set[str]:
        """The images that its containers run and its volumes are."""
        return {c.image for c in self.every_container()} | {
            v.image.reference for v in self.spec.volumes if v.image is not None
        }

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
