"""What one pod's containers are given to read and write: volumes, variables' sources, and the mounts of each container."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from beehive.errors import SkerryError
from edgecore.edged import closure, csi, env, persistent, record, servicelinks, spec, tree, volumes
from edgecore.edged.errors import VolumeError
from edgecore.edged.pod import Container, Volume
from edgecore.edged.podcontext import PodContext
from edgecore.edged.runtime import Mount

# How soon what could not be had is asked for again.
RETRY_S = 5.0
# How often it is asked whether a driver's volume has become larger: nobody tells the node, and each time costs a question.
SIZES_S = 300.0
TOKEN_REFRESH_SHARE, LEAST_TOKEN_S = 0.8, 10.0
# The Service of the API itself: where the node serves one of its own, containers are told of that.
API_SERVICE = ("default", "kubernetes")


class PodVolumes:
    """Kept up to date while the pod runs."""

    def __init__(self, ctx: PodContext) -> None:
        self._ctx = ctx
        self._s = ctx.shared
        # whether something that they hold may have changed, and when it is over by itself (Unix seconds)
        self.stale = True
        self.refresh_at: float | None = None
        # by claim, when to look next whether it is larger; by the clock that only grows
        self._sizes_at: dict[str, float] = {}

    @property
    def due(self) -> bool:
        """Whether what they hold may be another, or is over."""
        return self.stale or (self.refresh_at is not None and self._s.clock.now() >= self.refresh_at)

    async def bring(self) -> bool:
        """Bring the volumes to what they should hold; False when that is not possible yet."""
        if not self.due:
            return True
        # what changes while they are read and written makes them stale again
        self.stale = False
        try:
            brought = await self._bring()
        except BaseException:
            self.stale = True
            raise
        if not brought:
            self.stale = True
        return brought or bool(self._ctx.runtime.running())

    async def _bring(self) -> bool:
        """False when something could not be mounted; a pod that runs goes on with what it has."""
        self._ctx.sources = await self._gather()
        try:
            await asyncio.to_thread(
                volumes.prepare,
                self._ctx.pod,
                replace(self._ctx.sources, held=await asyncio.to_thread(self.held_paths)),
                root=self._ctx.config.root_dir,
                stamp=f"{self._s.clock.now():.6f}".replace(".", "_"),
            )
        except VolumeError as err:
            await self._ctx.event("Warning", "FailedMount", f"MountVolume.SetUp failed for {err}")
            if not self._ctx.runtime.running():
                self._ctx.complain(str(err))
            return False
        return True

    def mounts(
        self, container: Container, count: int, variables: Mapping[str, str], images: Mapping[str, str]
    ) -> list[Mount]:
        """Everything that is mounted into a container.  images: the ids of those that are volumes, by volume.

        Blocking.  Raises VolumeError, Held."""
        root = self._ctx.config.root_dir
        # again: what a link leads to may be another since the container before this one
        held = self.held_paths()
        volumes.hold(self._ctx.pod, held, root=root)
        relative = {}
        for i, m in enumerate(container.volume_mounts):
            if m.sub_path:
                relative[i] = m.sub_path
            elif m.sub_path_expr:
                path = env.expand_strict(m.sub_path_expr, variables)
                if path.startswith("/") or ".." in path.split("/") or "\0" in path:
                    raise VolumeError(f'volume "{m.name}": subPathExpr leads out of the volume')
                relative[i] = path
        in_images = {i: path for i, path in relative.items() if container.volume_mounts[i].name in images}
        relative = {i: path for i, path in relative.items() if i not in in_images}
        bound = volumes.bind_sub_paths(self._ctx.pod, container.name, relative, root=root, held=held)
        mounts = volumes.mounts(
            self._ctx.pod,
            container.name,
            root=root,
            sub_paths=bound,
            held=held,
            images=images,
            image_paths=in_images,
        )
        taken = {m.container_path for m in mounts}
        if container.termination_message_path and container.termination_message_path not in taken:
            folder = tree.make_dirs(root, f"{self._ctx.pod.uid}/containers/{container.name}")
            # anyone in the container may write its last words
            tree.write_file(folder, str(count), tree.File(data=b"", mode=0o666))
            mounts.append(
                Mount(container_path=container.termination_message_path, host_path=str(folder / str(count)))
            )
        if "/etc/hosts" not in taken:
            folder = tree.make_dirs(root, self._ctx.pod.uid)
            text = spec.hosts_file(
                self._ctx.pod,
                ips=self._ctx.runtime.ips,
                domain=self._ctx.config.cluster_domain,
                host_hosts=tree.read_bounded(Path("/etc/hosts"), 256 * 1024).decode("utf-8", "replace"),
            )
            tree.write_file(folder, "etc-hosts", tree.File(data=text.encode(), mode=0o644))
            mounts.append(Mount(container_path="/etc/hosts", host_path=str(folder / "etc-hosts")))
        return mounts

    async def _gather(self) -> volumes.Sources:
        """Fetch what the pod refers to.  What cannot be had now is missing, which holds back only what needs it."""
        config_maps, secrets = env.references(self._ctx.pod)
        # a pod that runs already is kept up to date from the store; only a start is worth asking the cloud
        objects = self._s.objects
        get = objects.get if self._ctx.runtime.running() else objects.fetch
        found: dict[str, dict[str, dict[str, bytes] | None]] = {"configmap": {}, "secret": {}}
        lacking: dict[tuple[str, str], str] = {}
        for kind, names, read in (
            ("configmap", config_maps, env.config_map_data),
            ("secret", secrets, env.secret_data),
        ):
            for name in sorted(names):
                try:
                    raw = await get(kind, self._ctx.pod.namespace, name)
                except SkerryError as err:
                    self._ctx.complain(f"cannot get {kind} {name}: {err}")
                    lacking[kind, name] = str(err)
                    raw = None
                if raw is None:
                    lacking.setdefault((kind, name), "not found")
                found[kind][name] = read(msgspec.json.decode(raw)) if raw is not None else None
        tokens = {}
        no_token = ""
        self.refresh_at = None
        for key in volumes.tokens_needed(self._ctx.pod):
            try:
                token, expires = await self._token(key)
            except SkerryError as err:
                self._ctx.complain(f"cannot get a token: {err}")
                no_token = str(err)
                self.refresh_at = self._s.clock.now() + RETRY_S
                continue
            tokens[key] = token
            now = self._s.clock.now()
            due = now + max(LEAST_TOKEN_S, (expires - now) * TOKEN_REFRESH_SHARE)
            self.refresh_at = due if self.refresh_at is None else min(due, self.refresh_at)
        self._ctx.service_links = await self._service_links()
        claims = {name: await self._claim(name) for name in volumes.claims_of(self._ctx.pod)}
        inline = {v.name: await self._inline(v) for v in self._ctx.pod.spec.volumes if v.csi is not None}
        self._ctx.missing = closure.missing(
            self._ctx.pod,
            lacking,
            tokens=no_token,
            claims={name: why for name, why in claims.items() if isinstance(why, str)},
        )
        return volumes.Sources(
            claims=claims,
            csi=inline,
            refs=env.References(config_maps=found["configmap"], secrets=found["secret"]),
            tokens=tokens,
            facts=self._ctx.facts(),
        )

    async def _service_links(self) -> Mapping[str, str]:
        """What containers are told of the Services of their namespace, as far as these are here."""
        namespace = self._ctx.pod.namespace
        if not self._ctx.pod.spec.enable_service_links:
            return {}
        try:
            found = await self._s.objects.known("service", namespace)
        except SkerryError as err:
            self._ctx.complain(f"cannot read Services: {err}")
            return self._ctx.service_links
        own = self._s.service_env and namespace == API_SERVICE[0]
        return servicelinks.variables(found, leave_out=API_SERVICE[1] if own else "")

    async def _claim(self, name: str) -> persistent.Claim | str:
        """Where a claim's data is, or why it cannot be used now."""
        objects, namespace = self._s.objects, self._ctx.pod.namespace
        # nobody tells the node when a claim is bound, or another of its name takes its place
        fresh = not self._ctx.runtime.running()
        look = self._s.clock.monotonic() >= self._sizes_at.get(name, math.inf)
        try:
            claim = await objects.fetch("persistentvolumeclaim", namespace, name, fresh=fresh or look)
            bound = persistent.volume_name(name, claim)
            grows = look and persistent.growing(claim)
            volume = await objects.fetch("persistentvolume", "", bound, fresh=fresh or grows)
            assert claim is not None
            owner = self._ctx.pod.uid if volumes.is_own_claim(self._ctx.pod, name) else ""
            found = persistent.resolve(name, bytes(claim), volume, owner=owner)
            if isinstance(found, csi.Wanted):
                there = await self._s.storage.publish(self._ctx.pod, self._ctx.config.root_dir, found)
                if found.grows_to:
                    await self._expand(name, found)
                now = self._s.clock.monotonic()
                if fresh or look or name not in self._sizes_at:
                    self._sizes_at[name] = now + SIZES_S
                due = self._s.clock.now() + max(0.0, self._sizes_at[name] - now)
                self.refresh_at = due if self.refresh_at is None else min(due, self.refresh_at)
                return persistent.Claim(path=there.path, own=there.own, deep=True, block=found.block)
            held = await asyncio.to_thread(self._s.hold_path, self._ctx.pod, found.path)
        except SkerryError as err:
            return str(err)
        return replace(found, path=held, held=True) if held else found

    async def _expand(self, name: str, wanted: csi.Wanted) -> None:
        """Let a volume have its size, and tell its claim.  What fails is tried again: the pod goes on with what it has."""
        what = f'volume "{wanted.spec_name}"'
        try:
            if not await self._s.storage.expand(self._ctx.pod, self._ctx.config.root_dir, wanted):
                return
            await self._s.objects.expanded(self._ctx.pod.namespace, name, wanted.claim_uid)
        except VolumeError as err:
            await self._ctx.event(
                "Warning", "VolumeResizeFailed", f"NodeExpandVolume failed for {what} : {err}"
            )
        except SkerryError as err:
            self._ctx.complain(f"cannot tell claim {name} that {what} is larger: {err}")
        else:
            await self._ctx.event(
                "Normal", "FileSystemResizeSuccessful", f"NodeExpandVolume succeeded for {what}"
            )

    async def _inline(self, volume: Volume) -> str:
        """Why a driver's volume is not there; nothing when it is."""
        try:
            await self._s.storage.publish(
                self._ctx.pod, self._ctx.config.root_dir, csi.inline(self._ctx.pod, volume)
            )
        except VolumeError as err:
            return str(err)
        return ""

    async def _token(self, key: volumes.TokenKey) -> tuple[str, float]:
        account = self._ctx.pod.spec.service_account_name or "default"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [key.audience] if key.audience else [],
                "expirationSeconds": key.expiration_s,
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": self._ctx.pod.name,
                    "uid": self._ctx.pod.uid,
                },
            },
        }
        answer = await self._s.objects.token(self._ctx.pod.namespace, account, msgspec.json.encode(request))
        return record.token(answer)

    def held_paths(self) -> dict[str, str]:
        """By volume, the one path that may be used for it, where this machine's owner says which may.

        What the pod's paths lead to must be allowed, too.  Blocking.  Raises VolumeError, PolicyError."""
        found = {}
        for volume in self._ctx.pod.spec.volumes:
            if volume.host_path is None:
                continue
            try:
                held = self._s.hold_path(self._ctx.pod, volume.host_path.path)
            except VolumeError as err:
                raise VolumeError(f'volume "{volume.name}": {err}') from err
            if held:
                found[volume.name] = held
        return found
