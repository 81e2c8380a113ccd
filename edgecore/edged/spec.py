"""A pod as the runtime must be told of it: sandbox and container configurations.  Pure.

Source: kubelet, kuberuntime_sandbox.go, kuberuntime_container_linux.go, security_context.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import msgspec
from msgspec.structs import replace

from edgecore.edged import adopt, claims, quantity, resize
from edgecore.edged.claims import HostDevice
from edgecore.edged.config import EdgedConfig
from edgecore.edged.env import CONFIG_ERROR
from edgecore.edged.errors import Held
from edgecore.edged.pod import MAX_ID, Container, Pod, Profile, SecurityContext
from edgecore.edged.resources import (
    container_limits,
    container_requests,
    containers_requests,
    qos_class,
    whole_limits,
    whole_requests,
)
from edgecore.edged.runtime import (
    ANNOTATION_DEVICES,
    ANNOTATION_GRACE_PERIOD,
    ANNOTATION_HASH,
    ANNOTATION_POD,
    ANNOTATION_PRE_STOP,
    ANNOTATION_RESOURCES,
    ANNOTATION_RESTART_COUNT,
    ANNOTATION_TERMINATION_PATH,
    ANNOTATION_TERMINATION_POLICY,
    LABEL_CONTAINER_NAME,
    LABEL_POD_NAME,
    LABEL_POD_NAMESPACE,
    LABEL_POD_UID,
    ContainerConfig,
    DeviceMap,
    Dns,
    Given,
    ImageUser,
    Mount,
    Namespaces,
    PortMapping,
    Resources,
    SandboxConfig,
    SecurityProfile,
)

# Resource arithmetic of kubelet's cm/helpers_linux.go
MIN_SHARES, MAX_SHARES = 2, 262144
QUOTA_PERIOD_US = 100_000
MIN_QUOTA_US = 1000

# What a default container may not see; what procMount Default means in pkg/securitycontext/util.go.
MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

# The kubelet's allow-list of sysctls that are namespaced and harmless to neighbours.
SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_wmem",
    }
)

# of the kernel
MAX_HOSTNAME = 64
TOO_LONG, NO_USER_NAMESPACES = "HostnameTooLong", "UserNamespacesNotSupported"
NO_CLAIMS = "ResourceClaimsNotSupported"
# what keeps a pod from having a sandbox as long as it is so, as in a kubelet; for anything else it fails
WAITS = frozenset({TOO_LONG, NO_USER_NAMESPACES, NO_CLAIMS})


def pod_log_dir(config: EdgedConfig, pod: Pod) -> str:
    """<log_dir>/<ns>_<name>_<uid>, as a kubelet lays it out."""
    return str(config.log_dir / f"{pod.namespace}_{pod.name}_{pod.uid}")


def cgroup_parent(config: EdgedConfig, pod: Pod) -> str:
    """The pod's cgroup in the form of the driver; empty when the runtime chooses."""
    if not config.cgroup_root:
        return ""
    qos = {"Guaranteed": "", "Burstable": "burstable", "BestEffort": "besteffort"}[qos_class(pod)]
    parts = [config.cgroup_root, *([qos] if qos else []), f"pod{pod.uid}"]
    if config.cgroup_driver == "systemd":
        # systemd spells the path into the name, with - for / and so _ for -
        return "-".join(p.replace("-", "_") for p in parts) + ".slice"
    return "/" + "/".join(parts)


def namespaces(pod: Pod) -> Namespaces:
    return Namespaces(
        host_network=pod.spec.host_network,
        host_pid=pod.spec.host_pid,
        host_ipc=pod.spec.host_ipc,
        share_pid=pod.spec.share_process_namespace,
    )


def _sysctl(name: str) -> str:
    """A name as sysctl(8) has it: one whose first separator is a slash has dots within its parts."""
    first = next((c for c in name if c in "./"), ".")
    return name if first == "." else name.translate(str.maketrans("./", "/."))


def hostname(pod: Pod) -> str:
    """The pod's own hostname, at most 63 characters and not ending in a sign, or the one that overrides it, as it is."""
    if pod.spec.hostname_override:
        return pod.spec.hostname_override
    return (pod.spec.hostname or pod.name)[:63].rstrip("-.")


