"""What must not disturb a pod: a runtime that lies, is away, hangs or is restarted; an agent killed at a bad moment."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from edgecore.edged import cgroups
from edgecore.edged.cri import Cri
from edgecore.edged.errors import CriError
from edgecore.edged.podvolumes import PodVolumes
from edgecore.edged.runtime import ContainerState
from tests.integration.edged.bench import CGROUP_ROOT, Bench, container, pod, stage
from tests.integration.edged.machine import IMAGE, Containerd


def on_fake(tmp_path: Path, story) -> None:  # type: ignore[no-untyped-def]
    async def scene() -> None:
        async with stage("fake", tmp_path, None) as b:
            await story(b)

    asyncio.run(scene())


def on_containerd(tmp_path: Path, machine: Containerd, story) -> None:  # type: ignore[no-untyped-def]
    async def scene() -> None:
        async with stage("containerd", tmp_path, machine) as b:
            await story(b)

    asyncio.run(scene())


async def second_sandbox(b: Bench, uid: str) -> None:
    """Let the pod have lost a sandbox before: the runtime's reserved names do not protect a pod any more."""
    await b.running(uid)
    first = (await b.cri.list_sandboxes(uid=uid))[0]
    await b.cri.stop_sandbox(first.id)
    await b.until(lambda: b.container(uid)["restartCount"] == 1 and b.ready(uid), "replaced")
    await b.cri.remove_sandbox(first.id)
    b.reports.events.clear()


@pytest.mark.parametrize("lies", [1, 2, 3])
def test_empty_answers_destroy_nothing_and_start_nothing_twice(tmp_path: Path, lies: int) -> None:
    async def story(b: Bench) -> None:
        assert b.fake is not None
        async with b.edged():
            uid = b.want(pod("web"))
            await second_sandbox(b, uid)
            before = await b.container_id(uid)
            b.fake.empty_lists = lies
            for _ in range(4):
                b.poke(uid)
                await asyncio.sleep(0.1)
            b.fake.empty_lists = 0
            await asyncio.sleep(0.6)
            assert await b.container_id(uid) == before
            assert b.container(uid)["restartCount"] == 1
            assert b.ready(uid)
            assert b.reports.events == []

    on_fake(tmp_path, story)


