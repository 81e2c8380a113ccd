"""Making one pod's sandbox and starting its containers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

import msgspec

from edgecore.edged import (
    adopt,
    backoff,
    claims,
    env,
    images,
    loglinks,
    loopback,
    prober,
    spec,
    tree,
    volumes,
)
from edgecore.edged.errors import CriError, Held, VolumeError
from edgecore.edged.node import NO_LIMITS
from edgecore.edged.pod import Container
from edgecore.edged.podcontext import PodContext
from edgecore.edged.podreading import PodReader
from edgecore.edged.podreporting import PodReporter
from edgecore.edged.podstopping import PodStopper
from edgecore.edged.podvolumes import PodVolumes
from edgecore.edged.runtime import ContainerState, Dns, Image, SandboxConfig
from edgecore.edged.status import Outcome

log = logging.getLogger(__name__)

# How long a postStart hook may take; a kubelet has no limit, but a worker that waits for ever helps nobody.
POST_START_S = 600.0


class RuntimeClass(msgspec.Struct, frozen=True, kw_only=True):
    """node.k8s.io/v1, as far as it is used here."""

    handler: str


class PodStarter:
    """What cannot be started is remembered in the context's `held`, with the reason."""

    def __init__(
        self,
        ctx: PodContext,
        reader: PodReader,
        reporter: PodReporter,
        volumes: PodVolumes,
        stopper: PodStopper,
    ) -> None:
        self._ctx = ctx
        self._s = ctx.shared
        self._reader = reader
        self._reporter = reporter
        self._volumes = volumes
        self._stopper = stopper
        # why there is no sandbox, if that was tried
        self.sandbox_error: str | None = None

    async def create_sandbox(self, attempt: int, prepared: Callable[[], None] = lambda: None) -> None:
        """The pod's place in the runtime: its network, and what holds its cgroup.  Raises CriError.

        prepared: told once it is the runtime's turn."""
        handler = await self._runtime_handler()
        try:
            config = self._sandbox_config(attempt)
        except Held as err:
            if err.reason in spec.WAITS:
                # as in a kubelet it waits: the cluster's domain may change
                text = f"Failed to create pod sandbox: {err}"
                await self._ctx.event("Warning", "FailedCreatePodSandBox", text)
                await self._reporter.report()
                raise CriError(f"cannot create sandbox: {err}", retryable=True) from err
            self._ctx.fail(Outcome(phase="Failed", reason=err.reason, message=str(err)))
            return
        await asyncio.to_thread(self._make_log_dirs)
        await asyncio.to_thread(self._ctx.limit)
        self.sandbox_error = None
        prepared()
        async with asyncio.TaskGroup() as both:
            both.create_task(self._reporter.report())
            made = both.create_task(self._run_sandbox(config, handler))
        if isinstance(made.result(), CriError):
            error = made.result()
            assert isinstance(error, CriError)
            self.sandbox_error = str(error)
            await self._ctx.event(
                "Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}"
            )
            raise error
        if self._ctx.config.cgroup_driver == "systemd":
            # the slice is there only now
            await asyncio.to_thread(self._ctx.limit)
        status = await self._s.cri.sandbox_status(str(made.result()))
        if self._ctx.pod.is_mapped():
            await asyncio.to_thread(loopback.shut, status.ips)
        self._reader.add_sandbox(status)

    async def start(self, container: Container, count: int) -> None:
        """Start one container, or remember why it is held back."""
        name = container.name
        try:
            if any(c.name == name for c in self._ctx.pod.spec.ephemeral_containers):
                # it came after the pod was let in
                refused = self._s.permit(self._ctx.pod)
                if refused is not None:
                    raise Held(refused.reason, refused.message)
            image = await self._ctx.unless_ending(self._image(container))
            if image is None:
                return
            volume_images = await self._ctx.unless_ending(self._volume_images(container))
            if volume_images is None:
                return
            await self._start_with(container, count, image, volume_images)
        except Held as err:
            self._ctx.held[name] = (err.reason, str(err))
            # what is wrong with an image was told where it was found
            told = err.reason if err.reason in images.REASONS else err
            await self._ctx.event("Warning", "Failed", f"Error: {told}", name)
        except CriError as err:
            if err.code == "UNAVAILABLE":
                raise
            self._ctx.held[name] = ("CreateContainerError", err.said[:1024])
            await self._ctx.event("Warning", "Failed", f"Error: {err.said}", name)

    def _sandbox_config(self, attempt: int) -> SandboxConfig:
        config = self._ctx.config
        host = spec.parse_resolv_conf(
            tree.read_bounded(config.resolv_conf.resolve(), 64 * 1024).decode("utf-8", "replace")
        )
        dns: Dns = spec.resolver(self._ctx.pod, config, host)
        return spec.sandbox_config(
            self._ctx.pod,
            attempt=attempt,
            config=config,
            dns=dns,
            kept=_kept(self._ctx.raw),
        )

    async def _runtime_handler(self) -> str:
        """What the runtime calls the pod's RuntimeClass; empty for the default.  Raises CriError while it is not known."""
        name = self._ctx.pod.spec.runtime_class_name
        if not name:
            return ""
        # nobody tells the node when it is made anew with another handler
        raw = await self._s.objects.fetch("runtimeclass", "", name, fresh=True)
        if raw is None:
            text = f'RuntimeClass "{name[:253]}" not found'
            await self._ctx.event(
                "Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {text}"
            )
            await self._reporter.report()
            raise CriError(f"cannot create sandbox: {text}", retryable=True)
        try:
            return msgspec.json.decode(raw, type=RuntimeClass).handler
        except msgspec.MsgspecError as err:
            raise CriError(
                f"cannot create sandbox: RuntimeClass {name[:253]}: {err}", retryable=True
            ) from err

    async def _run_sandbox(self, config: SandboxConfig, handler: str) -> str | CriError:
        try:
            async with self._s.starts.place():
                return await self._s.cri.run_sandbox(config, handler=handler)
        except CriError as err:
            return err

    def _make_log_dirs(self) -> None:
        folder = self._ctx.log_folder
        for c in self._ctx.pod.every_container():
            tree.make_dirs(self._ctx.config.log_dir, f"{folder.name}/{c.name}", 0o755)

    async def _image(self, container: Container) -> Image:
        sandbox = self._ctx.runtime.sandbox
        assert sandbox is not None

        async def emit(kind: str, reason: str, message: str) -> None:
            await self._ctx.event(kind, reason, message, container.name)

        pull_secrets = [
            data
            for ref in self._ctx.pod.spec.image_pull_secrets
            if (data := self._ctx.sources.refs.secrets.get(ref.name)) is not None
        ]
        auths = images.credentials(container.image, pull_secrets)
        return await self._s.images.ensure(
            self._ctx.pod.uid,
            container,
            auths,
            self._sandbox_config(sandbox.attempt),
            emit,
            known=self._ctx.started_images.get(container.image, ""),
        )

    async def _volume_images(self, container: Container) -> dict[str, str]:
        """By volume that the container mounts, the id of the image that it is.  Raises Held, CriError."""
        mounted = {m.name for m in container.volume_mounts}
        wanted = [v for v in self._ctx.pod.spec.volumes if v.image is not None and v.name in mounted]
        if not wanted:
            return {}
        why_not = images.no_volumes(await self._s.cri.version())
        if why_not:
            raise Held("CreateContainerError", f'volume "{wanted[0].name}" cannot be mounted: {why_not}')
        found = {}
        for volume in wanted:
            assert volume.image is not None
            like = Container(
                name=container.name,
                image=volume.image.reference,
                image_pull_policy=volume.image.pull_policy,
            )
            image = await self._image(like)
            if image.id:
                self._ctx.started_images[like.image] = image.id
            found[volume.name] = image.id or like.image
        return found

    async def _start_with(
        self, container: Container, count: int, image: Image, volume_images: Mapping[str, str]
    ) -> None:
        sandbox = self._ctx.runtime.sandbox
        assert sandbox is not None
        given = await self._s.plugins.allocate(self._ctx.pod, container)
        pod, facts = self._ctx.granted, self._ctx.facts()
        variables = env.environment(pod, container, self._ctx.sources.refs, facts)
        command, args = env.command(container, variables)
        try:
            mounts = await asyncio.to_thread(self._volumes.mounts, container, count, variables, volume_images)
            blocks = await asyncio.to_thread(
                volumes.devices, self._ctx.pod, container.name, self._ctx.sources
            )
        except VolumeError as err:
            raise Held(env.CONFIG_ERROR, str(err)) from err
        claimed = claims.resolve(self._ctx.pod, container, self._s.find_device)
        config = spec.container_config(
            pod,
            container,
            restart_count=count,
            # by its id when it has no name any more: then no registry can change what is started
            image=image.id or container.image,
            image_user=image.user,
            env=variables,
            command=command,
            args=args,
            mounts=mounts,
            config=self._ctx.config,
            memory_capacity=self._s.node.memory_bytes,
            memory_limits=self._s.node.memory_limits,
            unified=self._s.node.unified,
            target_id=self._target(container),
            devices=claimed,
            given=given,
            blocks=blocks,
        )
        before = self._ctx.runtime.latest(container.name)
        if image.id:
            self._ctx.started_images[container.image] = image.id
        cri = self._s.cri
        sandbox_config = self._sandbox_config(sandbox.attempt)
        async with self._s.starts.place():
            container_id = await cri.create_container(sandbox.id, config, sandbox_config)
        await self._ctx.event("Normal", "Created", f"Created container: {container.name}", container.name)
        if before is not None and before.state is ContainerState.EXITED:
            earlier = None if adopt.changed(container, before) else self._ctx.delays.get(container.name)
            self._ctx.delays[container.name] = backoff.after_try(
                earlier, failed_at=before.finished_at, now=self._s.clock.now()
            )
        try:
            async with self._s.starts.place():
                await cri.start_container(container_id)
        except CriError as err:
            if err.code == "UNAVAILABLE":
                raise
            self._ctx.held[container.name] = ("RunContainerError", str(err)[:1024])
            await self._ctx.event("Warning", "Failed", f"Error: {err.said}", container.name)
        else:
            await self._ctx.event("Normal", "Started", f"Started container {container.name}", container.name)
            if "memory" in container.resources.limits and not self._s.node.memory_limits:
                text = f"The memory limit of container {container.name} is not enforced: {NO_LIMITS}"
                await self._ctx.event("Warning", "MemoryLimitIgnored", text, container.name)
            await asyncio.to_thread(self._link_log, container.name, container_id, count)
            log.info(
                "Started container %s of pod %s/%s (restart %d)",
                container.name,
                self._ctx.pod.namespace,
                self._ctx.pod.name,
                count,
            )
        await self._reader.read_back(container_id, sandbox.id)
        if container.name not in self._ctx.held and container.lifecycle is not None:
            await self._post_start(container, container_id)
        await self._reporter.report()

    def _link_log(self, name: str, container_id: str, count: int) -> None:
        folder = self._ctx.config.log_links
        if folder is None:
            return
        target = f"{spec.pod_log_dir(self._ctx.config, self._ctx.pod)}/{name}/{count}.log"
        try:
            loglinks.make(folder, self._ctx.pod, name, container_id, target)
        except OSError as err:
            self._ctx.complain(f"cannot link a log: {err}")

    def _target(self, container: Container) -> str:
        """Id of the container whose processes an ephemeral one is to see.  Raises Held while it does not run."""
        name = container.target_container_name
        if not name:
            return ""
        status = self._ctx.runtime.latest(name)
        if status is None or status.state is not ContainerState.RUNNING:
            raise Held(env.CONFIG_ERROR, f'target container "{name[:64]}" does not run')
        return status.id

    async def _post_start(self, container: Container, container_id: str) -> None:
        assert container.lifecycle is not None
        if container.lifecycle.post_start is None:
            return
        problem = await self._ctx.unless_ending(
            prober.hook(
                self._s.cri,
                container_id,
                container,
                container.lifecycle.post_start,
                pod_ip=self._ctx.pod_ip(),
                timeout_s=POST_START_S,
            )
        )
        if problem:
            await self._ctx.event(
                "Warning", "FailedPostStartHook", f"PostStartHook failed: {problem}", container.name
            )
            status = next(c for c in self._ctx.runtime.containers if c.id == container_id)
            await self._stopper.kill(status, self._ctx.machine.grace_s)
            await self._reader.reread()


def _kept(raw: bytes) -> bytes:
    """A pod as it is kept on its sandbox: without its status and managed fields."""
    try:
        pod = msgspec.json.decode(raw)
        pod.pop("status", None)
        pod["metadata"].pop("managedFields", None)
        return msgspec.json.encode(pod)
    except (msgspec.MsgspecError, AttributeError, KeyError):
        return b"{}"
