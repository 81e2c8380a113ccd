"""Containers of a pod: restarts, order, ends, and what the status says of them."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.conformance.case import Scene, case, condition, container, pod, restarts, status_of
from tests.conformance.environment import CONFORMANCE
from tests.conformance.hooks import MOUNT, shared, volume
from tests.conformance.images import USER

RUNTIME = "e2e/common/node/runtime.go"
INIT = "e2e/common/node/init_container.go"
ORDER = "e2e_node/container_lifecycle_test.go [NodeConformance]"


def says(name: str, seconds: float = 0, code: int = 0, **more: Any) -> dict[str, Any]:
    """A container that notes its start and its end in the shared folder."""
    script = (
        f"echo {name} starts >> /shared/order; "
        f"trap 'echo {name} ends >> /shared/order; exit {code}' TERM; "
        f"sleep {seconds} & wait $!; echo {name} ends >> /shared/order; exit {code}"
    )
    return container(script, name=name, **MOUNT, **more)


def order(scene: Scene) -> list[str]:
    file = shared(scene) / "order"
    return file.read_text().splitlines() if file.exists() else []


def sidecar(name: str, **more: Any) -> dict[str, Any]:
    return says(name, 600, restartPolicy="Always", **more)


# -- restart policies

for _policy, _script, _phase, _count in (
    ("Always", "f=/v/n; echo x >> $f; test $(wc -l < $f) -ge 3 && sleep 600; exit 1", "Running", 2),
    ("OnFailure", "f=/v/n; echo x >> $f; test $(wc -l < $f) -ge 2", "Succeeded", 1),
    ("Never", "exit 1", "Failed", 0),
):

    @case(
        "Restart policy",
        f"{_policy}: the phase and the count of restarts",
        f"{RUNTIME} {CONFORMANCE}",
        quick=_policy != "Always",
    )
    async def policy(
        scene: Scene, policy: str = _policy, script: str = _script, phase: str = _phase, count: int = _count
    ) -> None:
        made = pod(
            container(script, volumeMounts=[{"name": "v", "mountPath": "/v"}]),
            volumes=[{"name": "v", "emptyDir": {}}],
            restartPolicy=policy,
        )
        await scene.start(made)
        seen = await scene.until(
            "p",
            lambda p: (
                p["status"].get("phase") == phase
                and restarts(p) == count
                and (phase != "Running" or "running" in status_of(p)["state"])
            ),
            f"{phase} after {count} restarts",
            180,
        )
        state = status_of(seen)["state"]
        assert condition(seen, "Ready")["status"] == ("True" if phase == "Running" else "False")
        assert ("terminated" in state) == (phase != "Running"), state
        if count:
            assert status_of(seen)["lastState"]["terminated"]["exitCode"] == 1


@case(
    "Restart policy",
    "a crash is answered with CrashLoopBackOff and growing delays",
    "e2e_node/container_restart_test.go",
)
async def back_off(scene: Scene) -> None:
    await scene.start(pod("exit 1", restartPolicy="Always"))
    seen = await scene.until(
        "p",
        lambda p: status_of(p).get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff",
        "CrashLoopBackOff",
    )
    assert "back-off" in status_of(seen)["state"]["waiting"]["message"]
    await scene.event("p", "BackOff", "Back-off restarting failed container c in pod p_")


@case(
    "Restart policy",
    "container rules: restarted for these exit codes only",
    "e2e/common/node/container_restart_policy.go [ContainerRestartRules]",
)
async def rules(scene: Scene) -> None:
    rule = {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}
    script = "echo x >> /v/n; test $(wc -l < /v/n) -ge 2 && exit 7; exit 42"
    made = pod(
        container(
            script,
            restartPolicy="Never",
            restartPolicyRules=[rule],
            volumeMounts=[{"name": "v", "mountPath": "/v"}],
        ),
        volumes=[{"name": "v", "emptyDir": {}}],
    )
    ended = await scene.ran(made)
    assert (restarts(ended), status_of(ended)["state"]["terminated"]["exitCode"]) == (1, 7)


@case(
    "Restart policy",
    "a container's own policy, other than the pod's",
    "e2e/common/node/container_restart_policy.go [ContainerRestartRules]",
)
async def own_policy(scene: Scene) -> None:
    made = pod(
        container("exit 1", restartPolicy="Never"), container("sleep 600", name="d"), restartPolicy="Always"
    )
    await scene.start(made)
    await scene.until("p", lambda p: "terminated" in status_of(p).get("state", {}), "its end")
    await asyncio.sleep(12)
    assert restarts(scene.seen("p")[-1]) == 0


# -- termination messages

_ROOT = "e2e/common/node/runtime.go"
for _asks, _script, _more, _message in (
    ("from the file", "echo -n DONE > /dev/termination-log", {}, "DONE"),
    (
        "by another user, at another path",
        "echo -n DONE > /dev/termination-custom-log",
        {"terminationMessagePath": "/dev/termination-custom-log", "securityContext": {"runAsUser": 1000}},
        "DONE",
    ),
    (
        "the log of a failure",
        "echo -n DONE; exit 1",
        {"terminationMessagePolicy": "FallbackToLogsOnError"},
        "DONE",
    ),
    (
        "nothing from the log of a success",
        "echo DONE",
        {"terminationMessagePolicy": "FallbackToLogsOnError"},
        "",
    ),
    (
        "the file of a success before any log",
        "echo DIFFERENT; echo -n OK > /dev/termination-log",
        {"terminationMessagePolicy": "FallbackToLogsOnError"},
        "OK",
    ),
    (
        "not more than 4096 bytes",
        "head -c 5000 /dev/zero | tr '\\0' a > /dev/termination-log",
        {},
        "a" * 4096,
    ),
):

    @case("Termination messages", _asks, f"{_ROOT} {CONFORMANCE}", quick=_asks == "the log of a failure")
    async def message(
        scene: Scene, script: str = _script, more: dict[str, Any] = _more, message: str = _message
    ) -> None:
        ended = await scene.ran(pod(container(script, **more)))
        seen = status_of(ended)["state"]["terminated"].get("message", "")
        assert seen == message, seen[:200]


# -- init containers

_INITS = [container("true", name="init1"), container("true", name="init2")]


def inits(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [status_of(pod, name, "initContainerStatuses") for name in ("init1", "init2")]


@case(
    "Init containers",
    "run before the others of a pod that never restarts",
    f"{INIT} {CONFORMANCE}",
    quick=True,
)
async def init_never(scene: Scene) -> None:
    ended = await scene.ran(pod("true", initContainers=_INITS))
    assert ended["status"]["phase"] == "Succeeded"
    assert condition(ended, "Initialized")["status"] == "True"
    for one in inits(ended):
        assert one["ready"]
        assert one["state"]["terminated"]["exitCode"] == 0


@case("Init containers", "run before the others of a pod that always restarts", f"{INIT} {CONFORMANCE}")
async def init_always(scene: Scene) -> None:
    ready = await scene.ready(pod("sleep 600", initContainers=_INITS, restartPolicy="Always"))
    assert condition(ready, "Initialized")["status"] == "True"
    for one in inits(ready):
        assert one["ready"]
        assert one["state"]["terminated"]["exitCode"] == 0


@case("Init containers", "a failing one holds the others, and is tried again", f"{INIT} {CONFORMANCE}")
async def init_fails_always(scene: Scene) -> None:
    failing = [container("false", name="init1"), container("true", name="init2")]
    await scene.start(pod("sleep 600", initContainers=failing, restartPolicy="Always"))
    seen = await scene.until(
        "p", lambda p: restarts(p, "init1", "initContainerStatuses") >= 3, "three more tries", 240
    )
    assert seen["status"]["phase"] == "Pending"
    initialized = condition(seen, "Initialized")
    assert (initialized["status"], initialized["reason"]) == ("False", "ContainersNotInitialized")
    assert initialized["message"] == "containers with incomplete status: [init1 init2]", initialized
    one, two = inits(seen)
    assert one["lastState"]["terminated"]["exitCode"] == 1
    assert two["state"]["waiting"]["reason"] == "PodInitializing"
    assert status_of(seen)["state"]["waiting"]["reason"] == "PodInitializing"
    assert not any(status_of(state).get("containerID") for state in scene.seen("p"))


@case("Init containers", "a failing one ends a pod that never restarts", f"{INIT} {CONFORMANCE}")
async def init_fails_never(scene: Scene) -> None:
    failing = [container("true", name="init1"), container("false", name="init2")]
    ended = await scene.ran(pod("true", initContainers=failing))
    assert ended["status"]["phase"] == "Failed"
    assert condition(ended, "Initialized")["reason"] == "ContainersNotInitialized"
    one, two = inits(ended)
    assert one["state"]["terminated"]["exitCode"] == 0
    assert two["state"]["terminated"]["exitCode"] == 1
    assert "waiting" in status_of(ended)["state"], status_of(ended)


@case("Init containers", "run one after the other", ORDER)
async def serial(scene: Scene) -> None:
    made = pod(says("main"), initContainers=[says(f"init{n}", 0.5) for n in (1, 2, 3)], **volume(scene))
    await scene.ran(made)
    assert order(scene) == [
        f"{name} {what}" for name in ("init1", "init2", "init3", "main") for what in ("starts", "ends")
    ]


@case("Init containers", "are not run again when another container is", ORDER)
async def not_again(scene: Scene) -> None:
    made = pod(
        says("main", 1, 1),
        initContainers=[says("init1"), says("init2")],
        restartPolicy="Always",
        **volume(scene),
    )
    await scene.start(made)
    seen = await scene.until("p", lambda p: restarts(p, "main") >= 2, "two restarts", 180)
    assert [one["restartCount"] for one in inits(seen)] == [0, 0]
    assert order(scene).count("init1 starts") == 1


@case("Init containers", "end before the postStart of the next", ORDER)
async def before_post_start(scene: Scene) -> None:
    hook = {
        "postStart": {
            "exec": {
                "command": [
                    "sh",
                    "-c",
                    "echo hook starts >> /shared/order; sleep 1; echo hook ends >> /shared/order",
                ]
            }
        }
    }
    made = pod(says("main", 4, lifecycle=hook), initContainers=[says("init1", 0.5)], **volume(scene))
    await scene.ran(made)
    seen = order(scene)
    assert seen[:2] == ["init1 starts", "init1 ends"]
    assert seen.index("hook ends") < seen.index("main ends")


@case("Init containers", "one whose image cannot be had holds the pod", ORDER)
async def bad_image(scene: Scene) -> None:
    bad = {"name": "init1", "image": "127.0.0.1:1/no/such:1"}
    await scene.start(pod("true", initContainers=[bad]))
    await scene.until(
        "p",
        lambda p: (
            status_of(p, "init1", "initContainerStatuses").get("state", {}).get("waiting", {}).get("reason")
            == "ImagePullBackOff"
        ),
        "ImagePullBackOff",
    )
    assert status_of(scene.seen("p")[-1])["state"]["waiting"]["reason"] == "PodInitializing"


@case("Order", "a second container waits for the postStart of the first", ORDER)
async def second_waits(scene: Scene) -> None:
    hook = {
        "postStart": {
            "exec": {
                "command": [
                    "sh",
                    "-c",
                    "echo hook starts >> /shared/order; sleep 2; echo hook ends >> /shared/order",
                ]
            }
        }
    }
    made = pod(says("first", 4, lifecycle=hook), says("second"), **volume(scene))
    await scene.ran(made)
    seen = order(scene)
    assert seen.index("hook ends") < seen.index("second starts"), seen


# -- sidecars


@case("Sidecars", "start in order before the others and end with them, last first", ORDER, quick=True)
async def sidecars(scene: Scene) -> None:
    made = pod(
        says("main", 2),
        initContainers=[sidecar("side1"), says("init", 0.5), sidecar("side2"), sidecar("side3")],
        **volume(scene),
        terminationGracePeriodSeconds=20,
    )
    ended = await scene.ran(made)
    assert ended["status"]["phase"] == "Succeeded", ended["status"]
    seen = order(scene)
    assert [line for line in seen if "starts" in line] == [
        f"{n} starts" for n in ("side1", "init", "side2", "side3", "main")
    ], seen
    assert seen[-4:] == ["main ends", "side3 ends", "side2 ends", "side1 ends"], seen


@case("Sidecars", "on deletion end after the others, last first", ORDER)
async def sidecars_deleted(scene: Scene) -> None:
    made = pod(
        says("main", 600),
        initContainers=[sidecar("side1"), sidecar("side2")],
        **volume(scene),
        terminationGracePeriodSeconds=20,
    )
    await scene.ready(made)
    await scene.world.until(lambda: True, "")
    await scene.settled(lambda: started(scene, 3), "all started")
    await scene.delete("pods", "p")
    await scene.is_gone("p")
    assert order(scene)[-3:] == ["main ends", "side2 ends", "side1 ends"], order(scene)


async def started(scene: Scene, count: int) -> bool:
    return len([line for line in order(scene) if "starts" in line]) >= count


@case("Sidecars", "the next waits for a sidecar's startup probe", ORDER)
async def startup_gates(scene: Scene) -> None:
    probe = {
        "exec": {"command": ["sh", "-c", "test -f /shared/go"]},
        "periodSeconds": 1,
        "failureThreshold": 100,
    }
    made = pod(says("main", 0), initContainers=[sidecar("side", startupProbe=probe)], **volume(scene))
    await scene.start(made)
    await scene.settled(lambda: started(scene, 1), "the sidecar started")
    await asyncio.sleep(3)
    assert order(scene) == ["side starts"]
    assert condition(scene.seen("p")[-1], "Initialized")["status"] == "False"
    (shared(scene) / "go").touch()
    await scene.until("p", lambda p: p["status"]["phase"] == "Succeeded", "its end")


@case("Sidecars", "restart by themselves, also in a pod that never restarts", ORDER)
async def sidecar_restarts(scene: Scene) -> None:
    made = pod(
        says("main", 600), initContainers=[says("side", 1, 1, restartPolicy="Always")], **volume(scene)
    )
    await scene.start(made)
    seen = await scene.until(
        "p", lambda p: restarts(p, "side", "initContainerStatuses") >= 2, "two restarts", 180
    )
    assert seen["status"]["phase"] == "Running"
    assert restarts(seen, "main") == 0


@case("Sidecars", "one that fails at its end does not fail the pod", ORDER)
async def sidecar_exit_code(scene: Scene) -> None:
    script = "trap 'exit 5' TERM; while :; do sleep 0.1; done"
    made = pod(
        "sleep 1",
        initContainers=[container(script, name="s", restartPolicy="Always")],
        terminationGracePeriodSeconds=10,
    )
    ended = await scene.ran(made)
    assert ended["status"]["phase"] == "Succeeded", ended["status"]
    assert status_of(ended, "s", "initContainerStatuses")["state"]["terminated"]["exitCode"] == 5


@case("Sidecars", "are killed when the others need the whole grace", ORDER)
async def grace_is_shared(scene: Scene) -> None:
    deaf = "trap '' TERM; sleep 600 & wait; sleep 600"
    made = pod(
        container(deaf), initContainers=[sidecar("side")], **volume(scene), terminationGracePeriodSeconds=3
    )
    await scene.ready(made)
    await scene.delete("pods", "p")
    await scene.is_gone("p", 30)


@case("Sidecars", "readiness counts for the pod", ORDER)
async def sidecar_ready(scene: Scene) -> None:
    probe = {"exec": {"command": ["sh", "-c", "test -f /shared/go"]}, "periodSeconds": 1}
    await scene.start(
        pod(says("main", 600), initContainers=[sidecar("side", readinessProbe=probe)], **volume(scene))
    )
    await scene.until("p", lambda p: status_of(p, "main").get("ready"), "the main container ready")
    assert condition(scene.seen("p")[-1], "Ready")["status"] == "False"
    (shared(scene) / "go").touch()
    await scene.ready("p")


# -- ends


@case("Ends", "the grace is respected, then it is killed", ORDER)
async def killed(scene: Scene) -> None:
    script = "trap '' TERM; while :; do date +%s.%N > /shared/last; sleep 0.1; done"
    await scene.ready(pod(container(script, **MOUNT), **volume(scene), terminationGracePeriodSeconds=4))
    began = asyncio.get_running_loop().time()
    await scene.delete("pods", "p")
    await scene.is_gone("p")
    took = asyncio.get_running_loop().time() - began
    assert took >= 3.5, took


@case("Ends", "a second deletion with less grace cuts it", "e2e_node/container_lifecycle_test.go")
async def cut(scene: Scene) -> None:
    await scene.ready(pod("trap '' TERM; sleep 600 & wait; sleep 600", terminationGracePeriodSeconds=300))
    await scene.delete("pods", "p")
    await scene.delete("pods", "p", gracePeriodSeconds=1)
    await scene.is_gone("p", 60)


for _policy in ("Always", "OnFailure", "Never"):
    for _code, _script in (
        (137, "trap '' TERM; sleep 600 & wait; sleep 600"),
        (0, "trap 'exit 0' TERM; while :; do sleep 0.1; done"),
    ):

        @case(
            "Ends",
            f"deleted with a finalizer, {_policy}: {'Failed' if _code else 'Succeeded'} with exit code {_code}",
            "e2e_node/deleted_pods_test.go [NodeConformance]",
            quick=_policy == "Always",
        )
        async def finalized(
            scene: Scene, policy: str = _policy, code: int = _code, script: str = _script
        ) -> None:
            made = pod(
                script,
                meta={"finalizers": ["example.com/hold"]},
                restartPolicy=policy,
                terminationGracePeriodSeconds=2 if code else 20,
            )
            try:
                await scene.ready(made)
                await asyncio.sleep(1)
                await scene.delete("pods", "p")
                phase = "Failed" if code else "Succeeded"
                seen = await scene.until("p", lambda p: p["status"]["phase"] == phase, phase)
                assert status_of(seen)["state"]["terminated"]["exitCode"] == code
            finally:
                await scene.patch("pods", "p", {"metadata": {"finalizers": None}})
            await scene.is_gone("p")


@case(
    "Ends", "deleted while its image cannot be had: Failed", "e2e_node/deleted_pods_test.go [NodeConformance]"
)
async def pending(scene: Scene) -> None:
    bad = {"name": "c", "image": "127.0.0.1:1/no/such:1", "imagePullPolicy": "Always"}
    await scene.start(pod(bad, meta={"finalizers": ["example.com/hold"]}, restartPolicy="Always"))
    try:
        await scene.until("p", lambda p: condition(p, "PodScheduled"), "scheduled")
        await scene.until("p", lambda p: p["status"].get("hostIP"), "seen by the node")
        await scene.delete("pods", "p")
        await scene.until("p", lambda p: p["status"]["phase"] == "Failed", "Failed")
    finally:
        await scene.patch("pods", "p", {"metadata": {"finalizers": None}})
    await scene.is_gone("p")


@case(
    "Ends",
    "volumes are gone with the end, though a finalizer holds the pod",
    "e2e_node/deleted_pods_test.go [NodeConformance]",
)
async def volumes_gone(scene: Scene) -> None:
    made = pod(
        container(
            "echo x > /v/f; trap 'exit 0' TERM; while :; do sleep 0.1; done",
            volumeMounts=[{"name": "v", "mountPath": "/v"}],
        ),
        volumes=[{"name": "v", "emptyDir": {}}],
        meta={"finalizers": ["example.com/hold"]},
        terminationGracePeriodSeconds=10,
    )
    ready = await scene.ready(made)
    folder = scene.world.home / "edge" / "pods" / ready["metadata"]["uid"]
    assert (folder / "volumes").exists(), list((scene.world.home / "edge").iterdir())
    try:
        await scene.delete("pods", "p")
        await scene.until("p", lambda p: p["status"]["phase"] == "Succeeded", "Succeeded")

        async def emptied() -> bool:
            return not folder.exists()

        await scene.settled(emptied, "the pod's folder is gone", 20)
    finally:
        await scene.patch("pods", "p", {"metadata": {"finalizers": None}})
    await scene.is_gone("p")


@case("Ends", "nothing is started again while the pod ends, also after its image changed", ORDER)
async def no_new_start(scene: Scene) -> None:
    script = "trap 'sleep 3; exit 1' TERM; while :; do sleep 0.1; done"
    made = pod(
        container(script),
        meta={"finalizers": ["example.com/hold"]},
        restartPolicy="Always",
        terminationGracePeriodSeconds=20,
    )
    try:
        await scene.ready(made)
        await scene.delete("pods", "p")
        await scene.patch(
            "pods", "p", [{"op": "replace", "path": "/spec/containers/0/image", "value": USER}], how="json"
        )
        seen = await scene.until("p", lambda p: p["status"]["phase"] in ("Failed", "Succeeded"), "its end")
        assert restarts(seen) == 0
        assert len([one for one in scene.events("p", "Started")]) == 1
    finally:
        await scene.patch("pods", "p", {"metadata": {"finalizers": None}})


# -- ephemeral containers


@case(
    "Ephemeral containers",
    "one and then another is started in a running pod",
    "e2e/common/node/ephemeral_containers.go [NodeConformance] [Conformance]",
    quick=True,
)
async def ephemeral(scene: Scene) -> None:
    await scene.ready(pod(container("sleep 600"), shareProcessNamespace=True))
    for name in ("debug", "debug2"):
        one = container("while :; do echo polo; sleep 1; done", name=name, stdin=True, tty=True)
        await scene.patch(
            "pods", "p", {"spec": {"ephemeralContainers": [one]}}, "ephemeralcontainers", how="strategic"
        )
        await scene.until(
            "p",
            lambda p, name=name: (
                "running" in status_of(p, name, "ephemeralContainerStatuses").get("state", {})
            ),
            f"{name} runs",
        )
        await scene.settled(lambda name=name: says_polo(scene, name), "its log")
    assert len((await scene.get("pods", "p"))["spec"]["ephemeralContainers"]) == 2
    assert await scene.sh("p", "true", container="debug2") == ""


async def says_polo(scene: Scene, name: str) -> bool:
    return "polo" in await scene.logs("p", name)


@case("Ephemeral containers", "one that ended is not started again", "e2e_node/ephemeral_containers_test.go")
async def ephemeral_ends(scene: Scene) -> None:
    await scene.ready(pod(container("sleep 600"), restartPolicy="Always"))
    await scene.patch(
        "pods",
        "p",
        {"spec": {"ephemeralContainers": [container("exit 3", name="d")]}},
        "ephemeralcontainers",
        how="strategic",
    )
    await scene.until(
        "p",
        lambda p: "terminated" in status_of(p, "d", "ephemeralContainerStatuses").get("state", {}),
        "its end",
    )
    await asyncio.sleep(3)
    last = scene.seen("p")[-1]
    assert status_of(last, "d", "ephemeralContainerStatuses")["state"]["terminated"]["exitCode"] == 3
    assert condition(last, "Ready")["status"] == "True"