def full_hostname(pod: Pod, domain: str) -> str:
    """What a pod's programs see as their host's name.  Raises Held for one that the kernel does not take."""
    name = hostname(pod)
    if not pod.spec.set_hostname_as_fqdn or not pod.spec.subdomain or pod.spec.hostname_override:
        return name
    full = f"{name}.{pod.spec.subdomain}.{pod.namespace}.svc.{domain}"
    if len(full) > MAX_HOSTNAME:
        raise Held(
            TOO_LONG,
            f"failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long "
            f"({MAX_HOSTNAME} characters is the max, {len(full)} characters requested)",
        )
    return full


def sandbox_config(pod: Pod, *, attempt: int, config: EdgedConfig, dns: Dns, kept: bytes) -> SandboxConfig:
    """The sandbox of a pod.

    kept: the pod as JSON, put on the sandbox so that a lost store can be rebuilt from what runs.
    Raises Held for a sysctl or a seccomp profile that a kubelet refuses, and for what is in WAITS.
    """
    if not pod.spec.host_users:
        # without them it would be root on the machine that must not be
        raise Held(
            NO_USER_NAMESPACES,
            "the pod wants users of its own (hostUsers: false), and user namespaces are not supported on this node",
        )
    if pod.spec.resource_claims:
        raise Held(
            NO_CLAIMS,
            "the pod claims devices (resourceClaims), and dynamic resource allocation is not supported on this node",
        )
    context = pod.spec.security_context
    sysctls = {_sysctl(s.name): s.value for s in context.sysctls}
    for name in sysctls:
        if name not in SAFE_SYSCTLS:
            raise Held("SysctlForbidden", f"forbidden sysctl: {name[:64]!r} not allowed")
    host = pod.spec.host_network
    return SandboxConfig(
        name=pod.name,
        namespace=pod.namespace,
        uid=pod.uid,
        attempt=attempt,
        # the machine keeps its own: runtimes refuse to start a pod that names one in the machine's namespace
        hostname="" if host else full_hostname(pod, config.cluster_domain),
        log_directory=pod_log_dir(config, pod),
        dns=dns,
        ports=()
        if host
        else tuple(
            PortMapping(
                container_port=p.container_port,
                host_port=p.host_port,
                protocol=p.protocol,
                host_ip=p.host_ip,
            )
            for c in pod.all_containers()
            for p in c.ports
            if p.host_port > 0
        ),
        labels={
            **pod.metadata.labels,
            LABEL_POD_NAME: pod.name,
            LABEL_POD_NAMESPACE: pod.namespace,
            LABEL_POD_UID: pod.uid,
        },
        annotations={**pod.metadata.annotations, ANNOTATION_POD: kept.decode()},
        cgroup_parent=cgroup_parent(config, pod),
        sysctls=sysctls,
        namespaces=namespaces(pod),
        run_as_user=context.run_as_user,
        run_as_group=context.run_as_group,
        supplemental_groups=_groups(pod),
        strict_groups=pod.strict_groups,
        privileged=any(
            c.security_context is not None and c.security_context.privileged for c in pod.all_containers()
        ),
        seccomp=SecurityProfile(kind="RuntimeDefault"),
    )


def _groups(pod: Pod) -> tuple[int, ...]:
    context = pod.spec.security_context
    extra = [context.fs_group] if context.fs_group is not None else []
    return tuple(dict.fromkeys([*context.supplemental_groups, *extra]))


