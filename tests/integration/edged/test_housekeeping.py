"""What keeps a machine alive: quotas of logs, disk, processes; images; what dead agents left."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from beehive.errors import Unavailable
from edgecore.edged import cgroups, closure
from edgecore.edged.cri import Cri
from edgecore.edged.evict import Thresholds
from edgecore.edged.imagegc import Limits
from edgecore.edged.podread import decode_pod
from edgecore.edged.runtime import Image
from edgecore.edged.spec import cgroup_parent
from tests.fakes.edged import FakeReports
from tests.integration.edged.bench import CGROUP_ROOT, Bench, container, pod
from tests.integration.edged.machine import IMAGE, PAUSE, Containerd, image_archive
from tests.integration.edged.test_faults import on_containerd, on_fake


def evicted(b: Bench, uid: str) -> bool:
    return (b.status(uid).get("phase"), b.status(uid).get("reason")) == ("Failed", "Evicted")


def holes(folder: Path) -> list[tuple[str, int, int]]:
    """Where the numbers of the flood's lines do not follow each other: file, last and next number."""
    names = sorted(f.name for f in folder.iterdir())
    found, last = [], None
    for name in [n for n in names if n != "0.log"] + ["0.log"]:
        for line in (folder / name).read_bytes().splitlines():
            words = line.split(b" ")
            if len(words) < 7 or words[2] != b"F":
                continue
            number = int(words[4])
            if last is not None and number != last + 1:
                found.append((name, last, number))
            last = number
    return found


@pytest.mark.root
def test_a_flood_of_logs_stays_in_its_quota_and_no_line_is_torn(
    tmp_path: Path, containerd: Containerd
) -> None:
    async def story(b: Bench) -> None:
        b.config = replace(b.config, log_max_bytes=256 * 1024, log_max_files=3)
        flood = (
            "trap 'exit 0' TERM; i=0; while [ ! -e /stop ]; do i=$((i+1)); echo line $i of many; done; "
            "sleep 1000 & wait"
        )
        async with b.edged() as agent:
            p = pod("flood", container(command=["sh", "-c", flood]))
            uid = b.want(p)
            await b.running(uid)
            folder = b.config.log_dir / f"default_flood_{uid}" / "c"
            for _ in range(8):
                await asyncio.sleep(0.6)
                await agent.housekeeper.rotate()
            names = sorted(f.name for f in folder.iterdir())
            assert 2 <= len(names) <= 3, names
            assert b.container(uid)["restartCount"] == 0
            # The runtime's last lines to the old file may come after its first to the new one.
            stopped = await b.cri.exec_sync(await b.container_id(uid), ["touch", "/stop"], 60)
            assert stopped.exit_code == 0
            await b.until(lambda: not holes(folder), "rotated files that follow each other without a hole")
            b.delete(p)
            await b.until(lambda: uid in b.reports.gone, "gone")
            assert not folder.parent.exists()

    on_containerd(tmp_path, containerd, story)


@pytest.mark.root
def test_only_images_that_nothing_needs_are_removed(tmp_path: Path, containerd: Containerd) -> None:
    async def story(b: Bench) -> None:
        for ref in ("skerry.test/unused:1", "skerry.test/wanted:1"):
            archive = tmp_path / "image.tar"
            # another entrypoint makes it another image
            archive.write_bytes(image_archive(ref, ["/bin/sh", ref]))
            containerd.ctr("images", "import", str(archive))
        # every disk is too full, and no image too new
        b.config = replace(b.config, image_gc=Limits(high_percent=0, low_percent=0, min_age_s=0))
        async with b.edged() as agent:
            uid = b.want(pod("web"))
            await b.running(uid)
            # wanted, and cannot run for now: its image is needed all the same
            hold = b.want(
                pod(
                    "held",
                    container(image="skerry.test/wanted:1", env=[{"name": "A", "valueFrom": SECRET}]),
                )
            )
            await b.until(lambda: b.container(hold).get("state", {}).get("waiting"), "held")
            b.objects.unknown = True
            await agent.housekeeper.images()
            names = {t for i in await b.cri.list_images() for t in i.tags}
            assert "skerry.test/unused:1" in names, "nothing is removed while what is wanted is not known"
            b.objects.unknown = False
            await agent.housekeeper.images()
            names = {t for i in await b.cri.list_images() for t in i.tags}
            assert "skerry.test/unused:1" not in names
            assert {IMAGE, PAUSE, "skerry.test/wanted:1"} <= names
        containerd.ctr("images", "rm", "skerry.test/wanted:1")

    on_containerd(tmp_path, containerd, story)


