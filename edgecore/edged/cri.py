"""The container runtime: the only file of edged that speaks gRPC.

One class, `Cri`, with one method per CRI call that edged uses.  What goes in and comes out are the small values of
`runtime.py`; protobuf messages and grpclib's exceptions stay here.  There is no policy: no retries, no caching.

Source: Kubernetes CRI API v1 (runtime.v1), whose messages are in edgecore/_generated/cri_pb2.py.
"""

from __future__ import annotations

import logging
from typing import Any, TypeVar

import msgspec
from google.protobuf.message import DecodeError
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from edgecore._generated import cri_pb2 as pb
from edgecore.edged.errors import CriError, NotFound
from edgecore.edged.runtime import (
    ContainerConfig,
    ContainerInfo,
    ContainerState,
    ContainerStatus,
    ContainerUsage,
    ExecResult,
    Image,
    ImageAuth,
    ImageUser,
    InterfaceUsage,
    MemoryDetail,
    Mount,
    Namespaces,
    Resources,
    RuntimeConditions,
    RuntimeSetup,
    RuntimeVersion,
    SandboxConfig,
    SandboxInfo,
    SandboxStatus,
    SandboxUsage,
    SecurityProfile,
)

log = logging.getLogger(__name__)

# The kubelet's runtimeRequestTimeout; sandboxes get twice that, as there, because CNI plugins run inside the call.
CALL_TIMEOUT_S = 120.0
SANDBOX_TIMEOUT_S = 240.0
# A pull has no end of its own in the kubelet; ours has one so that a hanging registry cannot hold a pod for ever.
PULL_TIMEOUT_S = 1800.0
# A listing answers from containerd's memory; one that takes longer than this is a runtime that hangs.
LIST_TIMEOUT_S = 20.0
MAX_ERROR_CHARS = 1024

_RETRYABLE = {
    Status.CANCELLED,
    Status.UNAVAILABLE,
    Status.DEADLINE_EXCEEDED,
    Status.RESOURCE_EXHAUSTED,
    Status.ABORTED,
    Status.INTERNAL,
    # containerd answers UNKNOWN for nearly everything, a dead shim and a busy name alike
    Status.UNKNOWN,
}

_STATES = {
    pb.CONTAINER_CREATED: ContainerState.CREATED,
    pb.CONTAINER_RUNNING: ContainerState.RUNNING,
    pb.CONTAINER_EXITED: ContainerState.EXITED,
}

_PROPAGATION = {
    "": pb.PROPAGATION_PRIVATE,
    "None": pb.PROPAGATION_PRIVATE,
    "HostToContainer": pb.PROPAGATION_HOST_TO_CONTAINER,
    "Bidirectional": pb.PROPAGATION_BIDIRECTIONAL,
}

_R = TypeVar("_R")


