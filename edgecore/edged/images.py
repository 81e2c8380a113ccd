"""Which images to pull, with which credentials, and how often to try: pure decisions and one thin shell, `Images`.

An image that is here is not pulled again unless the policy says Always.  Even then a registry that cannot be reached does
not hold back a pod whose image is here: an edge that boots offline must start it (a kubelet would wait for the registry).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol

import msgspec

from edgecore.edged import backoff
from edgecore.edged.errors import CriError, Held
from edgecore.edged.imagegc import Disk
from edgecore.edged.pod import Container
from edgecore.edged.ports import Clock
from edgecore.edged.runtime import Image, ImageAuth, RuntimeVersion, SandboxConfig

log = logging.getLogger(__name__)

# How long a pull may take that only looks for something newer than what is here, and for how long a registry that failed
# that way is not asked again for images that are here: ten pods must not wait one after the other for a dead line.
REFRESH_S = 30.0
REGISTRY_AWAY_S = 60.0
# How often a pull under way is looked at.
WATCH_S = 1.0

# What `Held` says when an image is the cause.
REASONS = ("InvalidImageName", "ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff")

# Source: the grammar of references in distribution/reference.
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:]+\])"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9A-Fa-f]{32,}"
_REFERENCE = re.compile(
    rf"(?:{_HOST}(?::[0-9]+)?/)?{_PART}(?:/{_PART})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@{_DIGEST})?"
)

Emit = Callable[[str, str, str], Awaitable[None]]
"""(type, reason, message) of an event on the pod."""


class ImageService(Protocol):
    """The part of the runtime that this file needs."""

    async def image_status(self, ref: str) -> Image | None: ...

    async def pull_image(self, ref: str, auth: ImageAuth | None, sandbox: SandboxConfig | None) -> str: ...


class DiskWatch(Protocol):
    """What a pull is watched by."""

    def disk(self) -> Disk | None: ...

    def downloaded(self) -> int | None: ...


def should_pull(policy: str, *, present: bool) -> bool:
    """Whether to ask the registry.  Raises Held for Never without the image."""
    if policy == "Always":
        return True
    if present:
        return False
    if policy == "Never":
        raise Held("ErrImageNeverPull", "")
    return True


def is_reference(text: str) -> bool:
    """Whether it can be the name of an image."""
    return len(text) <= 1024 and _REFERENCE.fullmatch(text) is not None


def no_volumes(runtime: RuntimeVersion) -> str:
    """Why a runtime cannot mount images as volumes; empty when it can, or when that is not known.

    One that is too old would not see that an image is meant.  Source: containerd's release notes (2.1), CRI-O's (1.31)."""
    least = {"containerd": (2, 1), "cri-o": (1, 31)}.get(runtime.name)
    found = re.match(r"v?(\d+)\.(\d+)", runtime.version)
    if least is None or found is None or (int(found[1]), int(found[2])) >= least:
        return ""
    needed = ".".join(map(str, least))
    return f"image volumes need {runtime.name} {needed}, and this is {runtime.version[:32]}"


# Of containerd 1.x: the first version of each minor one in which an image cannot have files of the machine copied into a
# container (CVE-2022-23648).
_SAFE = {4: 13, 5: 10, 6: 1}


def unsafe(runtime: RuntimeVersion) -> str:
    """What is wrong with a runtime whose images reach the machine itself; empty when nothing is known to be.

    What was mended later is left out: distributions mend it without another number.
    Source: GHSA-crp2-qrr5-8pq7."""
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", runtime.version)
    if runtime.name != "containerd" or found is None:
        return ""
    major, minor, patch = (int(part) for part in found.groups())
    if major > 1 or (major == 1 and (minor > max(_SAFE) or patch >= _SAFE.get(minor, patch + 1))):
        return ""
    return (
        f"containerd {runtime.version[:32]} lets an image read files of this machine (CVE-2022-23648): "
        "install containerd 1.6.1 or later"
    )


def registry_of(ref: str) -> str:
    """The registry host of an image reference; Docker's when none is written."""
    first, slash, _ = ref.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first
    return "docker.io"


def credentials(ref: str, secrets: list[Mapping[str, bytes]]) -> list[ImageAuth]:
    """Credentials for an image out of the data of pull secrets, most specific entry first.  Bad entries are left out."""
    found: list[tuple[int, ImageAuth]] = []
    for data in secrets:
        for key in (".dockerconfigjson", ".dockercfg"):
            if key not in data:
                continue
            try:
                document = msgspec.json.decode(data[key])
            except (msgspec.MsgspecError, RecursionError):
                continue
            auths = (
                document.get("auths")
                if key == ".dockerconfigjson" and isinstance(document, dict)
                else document
            )
            if not isinstance(auths, dict):
                continue
            for server, entry in auths.items():
                length = _match(ref, str(server))
                auth = _auth(str(server), entry) if length else None
                if auth is not None:
                    found.append((length, auth))
    found.sort(key=lambda pair: -pair[0])
    return [auth for _, auth in found]


