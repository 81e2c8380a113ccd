from __future__ import annotations

import asyncio
import base64
import json

import looptime
import pytest

from edgecore.edged import images
from edgecore.edged.errors import Held
from edgecore.edged.imagegc import Disk
from edgecore.edged.images import Images, credentials, registry_of, should_pull
from edgecore.edged.ports import SystemClock
from edgecore.edged.runtime import Image, RuntimeVersion, SandboxConfig
from tests.fakes.cri import FakeCri
from tests.unit.edgecore.edged.builders import c, make


@pytest.mark.parametrize(
    ("policy", "present", "pull"),
    [
        ("Always", True, True),
        ("Always", False, True),
        ("IfNotPresent", True, False),
        ("IfNotPresent", False, True),
        ("Never", True, False),
    ],
)
def test_policies(policy: str, present: bool, pull: bool) -> None:
    assert should_pull(policy, present=present) is pull


def test_never_without_the_image() -> None:
    with pytest.raises(Held) as held:
        should_pull("Never", present=False)
    assert held.value.reason == "ErrImageNeverPull"


@pytest.mark.parametrize(
    ("ref", "registry"),
    [
        ("busybox", "docker.io"),
        ("library/busybox:1", "docker.io"),
        ("r.test/a/b@sha256:0", "r.test"),
        ("localhost/a", "localhost"),
        ("host:5000/a", "host:5000"),
    ],
)
def test_registries(ref: str, registry: str) -> None:
    assert registry_of(ref) == registry


def config(**auths: object) -> dict[str, bytes]:
    return {
        ".dockerconfigjson": json.dumps(
            {"auths": {k.replace("__", "/"): v for k, v in auths.items()}}
        ).encode()
    }


def test_the_most_specific_credentials_come_first() -> None:
    secret = {
        ".dockerconfigjson": json.dumps(
            {
                "auths": {
                    "https://r.test/v1/": {"username": "broad", "password": "1"},
                    "r.test/team": {"auth": base64.b64encode(b"narrow:2:3").decode()},
                    "other.test": {"username": "no", "password": "no"},
                }
            }
        ).encode()
    }
    found = credentials("r.test/team/app:1", [secret])
    assert [(a.username, a.password) for a in found] == [("narrow", "2:3"), ("broad", "1")]
    assert credentials("elsewhere.test/x", [secret]) == []
    assert "2:3" not in repr(found)


def test_docker_hub_and_wildcards() -> None:
    secret = {
        ".dockercfg": json.dumps({"https://index.docker.io/v1/": {"username": "u", "password": "p"}}).encode()
    }
    assert len(credentials("busybox", [secret])) == 1
    wild = config(**{"*.r.test": {"username": "u", "password": "p"}})
    assert len(credentials("a.r.test/x", [wild])) == 1
    assert credentials("b.a.r.test/x", [wild]) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"auths": 3}',
        b'{"auths": {"r.test": 3}}',
        b'{"auths": {"r.test": {"auth": "!!"}}}',
        b"[" * 9999,
    ],
)
def test_bad_secrets_are_left_out(data: bytes) -> None:
    assert credentials("r.test/x", [{".dockerconfigjson": data, ".dockercfg": data}, {}]) == []


def test_a_dead_registry_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "REFRESH_S", 0.02)
    runtime = FakeCri(("i:1",))
    reasons: list[str] = []

    async def hang() -> None:
        await asyncio.sleep(3600)

    async def emit(kind: str, reason: str, message: str) -> None:
        reasons.append(reason)

    async def run() -> None:
        runtime.faults["pull_image"] = [hang]
        service = Images(runtime, SystemClock(), parallel=1)
        container = make(c(imagePullPolicy="Always")).spec.containers[0]
        box = SandboxConfig(name="p", namespace="ns", uid="u", attempt=0)
        for _ in range(5):
            found = await service.ensure("u", container, [], box, emit)
            assert found.tags == ("i:1",)

    asyncio.run(run())
    assert runtime.calls.count("pull_image") == 1
    assert reasons == ["Pulling", *["PullFailedUsingPresent"] * 5]


SANDBOX = SandboxConfig(name="p", namespace="ns", uid="u", attempt=0)


class Watch:
    """A disk and a download whose readings a test sets."""

    def __init__(self, free: int = 50, *downloaded: int | None) -> None:
        self.free = free
        self.steps = list(downloaded)

    def disk(self) -> Disk:
        return Disk(path="/images", bytes_total=100, bytes_free=self.free)

    def downloaded(self) -> int | None:
        return self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]


def pull_watched(watch: Watch, *, takes_s: float) -> Image | Held:
    """One pull on virtual time; the result or what held it."""
    fake = FakeCri()
    fake.registry["i:1"] = Image(id="sha256:1", tags=("i:1",))

    async def slow() -> None:
        await asyncio.sleep(takes_s)

    fake.faults["pull_image"] = [slow]

    class LoopClock(SystemClock):
        def monotonic(self) -> float:
            return asyncio.get_running_loop().time()

    async def emit(kind: str, reason: str, message: str) -> None:
        return None

    async def story() -> Image | Held:
        puller = Images(fake, LoopClock(), parallel=1, watch=watch, min_free_percent=5, stall_s=60)
        try:
            return await puller.ensure("u", make(c()).spec.containers[0], [], SANDBOX, emit)
        except Held as err:
            return err

    loop = looptime.patch_event_loop(asyncio.new_event_loop())
    try:
        found: Image | Held = loop.run_until_complete(story())
    finally:
        loop.close()
    return found