class Cri:
    """One runtime on one unix socket; the image service may sit on another.

    Every method raises CriError (NotFound where the runtime said so) and nothing else; cancelling one cancels the call
    at the runtime too.  Times are Unix seconds.
    """

    def __init__(self, endpoint: str, image_endpoint: str = "") -> None:
        """endpoint: a path, or `unix://` and a path.  Connects at the first call, and again after a loss."""
        self._channel = Channel(path=_socket_path(endpoint))
        same = not image_endpoint or _socket_path(image_endpoint) == _socket_path(endpoint)
        self._image_channel = self._channel if same else Channel(path=_socket_path(image_endpoint))
        self._methods: dict[str, UnaryUnaryMethod[Any, Any]] = {}

    def close(self) -> None:
        """Close the connections; calls under way fail."""
        self._channel.close()
        if self._image_channel is not self._channel:
            self._image_channel.close()

    async def _call(self, name: str, request: Any, reply: type[_R], timeout_s: float = CALL_TIMEOUT_S) -> _R:
        method = self._methods.get(name)
        if method is None:
            image = name in _IMAGE_CALLS
            service = "ImageService" if image else "RuntimeService"
            channel = self._image_channel if image else self._channel
            method = UnaryUnaryMethod(channel, f"/runtime.v1.{service}/{name}", type(request), reply)
            self._methods[name] = method
        try:
            answer: _R | None = await method(request, timeout=timeout_s)
        except GRPCError as err:
            text = (err.message or "")[:MAX_ERROR_CHARS]
            if err.status is Status.NOT_FOUND:
                raise NotFound(f"cannot {name}: {text}", said=text) from err
            raise CriError(
                f"cannot {name}: {text}",
                retryable=err.status in _RETRYABLE,
                code=err.status.name,
                said=text,
            ) from err
        except TimeoutError as err:
            raise CriError(
                f"cannot {name}: no answer in {timeout_s:g} s", retryable=True, code="DEADLINE_EXCEEDED"
            ) from err
        except (OSError, StreamTerminatedError, EOFError, AssertionError, ProtocolError, DecodeError) as err:
            # grpclib asserts that a message is as long as announced: it is not when the runtime dies in the middle
            raise CriError(
                f"cannot {name}: runtime is away: {err}", retryable=True, code="UNAVAILABLE"
            ) from err
        if answer is None:
            raise CriError(f"cannot {name}: empty answer", retryable=True, code="INTERNAL")
        return answer

    # -- runtime

    async def version(self) -> RuntimeVersion:
        """Name and version of the runtime."""
        r = await self._call("Version", pb.VersionRequest(), pb.VersionResponse, LIST_TIMEOUT_S)
        return RuntimeVersion(
            name=r.runtime_name, version=r.runtime_version, api_version=r.runtime_api_version
        )

    async def conditions(self) -> RuntimeConditions:
        """Whether runtime and network are ready, with the runtime's own words when they are not."""
        r = await self._call("Status", pb.StatusRequest(), pb.StatusResponse, LIST_TIMEOUT_S)
        by_type = {c.type: c for c in r.status.conditions}
        runtime, network = by_type.get("RuntimeReady"), by_type.get("NetworkReady")
        return RuntimeConditions(
            runtime_ready=runtime is not None and runtime.status,
            runtime_message=runtime.message if runtime is not None else "runtime reports no RuntimeReady",
            network_ready=network is not None and network.status,
            network_message=network.message if network is not None else "runtime reports no NetworkReady",
            strict_groups=r.features.supplemental_groups_policy,
        )

    async def setup(self) -> RuntimeSetup:
        """The runtime's own configuration, as far as containerd tells it; empty values where it does not."""
        r = await self._call("Status", pb.StatusRequest(verbose=True), pb.StatusResponse, LIST_TIMEOUT_S)
        try:
            told = msgspec.json.decode(r.info.get("config", "{}"))
        except msgspec.MsgspecError:
            told = {}
        if not isinstance(told, dict):
            told = {}
        return RuntimeSetup(
            sandbox_image=str(told.get("sandboxImage", "")), root_dir=str(told.get("containerdRootDir", ""))
        )

    # -- sandboxes

    async def run_sandbox(self, config: SandboxConfig, *, handler: str = "") -> str:
        """Create and start a sandbox with its network; returns its id."""
        r = await self._call(
            "RunPodSandbox",
            pb.RunPodSandboxRequest(config=_sandbox_config(config), runtime_handler=handler),
            pb.RunPodSandboxResponse,
            SANDBOX_TIMEOUT_S,
        )
        return r.pod_sandbox_id

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Stop what runs in a sandbox and take its network down.  A sandbox that is gone counts as stopped."""
        try:
            await self._call(
                "StopPodSandbox",
                pb.StopPodSandboxRequest(pod_sandbox_id=sandbox_id),
                pb.StopPodSandboxResponse,
            )
        except NotFound:
            return

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Remove a sandbox and its containers, by force.  Gone already counts as removed."""
        try:
            await self._call(
                "RemovePodSandbox",
                pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id),
                pb.RemovePodSandboxResponse,
            )
        except NotFound:
            return

    async def sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        """State and addresses of a sandbox; raises NotFound."""
        r = await self._call(
            "PodSandboxStatus",
            pb.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id),
            pb.PodSandboxStatusResponse,
        )
        s = r.status
        ips = [s.network.ip] if s.network.ip else []
        ips += [extra.ip for extra in s.network.additional_ips if extra.ip]
        return SandboxStatus(
            id=s.id,
            name=s.metadata.name,
            namespace=s.metadata.namespace,
            uid=s.metadata.uid,
            attempt=s.metadata.attempt,
            ready=s.state == pb.SANDBOX_READY,
            created_at=s.created_at / 1e9,
            labels=dict(s.labels),
            annotations=dict(s.annotations),
            ips=tuple(ips),
            host_network=s.linux.namespaces.options.network == pb.NODE,
        )

    async def list_sandboxes(self, *, uid: str = "") -> list[SandboxInfo]:
        """All sandboxes, or those of one pod UID by its label; without annotations, which may be large."""
        query = pb.PodSandboxFilter(label_selector={"io.kubernetes.pod.uid": uid} if uid else None)
        r = await self._call(
            "ListPodSandbox",
            pb.ListPodSandboxRequest(filter=query),
            pb.ListPodSandboxResponse,
            LIST_TIMEOUT_S,
        )
        return [
            SandboxInfo(
                id=s.id,
                name=s.metadata.name,
                namespace=s.metadata.namespace,
                uid=s.metadata.uid,
                attempt=s.metadata.attempt,
                ready=s.state == pb.SANDBOX_READY,
                created_at=s.created_at / 1e9,
                labels=dict(s.labels),
            )
            for s in r.items
        ]

    # -- containers

    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig) -> str:
        """Create a container in a sandbox without starting it; returns its id."""
        r = await self._call(
            "CreateContainer",
            pb.CreateContainerRequest(
                pod_sandbox_id=sandbox_id,
                config=_container_config(config),
                sandbox_config=_sandbox_config(sandbox),
            ),
            pb.CreateContainerResponse,
        )
        return r.container_id

    async def start_container(self, container_id: str) -> None:
        """Start a created container."""
        await self._call(
            "StartContainer",
            pb.StartContainerRequest(container_id=container_id),
            pb.StartContainerResponse,
        )

    async def stop_container(self, container_id: str, timeout_s: int) -> None:
        """Send the stop signal, and the kill signal after `timeout_s`.  A container that is gone counts as stopped."""
        try:
            await self._stop(container_id, timeout_s)
        except NotFound:
            return
        except CriError as err:
            # the image names a signal that there is not: the runtime reads it only if there is time for it
            if timeout_s <= 0 or "stop signal" not in err.said:
                raise
            log.warning("Container %s is killed at once: %s", container_id[:12], err.said[:256])
            await self.stop_container(container_id, 0)

    async def _stop(self, container_id: str, timeout_s: int) -> None:
        await self._call(
            "StopContainer",
            pb.StopContainerRequest(container_id=container_id, timeout=timeout_s),
            pb.StopContainerResponse,
            CALL_TIMEOUT_S + timeout_s,
        )

    async def remove_container(self, container_id: str) -> None:
        """Remove a container, by force.  Gone already counts as removed."""
        try:
            await self._call(
                "RemoveContainer",
                pb.RemoveContainerRequest(container_id=container_id),
                pb.RemoveContainerResponse,
            )
        except NotFound:
            return

    async def list_containers(self, *, uid: str = "") -> list[ContainerInfo]:
        """All containers in every state, or those of one pod UID by its label; without annotations."""
        query = pb.ContainerFilter(label_selector={"io.kubernetes.pod.uid": uid} if uid else None)
        r = await self._call(
            "ListContainers",
            pb.ListContainersRequest(filter=query),
            pb.ListContainersResponse,
            LIST_TIMEOUT_S,
        )
        return [
            ContainerInfo(
                id=c.id,
                sandbox_id=c.pod_sandbox_id,
                name=c.metadata.name,
                attempt=c.metadata.attempt,
                state=_STATES.get(c.state, ContainerState.UNKNOWN),
                created_at=c.created_at / 1e9,
                image=c.image.image,
                image_ref=c.image_ref,
                labels=dict(c.labels),
            )
            for c in r.containers
        ]

    async def container_status(self, container_id: str) -> ContainerStatus:
        """Everything the runtime knows of one container; raises NotFound."""
        r = await self._call(
            "ContainerStatus",
            pb.ContainerStatusRequest(container_id=container_id),
            pb.ContainerStatusResponse,
        )
        c = r.status
        return ContainerStatus(
            id=c.id,
            name=c.metadata.name,
            attempt=c.metadata.attempt,
            state=_STATES.get(c.state, ContainerState.UNKNOWN),
            created_at=c.created_at / 1e9,
            started_at=c.started_at / 1e9,
            finished_at=c.finished_at / 1e9,
            exit_code=c.exit_code,
            image=c.image.image,
            image_ref=c.image_ref,
            reason=c.reason,
            message=c.message[:MAX_ERROR_CHARS],
            labels=dict(c.labels),
            annotations=dict(c.annotations),
            log_path=c.log_path,
            mounts=tuple(Mount(container_path=m.container_path, host_path=m.host_path) for m in c.mounts),
        )

    async def exec_sync(self, container_id: str, argv: list[str], timeout_s: float) -> ExecResult:
        """Run a program in a container and wait for it.

        Raises CriError with code DEADLINE_EXCEEDED when it takes longer than `timeout_s`; containerd has killed it then.
        """
        try:
            r = await self._call(
                "ExecSync",
                pb.ExecSyncRequest(container_id=container_id, cmd=argv, timeout=max(1, round(timeout_s))),
                pb.ExecSyncResponse,
                timeout_s + 10.0,
            )
        except CriError as err:
            # containerd reports its own timeout as UNKNOWN with this text
            if "context deadline exceeded" in str(err) or "timeout" in str(err):
                raise CriError(str(err), retryable=True, code="DEADLINE_EXCEEDED") from err
            raise
        return ExecResult(exit_code=r.exit_code, stdout=r.stdout, stderr=r.stderr)

    async def update_resources(self, container_id: str, resources: Resources) -> None:
        """Give a running container other limits."""
        await self._call(
            "UpdateContainerResources",
            pb.UpdateContainerResourcesRequest(container_id=container_id, linux=_resources(resources)),
            pb.UpdateContainerResourcesResponse,
        )

    async def reopen_log(self, container_id: str) -> None:
        """Make the runtime open the container's log file again, after it was rotated."""
        await self._call(
            "ReopenContainerLog",
            pb.ReopenContainerLogRequest(container_id=container_id),
            pb.ReopenContainerLogResponse,
        )

    async def list_usage(self) -> list[ContainerUsage]:
        """CPU and memory of every running container, from one call."""
        r = await self._call(
            "ListContainerStats",
            pb.ListContainerStatsRequest(),
            pb.ListContainerStatsResponse,
            LIST_TIMEOUT_S,
        )
        return [
            ContainerUsage(
                id=s.attributes.id,
                name=s.attributes.metadata.name,
                uid=s.attributes.labels.get("io.kubernetes.pod.uid", ""),
                timestamp=s.cpu.timestamp / 1e9,
                cpu_ns=s.cpu.usage_core_nano_seconds.value,
                memory_bytes=s.memory.working_set_bytes.value,
                disk_bytes=s.writable_layer.used_bytes.value,
                inodes=s.writable_layer.inodes_used.value,
                memory=MemoryDetail(
                    usage_bytes=s.memory.usage_bytes.value,
                    rss_bytes=s.memory.rss_bytes.value,
                    page_faults=s.memory.page_faults.value,
                    major_page_faults=s.memory.major_page_faults.value,
                ),
            )
            for s in r.stats
        ]

    async def sandbox_usage(self, sandbox_id: str) -> SandboxUsage:
        """Network and processes of one sandbox.  The call for all of them is of no use with containerd 1.6, where a single
        sandbox or container that has ended makes it fail."""
        r = await self._call(
            "PodSandboxStats",
            pb.PodSandboxStatsRequest(pod_sandbox_id=sandbox_id),
            pb.PodSandboxStatsResponse,
            LIST_TIMEOUT_S,
        )
        network = r.stats.linux.network
        return SandboxUsage(
            timestamp=network.timestamp / 1e9,
            interfaces=tuple(
                _interface(i) for i in (network.default_interface, *network.interfaces) if i.name
            ),
            processes=r.stats.linux.process.process_count.value,
        )

    # -- streams: the runtime answers with a URL of its own streaming server

    async def exec_url(
        self, container_id: str, argv: list[str], *, tty: bool, stdin: bool, stdout: bool, stderr: bool
    ) -> str:
        """Where to connect for an interactive exec.  With a tty there is no stderr."""
        r = await self._call(
            "Exec",
            pb.ExecRequest(
                container_id=container_id, cmd=argv, tty=tty, stdin=stdin, stdout=stdout, stderr=stderr
            ),
            pb.ExecResponse,
        )
        return r.url

    async def attach_url(
        self, container_id: str, *, tty: bool, stdin: bool, stdout: bool, stderr: bool
    ) -> str:
        """Where to connect for an attach.  With a tty there is no stderr."""
        r = await self._call(
            "Attach",
            pb.AttachRequest(container_id=container_id, tty=tty, stdin=stdin, stdout=stdout, stderr=stderr),
            pb.AttachResponse,
        )
        return r.url

    async def port_forward_url(self, sandbox_id: str, ports: list[int]) -> str:
        """Where to connect for a port-forward."""
        r = await self._call(
            "PortForward",
            pb.PortForwardRequest(pod_sandbox_id=sandbox_id, port=ports),
            pb.PortForwardResponse,
        )
        return r.url

    # -- images

    async def image_status(self, ref: str) -> Image | None:
        """The image a reference stands for, or None when it is not on this machine."""
        try:
            r = await self._call(
                "ImageStatus",
                pb.ImageStatusRequest(image=pb.ImageSpec(image=ref)),
                pb.ImageStatusResponse,
                LIST_TIMEOUT_S,
            )
        except NotFound:
            return None
        return _image(r.image) if r.HasField("image") else None

    async def list_images(self) -> list[Image]:
        """Every image on this machine."""
        r = await self._call("ListImages", pb.ListImagesRequest(), pb.ListImagesResponse, LIST_TIMEOUT_S)
        return [_image(i) for i in r.images]

    async def pull_image(self, ref: str, auth: ImageAuth | None, sandbox: SandboxConfig | None) -> str:
        """Pull an image; returns the reference of what was pulled."""
        request = pb.PullImageRequest(image=pb.ImageSpec(image=ref))
        if auth is not None:
            request.auth.username = auth.username
            request.auth.password = auth.password
            request.auth.auth = auth.auth
            request.auth.identity_token = auth.identity_token
            request.auth.registry_token = auth.registry_token
            request.auth.server_address = auth.server
        if sandbox is not None:
            request.sandbox_config.CopyFrom(_sandbox_config(sandbox))
        r = await self._call("PullImage", request, pb.PullImageResponse, PULL_TIMEOUT_S)
        return r.image_ref

    async def image_paths(self) -> list[str]:
        """Where on this machine the images' file systems are."""
        r = await self._call("ImageFsInfo", pb.ImageFsInfoRequest(), pb.ImageFsInfoResponse, LIST_TIMEOUT_S)
        return [fs.fs_id.mountpoint for fs in r.image_filesystems if fs.fs_id.mountpoint]

    async def remove_image(self, ref: str) -> None:
        """Remove an image.  Gone already counts as removed."""
        try:
            await self._call(
                "RemoveImage",
                pb.RemoveImageRequest(image=pb.ImageSpec(image=ref)),
                pb.RemoveImageResponse,
            )
        except NotFound:
            return


