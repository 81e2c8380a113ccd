"""Images as volumes: where the runtime can mount them, and where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgecore.edged.runtime import Image
from tests.integration.edged.bench import Bench, container, pod
from tests.integration.edged.machine import IMAGE, Containerd
from tests.integration.edged.test_faults import on_containerd, on_fake

MODEL = "skerry.test/model:1"


def using(name: str, reference: str, *mounts: dict[str, Any]) -> dict[str, Any]:
    volume = {"name": "model", "image": {"reference": reference, "pullPolicy": "IfNotPresent"}}
    return pod(
        name,
        container(volumeMounts=list(mounts) or [{"name": "model", "mountPath": "/model"}]),
        container("other"),
        volumes=[volume],
    )


def waiting(b: Bench, uid: str) -> dict[str, Any]:
    found: dict[str, Any] = b.container(uid).get("state", {}).get("waiting", {})
    return found


def test_an_image_is_pulled_and_given_to_those_who_mount_it(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        assert b.fake is not None
        async with b.edged() as agent:
            uid = b.want(
                using(
                    "web",
                    MODEL,
                    {"name": "model", "mountPath": "/model"},
                    {"name": "model", "mountPath": "/part", "subPath": "a/b"},
                )
            )
            await b.until(lambda: waiting(b, uid).get("reason") == "ErrImagePull", "not there")
            b.fake.registry[MODEL] = Image(id="sha256:model", tags=(MODEL,))
            b.clock.skew += 60
            b.poke(uid)
            await b.running(uid)
            image = b.fake.images[MODEL].id
            whole, part = [m for m in b.fake.made(await b.container_id(uid)).mounts if m.image]
            assert (whole.container_path, whole.image, whole.image_path, whole.readonly) == (
                "/model",
                image,
                "",
                True,
            )
            assert (part.container_path, part.image, part.image_path) == ("/part", image, "a/b")
            assert (whole.host_path, part.host_path) == ("", "")
            assert not any(m.image for m in b.fake.made(await b.container_id(uid, "other")).mounts)
            # no image that a volume is may be removed under it
            (worker,) = agent.workers
            assert {MODEL, image} <= worker.image_refs()

    on_fake(tmp_path, story)


@pytest.mark.root
def test_a_runtime_that_cannot_says_so_on_the_pod(tmp_path: Path, containerd: Containerd) -> None:
    async def story(b: Bench) -> None:
        async with b.edged():
            uid = b.want(using("web", IMAGE))
            plain = b.want(pod("plain"))
            await b.running(plain)
            version = (await b.cri.version()).version
            major, minor = (int(n) for n in version.removeprefix("v").split(".")[:2])
            if (major, minor) >= (2, 1):
                await b.running(uid)
                assert (await b.exec(uid, "test", "-e", "/model/bin/busybox"))[0] == 0
                return
            await b.until(lambda: waiting(b, uid).get("reason") == "CreateContainerError", "refused")
            assert waiting(b, uid)["message"] == (
                f'volume "model" cannot be mounted: image volumes need containerd 2.1, and this is {version}'
            )

    on_containerd(tmp_path, containerd, story)