def container_config(
    pod: Pod,
    container: Container,
    *,
    restart_count: int,
    image: str,
    image_user: ImageUser,
    env: Mapping[str, str],
    command: tuple[str, ...],
    args: tuple[str, ...],
    mounts: Sequence[Mount],
    config: EdgedConfig,
    memory_capacity: int,
    memory_limits: bool = True,
    unified: bool = False,
    target_id: str = "",
    devices: Sequence[tuple[str, HostDevice]] = (),
    given: Given = Given(),  # noqa: B008  # frozen
    blocks: Sequence[DeviceMap] = (),
) -> ContainerConfig:
    """One container of a pod.  image: what the runtime knows it by.  Raises Held for what a kubelet refuses.

    unified: whether this machine has cgroups of version 2.
    target_id: id of the container whose processes an ephemeral one is to see.   devices: what it claims, by path in it.
    given: what device plugins give it.   blocks: its volumes that are raw devices.
    """
    context = container.security_context or SecurityContext()
    user, group, username = _user(pod, container.name, context, image_user)
    # /proc is masked unless the container may do everything anyway
    unmasked = context.privileged or context.proc_mount == "Unmasked"
    own = resources(pod, container, memory_capacity, memory_limits=memory_limits)
    if unified and memory_limits:
        # out of memory it ends as a whole, and not one program of it (kubelet, kuberuntime_container_linux.go)
        own = replace(own, unified={"memory.oom.group": "1"})
    annotations = {
        ANNOTATION_RESOURCES: resize.encode(resize.applied(own)),
        ANNOTATION_HASH: adopt.container_hash(container),
        ANNOTATION_RESTART_COUNT: str(restart_count),
        ANNOTATION_TERMINATION_PATH: container.termination_message_path,
        ANNOTATION_TERMINATION_POLICY: container.termination_message_policy,
        ANNOTATION_GRACE_PERIOD: str(pod.grace_period_s),
    }
    if devices:
        annotations[ANNOTATION_DEVICES] = claims.stamp(devices)
    if container.lifecycle is not None and container.lifecycle.pre_stop is not None:
        hook = container.lifecycle.pre_stop
        if hook.exec is not None:
            annotations[ANNOTATION_PRE_STOP] = msgspec.json.encode(
                {"exec": {"command": hook.exec.command}}
            ).decode()
    capabilities = context.capabilities
    return ContainerConfig(
        name=container.name,
        attempt=restart_count,
        image=image,
        user_image=container.image,
        command=command,
        args=args,
        working_dir=container.working_dir,
        # what the pod says wins over what a plugin says
        env=tuple({**given.env, **env}.items()),
        mounts=(*given.mounts, *mounts),
        devices=(
            # to read and to write it, not to make nodes of other devices
            *(
                DeviceMap(container_path=inside, host_path=device.path, permissions="rw")
                for inside, device in devices
            ),
            *given.devices,
            *blocks,
        ),
        cdi=given.cdi,
        labels={
            LABEL_CONTAINER_NAME: container.name,
            LABEL_POD_NAME: pod.name,
            LABEL_POD_NAMESPACE: pod.namespace,
            LABEL_POD_UID: pod.uid,
        },
        annotations={**given.annotations, **annotations},
        log_path=f"{container.name}/{restart_count}.log",
        stdin=container.stdin,
        stdin_once=container.stdin_once,
        tty=container.tty,
        stop_signal=container.lifecycle.stop_signal if container.lifecycle is not None else "",
        resources=own,
        namespaces=replace(namespaces(pod), target_id=target_id),
        privileged=context.privileged,
        capabilities_add=tuple(capabilities.add) if capabilities is not None else (),
        capabilities_drop=tuple(capabilities.drop) if capabilities is not None else (),
        run_as_user=user,
        run_as_group=group,
        run_as_username=username,
        readonly_rootfs=context.read_only_root_filesystem,
        supplemental_groups=_groups(pod),
        strict_groups=pod.strict_groups,
        no_new_privs=_no_new_privs(context),
        masked_paths=() if unmasked else MASKED_PATHS,
        readonly_paths=() if unmasked else READONLY_PATHS,
        seccomp=_seccomp(pod, context, config),
        apparmor=_apparmor(pod, context),
    )


def _no_new_privs(context: SecurityContext) -> bool:
    if context.allow_privilege_escalation is not None:
        return not context.allow_privilege_escalation
    return False