_IMAGE_CALLS = {"ImageStatus", "ListImages", "PullImage", "RemoveImage", "ImageFsInfo"}


def _socket_path(endpoint: str) -> str:
    return endpoint.removeprefix("unix://")


def _interface(i: pb.NetworkInterfaceUsage) -> InterfaceUsage:
    return InterfaceUsage(
        name=i.name,
        rx_bytes=i.rx_bytes.value,
        rx_errors=i.rx_errors.value,
        tx_bytes=i.tx_bytes.value,
        tx_errors=i.tx_errors.value,
    )


def _image(i: pb.Image) -> Image:
    return Image(
        id=i.id,
        tags=tuple(i.repo_tags),
        digests=tuple(i.repo_digests),
        size_bytes=i.size,
        user=ImageUser(uid=i.uid.value if i.HasField("uid") else None, name=i.username),
        pinned=i.pinned,
    )


def _pid_mode(n: Namespaces) -> pb.NamespaceMode:
    if n.host_pid:
        return pb.NODE
    if n.share_pid:
        return pb.POD
    return pb.TARGET if n.target_id else pb.CONTAINER


def _namespaces(n: Namespaces) -> pb.NamespaceOption:
    return pb.NamespaceOption(
        network=pb.NODE if n.host_network else pb.POD,
        pid=_pid_mode(n),
        target_id=n.target_id,
        ipc=pb.NODE if n.host_ipc else pb.POD,
    )


