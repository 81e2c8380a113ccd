"""The settings of edged.  Pure."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgecore.edged.evict import Thresholds
from edgecore.edged.imagegc import Limits
from edgecore.edged.shutdown import Period, periods

SHUTDOWN_S, SHUTDOWN_CRITICAL_S = 20, 5
"""Within the 30 s that edgecore's unit has to stop."""


class EdgedConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One field a line: unit in its name, default, and why.

    runtime_endpoint, image_endpoint: unix sockets of the CRI; an empty image_endpoint means the same one.
    root_dir: what pods are given of this machine (<root_dir>/<uid>/...); log_dir: <ns>_<name>_<uid>/<container>/<n>.log.
    log_links: where log collectors find links to containers' logs; None: nowhere.
    relist_s: how often the runtime is listed; a second is the kubelet's.
    resync_s: how often every pod is looked at though nothing changed; the kubelet's syncFrequency.
    cgroup_root: parent cgroup of all pods; empty leaves placement to the runtime.
    cgroup_driver: cgroupfs or systemd; must be the runtime's.
    cluster_dns, cluster_domain: what dnsPolicy ClusterFirst means; with no servers it means Default, as in a kubelet.
    node_ip: address reported for the node and for pods on its network; empty means found by the default route.
    max_parallel_pulls, max_parallel_starts: bounds on work under way at once; 0 starts: by the number of cores.
    max_pods: the node's capacity, the kubelet's 110.
    seccomp_dir: where Localhost seccomp profiles are.
    system_reserved_*: kept back from allocatable.
    pod_pids_limit: processes and threads of one pod, so that a fork bomb stays in it; 0 means not limited.
    log_max_bytes, log_max_files: a container's log is renamed above this size, and so many files of it are kept; 0: never.
    image_gc: when images that nothing needs are removed.
    evict: what must stay free of this machine before pods are ended for it; None: never end one.
    pull_min_free_percent: a pull is given up when the images' disk has less left than this.
    pull_stall_s: a pull that has not brought a byte for this long is given up.
    plugin_dir: where plugins look for a kubelet (/var/lib/kubelet); None: no plugin is listened to.
    static_dir: folder of pods that run without any cloud; see static.py.
    shutdown: how long pods may take to end when the machine goes down, by priority; empty: they end with the machine.
    policy_file: what the owner of this machine forbids, whatever the cloud says; see policy.py.
    """

    runtime_endpoint: str = "/run/containerd/containerd.sock"
    image_endpoint: str = ""
    root_dir: Path = Path("/var/lib/skerry/edge/pods")
    log_dir: Path = Path("/var/lib/skerry/edge/logs/pods")
    log_links: Path | None = None
    seccomp_dir: Path = Path("/var/lib/skerry/edge/seccomp")
    resolv_conf: Path = Path("/etc/resolv.conf")
    relist_s: float = 1.0
    resync_s: float = 60.0
    cgroup_root: str = "kubepods"
    cgroup_driver: str = "cgroupfs"
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    node_ip: str = ""
    max_parallel_pulls: int = 3
    max_parallel_starts: int = 0
    max_pods: int = 110
    pod_pids_limit: int = 4096
    log_max_bytes: int = 10 * 1024 * 1024
    log_max_files: int = 5
    image_gc: Limits = msgspec.field(default_factory=Limits)
    evict: Thresholds | None = msgspec.field(default_factory=Thresholds)
    pull_min_free_percent: float = 5.0
    pull_stall_s: float = 120.0
    shutdown: tuple[Period, ...] = periods(SHUTDOWN_S, SHUTDOWN_CRITICAL_S)
    policy_file: Path | None = None
    plugin_dir: Path | None = None
    static_dir: Path | None = None
    system_reserved_cpu_milli: int = 0
    system_reserved_memory_bytes: int = 0
    system_reserved_disk_bytes: int = 0
    # registration
    node_labels: tuple[tuple[str, str], ...] = (("node-role.kubernetes.io/edge", ""),)
    kubelet_port: int = 0
    version: str = ""

    @property
    def ends_file(self) -> Path:
        """Beside what pods are given, since it is that disk which they fill."""
        return self.root_dir.with_name(self.root_dir.name + ".ends")
