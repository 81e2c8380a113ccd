"""What edged says to a container runtime and hears from it, as plain values.  Pure; no protobuf.

Times are Unix seconds.  Sequences that go to the runtime are tuples so that a config can be compared.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

# Labels and annotations as a kubelet sets them, so that tools that look for a kubelet's containers find ours, and so
# that a restarted agent knows whose they are.
LABEL_POD_NAME = "io.kubernetes.pod.name"
LABEL_POD_NAMESPACE = "io.kubernetes.pod.namespace"
LABEL_POD_UID = "io.kubernetes.pod.uid"
LABEL_CONTAINER_NAME = "io.kubernetes.container.name"
ANNOTATION_HASH = "io.kubernetes.container.hash"
ANNOTATION_RESTART_COUNT = "io.kubernetes.container.restartCount"
ANNOTATION_TERMINATION_PATH = "io.kubernetes.container.terminationMessagePath"
ANNOTATION_TERMINATION_POLICY = "io.kubernetes.container.terminationMessagePolicy"
ANNOTATION_GRACE_PERIOD = "io.kubernetes.pod.terminationGracePeriod"
ANNOTATION_PRE_STOP = "io.kubernetes.container.preStopHandler"
# Ours, on sandboxes: the pod as it was accepted, without its status, so that a lost store can be rebuilt.
ANNOTATION_POD = "skerry.dev/pod"
# Ours, on containers: the resources it was created with, to notice a resize.
ANNOTATION_DEVICES = "skerry.dev/devices"
ANNOTATION_RESOURCES = "skerry.dev/resources"


class ContainerState(enum.Enum):
    """The four states CRI knows."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    UNKNOWN = "unknown"