def _profile(p: SecurityProfile | None) -> pb.SecurityProfile | None:
    if p is None:
        return None
    kinds = {
        "RuntimeDefault": pb.SecurityProfile.RuntimeDefault,
        "Unconfined": pb.SecurityProfile.Unconfined,
        "Localhost": pb.SecurityProfile.Localhost,
    }
    return pb.SecurityProfile(profile_type=kinds[p.kind], localhost_ref=p.localhost_ref)


def _int64(value: int | None) -> pb.Int64Value | None:
    return None if value is None else pb.Int64Value(value=value)


def _sandbox_config(c: SandboxConfig) -> pb.PodSandboxConfig:
    protocols = {"TCP": pb.TCP, "UDP": pb.UDP, "SCTP": pb.SCTP}
    config = pb.PodSandboxConfig(
        metadata=pb.PodSandboxMetadata(name=c.name, uid=c.uid, namespace=c.namespace, attempt=c.attempt),
        hostname=c.hostname,
        log_directory=c.log_directory,
        port_mappings=[
            pb.PortMapping(
                protocol=protocols[p.protocol],
                container_port=p.container_port,
                host_port=p.host_port,
                host_ip=p.host_ip,
            )
            for p in c.ports
        ],
        labels=c.labels,
        annotations=c.annotations,
        linux=pb.LinuxPodSandboxConfig(
            cgroup_parent=c.cgroup_parent,
            sysctls=c.sysctls,
            security_context=pb.LinuxSandboxSecurityContext(
                namespace_options=_namespaces(c.namespaces),
                run_as_user=_int64(c.run_as_user),
                run_as_group=_int64(c.run_as_group) if c.run_as_user is not None else None,
                supplemental_groups=c.supplemental_groups,
                supplemental_groups_policy=_groups_policy(strict=c.strict_groups),
                privileged=c.privileged,
                seccomp=_profile(c.seccomp),
            ),
        ),
    )
    if c.dns is not None:
        config.dns_config.servers.extend(c.dns.servers)
        config.dns_config.searches.extend(c.dns.searches)
        config.dns_config.options.extend(c.dns.options)
    return config