def test_the_first_answer_to_a_new_agent_may_be_empty_too(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        assert b.fake is not None
        async with b.edged():
            uid = b.want(pod("web"))
            await second_sandbox(b, uid)
            before = await b.container_id(uid)
        b.fake.empty_lists = 2
        async with b.edged():
            await asyncio.sleep(1)
            assert await b.container_id(uid) == before
            assert len(await b.cri.list_sandboxes()) == 1

    on_fake(tmp_path, story)


def test_a_runtime_that_is_away_changes_nothing(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        assert b.fake is not None
        async with b.edged() as agent:
            uid = b.want(pod("web"))
            await b.running(uid)
            before = await b.container_id(uid)
            reports = len(b.reports.history)
            b.fake.away = True
            other = b.want(pod("later"))
            async with asyncio.timeout(30):
                while b'"type":"Ready","status":"False"' not in await agent.node_status():
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.8)
            assert len([u for u, _ in b.reports.history[reports:] if u == uid]) == 0
            b.fake.away = False
            await b.running(other)
            assert await b.container_id(uid) == before

    on_fake(tmp_path, story)


def test_an_answer_that_is_lost_makes_no_second_sandbox_or_container(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        fake = b.fake
        assert fake is not None
        # the call is carried out, and its answer does not arrive
        for name in ("run_sandbox", "create_container", "start_container"):
            real = getattr(fake, name)

            async def lossy(*args, _real=real, _name=name, **kwargs):  # type: ignore[no-untyped-def]
                setattr(fake, _name, _real)
                await _real(*args, **kwargs)
                raise CriError(f"cannot {_name}: no answer", retryable=True, code="UNAVAILABLE")

            setattr(fake, name, lossy)
        async with b.edged():
            uid = b.want(pod("web"))
            await b.running(uid)
            assert len(await b.cri.list_sandboxes(uid=uid)) == 1
            assert len(await b.containers(uid)) == 1
            assert b.container(uid)["restartCount"] == 0

    on_fake(tmp_path, story)


@pytest.mark.parametrize("call", ["run_sandbox", "create_container", "start_container", "container_status"])
def test_an_agent_killed_in_any_call_leaves_one_of_each(tmp_path: Path, call: str) -> None:
    async def story(b: Bench) -> None:
        fake = b.fake
        assert fake is not None
        reached = asyncio.Event()

        async def hang() -> None:
            reached.set()
            await asyncio.sleep(3600)

        fake.faults[call] = [hang]
        async with b.edged():
            uid = b.want(pod("web"))
            await reached.wait()
        async with b.edged():
            await b.running(uid)
            assert len(await b.cri.list_sandboxes(uid=uid)) == 1
            assert [c.state for c in await b.containers(uid)] == [ContainerState.RUNNING]
            assert b.container(uid)["restartCount"] == 0

    on_fake(tmp_path, story)


def test_a_pull_that_fails_backs_off_and_one_that_hangs_can_be_left(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        fake = b.fake
        assert fake is not None

        async def hang() -> None:
            await asyncio.sleep(3600)

        async with b.edged():
            absent = container(image="registry.test/absent:1")
            uid = b.want(pod("absent", absent))

            def reason() -> str:
                return str(b.container(uid).get("state", {}).get("waiting", {}).get("reason", ""))

            await b.until(lambda: reason() == "ErrImagePull", "ErrImagePull")
            b.poke(uid)
            await b.until(lambda: reason() == "ImagePullBackOff", "ImagePullBackOff")
            assert fake.calls.count("pull_image") == 1
            fake.registry["registry.test/absent:1"] = next(iter(fake.images.values()))
            b.clock.skew += 11
            b.poke(uid)
            await b.running(uid)
            fake.faults["pull_image"] = [hang]
            p = pod("hanging", container(image="registry.test/slow:1"))
            other = b.want(p)
            await b.until(lambda: not fake.faults["pull_image"], "pulling")
            b.delete(p)
            await b.until(lambda: other in b.reports.gone, "gone")

    on_fake(tmp_path, story)


def test_an_always_pull_uses_what_is_here_when_the_registry_is_away(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        async with b.edged():
            uid = b.want(pod("always", container(imagePullPolicy="Always")))
            await b.running(uid)
            assert "PullFailedUsingPresent" in b.reports.reasons()

    on_fake(tmp_path, story)


def test_a_worker_that_meets_a_bug_does_not_take_others_down(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        assert b.fake is not None
        async with b.edged():
            b.fake.faults["sandbox_status"] = [RuntimeError("a bug")]
            uid, other = b.want(pod("unlucky")), b.want(pod("lucky"))
            await b.running(other)
            await b.running(uid)

    on_fake(tmp_path, story)


def test_strays_without_a_readable_pod_are_ended_by_their_labels(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        assert b.fake is not None
        async with b.edged():
            uid = b.want(pod("web"))
            await b.running(uid)
        for s in b.fake._sandboxes.values():
            s.status.annotations["skerry.dev/pod"] = "{broken"  # type: ignore[index]
        b.objects.wanted.clear()
        b.state.rows.clear()
        async with b.edged():
            await b.until(lambda: not b.fake or not b.fake._sandboxes, "ended")

    on_fake(tmp_path, story)


@pytest.mark.root
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_containerd_restarts_under_running_pods(tmp_path: Path, containerd: Containerd, sig: int) -> None:
    async def story(b: Bench) -> None:
        async with b.edged():
            uids = [b.want(pod(f"p{i}")) for i in range(3)]
            for uid in uids:
                await b.running(uid)
            before = {uid: await b.container_id(uid) for uid in uids}
            await asyncio.to_thread(containerd.stop, sig)
            later = b.want(pod("later"))
            await asyncio.sleep(0.7)
            await asyncio.to_thread(containerd.start)
            await b.running(later)
            await asyncio.sleep(1.0)
            assert {uid: await b.container_id(uid) for uid in uids} == before
            assert all(b.container(uid)["restartCount"] == 0 and b.ready(uid) for uid in uids)

    on_containerd(tmp_path, containerd, story)


@pytest.mark.root
def test_http_and_tcp_probes_reach_the_pod(tmp_path: Path, containerd: Containerd) -> None:
    async def story(b: Bench) -> None:
        script = "mkdir -p /www && echo ok > /www/healthz && httpd -p 8080 -h /www && trap 'exit 0' TERM; sleep 1000 & wait"
        c = container(
            command=["sh", "-c", script],
            ports=[{"name": "web", "containerPort": 8080}],
            readinessProbe={"httpGet": {"path": "/healthz", "port": "web"}, "periodSeconds": 1},
            livenessProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 100},
        )
        bad = container("c", readinessProbe={"httpGet": {"path": "/nope", "port": 8080}, "periodSeconds": 1})
        async with b.edged():
            uid, other = b.want(pod("web", c)), b.want(pod("closed", bad))
            await b.until(lambda: b.ready(uid), "ready")
            await b.running(other)
            await b.until(lambda: "Unhealthy" in b.reports.reasons(), "Unhealthy")
            assert not b.ready(other)

    on_containerd(tmp_path, containerd, story)


@pytest.mark.root
def test_logs_limits_and_security_are_as_written(tmp_path: Path, containerd: Containerd) -> None:
    async def story(b: Bench) -> None:
        script = (
            "id -u; grep NoNewPrivs /proc/self/status; touch /x 2>/dev/null || echo readonly;"
            "trap 'exit 0' TERM; sleep 1000 & wait"
        )
        c = container(
            command=["sh", "-c", script],
            resources={"limits": {"memory": "32Mi", "cpu": "200m"}},
            securityContext={
                "runAsUser": 1000,
                "runAsNonRoot": True,
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
        )
        async with b.edged():
            p = pod("strict", c, hostname="named")
            uid = b.want(p)
            await b.running(uid)
            log = b.config.log_dir / f"default_strict_{uid}" / "c" / "0.log"
            await b.until(lambda: log.exists() and "readonly" in log.read_text(), "log")
            text = log.read_text()
            assert "stdout F 1000" in text
            assert "NoNewPrivs:\t1" in text
            assert (await b.exec(uid, "hostname"))[1] == "named\n"
            assert b.status(uid)["qosClass"] == "Guaranteed"
            for h in cgroups.hierarchies():
                limit = h / CGROUP_ROOT / f"pod{uid}"
                if h.name == "memory":
                    values = [f.read_text().strip() for f in limit.glob("*/memory.limit_in_bytes")]
                    assert str(32 * 1024 * 1024) in values
            b.delete(p)
            await b.until(lambda: uid in b.reports.gone, "gone")
            for h in cgroups.hierarchies():
                assert not (h / CGROUP_ROOT / f"pod{uid}").exists()

    on_containerd(tmp_path, containerd, story)


@pytest.mark.root
def test_oom_is_named(tmp_path: Path, containerd: Containerd) -> None:
    async def story(b: Bench) -> None:
        eat = "x=a; while true; do x=$x$x; done"
        c = container(command=["sh", "-c", eat], resources={"limits": {"memory": "16Mi"}})
        async with b.edged():
            uid = b.want(pod("hungry", c, restartPolicy="Never"))
            await b.until(lambda: b.status(uid).get("phase") == "Failed", "Failed")
            ended = b.container(uid)["state"]["terminated"]
            assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)

    on_containerd(tmp_path, containerd, story)


@pytest.mark.root
def test_a_hostile_volume_cannot_lead_a_removal_or_a_sub_path_astray(
    tmp_path: Path, containerd: Containerd
) -> None:
    async def story(b: Bench) -> None:
        victim = tmp_path / "victim"
        victim.mkdir()
        (victim / "precious").write_text("x")
        plant = (
            f"ln -s {victim} /s/link; ln -s / /s/root; mkdir -p /s/d; ln -s {victim} /s/d/deep;"
            "p=/s/x; for i in $(seq 300); do p=$p/y; done; mkdir -p $p;"
            "trap 'exit 0' TERM; sleep 1000 & wait"
        )
        second = container("second", volumeMounts=[{"name": "s", "mountPath": "/m", "subPath": "root/etc"}])
        p = pod(
            "hostile",
            container("c", ["sh", "-c", plant], volumeMounts=[{"name": "s", "mountPath": "/s"}]),
            volumes=[{"name": "s", "emptyDir": {}}],
        )
        async with b.edged():
            uid = b.want(p)
            await b.running(uid)
            folder = b.config.root_dir / uid / "volumes" / "kubernetes.io~empty-dir" / "s"
            await b.until(lambda: (folder / "x").exists(), "planted")
            p["spec"]["containers"].append(second)
            b.want(p)
            await b.until(
                lambda: (
                    b.container(uid, "second").get("state", {}).get("waiting", {}).get("reason")
                    == "CreateContainerConfigError"
                ),
                "refused",
            )
            assert "leads out of the volume" in b.container(uid, "second")["state"]["waiting"]["message"]
            b.delete(p)
            await b.until(lambda: uid in b.reports.gone, "gone")
            assert (victim / "precious").read_text() == "x"
            assert list(b.config.root_dir.iterdir()) == []

    on_containerd(tmp_path, containerd, story)


@pytest.mark.root
def test_cri_errors_are_told_apart(containerd: Containerd) -> None:
    async def scene() -> None:
        cri = Cri(str(containerd.socket))
        try:
            assert (await cri.conditions()).runtime_ready
            image = await cri.image_status(IMAGE)
            assert image is not None
            assert IMAGE in image.tags
            assert await cri.image_status("nowhere.test/x:1") is None
            with pytest.raises(CriError) as failed:
                await cri.container_status("absent")
            assert failed.value.code == "NOT_FOUND"
            await cri.remove_container("absent")
            await cri.stop_container("absent", 0)
        finally:
            cri.close()
        away = Cri("/nonexistent/c.sock")
        with pytest.raises(CriError) as failed:
            await away.version()
        assert failed.value.retryable
        assert failed.value.code == "UNAVAILABLE"
        away.close()

    asyncio.run(scene())


@pytest.mark.root
def test_a_volume_that_is_there_a_moment_too_late_starts_its_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring, tries = PodVolumes._bring, []

    async def once_in_vain(volumes: PodVolumes) -> bool:
        tries.append(volumes)
        return len(tries) > 1 and await bring(volumes)

    monkeypatch.setattr(PodVolumes, "_bring", once_in_vain)

    async def story(b: Bench) -> None:
        async with b.edged():
            await b.running(b.want(pod("late")))

    on_fake(tmp_path, story)