def test_a_pull_that_fills_the_disk_is_given_up() -> None:
    held = pull_watched(Watch(4, 1), takes_s=3600)
    assert isinstance(held, Held)
    assert held.reason == "ErrImagePull"
    assert "no space" in str(held)


@pytest.mark.parametrize("readings", [(0,), (5, 6, 7, 7)])
def test_a_pull_that_brings_nothing_is_given_up(readings: tuple[int, ...]) -> None:
    held = pull_watched(Watch(50, *readings), takes_s=3600)
    assert isinstance(held, Held)
    assert "nothing came for 60 s" in str(held)


@pytest.mark.parametrize("readings", [(None,), (5, 9, 0), tuple(range(1, 300))])
def test_a_pull_that_goes_on_or_unpacks_or_cannot_be_watched_is_left_alone(
    readings: tuple[int | None, ...],
) -> None:
    assert isinstance(pull_watched(Watch(50, *readings), takes_s=200), Image)


def test_what_was_started_before_is_used_when_its_name_is_gone() -> None:
    fake = FakeCri()
    fake.images["x"] = Image(id="sha256:7", digests=("r.test/x@sha256:8",))

    async def emit(kind: str, reason: str, message: str) -> None:
        return None

    async def story() -> Image:
        puller = Images(fake, SystemClock(), parallel=1)
        container = make(c(image="r.test/x:1")).spec.containers[0]
        return await puller.ensure("u", container, [], SANDBOX, emit, known="sha256:7")

    assert asyncio.run(story()).id == "sha256:7"
    assert "pull_image" not in fake.calls


@pytest.mark.parametrize(
    ("ref", "good"),
    [
        ("busybox", True),
        ("skerry.local/hello:1", True),
        ("Host.test:5000/a_b/c--d__e.f:V1.2-x", True),
        ("[fd00::1]:5000/a@sha256:" + "0" * 64, True),
        ("sha256:" + "0" * 64, True),
        ("", False),
        ("BAD//image", False),
        ("a b", False),
        ("a\n", False),
        ("/a", False),
        ("a/", False),
        ("r.test/Upper", False),
        ("a:" + "x" * 129, False),
        ("a@sha256:0", False),
        ("a" * 1025, False),
    ],
)
def test_names_of_images(ref: str, good: bool) -> None:
    assert images.is_reference(ref) is good


def test_what_goes_wrong_with_an_image_is_told_as_by_a_kubelet() -> None:
    fake = FakeCri()
    events: list[str] = []

    async def emit(kind: str, reason: str, message: str) -> None:
        events.append(f"{kind} {reason}: {message}")

    async def story() -> list[str]:
        puller = Images(fake, SystemClock(), parallel=1)
        held = []
        for image, policy in (
            ("r.test/x:1", "Always"),
            ("r.test/x:1", "Always"),
            ("A//", ""),
            ("y", "Never"),
        ):
            container = make(
                c(image=image, **({"imagePullPolicy": policy} if policy else {}))
            ).spec.containers[0]
            with pytest.raises(Held) as caught:
                await puller.ensure("u", container, [], SANDBOX, emit)
            held.append(caught.value.reason)
        return held

    reasons = asyncio.run(story())
    assert reasons == ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"]
    assert set(reasons) == set(images.REASONS)
    assert events[0] == 'Normal Pulling: Pulling image "r.test/x:1"'
    assert events[1].startswith('Warning Failed: Failed to pull image "r.test/x:1": ')
    assert events[2:] == [
        'Normal BackOff: Back-off pulling image "r.test/x:1"',
        'Warning InspectFailed: Failed to apply default image tag "A//": invalid reference format',
        'Warning ErrImageNeverPull: Container image "y" is not present with pull policy of Never',
    ]


@pytest.mark.parametrize(
    ("name", "version", "why"),
    [
        ("containerd", "1.6.20~ds1", "image volumes need containerd 2.1, and this is 1.6.20~ds1"),
        ("containerd", "v2.0.4", "image volumes need containerd 2.1, and this is v2.0.4"),
        ("containerd", "v2.1.0-rc.1", ""),
        ("containerd", "10.0.0", ""),
        ("cri-o", "1.30.2", "image volumes need cri-o 1.31, and this is 1.30.2"),
        ("cri-o", "1.31.0", ""),
        ("containerd", "unknown", ""),
        ("other", "0.1.0", ""),
    ],
)
def test_a_runtime_that_is_too_old_for_image_volumes_is_named(name: str, version: str, why: str) -> None:
    assert images.no_volumes(RuntimeVersion(name=name, version=version, api_version="v1")) == why


@pytest.mark.parametrize(
    ("name", "version", "is_safe"),
    [
        ("containerd", "1.6.20~ds1", True),
        ("containerd", "v1.6.1", True),
        ("containerd", "v1.6.0", False),
        ("containerd", "1.5.10", True),
        ("containerd", "1.5.9", False),
        ("containerd", "1.4.13", True),
        ("containerd", "1.3.99", False),
        ("containerd", "1.7.0", True),
        ("containerd", "v2.1.0-rc.1", True),
        ("containerd", "0.9.9", False),
        ("containerd", "unknown", True),
        ("cri-o", "1.0.0", True),
    ],
)
def test_a_runtime_whose_images_reach_the_machine_is_named(name: str, version: str, is_safe: bool) -> None:
    told = images.unsafe(RuntimeVersion(name=name, version=version, api_version="v1"))
    assert (told == "") is is_safe
    assert is_safe or version in told