def _mount(m: Mount) -> pb.Mount:
    return pb.Mount(
        container_path=m.container_path,
        host_path=m.host_path,
        readonly=m.readonly,
        propagation=_PROPAGATION[m.propagation],
        image=pb.ImageSpec(image=m.image) if m.image else None,
        image_sub_path=m.image_path,
    )


def _resources(r: Resources) -> pb.LinuxContainerResources:
    return pb.LinuxContainerResources(
        cpu_period=r.cpu_period_us,
        cpu_quota=r.cpu_quota_us,
        cpu_shares=r.cpu_shares,
        memory_limit_in_bytes=r.memory_limit_bytes,
        oom_score_adj=r.oom_score_adj,
        unified=r.unified,
    )


def _groups_policy(*, strict: bool) -> pb.SupplementalGroupsPolicy:
    return pb.SupplementalGroupsPolicy.Strict if strict else pb.SupplementalGroupsPolicy.Merge


def signal_of(name: str) -> int:
    """A signal by Kubernetes' name (SIGUSR1, SIGRTMIN+3); the image's own where it is none that a runtime knows."""
    known = name.replace("+", "PLUS").replace("-", "MINUS")
    return pb.Signal.Value(known) if known in pb.Signal.keys() else pb.Signal.RUNTIME_DEFAULT  # noqa: SIM118


