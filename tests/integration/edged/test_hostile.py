"""Pods and images that try to be more than they may."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgecore.edged.runtime import ContainerState
from tests.integration.edged.bench import Bench, container, pod
from tests.integration.edged.machine import Containerd, image_archive
from tests.integration.edged.test_faults import on_containerd

NON_ROOT = {"runAsNonRoot": True}
# what an image may say of its user to be root after all, or to confuse who reads it
ODD_USERS = (
    "0",
    "0:1000",
    "00",
    "root",
    "root ",
    "-1",
    "4294967296",
    "4294967296:5",
    "18446744073709551616",
    "+0",
    "web\n",
)


@pytest.mark.root
def test_no_odd_user_of_an_image_makes_a_non_root_pod_root(tmp_path: Path, containerd: Containerd) -> None:
    async def story(b: Bench) -> None:
        uids = []
        async with b.edged():
            for i, user in enumerate(ODD_USERS):
                ref = f"skerry.test/odd:{i}"
                archive = tmp_path / "image.tar"
                archive.write_bytes(image_archive(ref, user=user))
                containerd.ctr("images", "import", str(archive))
                uids.append(b.want(pod(f"odd-{i}", container(image=ref), securityContext=NON_ROOT)))
            good = b.want(pod("good", container(securityContext={**NON_ROOT, "runAsUser": 1000})))
            await b.running(good)
            assert (await b.exec(good, "id", "-u"))[1] == "1000\n"

            def refused(uid: str) -> bool:
                waiting = b.container(uid).get("state", {}).get("waiting", {})
                return waiting.get("reason") in ("CreateContainerConfigError", "CreateContainerError")

            for uid, user in zip(uids, ODD_USERS, strict=True):
                await b.until(lambda uid=uid: refused(uid), f"{user!r} refused")
                b.poke(uid)
        # nor does the next agent let one through
        async with b.edged():
            await asyncio.sleep(1.5)
            for uid in uids:
                assert [c for c in await b.containers(uid) if c.state is ContainerState.RUNNING] == []
        for i in range(len(ODD_USERS)):
            containerd.ctr("images", "rm", f"skerry.test/odd:{i}")

    on_containerd(tmp_path, containerd, story)


@pytest.mark.root
def test_a_seccomp_profile_that_is_not_there_or_says_nothing_is_refused(
    tmp_path: Path, containerd: Containerd
) -> None:
    async def story(b: Bench) -> None:
        b.config = replace(b.config, seccomp_dir=tmp_path / "seccomp")
        (tmp_path / "seccomp").mkdir()
        (tmp_path / "seccomp" / "empty.json").write_text("")
        (tmp_path / "seccomp" / "broken.json").write_text("{")

        def profiled(name: str) -> dict[str, object]:
            profile = {"type": "Localhost", "localhostProfile": f"{name}.json"}
            return pod(name, container(securityContext={"seccompProfile": profile}))

        async with b.edged():
            uids = [b.want(profiled(name)) for name in ("missing", "empty", "broken")]
            for uid in uids:
                await b.until(
                    lambda uid=uid: (
                        b.container(uid).get("state", {}).get("waiting", {}).get("reason", "")
                        not in ("", "ContainerCreating")
                    ),
                    "refused",
                )
                assert [c for c in await b.containers(uid) if c.state is ContainerState.RUNNING] == []

    on_containerd(tmp_path, containerd, story)


@pytest.mark.root
def test_an_image_whose_stop_signal_is_none_does_not_keep_its_pod(
    tmp_path: Path, containerd: Containerd
) -> None:
    """The runtime refuses to stop its containers, for it does not know how."""
    ref = "skerry.test/unstoppable:1"
    archive = tmp_path / "image.tar"
    archive.write_bytes(image_archive(ref, more={"StopSignal": "SIGNOTHING"}))
    containerd.ctr("images", "import", str(archive))

    async def story(b: Bench) -> None:
        async with b.edged():
            p = pod("stays", container(image=ref))
            uid = b.want(p)
            await b.running(uid)
            b.delete(p)
            await b.until(lambda: uid in b.reports.gone, "gone")
            assert await b.containers(uid) == []
            # and one that nobody wants any more
            lost = b.want(pod("lost", container(image=ref)))
            await b.running(lost)
            b.unwant(lost)
            await b.until(lambda: lost in b.reports.gone or lost not in b.agent.known, "ended")  # type: ignore[union-attr]

    try:
        on_containerd(tmp_path, containerd, story)
    finally:
        containerd.ctr("images", "rm", ref)