SECRET = {"secretKeyRef": {"name": "not-here", "key": "k"}}


def test_images_are_left_alone_when_the_runtime_hides_its_own(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        assert b.fake is not None
        b.fake.image_dir = str(tmp_path)
        b.config = replace(b.config, image_gc=Limits(high_percent=0, low_percent=0, min_age_s=0))
        b.fake.images["x"] = Image(id="sha256:x", tags=("x.test/x:1",), size_bytes=1)
        async with b.edged() as agent:
            await b.until(lambda: agent.listed is not None, "listed")
            await agent.housekeeper.images()
            assert "x" not in b.fake.images
        b.fake.images["x"] = Image(id="sha256:x", tags=("x.test/x:1",), size_bytes=1)
        b.fake.sandbox_image = ""
        async with b.edged() as agent:
            await b.until(lambda: agent.listed is not None, "listed")
            await agent.housekeeper.images()
            assert "x" in b.fake.images

    on_fake(tmp_path, story)


def test_a_pod_whose_image_is_gone_says_so_while_it_runs(tmp_path: Path) -> None:
    """Somebody removed it by hand: after a reboot without a registry the pod would not start."""

    async def story(b: Bench) -> None:
        assert b.fake is not None

        def stored(uid: str) -> dict[str, str]:
            found: list[dict[str, str]] = b.status(uid).get("conditions", [])
            return next((item for item in found if item["type"] == closure.CONDITION), {})

        async with b.edged() as agent:
            uid = b.want(pod("web", container(imagePullPolicy="Always")))
            await b.running(uid)
            await agent.housekeeper.images()
            assert stored(uid) == {}
            gone = b.fake.images.pop(IMAGE)
            await agent.housekeeper.images()
            await b.until(lambda: stored(uid).get("status") == "False", "a condition")
            assert f"image {IMAGE}: not on this node" in stored(uid)["message"]
            assert b.ready(uid)
            b.fake.images[IMAGE] = gone
            await agent.housekeeper.images()
            await b.until(lambda: stored(uid).get("status") == "True", "that it is back")

    on_fake(tmp_path, story)


def test_what_a_dead_agent_left_is_removed_when_two_looks_agree(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        folder = b.config.root_dir / "uid-lost"
        (folder / "volumes").mkdir(parents=True)
        logs = b.config.log_dir / "default_lost_uid-lost"
        logs.mkdir(parents=True)
        async with b.edged() as agent:
            uid = b.want(pod("web"))
            await b.running(uid)
            b.objects.unknown = True
            await agent.housekeeper.sweep()
            await agent.housekeeper.sweep()
            assert folder.exists()
            b.objects.unknown = False
            await agent.housekeeper.sweep()
            assert folder.exists()
            await agent.housekeeper.sweep()
            assert not folder.exists()
            assert not logs.exists()
            assert (b.config.root_dir / uid).exists()
            assert b.ready(uid)

    on_fake(tmp_path, story)


@pytest.mark.root
def test_a_fork_bomb_stays_in_its_pod(tmp_path: Path, containerd: Containerd) -> None:
    async def story(b: Bench) -> None:
        b.config = replace(b.config, pod_pids_limit=60)
        bomb = "while true; do sleep 100 & done 2>/dev/null; sleep 1000"
        async with b.edged():
            good = b.want(pod("good"))
            uid = b.want(pod("bomb", container(command=["sh", "-c", bomb])))
            await b.running(uid)
            await b.running(good)
            parent = cgroup_parent(b.config, decode_pod(json.dumps(pod("bomb")).encode())).lstrip("/")
            limits = [h / parent for h in cgroups.hierarchies() if (h / parent / "pids.max").exists()]
            assert limits
            assert limits[0].joinpath("pids.max").read_text().strip() == "60"
            await asyncio.sleep(1)
            assert int(limits[0].joinpath("pids.current").read_text()) <= 60
            # the neighbour goes on, and new pods start
            assert (await b.exec(good, "true"))[0] == 0
            await b.running(b.want(pod("next")))

    on_containerd(tmp_path, containerd, story)


@pytest.mark.root
def test_a_pod_has_its_own_limits_and_classes_have_their_share(
    tmp_path: Path, containerd: Containerd
) -> None:
    async def story(b: Bench) -> None:
        one = {"requests": {"cpu": "250m"}, "limits": {"cpu": "500m", "memory": "64Mi"}}
        async with b.edged() as agent:
            p = pod("sized", container("a", resources=one), container("b", resources=one))
            uid = b.want(p)
            await b.running(uid)
            await agent.housekeeper.look()
            parent = cgroup_parent(b.config, decode_pod(json.dumps(p).encode())).lstrip("/")
            found = {}
            for h in cgroups.hierarchies():
                for name in (
                    "cpu.shares",
                    "cpu.cfs_quota_us",
                    "memory.limit_in_bytes",
                    "cpu.max",
                    "memory.max",
                ):
                    if (h / parent / name).exists():
                        found[name] = (h / parent / name).read_text().strip()
                share = h / CGROUP_ROOT / "burstable" / "cpu.shares"
                if share.exists():
                    assert share.read_text().strip() == "512"
            if "cpu.shares" in found:
                assert found["cpu.shares"] == "512"
                assert found["cpu.cfs_quota_us"] == "100000"
                assert found["memory.limit_in_bytes"] == str(128 * 2**20)
            else:
                assert found["cpu.max"] == "100000 100000"
                assert found["memory.max"] == str(128 * 2**20)

    on_containerd(tmp_path, containerd, story)


@pytest.mark.root
def test_a_volume_beyond_its_size_ends_its_pod_and_is_given_back(
    tmp_path: Path, containerd: Containerd
) -> None:
    async def story(b: Bench) -> None:
        write = "dd if=/dev/zero of=/v/big bs=1M count=3 2>/dev/null; trap 'exit 0' TERM; sleep 1000 & wait"
        c = container(command=["sh", "-c", write], volumeMounts=[{"name": "v", "mountPath": "/v"}])
        volumes = [{"name": "v", "emptyDir": {"sizeLimit": "2Mi"}}]
        async with b.edged() as agent:
            p = pod("greedy", c, volumes=volumes)
            uid = b.want(p)
            small = b.want(
                pod("modest", container(volumeMounts=[{"name": "v", "mountPath": "/v"}]), volumes=volumes)
            )
            await b.running(uid)
            await b.running(small)
            big = b.config.root_dir / uid / "volumes" / "kubernetes.io~empty-dir" / "v" / "big"
            await b.until(lambda: big.exists() and big.stat().st_size == 3 * 2**20, "written")
            await agent.housekeeper.look()
            await b.until(lambda: evicted(b, uid), "evicted")
            assert 'EmptyDir volume "v" exceeds the limit "2Mi"' in b.status(uid)["message"]
            (told,) = [e for e in b.reports.events if e["reason"] == "Evicted"]
            assert (told["type"], told["message"]) == ("Warning", b.status(uid)["message"])
            await b.until(lambda: not big.exists(), "given back")
            assert b.ready(small)
            # the next agent leaves it ended
        async with b.edged():
            await asyncio.sleep(1)
            assert evicted(b, uid)
            assert await b.containers(uid) == []
            b.delete(p)
            await b.until(lambda: uid in b.reports.gone, "gone")

    on_containerd(tmp_path, containerd, story)


@pytest.mark.root
def test_what_a_container_writes_into_its_own_layer_counts_for_its_limit(
    tmp_path: Path, containerd: Containerd
) -> None:
    async def story(b: Bench) -> None:
        write = "dd if=/dev/zero of=/big bs=1M count=5 2>/dev/null; trap 'exit 0' TERM; sleep 1000 & wait"
        limits = {"limits": {"ephemeral-storage": "4Mi"}}
        async with b.edged() as agent:
            greedy = b.want(pod("greedy", container(command=["sh", "-c", write], resources=limits)))
            modest = b.want(pod("modest", container(resources=limits)))
            await b.running(greedy)
            await b.running(modest)
            async with asyncio.timeout(60):
                # the runtime looks at layers only now and then
                while not evicted(b, greedy):
                    await agent.housekeeper.look()
                    await asyncio.sleep(0.5)
            assert b.status(greedy)["message"] == (
                "Pod ephemeral local storage usage exceeds the total limit of containers 4Mi. "
            )
            used = await agent.disk_usage()
            assert 0 < used[modest].disk_bytes < 2**20
            assert b.ready(modest)

    on_containerd(tmp_path, containerd, story)


def test_a_short_machine_ends_one_pod_at_a_time_and_says_so(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        # more must stay free than any machine has
        b.config = replace(b.config, evict=Thresholds(memory_bytes=2**60, transition_s=1000))
        async with b.edged() as agent:
            cheap = b.want(pod("cheap"))
            worthy = b.want(pod("worthy", priority=10))
            critical = b.want(pod("critical", priority=2_000_001_000))
            for uid in (cheap, worthy, critical):
                await b.running(uid)
            await agent.housekeeper.look()
            await b.until(lambda: evicted(b, cheap), "evicted")
            assert b.status(worthy)["phase"] == b.status(critical)["phase"] == "Running"
            status = json.loads(await agent.node_status())
            on = {c["type"] for c in status["conditions"] if c["status"] == "True"}
            assert "MemoryPressure" in on
            # newcomers that ask for nothing stay out
            late = b.want(pod("late"))
            await b.until(lambda: evicted(b, late), "refused")
            await agent.housekeeper.look()
            await b.until(lambda: evicted(b, worthy), "evicted")
            await agent.housekeeper.look()
            await asyncio.sleep(0.3)
            assert b.ready(critical)

    on_fake(tmp_path, story)


def test_a_full_node_refuses_newcomers_and_keeps_what_runs(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        b.config = replace(b.config, max_pods=2)
        async with b.edged():
            first, second = b.want(pod("first")), b.want(pod("second"))
            await b.running(first)
            await b.running(second)
            third = b.want(pod("third"))
            await b.until(lambda: b.status(third).get("reason") == "OutOfpods", "refused")
            assert b.status(third)["phase"] == "Failed"
            assert await b.containers(third) == []
        # a smaller node ends nothing that runs
        b.config = replace(b.config, max_pods=1)
        async with b.edged():
            await asyncio.sleep(0.5)
            assert b.ready(first)
            assert b.ready(second)
            critical = b.want(pod("critical", priority=2_000_001_000))
            await b.running(critical)
            # it was not started before they had ended for it
            told = [(uid, status["phase"]) for uid, status in b.reports.history]
            begun = told.index((critical, "Running"))
            assert all(told.index((uid, "Failed")) < begun for uid in (first, second))
            for uid in (first, second):
                assert b.status(uid)["reason"] == "Preempting"
                assert b.status(uid)["message"] == "Preempted in order to admit critical pod"
            ended = {e["involvedObject"]["uid"] for e in b.reports.events if e["reason"] == "Preempting"}
            assert ended == {first, second}

    on_fake(tmp_path, story)


def test_a_pod_that_cannot_be_read_is_refused_as_soon_as_reports_can_be_kept(tmp_path: Path) -> None:
    class Full(FakeReports):
        full = True

        async def pod_status(self, namespace: str, name: str, uid: str, status: bytes) -> None:
            if self.full and uid == "uid-bad":
                raise Unavailable("the disk is full")
            await super().pod_status(namespace, name, uid, status)

    async def story(b: Bench) -> None:
        reports = Full()
        b.reports = reports
        async with b.edged():
            bad = pod("bad")
            bad["spec"]["restartPolicy"] = "Sometimes"
            uid = b.want(bad)
            good = b.want(pod("good"))
            await b.running(good)
            assert uid not in reports.statuses
            reports.full = False
            assert b.agent is not None
            b.agent.notify("pod", "default", "bad")
            await b.until(lambda: b.status(uid).get("phase") == "Failed", "refused")

    on_fake(tmp_path, story)


@pytest.mark.root
def test_the_runtime_tells_how_it_is_set_up(containerd: Containerd) -> None:
    async def story() -> None:
        cri = Cri(str(containerd.socket))
        try:
            setup = await cri.setup()
            assert setup.sandbox_image == PAUSE
            assert Path(setup.root_dir) == containerd.home / "root"
            paths = await cri.image_paths()
            assert paths
            assert paths[0].startswith(setup.root_dir)
        finally:
            cri.close()

    asyncio.run(story())