def _container_config(c: ContainerConfig) -> pb.ContainerConfig:
    security = pb.LinuxContainerSecurityContext(
        capabilities=pb.Capability(
            add_capabilities=c.capabilities_add, drop_capabilities=c.capabilities_drop
        ),
        privileged=c.privileged,
        namespace_options=_namespaces(c.namespaces),
        run_as_user=_int64(c.run_as_user),
        run_as_username=c.run_as_username,
        readonly_rootfs=c.readonly_rootfs,
        supplemental_groups=c.supplemental_groups,
        supplemental_groups_policy=_groups_policy(strict=c.strict_groups),
        no_new_privs=c.no_new_privs,
        masked_paths=c.masked_paths,
        readonly_paths=c.readonly_paths,
        seccomp=_profile(c.seccomp),
        apparmor=_profile(c.apparmor),
    )
    # the runtime refuses a group without a user
    if c.run_as_group is not None and (c.run_as_user is not None or c.run_as_username):
        security.run_as_group.value = c.run_as_group
    return pb.ContainerConfig(
        metadata=pb.ContainerMetadata(name=c.name, attempt=c.attempt),
        image=pb.ImageSpec(image=c.image, user_specified_image=c.user_image),
        command=c.command,
        args=c.args,
        working_dir=c.working_dir,
        envs=[pb.KeyValue(key=k, value=v) for k, v in c.env],
        mounts=[_mount(m) for m in c.mounts],
        devices=[
            pb.Device(container_path=d.container_path, host_path=d.host_path, permissions=d.permissions)
            for d in c.devices
        ],
        CDI_devices=[pb.CDIDevice(name=name) for name in c.cdi],
        labels=c.labels,
        annotations=c.annotations,
        log_path=c.log_path,
        stdin=c.stdin,
        stdin_once=c.stdin_once,
        tty=c.tty,
        stop_signal=signal_of(c.stop_signal),  # type: ignore[arg-type]
        linux=pb.LinuxContainerConfig(resources=_resources(c.resources), security_context=security),
    )
