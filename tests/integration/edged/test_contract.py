"""What edged promises of pods, on the fake runtime and on containerd alike."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from edgecore.edged import closure
from edgecore.edged.runtime import ContainerState
from tests.integration.edged.bench import Bench, container, pod, stage
from tests.integration.edged.machine import IMAGE

Story = Callable[[Bench], Awaitable[None]]
Play = Callable[[Story], None]


@pytest.fixture(params=["fake", pytest.param("containerd", marks=pytest.mark.root)])
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Play:
    """Runs a story on one of the two runtimes."""
    machine = request.getfixturevalue("containerd") if request.param == "containerd" else None

    def run(story: Story) -> None:
        async def scene() -> None:
            async with stage(request.param, tmp_path, machine) as bench:
                await story(bench)

        asyncio.run(scene())

    return run


def test_a_pod_runs_and_is_deleted_without_a_trace(play: Play) -> None:
    async def story(b: Bench) -> None:
        async with b.edged() as agent:
            p = pod("web", container(ports=[{"containerPort": 80}]))
            uid = b.want(p)
            await b.running(uid)
            assert b.ready(uid)
            status = b.status(uid)
            assert status["podIP"]
            assert status["podIPs"] == [{"ip": status["podIP"]}]
            assert status["hostIP"] == "127.0.0.1"
            assert status["qosClass"] == "BestEffort"
            c = b.container(uid)
            assert c["ready"]
            assert c["started"]
            assert c["restartCount"] == 0
            assert c["containerID"].startswith("containerd://")
            assert "startedAt" in c["state"]["running"]
            first = b.reports.history[0][1]
            assert first["phase"] == "Pending"
            assert first["containerStatuses"][0]["state"]["waiting"]["reason"] == "ContainerCreating"
            assert b.reports.reasons()[:3] == ["Pulled", "Created", "Started"]
            assert (b.config.log_dir / f"default_web_{uid}" / "c").is_dir()
            assert [r.name for r in await agent.running_pods()] == ["web"]
            b.delete(p)
            await b.until(lambda: b.reports.gone == [uid], "gone")
            final = b.status(uid)
            assert final["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
            assert not any(c["type"] == "Ready" and c["status"] == "True" for c in final["conditions"])
            assert await b.containers(uid) == []
            assert await b.cri.list_sandboxes(uid=uid) == []
            assert list(b.config.root_dir.iterdir()) == []
            assert list(b.config.log_dir.iterdir()) == []
            assert [key for key in b.state.rows if key.startswith("pod/")] == []
            # it stays in the list until the API has deleted it: nothing is started again
            await asyncio.sleep(0.5)
            assert await b.cri.list_sandboxes(uid=uid) == []
            b.unwant(uid)

    play(story)


def test_environment_from_everywhere(play: Play) -> None:
    async def story(b: Bench) -> None:
        b.put("configmap", "settings", data={"COLOUR": "blue", "SIZE": "7"})
        b.put("secret", "keys", data={"PASSWORD": base64.b64encode(b"hunter2").decode()})
        variables: list[dict[str, Any]] = [
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)-$(COLOUR)-$$(A)-$(NONE)"},
            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "SIZE"}}},
            {"name": "D", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "PASSWORD"}}},
            {"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "F", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "G", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "H", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {
                "name": "I",
                "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}},
            },
            {"name": "J", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}},
            {
                "name": "K",
                "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "x", "optional": True}},
            },
        ]
        c = container(
            env=variables,
            envFrom=[
                {"prefix": "CM_", "configMapRef": {"name": "settings"}},
                {"configMapRef": {"name": "settings"}},
            ],
            resources={"limits": {"memory": "64Mi", "cpu": "500m"}, "requests": {"cpu": "100m"}},
        )
        async with b.edged():
            uid = b.want(pod("env", c))
            await b.running(uid)
            expected = {
                "A": "1",
                "B": "1-blue-$(A)-$(NONE)",
                "C": "7",
                "D": "hunter2",
                "E": "env",
                "F": b.status(uid)["podIP"],
                "G": "env",
                "H": "edge-1",
                "I": "64",
                "J": "100",
                "CM_COLOUR": "blue",
                "COLOUR": "blue",
            }
            env = await b.env(uid)
            assert {name: env.get(name) for name in expected} == expected
            assert "K" not in env
            assert b.status(uid)["qosClass"] == "Burstable"

    play(story)


def _in_memory(volumes: Path) -> set[str]:
    return {path.name for path in volumes.glob("*/*") if path.is_mount()}


def test_volumes_hold_what_they_should_and_follow_changes(play: Play) -> None:
    async def story(b: Bench) -> None:
        b.put("configmap", "settings", data={"a.txt": "one", "b.txt": "two"})
        b.put("secret", "keys", data={"k": base64.b64encode(b"\x00\x01bin").decode()})
        host = b.config.root_dir.parent / "on-host"
        host.mkdir()
        (host / "f").write_text("from host")
        volumes: list[dict[str, Any]] = [
            {"name": "cm", "configMap": {"name": "settings", "items": [{"key": "a.txt", "path": "d/x"}]}},
            {"name": "whole", "configMap": {"name": "settings"}},
            {"name": "sec", "secret": {"secretName": "keys", "defaultMode": 0o400}},
            {"name": "maybe", "configMap": {"name": "later", "optional": True}},
            {"name": "scratch", "emptyDir": {}},
            {"name": "host", "hostPath": {"path": str(host), "type": "Directory"}},
            {
                "name": "down",
                "downwardAPI": {
                    "items": [
                        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                        {"path": "notes", "fieldRef": {"fieldPath": "metadata.annotations"}},
                        {
                            "path": "cpu",
                            "resourceFieldRef": {
                                "containerName": "c",
                                "resource": "limits.cpu",
                                "divisor": "1m",
                            },
                        },
                    ]
                },
            },
            {
                "name": "all",
                "projected": {
                    "sources": [
                        {"configMap": {"name": "settings"}},
                        {"secret": {"name": "keys"}},
                        {
                            "downwardAPI": {
                                "items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]
                            }
                        },
                        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
                    ]
                },
            },
        ]
        mounts = [{"name": v["name"], "mountPath": f"/v/{v['name']}"} for v in volumes]
        mounts.append({"name": "whole", "mountPath": "/one", "subPath": "b.txt"})
        c = container(volumeMounts=mounts, resources={"limits": {"cpu": "250m"}})
        async with b.edged():
            uid = b.want(pod("vol", c, volumes=volumes))
            await b.running(uid)
            expected = {
                "/v/cm/d/x": "one",
                "/v/whole/a.txt": "one",
                "/v/whole/b.txt": "two",
                "/v/sec/k": "\x00\x01bin",
                "/v/host/f": "from host",
                "/v/down/labels": 'app="vol"',
                "/v/down/notes": 'note="say \\"hi\\""',
                "/v/down/cpu": "250",
                "/v/all/a.txt": "one",
                "/v/all/ns": "default",
                "/v/all/token": "token-1-default",
            }
            for path, text in expected.items():
                assert await b.exec(uid, "cat", path) == (0, text), path
            assert (await b.exec(uid, "cat", "/v/cm/b.txt"))[0] == 1
            hosts = (await b.exec(uid, "cat", "/etc/hosts"))[1]
            assert f"{b.status(uid)['podIP']}\tvol" in hosts
            if b.fake is None:
                assert await b.exec(uid, "cat", "/one") == (0, "two")
                assert (await b.exec(uid, "touch", "/v/whole/new"))[0] != 0
            assert (await b.exec(uid, "touch", "/v/scratch/mine"))[0] == 0
            assert _in_memory(b.config.root_dir / uid / "volumes") == {"sec", "all"}, (
                "secrets and tokens do not get onto the disk"
            )
            before = await b.container_id(uid)
            b.put("configmap", "settings", data={"a.txt": "changed", "c.txt": "three"})
            b.put("configmap", "later", data={"x": "came"})
            deadline = asyncio.get_running_loop().time() + 10
            while (await b.exec(uid, "cat", "/v/maybe/x"))[1] != "came":
                assert asyncio.get_running_loop().time() < deadline
                await asyncio.sleep(0.05)
            assert await b.exec(uid, "cat", "/v/whole/a.txt") == (0, "changed")
            assert await b.exec(uid, "cat", "/v/whole/c.txt") == (0, "three")
            assert (await b.exec(uid, "cat", "/v/whole/b.txt"))[0] == 1
            assert (await b.exec(uid, "test", "-e", "/v/scratch/mine"))[0] == 0
            assert await b.container_id(uid) == before
            assert b.objects.tokens[0]["spec"]["boundObjectRef"]["uid"] == uid
            b.delete(pod("vol", c, volumes=volumes))
            await b.until(lambda: b.reports.gone == [uid], "gone")
            assert (host / "f").read_text() == "from host"
            assert list(b.config.root_dir.iterdir()) == []

    play(story)


def stored(b: Bench, uid: str) -> dict[str, Any]:
    """The condition that says whether this node has all that the pod needs."""
    return next((c for c in b.status(uid).get("conditions", []) if c["type"] == closure.CONDITION), {})


def test_what_is_missing_holds_the_pod_until_it_comes(play: Play) -> None:
    async def story(b: Bench) -> None:
        c = container(env=[{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "x"}}}])
        v = pod(
            "needs-volume",
            container(volumeMounts=[{"name": "v", "mountPath": "/v"}]),
            volumes=[{"name": "v", "secret": {"secretName": "late"}}],
        )
        async with b.edged():
            uid, vid = b.want(pod("needs-env", c)), b.want(v)
            await b.until(
                lambda: (
                    b.container(uid).get("state", {}).get("waiting", {}).get("reason")
                    == "CreateContainerConfigError"
                ),
                "held",
            )
            assert b.container(uid)["state"]["waiting"]["message"] == 'configmap "late" not found'
            await b.until(lambda: "FailedMount" in b.reports.reasons(), "FailedMount")
            assert b.container(vid)["state"]["waiting"]["reason"] == "ContainerCreating"
            assert b.status(vid)["phase"] == "Pending"
            await b.until(
                lambda: "secret late: not found" in stored(b, vid).get("message", ""), "the condition"
            )
            assert stored(b, uid)["message"] == "this node lacks: configmap late: not found"
            b.put("configmap", "late", data={"x": "1"})
            b.put("secret", "late", data={"y": ""})
            await b.running(uid)
            await b.running(vid)
            assert b.container(uid)["restartCount"] == 0
            await b.until(lambda: stored(b, vid)["status"] == stored(b, uid)["status"] == "True", "all there")

    play(story)


def test_a_crash_is_restarted_with_growing_delays(play: Play) -> None:
    async def story(b: Bench) -> None:
        script = "echo lastwords > /dev/termination-log; exit 3"
        async with b.edged():
            uid = b.want(pod("crash", container(command=["sh", "-c", script])))

            def waits() -> str:
                return str(b.container(uid).get("state", {}).get("waiting", {}).get("message", ""))

            await b.until(lambda: "back-off 10s" in waits(), "back-off 10s")
            c = b.container(uid)
            assert c["state"]["waiting"]["reason"] == "CrashLoopBackOff"
            assert c["restartCount"] == 1, "the first restart is at once"
            ended = c["lastState"]["terminated"]
            assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "lastwords\n")
            assert b.status(uid)["phase"] == "Running"
            b.clock.skew += 11
            b.poke(uid)
            await b.until(lambda: "back-off 20s" in waits(), "back-off 20s")
            assert b.container(uid)["restartCount"] == 2
            b.clock.skew += 11
            b.poke(uid)
            await asyncio.sleep(0.3)
            assert b.container(uid)["restartCount"] == 2
            b.clock.skew += 10
            b.poke(uid)
            await b.until(lambda: "back-off 40s" in waits(), "back-off 40s")
            # they are removed after the report that this has waited for
            for _ in range(600):
                records = [c for c in await b.containers(uid) if c.name == "c"]
                if len(records) <= 2:
                    break
                await asyncio.sleep(0.05)
            assert len(records) <= 2, "older dead containers are removed"
            told = [e["message"] for e in b.reports.events if e["reason"] == "BackOff"]
            assert told, "a container that waits is told once for each end"
            assert told[0].startswith("Back-off restarting failed container c in pod crash_")
        # the delay and the count outlive the agent
        async with b.edged():
            await asyncio.sleep(0.5)
            assert b.container(uid)["restartCount"] == 3
            assert "back-off 40s" in waits()

    play(story)


@pytest.mark.parametrize(
    ("policy", "code", "phase", "reason"),
    [
        ("Never", 0, "Succeeded", "Completed"),
        ("Never", 4, "Failed", "Error"),
        ("OnFailure", 0, "Succeeded", "Completed"),
    ],
)
def test_pods_that_end(play: Play, policy: str, code: int, phase: str, reason: str) -> None:
    async def story(b: Bench) -> None:
        p = pod("job", container(command=["sh", "-c", f"exit {code}"]), restartPolicy=policy)
        async with b.edged():
            uid = b.want(p)
            await b.until(lambda: b.status(uid).get("phase") == phase, phase)
            ended = b.container(uid)["state"]["terminated"]
            assert (ended["exitCode"], ended["reason"]) == (code, reason)
            assert b.container(uid)["restartCount"] == 0
        if b.fake is not None:
            await b.fake.lose_everything()
        # an agent that comes later does not run it again
        async with b.edged():
            await asyncio.sleep(0.7)
            assert b.status(uid)["phase"] == phase
            assert not [c for c in await b.containers(uid) if c.state is ContainerState.RUNNING]
            b.delete(p)
            await b.until(lambda: b.reports.gone == [uid], "gone")
            assert b.status(uid)["phase"] == phase

    play(story)


def test_init_containers_run_in_order_and_a_failing_one_holds_the_rest(play: Play) -> None:
    async def story(b: Bench) -> None:
        inits = [
            container("one", ["sh", "-c", "exit 0"]),
            container("two", ["sh", "-c", "sleep 0.3; exit 0"]),
        ]
        bad = [container("bad", ["sh", "-c", "exit 5"])]
        async with b.edged():
            uid = b.want(pod("init", initContainers=inits))
            vid = b.want(pod("never", initContainers=bad, restartPolicy="Never"))
            await b.running(uid)
            seen = [h for u, h in b.reports.history if u == uid]
            assert all(s["phase"] == "Pending" for s in seen[:-1])
            assert any(
                s["containerStatuses"][0]["state"].get("waiting", {}).get("reason") == "PodInitializing"
                for s in seen
            )
            for name in ("one", "two"):
                s = b.container(uid, name, "initContainerStatuses")
                assert s["state"]["terminated"]["reason"] == "Completed"
                assert s["ready"]
            one = b.container(uid, "one", "initContainerStatuses")["state"]["terminated"]
            two = b.container(uid, "two", "initContainerStatuses")["state"]["terminated"]
            assert one["finishedAt"] <= two["finishedAt"]
            await b.until(lambda: b.status(vid).get("phase") == "Failed", "Failed")
            assert b.container(vid)["state"]["waiting"]["reason"] == "PodInitializing"
            initialized = next(c for c in b.status(vid)["conditions"] if c["type"] == "Initialized")
            assert initialized["status"] == "False"
            assert "[bad]" in initialized["message"]

    play(story)


def test_a_sidecar_runs_beside_and_is_started_first(play: Play) -> None:
    async def story(b: Bench) -> None:
        side = container("side", restartPolicy="Always")
        p = pod(
            "both",
            container(command=["sh", "-c", "sleep 0.5; exit 0"]),
            initContainers=[side],
            restartPolicy="Never",
        )
        async with b.edged():
            uid = b.want(p)
            await b.until(lambda: b.status(uid).get("phase") == "Running", "Running")
            assert "running" in b.container(uid, "side", "initContainerStatuses")["state"]
            await b.until(lambda: b.status(uid).get("phase") == "Succeeded", "Succeeded")
            await b.until(
                lambda: "terminated" in b.container(uid, "side", "initContainerStatuses")["state"], "ended"
            )

    play(story)


def test_probes_decide_on_ready_and_on_restarts(play: Play) -> None:
    async def story(b: Bench) -> None:
        check = {"exec": {"command": ["test", "-e", "/s/ok"]}, "periodSeconds": 1, "failureThreshold": 2}
        alive = {"exec": {"command": ["test", "-e", "/s/alive"]}, "periodSeconds": 1, "failureThreshold": 1}
        begun = {"exec": {"command": ["test", "-e", "/s/begun"]}, "periodSeconds": 1, "failureThreshold": 30}
        c = container(
            volumeMounts=[{"name": "s", "mountPath": "/s"}],
            readinessProbe=check,
            livenessProbe=alive,
            startupProbe=begun,
        )
        async with b.edged() as agent:
            uid = b.want(pod("probed", c, volumes=[{"name": "s", "emptyDir": {}}]))
            await b.running(uid)
            assert not b.container(uid)["started"]
            assert not b.container(uid)["ready"]
            await asyncio.sleep(1.2)
            assert b.container(uid)["restartCount"] == 0, "liveness waits for startup"
            for name in ("alive", "begun"):
                await b.exec(uid, "touch", f"/s/{name}")
            await b.until(lambda: b.container(uid)["started"], "started")
            assert not b.ready(uid)
            await b.exec(uid, "touch", "/s/ok")
            await b.until(lambda: b.ready(uid), "ready")
            judge = agent.worker(uid)
            assert judge is not None
            counts = judge.probe_counts
            assert {("c", kind, "successful") for kind in ("Startup", "Liveness", "Readiness")} <= set(counts)
            assert counts["c", "Startup", "failed"] >= 1
        async with b.edged():
            await asyncio.sleep(0.5)
            assert b.ready(uid), "a new agent does not make a ready pod unready"
            await b.exec(uid, "rm", "/s/ok")
            await b.until(lambda: not b.ready(uid), "unready")
            assert b.container(uid)["restartCount"] == 0
            first = await b.container_id(uid)
            await b.exec(uid, "rm", "/s/alive")
            await b.until(lambda: b.container(uid)["restartCount"] == 1, "restarted by liveness")
            assert "Unhealthy" in b.reports.reasons()
            assert "Killing" in b.reports.reasons()
            assert b.container(uid)["lastState"]["terminated"]["containerID"].endswith(first)

    play(story)


def test_a_new_agent_adopts_and_restarts_nothing(play: Play) -> None:
    async def story(b: Bench) -> None:
        async with b.edged():
            uids = [b.want(pod(f"p{i}")) for i in range(4)]
            for uid in uids:
                await b.running(uid)
        before = {uid: await b.container_id(uid) for uid in uids}
        reports = len(b.reports.history)
        async with b.edged():
            await asyncio.sleep(0.8)
            assert {uid: await b.container_id(uid) for uid in uids} == before
            assert len(b.reports.history) == reports, "nothing changed, so nothing is reported"
        # even when its own memory is lost
        b.state.rows.clear()
        async with b.edged():
            await asyncio.sleep(0.8)
            assert {uid: await b.container_id(uid) for uid in uids} == before
            assert all(b.container(uid)["restartCount"] == 0 for uid in uids)

    play(story)


def test_everything_comes_back_after_all_sandboxes_are_gone(play: Play) -> None:
    async def story(b: Bench) -> None:
        b.put("secret", "keys", data={"k": base64.b64encode(b"v").decode()})
        c = container(env=[{"name": "K", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k"}}}])
        async with b.edged():
            uids = [b.want(pod(f"p{i}", c)) for i in range(3)]
            for uid in uids:
                await b.running(uid)
        for sandbox in await b.cri.list_sandboxes():
            await b.cri.remove_sandbox(sandbox.id)
        b.objects.offline = True
        seen = len(b.reports.history)
        async with b.edged():
            await b.until(
                lambda: (
                    {u for u, s in b.reports.history[seen:] if s["phase"] == "Running" and b.ready(u)}
                    == set(uids)
                ),
                "all running again",
            )
            for uid in uids:
                assert (await b.env(uid))["K"] == "v"
                assert b.container(uid)["restartCount"] == 1

    play(story)


def test_a_lost_sandbox_is_replaced(play: Play) -> None:
    async def story(b: Bench) -> None:
        async with b.edged() as agent:
            uid = b.want(pod("web"))
            await b.running(uid)
            worker = agent.worker(uid)
            assert worker is not None

            def replaced() -> bool:
                sandbox, found = worker.runtime.sandbox, worker.runtime.latest("c")
                return (
                    b.ready(uid)
                    and sandbox is not None
                    and found is not None
                    and sandbox.attempt == 1
                    and found.sandbox_id == sandbox.id
                    and b.container(uid)["containerID"] == f"containerd://{found.id}"
                )

            await b.cri.stop_sandbox((await b.cri.list_sandboxes(uid=uid))[0].id)
            await b.until(replaced, "replaced")
            ready = [s for s in await b.cri.list_sandboxes(uid=uid) if s.ready]
            assert [s.attempt for s in ready] == [1]
            # a sandbox that takes longer to be stopped than one waits for it may cost one restart more
            assert b.container(uid)["restartCount"] in ((1,) if b.fake else (1, 2))

    play(story)


def test_a_killed_container_is_restarted(play: Play) -> None:
    async def story(b: Bench) -> None:
        async with b.edged():
            uid = b.want(pod("web"))
            await b.running(uid)
            await b.cri.stop_container(await b.container_id(uid), 0)
            await b.until(lambda: b.container(uid)["restartCount"] == 1 and b.ready(uid), "restarted")

    play(story)


def test_a_changed_image_replaces_the_container_in_place(play: Play) -> None:
    async def story(b: Bench) -> None:
        async with b.edged():
            p = pod("web")
            uid = b.want(p)
            await b.running(uid)
            sandbox = (await b.cri.list_sandboxes(uid=uid))[0].id
            p["spec"]["containers"][0]["image"] = IMAGE.replace(":1", ":none")
            p["spec"]["containers"][0]["imagePullPolicy"] = "Never"
            b.want(p)
            await b.until(
                lambda: b.container(uid)["state"].get("waiting", {}).get("reason") == "ErrImageNeverPull",
                "image is not there",
            )
            p["spec"]["containers"][0]["image"] = IMAGE
            b.want(p)
            await b.until(lambda: b.ready(uid), "ready again")
            assert [s.id for s in await b.cri.list_sandboxes(uid=uid)] == [sandbox]

    play(story)


def test_a_pod_that_is_wanted_no_more_is_ended_after_a_second_look(play: Play) -> None:
    async def story(b: Bench) -> None:
        async with b.edged():
            uid = b.want(pod("web"))
            await b.running(uid)
            b.objects.unknown = True
            b.unwant(uid)
            await asyncio.sleep(0.5)
            assert await b.container_id(uid), "an unknown list is no reason to stop anything"
            b.objects.unknown = False
            await b.until(lambda: uid not in b.state.rows, "cleaned")
            assert b.reports.gone == [], "nobody to tell"
        # one that was deleted while no agent was there
        async with b.edged():
            other = b.want(pod("orphan"))
            await b.running(other)
        del b.objects.wanted[other]
        async with b.edged():
            await b.until(lambda: not (b.config.root_dir / other).exists(), "orphan cleaned")
            assert await b.cri.list_sandboxes(uid=other) == []

    play(story)


def test_deletion_uses_the_grace_period_and_a_shorter_one_cuts_it(play: Play) -> None:
    async def story(b: Bench) -> None:
        p = pod("deaf", container(command=["sleep", "1000"]))
        async with b.edged():
            uid = b.want(p)
            await b.running(uid)
            b.delete(p, grace_s=600)
            await asyncio.sleep(0.5)
            assert await b.container_id(uid)
            b.delete(p, grace_s=1)
            await b.until(lambda: b.reports.gone == [uid], "gone")
            assert b.container(uid)["state"]["terminated"]["exitCode"] == 137

    play(story)


def test_a_deadline_ends_a_pod(play: Play) -> None:
    async def story(b: Bench) -> None:
        async with b.edged():
            uid = b.want(pod("late", activeDeadlineSeconds=1))
            await b.running(uid)
            await b.until(lambda: b.status(uid).get("reason") == "DeadlineExceeded", "deadline")
            assert b.status(uid)["phase"] == "Failed"
            await b.until(lambda: "terminated" in b.container(uid)["state"], "ended")

    play(story)


def test_hooks_run(play: Play) -> None:
    async def story(b: Bench) -> None:
        c = container(
            volumeMounts=[{"name": "s", "mountPath": "/s"}, {"name": "h", "mountPath": "/h"}],
            lifecycle={
                "postStart": {"exec": {"command": ["touch", "/s/started"]}},
                "preStop": {"exec": {"command": ["touch", "/h/stopping"]}},
            },
        )
        host = b.config.root_dir.parent / "hooks"
        p = pod(
            "hooked",
            c,
            volumes=[
                {"name": "s", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "h", "hostPath": {"path": str(host), "type": "DirectoryOrCreate"}},
            ],
        )
        async with b.edged():
            uid = b.want(p)
            await b.running(uid)
            assert await b.exec(uid, "test", "-e", "/s/started") == (0, "")
            assert not (host / "stopping").exists()
            b.delete(p)
            await b.until(lambda: b.reports.gone == [uid], "gone")
            assert (host / "stopping").exists()

    play(story)


def test_bad_pods_are_refused_and_others_run(play: Play) -> None:
    async def story(b: Bench) -> None:
        escape = pod(
            "escape",
            container(volumeMounts=[{"name": "v", "mountPath": "/v", "subPath": "../.."}]),
            volumes=[{"name": "v", "emptyDir": {}}],
        )
        root = pod("root", container(securityContext={"runAsNonRoot": True}))
        b.objects.wanted["garbage"] = b'{"metadata": {"name": "../../etc", "uid": "u1"}}'
        b.objects.wanted["worse"] = b"[" * 100_000
        async with b.edged():
            uid = b.want(pod("good"))
            bad, nonroot = b.want(escape), b.want(root)
            await b.running(uid)
            await b.until(lambda: b.status(bad).get("phase") == "Failed", "refused")
            assert "subPath" in b.status(bad)["message"]
            await b.until(
                lambda: (
                    b.container(nonroot).get("state", {}).get("waiting", {}).get("reason")
                    == "CreateContainerConfigError"
                ),
                "held",
            )
            assert "will run as root" in b.container(nonroot)["state"]["waiting"]["message"]
            b.delete(escape)
            await b.until(lambda: bad in b.reports.gone, "refused pod can be deleted")

    play(story)