def _user(
    pod: Pod, name: str, context: SecurityContext, image: ImageUser
) -> tuple[int | None, int | None, str]:
    """Whom a container runs as: (uid, gid, name).  Raises Held when that may be root and must not."""
    of_pod = pod.spec.security_context
    user = context.run_as_user if context.run_as_user is not None else of_pod.run_as_user
    group = context.run_as_group if context.run_as_group is not None else of_pod.run_as_group
    non_root = context.run_as_non_root if context.run_as_non_root is not None else of_pod.run_as_non_root
    for field, value in (("runAsUser", user), ("runAsGroup", group)):
        if value is not None and not 0 <= value <= MAX_ID:
            raise Held(CONFIG_ERROR, f"{field} must be between 0 and {MAX_ID}: {value}")
    if user is None and image.uid is not None and not 0 <= image.uid <= MAX_ID:
        # a runtime that cuts it to 32 bits may make it root (CVE-2024-40635)
        raise Held(CONFIG_ERROR, f"the image's user must be between 0 and {MAX_ID}: {image.uid}")
    if non_root:
        whose = f'(pod: "{pod.name}_{pod.namespace}({pod.uid})", container: {name})'
        if user == 0:
            raise Held(CONFIG_ERROR, f"container's runAsUser breaks non-root policy {whose}")
        if user is None and image.uid is None and image.name:
            raise Held(
                CONFIG_ERROR,
                f"container has runAsNonRoot and image has non-numeric user ({image.name[:32]}), "
                f"cannot verify user is non-root {whose}",
            )
        if user is None and not image.uid:
            raise Held(CONFIG_ERROR, f"container has runAsNonRoot and image will run as root {whose}")
    if user is not None:
        return user, group, ""
    if image.uid is not None:
        return image.uid, group, ""
    return None, group, image.name


def _profile_source(profile: Profile | None, of_pod: Profile | None) -> Profile | None:
    return profile if profile is not None else of_pod


def _seccomp(pod: Pod, context: SecurityContext, config: EdgedConfig) -> SecurityProfile:
    profile = _profile_source(context.seccomp_profile, pod.spec.security_context.seccomp_profile)
    if context.privileged or profile is None or profile.type == "Unconfined":
        return SecurityProfile(kind="Unconfined")
    if profile.type == "RuntimeDefault":
        return SecurityProfile(kind="RuntimeDefault")
    # an empty name once meant unconfined in kubelets (CVE-2023-2431)
    name = profile.localhost_profile or ""
    path = PurePosixPath(name)
    if profile.type != "Localhost" or not name or path.is_absolute() or ".." in path.parts:
        raise Held(CONFIG_ERROR, f"seccomp profile cannot be used: {profile.type[:32]} {name[:64]!r}")
    return SecurityProfile(kind="Localhost", localhost_ref=str(config.seccomp_dir / name))


def _apparmor(pod: Pod, context: SecurityContext) -> SecurityProfile | None:
    profile = _profile_source(context.app_armor_profile, pod.spec.security_context.app_armor_profile)
    if profile is None:
        return None
    if profile.type in ("RuntimeDefault", "Unconfined"):
        return SecurityProfile(kind=profile.type)
    if profile.type != "Localhost" or not profile.localhost_profile:
        raise Held(CONFIG_ERROR, f"AppArmor profile cannot be used: {profile.type[:32]}")
    return SecurityProfile(kind="Localhost", localhost_ref=profile.localhost_profile)


