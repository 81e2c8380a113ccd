from __future__ import annotations

import asyncio
import base64
import json

import pytest

from edgecore.edged import images
from edgecore.edged.errors import Held
from edgecore.edged.images import Images, credentials, registry_of, should_pull
from edgecore.edged.ports import SystemClock
from edgecore.edged.runtime import SandboxConfig
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