def _match(ref: str, server: str) -> int:
    """How specifically a config entry names the registry (and path) of an image; 0 means not at all."""
    name = server.removeprefix("https://").removeprefix("http://").rstrip("/")
    for suffix in ("/v1", "/v2"):
        name = name.removesuffix(suffix)
    host, _, path = name.partition("/")
    registry = registry_of(ref)
    if host in ("index.docker.io", "registry-1.docker.io"):
        host = "docker.io"
    if host != registry and not (
        host.startswith("*.") and registry.endswith(host[1:]) and registry.count(".") == host.count(".")
    ):
        return 0
    if path and not ref.partition("/")[2].startswith(path):
        return 0
    return 1 + len(name)


def _auth(server: str, entry: object) -> ImageAuth | None:
    if not isinstance(entry, dict):
        return None
    username, password = str(entry.get("username", "")), str(entry.get("password", ""))
    packed = str(entry.get("auth", ""))
    if packed and not username:
        try:
            username, _, password = base64.b64decode(packed).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return None
    token = str(entry.get("identitytoken", ""))
    if not username and not token:
        return None
    return ImageAuth(username=username, password=password.rstrip("\0"), identity_token=token, server=server)


@contextlib.asynccontextmanager
async def _limit(seconds: float | None) -> AsyncIterator[None]:
    """asyncio.timeout whose end is a CriError like the runtime's own."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as err:
        raise CriError(f"no answer in {seconds} s", retryable=True, code="DEADLINE_EXCEEDED") from err


async def _outcome(work: Coroutine[Any, Any, str]) -> str | CriError:
    """Result or error as a value, so that a race in a TaskGroup does not wrap it in a group."""
    try:
        return await work
    except CriError as err:
        return err


class Images:
    """Pulls what a container needs.  One instance a machine: the back-off and the bound on parallel pulls are shared."""

    def __init__(
        self,
        runtime: ImageService,
        clock: Clock,
        *,
        parallel: int,
        watch: DiskWatch | None = None,
        min_free_percent: float = 5.0,
        stall_s: float = 120.0,
    ) -> None:
        """watch: the images' disk; a pull ends when less than min_free_percent is left, or nothing came for stall_s."""
        self._watch = watch
        self._min_free_percent = min_free_percent
        self._stall_s = stall_s
        self._runtime = runtime
        self._clock = clock
        self._slots = asyncio.Semaphore(parallel)
        self._delays: dict[str, tuple[backoff.Delay, float, str]] = {}
        self._away: dict[str, float] = {}

    async def ensure(
        self,
        uid: str,
        container: Container,
        auths: list[ImageAuth],
        sandbox: SandboxConfig,
        emit: Emit,
        *,
        known: str = "",
    ) -> Image:
        """The image of a container, pulled if its policy asks for it.

        known: id of the image that this reference stood for when the pod last started it; it is used where the name
        has meanwhile been given to another image or removed, so that a pod comes back offline as what it was.

        Raises Held with the kubelet's reason: InvalidImageName, ErrImageNeverPull, ErrImagePull, ImagePullBackOff; CriError
        when the runtime is away.
        """
        ref = container.image.strip()
        if not is_reference(ref):
            text = f'Failed to apply default image tag "{ref[:128]}": invalid reference format'
            await emit("Warning", "InspectFailed", text)
            raise Held("InvalidImageName", text)
        present = await self._runtime.image_status(ref)
        if present is None and known:
            present = await self._runtime.image_status(known)
        try:
            pull = should_pull(container.pull_policy, present=present is not None)
        except Held as err:
            text = f'Container image "{ref}" is not present with pull policy of Never'
            await emit("Warning", err.reason, text)
            raise Held(err.reason, text) from None
        if not pull and present is not None:
            await emit("Normal", "Pulled", f'Container image "{ref}" already present on machine')
            return present
        key = f"{uid}/{ref}"
        now = self._clock.monotonic()
        entry = self._delays.get(key)
        if entry is not None:
            delay, failed_at, cause = entry
            left = backoff.remaining_s(delay, failed_at=failed_at, failed_for_s=now - failed_at)
            if left > 0:
                await emit("Normal", "BackOff", f'Back-off pulling image "{ref}"')
                raise Held("ImagePullBackOff", f'Back-off pulling image "{ref}": {cause}')
        if present is not None and now < self._away.get(registry_of(ref), 0.0):
            await emit(
                "Warning", "PullFailedUsingPresent", f'Using image "{ref}" that is present: registry is away'
            )
            return present
        await emit("Normal", "Pulling", f'Pulling image "{ref}"')
        try:
            async with self._slots, _limit(REFRESH_S if present is not None else None):
                pulled = await self._watched(ref, auths, sandbox)
            image = await self._runtime.image_status(pulled) or await self._runtime.image_status(ref)
        except CriError as err:
            if err.code == "UNAVAILABLE":
                raise
            if present is not None:
                self._away[registry_of(ref)] = self._clock.monotonic() + REGISTRY_AWAY_S
                log.warning("Cannot pull %s, using the image that is here: %s", ref[:128], err)
                await emit("Warning", "PullFailedUsingPresent", f'Using image "{ref}" that is present: {err}')
                return present
            failed_at = self._clock.monotonic()
            previous = entry[0] if entry is not None else None
            cause = f"ErrImagePull: {err.said}"
            await emit("Warning", "Failed", f'Failed to pull image "{ref}": {err.said}')
            # the delay applies from this failure on: a kubelet waits before its second try, unlike after a crash
            new = backoff.after_try(previous, failed_at=failed_at, now=failed_at)
            self._delays[key] = (new, failed_at, cause)
            raise Held("ErrImagePull", err.said) from err
        if image is None:
            raise Held("ErrImagePull", f'image "{ref}" was pulled and is not there')
        self._delays.pop(key, None)
        took = self._clock.monotonic() - now
        await emit("Normal", "Pulled", f'Successfully pulled image "{ref}" in {took:.3f}s')
        return image

    async def _watched(self, ref: str, auths: list[ImageAuth], sandbox: SandboxConfig) -> str:
        """Pull, but give up when the disk fills or nothing comes any more.  Raises CriError."""
        if self._watch is None:
            return await self._pull(ref, auths, sandbox)
        async with asyncio.TaskGroup() as race:
            pull = race.create_task(_outcome(self._pull(ref, auths, sandbox)))
            trouble = race.create_task(self._trouble(self._watch))
            await asyncio.wait({pull, trouble}, return_when=asyncio.FIRST_COMPLETED)
            trouble.cancel()
            if not pull.done():
                # the runtime ends the download when the call is cancelled
                pull.cancel()
        if pull.cancelled():
            raise CriError(f"cannot pull {ref[:128]}: {trouble.result()}", retryable=True, code="GIVEN_UP")
        result = pull.result()
        if isinstance(result, CriError):
            raise result
        return result

    async def _trouble(self, watch: DiskWatch) -> str:
        """Returns why a pull should be given up, once it should."""
        last, since, begun = 0, self._clock.monotonic(), False
        while True:
            disk, got = await asyncio.to_thread(lambda: (watch.disk(), watch.downloaded()))
            if disk is not None and 100.0 - disk.used_percent < self._min_free_percent:
                return f"no space: less than {self._min_free_percent:g} % of {disk.path} is free"
            now = self._clock.monotonic()
            # no download after there was one: it is being unpacked, which brings no bytes
            if got is None or got != last or (got == 0 and begun):
                last, since = got or 0, now
            begun = begun or bool(got)
            if now - since >= self._stall_s:
                return f"nothing came for {self._stall_s:g} s"
            await asyncio.sleep(WATCH_S)

    async def _pull(self, ref: str, auths: list[ImageAuth], sandbox: SandboxConfig) -> str:
        failure: CriError | None = None
        for auth in [*auths, None] if auths else [None]:
            try:
                return await self._runtime.pull_image(ref, auth, sandbox)
            except CriError as err:
                if err.code == "UNAVAILABLE":
                    raise
                failure = failure or err
        assert failure is not None
        raise failure

    def retry_in_s(self, uid: str) -> float | None:
        """Seconds until the next pull for a pod may be tried; None when none is waiting."""
        now = self._clock.monotonic()
        waits = [
            backoff.remaining_s(delay, failed_at=at, failed_for_s=now - at)
            for key, (delay, at, _) in self._delays.items()
            if key.startswith(f"{uid}/")
        ]
        return min(waits, default=None)

    def failed(self, uid: str) -> set[str]:
        """The references that a pod needs and that could not be pulled."""
        return {key.removeprefix(f"{uid}/") for key in self._delays if key.startswith(f"{uid}/")}

    def forget(self, uid: str) -> None:
        """A pod is gone."""
        for key in [k for k in self._delays if k.startswith(f"{uid}/")]:
            del self._delays[key]