def cpu_shares(milli_cpu: int) -> int:
    """cgroup v1 shares of a CPU request; the runtime converts them for v2."""
    if milli_cpu == 0:
        return MIN_SHARES
    return max(MIN_SHARES, min(MAX_SHARES, milli_cpu * 1024 // 1000))


def resources(
    pod: Pod, container: Container, memory_capacity: int, *, memory_limits: bool = True
) -> Resources:
    """Requests and limits as the runtime takes them.  memory_limits: whether the kernel knows any; a runtime could not start
    a container with one that it does not know."""
    # one without a limit of its own may use all that its pod may
    limits = whole_limits(pod) | {k: v for k, v in container_limits(container).items() if v}
    requests = {k: quantity.parse(v) for k, v in container.resources.requests.items()}
    cpu_limit = quantity.milli(limits.get("cpu", 0))
    # a limit without a request is the request too
    cpu_request = quantity.milli(requests["cpu"]) if "cpu" in requests else cpu_limit
    memory_limit = quantity.units(limits.get("memory", 0)) if memory_limits else 0
    quota = max(MIN_QUOTA_US, min(quantity.MOST, cpu_limit * QUOTA_PERIOD_US // 1000)) if cpu_limit else 0
    return Resources(
        cpu_period_us=QUOTA_PERIOD_US if quota else 0,
        cpu_quota_us=quota,
        cpu_shares=cpu_shares(cpu_request),
        memory_limit_bytes=memory_limit,
        oom_score_adj=oom_score_adj(pod, container, memory_capacity),
    )


def oom_score_adj(pod: Pod, container: Container, memory_capacity: int) -> int:
    """Who is killed first when memory runs out (kubelet, qos/policy.go)."""
    if (pod.spec.priority or 0) >= 2_000_000_000:
        return -997
    qos = qos_class(pod)
    if qos == "Guaranteed":
        return -997
    if qos == "BestEffort" or memory_capacity <= 0:
        return 1000
    asked = _memory_request(container)
    if pod.is_sidecar(container):
        # it lives no shorter than the others, which it serves
        asked = max(asked, min(_memory_request(c) for c in pod.spec.containers))
    # what the pod asks for beyond its containers is shared by all of them
    rest = whole_requests(pod).get("memory", 0) - containers_requests(pod).get("memory", 0)
    asked += quantity.units(max(0, rest)) // len(pod.all_containers())
    score = 1000 - 1000 * asked // memory_capacity
    return max(3, min(999, score))


def _memory_request(container: Container) -> int:
    return quantity.units(container_requests(container).get("memory", 0))


def resolver(pod: Pod, config: EdgedConfig, host: Dns) -> Dns:
    """What a pod's resolv.conf says, by its dnsPolicy.  host: the machine's own."""
    policy = pod.spec.dns_policy
    cluster = policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not pod.spec.host_network)
    if policy == "None":
        dns = Dns()
    elif cluster and config.cluster_dns:
        domain = config.cluster_domain
        searches = (f"{pod.namespace}.svc.{domain}", f"svc.{domain}", domain)
        dns = Dns(
            servers=config.cluster_dns,
            searches=tuple(dict.fromkeys([*searches, *host.searches])),
            options=("ndots:5",),
        )
    else:
        dns = host
    extra = pod.spec.dns_config
    if extra is None:
        return dns
    options = {o.partition(":")[0]: o for o in dns.options}
    for o in extra.options:
        options[o.name] = f"{o.name}:{o.value}" if o.value else o.name
    return Dns(
        servers=tuple(dict.fromkeys([*dns.servers, *extra.nameservers])),
        searches=tuple(dict.fromkeys([*dns.searches, *extra.searches])),
        options=tuple(options.values()),
    )


def parse_resolv_conf(text: str) -> Dns:
    """nameserver, search and options of a resolv.conf; the last search line wins."""
    servers: list[str] = []
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            searches = tuple(w for w in words[1:] if w != ".")
        elif words[0] == "options":
            options = tuple(words[1:])
    return Dns(servers=tuple(servers), searches=searches, options=options)


def hosts_file(pod: Pod, *, ips: Sequence[str], domain: str, host_hosts: str) -> str:
    """/etc/hosts of a pod.  host_hosts: the machine's own, which a pod on its network gets."""
    tab = "\t"
    aliases = "".join(
        f"{a.ip}\t{tab.join(a.hostnames)}\n"
        for a in pod.spec.host_aliases
        if not any(c in a.ip + "".join(a.hostnames) for c in "\n\r")
    )
    if aliases:
        aliases = f"\n# Entries added by HostAliases.\n{aliases}"
    if pod.spec.host_network:
        return f"# Kubernetes-managed hosts file (host network).\n{host_hosts}{aliases}"
    name = hostname(pod)
    names = name
    if pod.spec.subdomain and not pod.spec.hostname_override:
        names = f"{name}.{pod.spec.subdomain}.{pod.namespace}.svc.{domain}\t{name}"
    own = "".join(f"{ip}\t{names}\n" for ip in ips)
    return (
        "# Kubernetes-managed hosts file.\n"
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
        f"{own}{aliases}"
    )
