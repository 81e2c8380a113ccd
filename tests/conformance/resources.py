"""Resources: what the kernel is told, what happens at a limit, and changes in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conformance.case import NotHere, Scene, case, condition, container, pod, restarts, status_of

RESIZE = "e2e/common/node/pod_resize.go [InPlacePodVerticalScaling]"
_MEMORY = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"
_QUOTA = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 /sys/fs/cgroup/cpu.max"


def amounts(cpu: str, memory: str, cpu_limit: str = "", memory_limit: str = "") -> dict[str, Any]:
    return {
        "requests": {"cpu": cpu, "memory": memory},
        "limits": {"cpu": cpu_limit or cpu, "memory": memory_limit or memory},
    }


@case(
    "Limits",
    "are what the container's own groups say",
    "e2e_node/pods_container_manager_test.go [NodeConformance]",
    quick=True,
)
async def limits(scene: Scene) -> None:
    said = await scene.says(
        pod(container(f"{_MEMORY}; {_QUOTA}", resources=amounts("100m", "32Mi", "500m", "64Mi")))
    )
    assert said.split() == [str(64 << 20), "50000"], said


for _init in (False, True):

    @case(
        "Limits",
        f"more memory than allowed: OOMKilled{', also of an init container' if _init else ''}",
        "e2e_node/oomkiller_linux_test.go [NodeConformance]",
    )
    async def oom(scene: Scene, init: bool = _init) -> None:
        eater = container("tail /dev/zero", name="eater", resources=amounts("10m", "15Mi"))
        made = pod("true", initContainers=[eater]) if init else pod(eater)
        ended = await scene.ran(made)
        state = status_of(ended, "eater", "initContainerStatuses" if init else "containerStatuses")["state"][
            "terminated"
        ]
        assert (state["reason"], state["exitCode"]) == ("OOMKilled", 137), state


@case(
    "Limits",
    "one process of several over the limit ends the container",
    "e2e_node/oomkiller_linux_test.go [NodeConformance]",
)
async def oom_child(scene: Scene) -> None:
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        raise NotHere("cgroups v1 ends one process only, here and under a kubelet")
    made = container("sh -c 'tail /dev/zero'; sleep 600", name="eater", resources=amounts("10m", "15Mi"))
    await scene.start(pod(made))
    seen = await scene.until(
        "p", lambda p: "terminated" in status_of(p, "eater").get("state", {}), "its end", 20
    )
    assert status_of(seen, "eater")["state"]["terminated"]["reason"] == "OOMKilled"


@case("Limits", "status tells what is set and what is allocated", RESIZE)
async def told(scene: Scene) -> None:
    resources = amounts("100m", "32Mi", "200m", "64Mi")
    ready = await scene.ready(pod(container("sleep 600", resources=resources)))
    seen = status_of(ready)
    assert seen["resources"] == resources, seen
    assert seen["allocatedResources"] == resources["requests"], seen


async def resize(scene: Scene, resources: dict[str, Any]) -> None:
    change = {"spec": {"containers": [{"name": "c", "resources": resources}]}}
    await scene.patch("pods", "p", change, "resize", how="strategic")


for _asks, _before, _after in (
    ("more of both", amounts("100m", "32Mi"), amounts("200m", "64Mi")),
    ("less cpu", amounts("200m", "64Mi"), amounts("100m", "64Mi")),
    (
        "other requests and limits",
        amounts("100m", "32Mi", "200m", "64Mi"),
        amounts("150m", "40Mi", "300m", "80Mi"),
    ),
):

    @case("Resize", f"{_asks}, without a restart", RESIZE, quick=_asks == "more of both")
    async def resized(scene: Scene, before: Any = _before, after: Any = _after) -> None:
        await scene.ready(pod(container("sleep 600", resources=before)))
        await resize(scene, after)
        seen = await scene.until(
            "p", lambda p: status_of(p).get("resources") == after, "the new resources in the status"
        )
        assert restarts(seen) == 0
        said = (await scene.sh("p", f"{_MEMORY}; {_QUOTA}")).split()
        memory, cpu = after["limits"]["memory"], after["limits"]["cpu"]
        assert said == [str(int(memory[:-2]) << 20), str(int(cpu[:-1]) * 100)], said
        await scene.until(
            "p",
            lambda p: (
                p["status"].get("observedGeneration") == 2
                and not condition(p, "PodResizeInProgress")
                and not condition(p, "PodResizePending")
            ),
            "no resize under way",
        )


@case("Resize", "memory that wants a restart restarts the container", RESIZE)
async def restart_on_resize(scene: Scene) -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    await scene.ready(
        pod(
            container("sleep 600", resources=amounts("100m", "32Mi"), resizePolicy=policy),
            restartPolicy="Always",
        )
    )
    after = amounts("100m", "64Mi")
    await resize(scene, after)
    await scene.until(
        "p",
        lambda p: restarts(p) == 1 and status_of(p).get("resources") == after,
        "a restart with the new memory",
    )
    assert (await scene.sh("p", _MEMORY)).strip() == str(64 << 20)


@case("Resize", "more than the node ever has is not feasible, and told", RESIZE)
async def infeasible(scene: Scene) -> None:
    await scene.ready(pod(container("sleep 600", resources=amounts("100m", "32Mi"))))
    await resize(scene, amounts("500", "32Mi"))
    seen = await scene.until("p", lambda p: condition(p, "PodResizePending"), "PodResizePending")
    assert condition(seen, "PodResizePending")["reason"] == "Infeasible", seen["status"]
    assert status_of(seen)["allocatedResources"]["cpu"] == "100m"


@case("Resize", "another class of quality is refused", RESIZE)
async def other_class(scene: Scene) -> None:
    await scene.ready(pod(container("sleep 600", resources=amounts("100m", "32Mi"))))
    try:
        await resize(scene, amounts("100m", "32Mi", "200m", "64Mi"))
    except Exception as error:
        assert "422" in str(error), error
        assert "Pod QOS Class" in str(error), error
    else:
        raise AssertionError("taken")


@case("Pod-level resources", "limit the pod as a whole", "e2e/common/node/pod_level_resources.go")
async def pod_level(scene: Scene) -> None:
    made = pod(container("tail /dev/zero", name="eater"), resources=amounts("100m", "20Mi"))
    ended = await scene.ran(made)
    assert ended["status"]["qosClass"] == "Guaranteed"
    assert status_of(ended, "eater")["state"]["terminated"]["exitCode"] == 137


@case(
    "Ephemeral storage",
    "an emptyDir beyond its limit ends the pod",
    "e2e_node/eviction_test.go",
)
async def too_much(scene: Scene) -> None:
    made = pod(
        container(
            "dd if=/dev/zero of=/v/f bs=1M count=8; sleep 600",
            volumeMounts=[{"name": "v", "mountPath": "/v"}],
        ),
        volumes=[{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}],
    )
    await scene.start(made)
    seen = await scene.until("p", lambda p: p["status"].get("phase") == "Failed", "Failed", 240)
    assert seen["status"]["reason"] == "Evicted", seen["status"]
    assert 'Usage of EmptyDir volume "v" exceeds the limit "1Mi"' in seen["status"]["message"], seen["status"]
    assert condition(seen, "DisruptionTarget")["reason"] == "TerminationByKubelet", seen["status"][
        "conditions"
    ]