class RuntimeVersion(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str
    api_version: str


class RuntimeConditions(msgspec.Struct, frozen=True, kw_only=True):
    """strict_groups: whether it can keep the image's own groups away from a container."""

    runtime_ready: bool
    runtime_message: str
    network_ready: bool
    network_message: str
    strict_groups: bool = False


class RuntimeSetup(msgspec.Struct, frozen=True, kw_only=True):
    """How the runtime is set up, where it says so.  root_dir: where it keeps what it downloads."""

    sandbox_image: str = ""
    root_dir: str = ""


class Namespaces(msgspec.Struct, frozen=True, kw_only=True):
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    share_pid: bool = False
    # id of the container whose processes an ephemeral one sees
    target_id: str = ""


class SecurityProfile(msgspec.Struct, frozen=True, kw_only=True):
    """kind: RuntimeDefault, Unconfined or Localhost; localhost_ref: an absolute path, or an AppArmor name."""

    kind: str
    localhost_ref: str = ""


class Dns(msgspec.Struct, frozen=True, kw_only=True):
    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class PortMapping(msgspec.Struct, frozen=True, kw_only=True):
    container_port: int
    host_port: int
    protocol: str = "TCP"
    host_ip: str = ""


class SandboxConfig(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    namespace: str
    uid: str
    attempt: int
    hostname: str = ""
    log_directory: str = ""
    dns: Dns | None = None
    ports: tuple[PortMapping, ...] = ()
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    annotations: Mapping[str, str] = msgspec.field(default_factory=dict)
    cgroup_parent: str = ""
    sysctls: Mapping[str, str] = msgspec.field(default_factory=dict)
    namespaces: Namespaces = Namespaces()
    run_as_user: int | None = None
    run_as_group: int | None = None
    supplemental_groups: tuple[int, ...] = ()
    strict_groups: bool = False
    privileged: bool = False
    seccomp: SecurityProfile | None = None


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """image: id of the image whose files are mounted in place of a path of this machine; image_path: what of them."""

    container_path: str
    host_path: str
    readonly: bool = False
    propagation: str = ""
    image: str = ""
    image_path: str = ""


class DeviceMap(msgspec.Struct, frozen=True, kw_only=True):
    """A device node of this machine in a container.  permissions: of m (mknod), r, w."""

    container_path: str
    host_path: str
    permissions: str = "mrw"


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What a container gets with its devices.  cdi: names for the runtime's Container Device Interface."""

    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    devices: tuple[DeviceMap, ...] = ()
    annotations: Mapping[str, str] = msgspec.field(default_factory=dict)
    cdi: tuple[str, ...] = ()


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """0 means not limited, as in CRI.  unified: further files of a cgroup of version 2, which older ones refuse."""

    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    cpu_shares: int = 0
    memory_limit_bytes: int = 0
    oom_score_adj: int = 0
    unified: Mapping[str, str] = msgspec.field(default_factory=dict)


class ContainerConfig(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    attempt: int
    image: str
    user_image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    devices: tuple[DeviceMap, ...] = ()
    cdi: tuple[str, ...] = ()
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    annotations: Mapping[str, str] = msgspec.field(default_factory=dict)
    log_path: str = ""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    # as Kubernetes names it; empty: what its image says, or TERM
    stop_signal: str = ""
    resources: Resources = Resources()
    namespaces: Namespaces = Namespaces()
    privileged: bool = False
    capabilities_add: tuple[str, ...] = ()
    capabilities_drop: tuple[str, ...] = ()
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_username: str = ""
    readonly_rootfs: bool = False
    supplemental_groups: tuple[int, ...] = ()
    strict_groups: bool = False
    no_new_privs: bool = False
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    seccomp: SecurityProfile | None = None
    apparmor: SecurityProfile | None = None


class SandboxInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the runtime's list of sandboxes."""

    id: str
    name: str
    namespace: str
    uid: str
    attempt: int
    ready: bool
    created_at: float
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)


class SandboxStatus(SandboxInfo, frozen=True, kw_only=True):
    annotations: Mapping[str, str] = msgspec.field(default_factory=dict)
    ips: tuple[str, ...] = ()
    host_network: bool = False


class ContainerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the runtime's list of containers."""

    id: str
    sandbox_id: str
    name: str
    attempt: int
    state: ContainerState
    created_at: float
    image: str = ""
    image_ref: str = ""
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)

    @property
    def uid(self) -> str:
        """UID of the pod, from the label; empty when the container is not a kubelet's."""
        return self.labels.get(LABEL_POD_UID, "")


class ContainerStatus(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    attempt: int
    state: ContainerState
    created_at: float
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int = 0
    image: str = ""
    image_ref: str = ""
    reason: str = ""
    message: str = ""
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    annotations: Mapping[str, str] = msgspec.field(default_factory=dict)
    log_path: str = ""
    mounts: tuple[Mount, ...] = ()
    # not in CRI's ContainerStatus; the worker fills them in, the names of its image for strangers only
    sandbox_id: str = ""
    image_names: tuple[str, ...] = ()

    @property
    def restart_count(self) -> int:
        """As it was when the container was created."""
        text = self.annotations.get(ANNOTATION_RESTART_COUNT, "")
        return int(text) if text.isdigit() else self.attempt

    @property
    def spec_hash(self) -> str:
        return self.annotations.get(ANNOTATION_HASH, "")


class PodRuntime(msgspec.Struct, frozen=True, kw_only=True):
    """All that the runtime has of one pod UID.

    sandboxes and containers: newest first; containers of every sandbox, dead ones included.
    """

    sandboxes: tuple[SandboxStatus, ...] = ()
    containers: tuple[ContainerStatus, ...] = ()

    @property
    def sandbox(self) -> SandboxStatus | None:
        """The newest one, whatever its state."""
        return self.sandboxes[0] if self.sandboxes else None

    @property
    def ips(self) -> tuple[str, ...]:
        """Addresses of the newest sandbox while it is ready."""
        return self.sandboxes[0].ips if self.sandboxes and self.sandboxes[0].ready else ()

    def latest(self, name: str) -> ContainerStatus | None:
        """The newest container of that name."""
        return next((c for c in self.containers if c.name == name), None)

    def running(self) -> tuple[ContainerStatus, ...]:
        """Containers that run, or may run."""
        alive = (ContainerState.RUNNING, ContainerState.UNKNOWN)
        return tuple(c for c in self.containers if c.state in alive)


class ExecResult(msgspec.Struct, frozen=True, kw_only=True):
    exit_code: int
    stdout: bytes
    stderr: bytes


class MemoryDetail(msgspec.Struct, frozen=True, kw_only=True):
    """Of memory, beside the working set.  usage_bytes: with all caches; page_faults: ever, major_page_faults those that
    read from the disk."""

    usage_bytes: int = 0
    rss_bytes: int = 0
    page_faults: int = 0
    major_page_faults: int = 0


class ContainerUsage(msgspec.Struct, frozen=True, kw_only=True):
    """memory_bytes: the working set; disk_bytes, inodes: of what it wrote into its own file system."""

    id: str
    name: str
    uid: str
    timestamp: float
    cpu_ns: int
    memory_bytes: int
    disk_bytes: int
    inodes: int = 0
    memory: MemoryDetail = MemoryDetail()


class InterfaceUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of a network interface since it is there."""

    name: str
    rx_bytes: int = 0
    rx_errors: int = 0
    tx_bytes: int = 0
    tx_errors: int = 0


class SandboxUsage(msgspec.Struct, frozen=True, kw_only=True):
    """interfaces: the default one first; none when the pod has the machine's network.  timestamp: Unix seconds."""

    timestamp: float
    interfaces: tuple[InterfaceUsage, ...] = ()
    processes: int = 0


class ImageUser(msgspec.Struct, frozen=True, kw_only=True):
    """The user an image runs as: a number, a name, or neither (root)."""

    uid: int | None = None
    name: str = ""


class Image(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    size_bytes: int = 0
    user: ImageUser = ImageUser()
    pinned: bool = False


class ImageAuth(msgspec.Struct, frozen=True, kw_only=True):
    """Credentials for one registry."""

    username: str = ""
    password: str = ""
    auth: str = ""
    identity_token: str = ""
    registry_token: str = ""
    server: str = ""

    def __repr__(self) -> str:
        """Without what is secret."""
        return f"ImageAuth(username={self.username!r}, server={self.server!r})"
