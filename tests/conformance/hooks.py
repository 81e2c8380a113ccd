"""Lifecycle hooks."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.conformance.case import POLITE, NotHere, Scene, case, container, pod, restarts
from tests.conformance.environment import CONFORMANCE

SOURCE = "e2e/common/node/lifecycle_hook.go"


def shared(scene: Scene) -> Any:
    """A folder of this machine that a case's pods write to."""
    folder = scene.world.home / "shared" / scene.namespace
    folder.mkdir(parents=True, exist_ok=True)
    return folder


MOUNT = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}


def volume(scene: Scene) -> dict[str, Any]:
    return {"volumes": [{"name": "shared", "hostPath": {"path": str(shared(scene))}}]}


def handler(scene: Scene, how: str, word: str) -> dict[str, Any]:
    server = scene.world.server
    if how == "exec":
        return {"exec": {"command": ["sh", "-c", f"echo {word} >> /shared/said"]}}
    port = server.https if how == "https" else server.http
    get = {"host": server.address, "port": port, "path": f"/{scene.namespace}/{word}", "scheme": how.upper()}
    return {"httpGet": get}


def was_called(scene: Scene, how: str, word: str) -> bool:
    if how == "exec":
        said = shared(scene) / "said"
        return said.exists() and word in said.read_text()
    return any(
        scheme == how and path == f"/{scene.namespace}/{word}" for scheme, path, _ in scene.world.server.asked
    )


for _sidecar in (False, True):
    for _when in ("postStart", "preStop"):
        for _how in ("exec", "http", "https"):

            @case(
                "Hooks of sidecars" if _sidecar else "Hooks",
                f"{_when} by {_how}",
                f"{SOURCE} {'[NodeConformance]' if _sidecar or _how == 'https' else CONFORMANCE}",
                quick=_sidecar and _how == "https",
            )
            async def hook(
                scene: Scene, sidecar: bool = _sidecar, when: str = _when, how: str = _how
            ) -> None:
                lifecycle = {"lifecycle": {when: handler(scene, how, "word")}}
                one = container(POLITE, **MOUNT, **lifecycle)
                more: dict[str, Any] = {**volume(scene), "terminationGracePeriodSeconds": 15}
                if sidecar:
                    more["initContainers"] = [one | {"name": "s", "restartPolicy": "Always"}]
                    one = container(POLITE)
                await scene.ready(pod(one, **more))
                if when == "postStart":
                    assert was_called(scene, how, "word")
                else:
                    assert not was_called(scene, how, "word")
                await scene.delete("pods", "p")
                await scene.is_gone("p")
                assert was_called(scene, how, "word")


@case(
    "Hooks",
    "preStop that sleeps",
    "e2e/common/node/lifecycle_hook.go [PodLifecycleSleepAction] [Conformance]",
)
async def sleeps(scene: Scene) -> None:
    script = "trap 'date +%s > /shared/ended; exit 0' TERM; while :; do sleep 0.1; done"
    lifecycle = {"lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}
    await scene.ready(
        pod(container(script, **MOUNT, **lifecycle), **volume(scene), terminationGracePeriodSeconds=30)
    )
    began = asyncio.get_running_loop().time()
    await scene.delete("pods", "p")
    await scene.is_gone("p")
    assert asyncio.get_running_loop().time() - began >= 4.5
    assert (shared(scene) / "ended").exists()


@case(
    "Hooks",
    "preStop that sleeps longer than the grace is cut",
    "e2e/common/node/lifecycle_hook.go [PodLifecycleSleepAction]",
)
async def sleeps_too_long(scene: Scene) -> None:
    lifecycle = {"lifecycle": {"preStop": {"sleep": {"seconds": 20}}}}
    await scene.ready(pod(container("sleep 600", **lifecycle), terminationGracePeriodSeconds=20))
    await scene.delete("pods", "p", gracePeriodSeconds=2)
    await scene.is_gone("p", 20)


@case(
    "Hooks",
    "a sleep of zero does nothing",
    "e2e/common/node/lifecycle_hook.go [PodLifecycleSleepActionAllowZero]",
)
async def sleeps_not(scene: Scene) -> None:
    lifecycle = {"lifecycle": {"preStop": {"sleep": {"seconds": 0}}}}
    await scene.ready(pod(container("sleep 600", **lifecycle)))
    await scene.delete("pods", "p")
    await scene.is_gone("p")


@case("Hooks", "postStart that fails ends the container and says so", "e2e_node/container_lifecycle_test.go")
async def failing(scene: Scene) -> None:
    lifecycle = {"lifecycle": {"postStart": {"exec": {"command": ["sh", "-c", "echo no luck; exit 3"]}}}}
    await scene.start(pod(container("sleep 600", **lifecycle), restartPolicy="Always"))
    await scene.event("p", "FailedPostStartHook")
    await scene.until("p", lambda p: restarts(p) >= 1, "a restart")


@case(
    "Hooks",
    "preStop that fails is told, and the container ends all the same",
    "e2e_node/container_lifecycle_test.go",
)
async def failing_pre_stop(scene: Scene) -> None:
    lifecycle = {"lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "exit 3"]}}}}
    await scene.ready(pod(container("sleep 600", **lifecycle)))
    await scene.delete("pods", "p")
    await scene.is_gone("p")
    await scene.event("p", "FailedPreStopHook")


@case(
    "Hooks",
    "preStop is called when a liveness probe ends the container",
    "e2e_node/container_lifecycle_test.go [NodeConformance]",
)
async def pre_stop_of_liveness(scene: Scene) -> None:
    made = container(
        "sleep 600",
        **MOUNT,
        lifecycle={"preStop": handler(scene, "exec", "stopping")},
        livenessProbe={
            "exec": {"command": ["false"]},
            "periodSeconds": 1,
            "failureThreshold": 1,
            "initialDelaySeconds": 1,
        },
    )
    await scene.start(pod(made, **volume(scene), restartPolicy="Always", terminationGracePeriodSeconds=10))
    await scene.until("p", lambda p: restarts(p) >= 1, "a restart")
    assert was_called(scene, "exec", "stopping")


@case("Hooks", "a stopSignal of one's own", "e2e/common/node/lifecycle_hook.go [ContainerStopSignals]")
async def stop_signal(scene: Scene) -> None:
    version = (await scene.world.call("GET", f"/api/v1/nodes/{scene.world.node}"))["status"]["nodeInfo"]
    if version["containerRuntimeVersion"].startswith("containerd://1."):
        raise NotHere("containerd takes stop signals of pods since 2.1, for a kubelet, too")
    script = (
        "trap 'echo usr1 > /shared/signal; exit 0' USR1; trap 'echo term > /shared/signal; exit 0' TERM; "
        "while :; do sleep 0.1; done"
    )
    made = pod(
        container(script, **MOUNT, lifecycle={"stopSignal": "SIGUSR1"}),
        **volume(scene),
        os={"name": "linux"},
        terminationGracePeriodSeconds=10,
    )
    await scene.ready(made)
    await scene.delete("pods", "p")
    await scene.is_gone("p")
    assert (shared(scene) / "signal").read_text() == "usr1\n"
