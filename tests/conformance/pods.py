"""Pods as objects: what the API and the node make of creating, changing and deleting them."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import aiohttp

from tests.conformance.case import (
    POLITE,
    NotHere,
    Scene,
    case,
    condition,
    container,
    is_ready,
    pod,
    restarts,
    status_of,
)
from tests.conformance.environment import CONFORMANCE
from tests.conformance.images import USER
from tests.conformance.world import BUSYBOX, ApiError

SOURCE = "e2e/common/node/pods.go"


@case("Pods", "get the node's address", f"{SOURCE} {CONFORMANCE}")
async def host_ip(scene: Scene) -> None:
    ready = await scene.ready(pod("sleep 600"))
    status = ready["status"]
    assert status["hostIP"] == status["hostIPs"][0]["ip"] == scene.world.host
    assert status["podIP"] == status["podIPs"][0]["ip"]


@case("Pods", "are watched from creation to deletion", f"{SOURCE} {CONFORMANCE}", quick=True)
async def lifecycle(scene: Scene) -> None:
    await scene.start(
        pod(POLITE, meta={"labels": {"time": scene.namespace}}, terminationGracePeriodSeconds=30)
    )
    listed = await scene.world.call("GET", scene.path("pods"), labelSelector=f"time={scene.namespace}")
    assert len(listed["items"]) == 1
    await scene.ready("p")
    await scene.delete("pods", "p")
    await scene.until("p", lambda p: "deletionTimestamp" in p["metadata"], "deletionTimestamp")
    assert scene.seen("p")[-1]["metadata"]["deletionGracePeriodSeconds"] == 30
    await scene.is_gone("p")
    listed = await scene.world.call("GET", scene.path("pods"), labelSelector=f"time={scene.namespace}")
    assert listed["items"] == []


@case("Pods", "labels change while they run", f"{SOURCE} {CONFORMANCE}")
async def updated(scene: Scene) -> None:
    await scene.ready(pod("sleep 600", meta={"labels": {"time": "1"}}))
    await scene.patch("pods", "p", {"metadata": {"labels": {"time": "2"}}})
    listed = await scene.world.call("GET", scene.path("pods"), labelSelector="time=2")
    assert [one["metadata"]["name"] for one in listed["items"]] == ["p"]
    assert restarts(listed["items"][0]) == 0


@case("Pods", "activeDeadlineSeconds set while they run ends them", f"{SOURCE} {CONFORMANCE}")
async def deadline(scene: Scene) -> None:
    await scene.ready(pod("sleep 600", restartPolicy="Always"))
    await scene.patch("pods", "p", {"spec": {"activeDeadlineSeconds": 5}})
    seen = await scene.until("p", lambda p: p["status"]["phase"] == "Failed", "Failed")
    assert seen["status"]["reason"] == "DeadlineExceeded", seen["status"]
    assert "Pod was active on the node longer than the specified deadline" in seen["status"]["message"]


@case("Pods", "a collection of them is deleted", f"{SOURCE} [Conformance]")
async def collection(scene: Scene) -> None:
    for name in ("a", "b", "c"):
        await scene.start(pod("sleep 600", name=name, meta={"labels": {"type": "Testing"}}))
    for name in ("a", "b", "c"):
        await scene.ready(name)
    await scene.world.call(
        "DELETE", scene.path("pods"), {"gracePeriodSeconds": 1}, labelSelector="type=Testing"
    )
    for name in ("a", "b", "c"):
        await scene.is_gone(name)


@case("Pods", "their status is patched, and the node has the last word", f"{SOURCE} [Conformance]")
async def patched_status(scene: Scene) -> None:
    await scene.ready(pod("sleep 600"))
    told = await scene.patch(
        "pods", "p", {"status": {"message": "Patched by e2e test", "reason": "E2E"}}, "status"
    )
    assert (told["status"]["message"], told["status"]["reason"]) == ("Patched by e2e test", "E2E")


@case("Pods", "the life of a pod and of its status", f"{SOURCE} [Conformance]")
async def all_of_it(scene: Scene) -> None:
    await scene.ready(pod("sleep 600", meta={"labels": {"static": "true"}}, restartPolicy="Always"))
    change = {
        "metadata": {"labels": {"more": "patched"}},
        "spec": {"containers": [{"name": "c", "image": USER}]},
    }
    await scene.patch("pods", "p", change, how="strategic")
    seen = await scene.until(
        "p",
        lambda p: restarts(p) == 1 and status_of(p)["image"] == USER and is_ready(p),
        "the other image, ready",
    )
    assert seen["metadata"]["labels"]["more"] == "patched"
    got = await scene.world.call("GET", scene.path("pods", "p", "status"))
    for one in got["status"]["conditions"]:
        if one["type"] in ("Ready", "ContainersReady"):
            one["status"] = "False"
    put = await scene.world.call("PUT", scene.path("pods", "p", "status"), got)
    assert not is_ready(put)
    await scene.world.call(
        "DELETE", scene.path("pods"), {"gracePeriodSeconds": 1}, labelSelector="static=true"
    )
    await scene.is_gone("p")


@case("Pods", "readiness gates decide with the containers", f"{SOURCE} [NodeConformance]", quick=True)
async def gates(scene: Scene) -> None:
    kinds = ("k8s.io/one", "k8s.io/two")
    await scene.start(pod("sleep 600", readinessGates=[{"conditionType": kind} for kind in kinds]))
    await scene.until(
        "p", lambda p: condition(p, "ContainersReady").get("status") == "True", "containers ready"
    )
    assert condition(scene.seen("p")[-1], "Ready")["reason"] == "ReadinessGatesNotReady"

    async def say(kind: str, status: str) -> None:
        change = {"status": {"conditions": [{"type": kind, "status": status}]}}
        await scene.patch("pods", "p", change, "status", how="strategic")

    await say(kinds[0], "True")
    await asyncio.sleep(2)
    assert not is_ready(scene.seen("p")[-1])
    await say(kinds[1], "True")
    await scene.ready("p")
    await say(kinds[0], "False")
    await scene.until("p", lambda p: not is_ready(p), "not ready")


@case(
    "Pods",
    "another image restarts the container at once, and its back-off is new",
    f"{SOURCE} [Slow] [NodeConformance]",
)
async def image_update(scene: Scene) -> None:
    await scene.start(pod("sleep 1; exit 1", restartPolicy="Always"))
    await scene.until("p", lambda p: restarts(p) >= 2, "two restarts", 180)
    await scene.until("p", lambda p: "CrashLoopBackOff" in str(status_of(p).get("state")), "CrashLoopBackOff")
    began = asyncio.get_running_loop().time()
    await scene.patch(
        "pods", "p", [{"op": "replace", "path": "/spec/containers/0/image", "value": USER}], how="json"
    )
    await scene.until("p", lambda p: status_of(p)["image"] == USER and restarts(p) >= 3, "the other image")
    assert asyncio.get_running_loop().time() - began < 15


@case("Pods", "quality of service by requests and limits", "e2e/node/pods.go [Conformance]")
async def quality(scene: Scene) -> None:
    both = {"cpu": "100m", "memory": "32Mi"}
    for name, resources, quality in (
        ("g", {"requests": both, "limits": both}, "Guaranteed"),
        ("l", {"limits": both}, "Guaranteed"),
        ("b", {"requests": both}, "Burstable"),
        ("n", {}, "BestEffort"),
    ):
        await scene.start(pod(container("true", resources=resources), name=name))
        seen = await scene.until(name, lambda p: p["status"].get("phase") == "Succeeded", "its end")
        assert seen["status"]["qosClass"] == quality, (name, seen["status"]["qosClass"])


# -- exec and logs over websockets


@case("Streams", "exec over a websocket", f"{SOURCE} {CONFORMANCE}", quick=True)
async def exec_websocket(scene: Scene) -> None:
    await scene.ready(pod("sleep 600"))
    for protocol in ("v4.channel.k8s.io", "v5.channel.k8s.io", "channel.k8s.io"):
        query = [
            ("command", word) for word in ("sh", "-c", "echo remote execution test; echo err >&2; exit 0")
        ]
        out, problem, _ = await scene.world.channels(
            scene.path("pods", "p", "exec"),
            [*query, ("stdout", "1"), ("stderr", "1"), ("container", "c")],
            protocol,
        )
        assert (out, problem) == ("remote execution test\n", "err\n"), (protocol, out, problem)


@case("Streams", "the exit code of a command", f"{SOURCE} [NodeConformance]")
async def exit_code(scene: Scene) -> None:
    await scene.ready(pod("sleep 600"))
    _, _, status = await scene.exec("p", "sh", "-c", "exit 42")
    assert status["reason"] == "NonZeroExitCode", status
    assert {"reason": "ExitCode", "message": "42"} in status["details"]["causes"], status
    _, _, status = await scene.exec("p", "/no/such")
    assert status["status"] == "Failure", status


@case("Streams", "logs over a websocket", f"{SOURCE} {CONFORMANCE}", quick=True)
async def logs_websocket(scene: Scene) -> None:
    await scene.ready(pod("echo container is alive; sleep 600"))
    said = b""
    async with scene.world.http.ws_connect(
        scene.world.url + scene.path("pods", "p", "log"),
        params={"container": "c"},
        protocols=("binary.k8s.io",),
    ) as socket:
        async for message in socket:
            assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), message
            said += message.data if isinstance(message.data, bytes) else message.data.encode()
    assert said == b"container is alive\n", said


@case(
    "Streams",
    "the log of a container before its restart, and parts of a log",
    "e2e/kubectl/logs.go [Conformance]",
)
async def logs(scene: Scene) -> None:
    script = (
        "echo x >> /v/n; for i in 1 2 3 4; do echo line $i of $(wc -l < /v/n); done; "
        "test $(wc -l < /v/n) -ge 2 || exit 1; sleep 600"
    )
    made = pod(
        container(script, volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        volumes=[{"name": "v", "emptyDir": {}}],
        restartPolicy="Always",
    )
    await scene.start(made)
    await scene.until("p", lambda p: restarts(p) == 1 and "running" in status_of(p)["state"], "a restart")
    await scene.settled(lambda: complete(scene), "all lines")
    assert await scene.logs("p", previous="true") == "".join(f"line {n} of 1\n" for n in range(1, 5))
    assert await scene.logs("p", tailLines="2") == "line 3 of 2\nline 4 of 2\n"
    assert await scene.logs("p", limitBytes="6") == "line 1"
    assert re.match(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|[+-]\d\d:\d\d) line 1 of 2\n",
        await scene.logs("p", timestamps="true"),
    )
    assert await scene.logs("p", sinceSeconds="3600") != ""


async def complete(scene: Scene) -> bool:
    return "line 4 of 2" in await scene.logs("p")


# -- generations


@case(
    "Generations",
    "begin with 1, grow with each change of the spec, and the node tells which it has",
    f"{SOURCE} [Conformance 1.35]",
    quick=True,
)
async def generation(scene: Scene) -> None:
    ready = await scene.ready(pod("sleep 600", restartPolicy="Always", terminationGracePeriodSeconds=3))
    assert ready["metadata"]["generation"] == 1
    expected = 1
    for what, change, grows in (
        ("a label", {"metadata": {"labels": {"a": "b"}}}, False),
        ("an annotation", {"metadata": {"annotations": {"a": "b"}}}, False),
        ("the image", {"spec": {"containers": [{"name": "c", "image": USER}]}}, True),
        ("the same image", {"spec": {"containers": [{"name": "c", "image": USER}]}}, False),
        (
            "a toleration",
            [{"op": "add", "path": "/spec/tolerations/-", "value": {"operator": "Exists"}}],
            True,
        ),
        ("a deadline", {"spec": {"activeDeadlineSeconds": 500}}, True),
    ):
        how = "json" if isinstance(change, list) else "strategic"
        told = await scene.patch("pods", "p", change, how=how)
        expected += grows
        assert told["metadata"]["generation"] == expected, (what, told["metadata"]["generation"])
        await scene.until(
            "p",
            lambda p, n=expected: p["status"].get("observedGeneration") == n,
            f"generation {expected} seen by the node",
        )
    await scene.patch(
        "pods",
        "p",
        {"spec": {"ephemeralContainers": [container("sleep 600", name="e")]}},
        "ephemeralcontainers",
        how="strategic",
    )
    await scene.until(
        "p", lambda p: p["status"].get("observedGeneration") == expected + 1, "an ephemeral container"
    )
    await scene.delete("pods", "p")
    seen = await scene.until("p", lambda p: "deletionTimestamp" in p["metadata"], "deletionTimestamp")
    assert seen["metadata"]["generation"] == expected + 2, seen["metadata"]


@case("Generations", "one that a client sets counts for nothing", f"{SOURCE} [Conformance 1.35]")
async def own_generation(scene: Scene) -> None:
    await scene.start(pod("sleep 600", meta={"generation": 100}, terminationGracePeriodSeconds=3))
    ready = await scene.ready("p")
    assert ready["metadata"]["generation"] == 1
    await scene.delete("pods", "p")
    await scene.until("p", lambda p: p["metadata"]["generation"] == 2, "generation 2")


@case("Generations", "many changes are all seen in the end", f"{SOURCE} [Conformance 1.35]")
async def many_changes(scene: Scene) -> None:
    await scene.ready(pod("sleep 600"))
    for number in range(100):
        await scene.patch("pods", "p", {"spec": {"activeDeadlineSeconds": 5000 - number}}, how="strategic")
    seen = await scene.until("p", lambda p: p["status"].get("observedGeneration") == 101, "generation 101")
    assert seen["metadata"]["generation"] == 101


@case("Generations", "a pod that the node refuses has one, too", f"{SOURCE} [Conformance 1.35]")
async def refused_generation(scene: Scene) -> None:
    made = pod(container("true", resources={"requests": {"cpu": "500"}}), nodeName=scene.world.node)
    await scene.start(made)
    seen = await scene.until("p", lambda p: p["status"].get("phase") == "Failed", "Failed")
    assert (seen["metadata"]["generation"], seen["status"]["observedGeneration"]) == (1, 1)


@case("Generations", "conditions have one", f"{SOURCE} [Conformance 1.35]")
async def condition_generation(scene: Scene) -> None:
    ready = await scene.ready(pod("sleep 600"))
    assert [one.get("observedGeneration") for one in ready["status"]["conditions"]] == [1] * 5
    await scene.patch("pods", "p", {"spec": {"activeDeadlineSeconds": 5000}})
    await scene.until(
        "p",
        lambda p: [one.get("observedGeneration") for one in p["status"]["conditions"]] == [2] * 5,
        "generation 2 in all",
    )


# -- admission by the node


@case(
    "Admission", "a pod for another system is refused", "e2e/common/node/pod_admission.go [NodeConformance]"
)
async def other_system(scene: Scene) -> None:
    await scene.start(pod("true", os={"name": "windows"}, nodeName=scene.world.node))
    seen = await scene.until("p", lambda p: p["status"].get("phase") == "Failed", "Failed")
    assert seen["status"]["reason"] == "PodOSNotSupported", seen["status"]


@case(
    "Admission",
    "a pod that is too large for the node is refused, with all its containers in the status",
    "e2e/common/node/pod_admission.go",
)
async def too_large(scene: Scene) -> None:
    made = pod(
        container("true", resources={"requests": {"cpu": "500"}}),
        initContainers=[container("true", name="i")],
        nodeName=scene.world.node,
    )
    await scene.start(made)
    seen = await scene.until("p", lambda p: p["status"].get("phase") == "Failed", "Failed")
    assert seen["status"]["reason"] == "OutOfcpu", seen["status"]
    assert "Node didn't have enough resource: cpu, requested: 500000" in seen["status"]["message"]
    for kind, name in (("containerStatuses", "c"), ("initContainerStatuses", "i")):
        assert status_of(seen, name, kind).get("state", {}).get("waiting") or status_of(seen, name, kind).get(
            "state", {}
        ).get("terminated"), seen["status"]


@case("Admission", "a pod whose node selector does not fit its node is refused", "e2e_node")
async def selector(scene: Scene) -> None:
    await scene.start(pod("true", nodeSelector={"no": "such"}, nodeName=scene.world.node))
    seen = await scene.until("p", lambda p: p["status"].get("phase") == "Failed", "Failed")
    assert seen["status"]["reason"] == "NodeAffinity", seen["status"]


@case("Admission", "host ports of two pods collide", "e2e_node")
async def ports(scene: Scene) -> None:
    one = container("sleep 600", ports=[{"containerPort": 80, "hostPort": 21999}])
    await scene.ready(pod(one, name="a", nodeName=scene.world.node))
    await scene.start(pod(one, name="b", nodeName=scene.world.node))
    seen = await scene.until("b", lambda p: p["status"].get("phase") == "Failed", "Failed")
    assert seen["status"]["reason"] == "NodePorts", seen["status"]


# -- runtime classes

NODE_API = "/apis/node.k8s.io/v1/runtimeclasses"
CLASSES = "e2e/common/node/runtimeclass.go"


async def runtime_class(scene: Scene, handler: str, **more: Any) -> str:
    name = f"{scene.namespace}-class"
    made = {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": name},
        "handler": handler,
        **more,
    }
    await scene.world.call("POST", NODE_API, made)
    return name


@case("Runtime classes", "a pod of one that is not there is refused", f"{CLASSES} {CONFORMANCE}")
async def no_class(scene: Scene) -> None:
    await scene.refused(pod("true", runtimeClassName="no-such"), "RuntimeClass", "no-such")


@case("Runtime classes", "a pod of one that was deleted is refused", f"{CLASSES} {CONFORMANCE}")
async def deleted_class(scene: Scene) -> None:
    name = await runtime_class(scene, "runc")
    await scene.world.call("DELETE", f"{NODE_API}/{name}")
    await scene.refused(pod("true", runtimeClassName=name), "RuntimeClass")


for _overhead in (None, {"cpu": "10m", "memory": "1Mi"}):

    @case(
        "Runtime classes",
        f"a pod runs with one {'with' if _overhead else 'without'} overhead",
        f"{CLASSES} {CONFORMANCE}",
    )
    async def with_class(scene: Scene, overhead: Any = _overhead) -> None:
        name = await runtime_class(
            scene, "runc", **({"overhead": {"podFixed": overhead}} if overhead else {})
        )
        try:
            await scene.says(pod("true", runtimeClassName=name))
            seen = await scene.get("pods", "p")
            assert seen["spec"].get("overhead") == overhead
        finally:
            await scene.world.call("DELETE", f"{NODE_API}/{name}")


@case(
    "Runtime classes",
    "a handler that the runtime does not have holds the pod and is told",
    f"{CLASSES} [NodeConformance]",
)
async def no_handler(scene: Scene) -> None:
    name = await runtime_class(scene, "no-such-handler")
    try:
        await scene.start(pod("true", runtimeClassName=name))
        await scene.event("p", "FailedCreatePodSandBox", "no-such-handler")
    finally:
        await scene.world.call("DELETE", f"{NODE_API}/{name}")


# -- objects that the suite counts here


@case("Objects", "a ConfigMap or Secret with an empty key is refused", "e2e/common/node [Conformance]")
async def empty_key(scene: Scene) -> None:
    for kind in ("configmaps", "secrets"):
        try:
            await scene.make(kind, "o", data={"": "dmFsdWU="})
        except ApiError as error:
            assert error.code == 422, error
        else:
            raise AssertionError(f"{kind}: taken")


for _kind in ("configmaps", "secrets"):

    @case("Objects", f"the life of {_kind}", "e2e/common/node [Conformance]")
    async def object_life(scene: Scene, kind: str = _kind) -> None:
        made = await scene.make(kind, "o", data={"k": "b25l"})
        assert made["data"] == {"k": "b25l"}
        await scene.patch(
            kind, "o", {"metadata": {"labels": {"static": scene.namespace}}, "data": {"k": "dHdv"}}
        )
        listed = await scene.world.call("GET", f"/api/v1/{kind}", labelSelector=f"static={scene.namespace}")
        assert [(one["metadata"]["name"], one["data"]["k"]) for one in listed["items"]] == [("o", "dHdv")]
        await scene.world.call("DELETE", scene.path(kind), labelSelector=f"static={scene.namespace}")
        listed = await scene.world.call("GET", f"/api/v1/{kind}", labelSelector=f"static={scene.namespace}")
        assert listed["items"] == []


@case("Objects", "the life of pod templates", "e2e/common/node/podtemplates.go [Conformance]")
async def templates(scene: Scene) -> None:
    base = scene.path("podtemplates")
    for name in ("a", "b"):
        made = {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": {"name": name, "labels": {"set": "true"}},
            "template": {
                "metadata": {"labels": {"x": "y"}},
                "spec": {"containers": [{"name": "c", "image": BUSYBOX}]},
            },
        }
        await scene.world.call("POST", base, made)
    got = await scene.world.call("GET", f"{base}/a")
    got["metadata"]["annotations"] = {"updated": "true"}
    put = await scene.world.call("PUT", f"{base}/a", got)
    assert put["metadata"]["annotations"] == {"updated": "true"}
    await scene.world.call("DELETE", base, labelSelector="set=true")
    assert (await scene.world.call("GET", base))["items"] == []


@case("Objects", "the life of leases", "e2e/common/node/lease.go [Conformance]")
async def leases(scene: Scene) -> None:
    spec = {
        "holderIdentity": "holder",
        "leaseDurationSeconds": 30,
        "leaseTransitions": 0,
        "acquireTime": "2026-01-01T00:00:00.000000Z",
        "renewTime": "2026-01-01T00:00:05.123456Z",
    }
    made = await scene.make("leases", "l", spec=spec)
    assert made["spec"] == spec, made["spec"]
    got = await scene.get("leases", "l")
    got["spec"]["leaseTransitions"] = 1
    put = await scene.world.call("PUT", scene.path("leases", "l"), got)
    assert put["spec"]["leaseTransitions"] == 1
    told = await scene.patch("leases", "l", {"spec": {"leaseDurationSeconds": 60}}, how="strategic")
    assert told["spec"]["leaseDurationSeconds"] == 60
    await scene.world.call("DELETE", scene.path("leases", "l"))
    try:
        await scene.get("leases", "l")
    except ApiError as error:
        assert error.code == 404, error
    else:
        raise AssertionError("still there")


@case("Objects", "runtime classes: discovery, life, watch", f"{CLASSES} [Conformance]")
async def class_objects(scene: Scene) -> None:
    found = await scene.world.call("GET", "/apis/node.k8s.io/v1")
    kinds = {one["name"]: one for one in found["resources"]}
    assert set(kinds["runtimeclasses"]["verbs"]) >= {
        "create",
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "update",
        "watch",
    }
    name = await runtime_class(scene, "h")
    told = await scene.world.call(
        "PATCH",
        f"{NODE_API}/{name}",
        {"metadata": {"annotations": {"a": "b"}}},
        kind="application/merge-patch+json",
    )
    assert told["metadata"]["annotations"] == {"a": "b"}
    try:
        await scene.world.call(
            "PATCH", f"{NODE_API}/{name}", {"handler": "other"}, kind="application/merge-patch+json"
        )
    except ApiError as error:
        assert error.code == 422, error
    else:
        raise AssertionError("the handler cannot change")
    await scene.world.call("DELETE", f"{NODE_API}/{name}")


@case("Conditions", "come in order, with times that fit", "e2e_node/pod_conditions_test.go [NodeConformance]")
async def conditions(scene: Scene) -> None:
    ready = await scene.ready(pod("sleep 600", initContainers=[container("sleep 2", name="i")]))
    times = {one["type"]: one["lastTransitionTime"] for one in ready["status"]["conditions"]}
    assert {one["status"] for one in ready["status"]["conditions"]} == {"True"}
    assert (
        times["PodScheduled"]
        <= times["PodReadyToStartContainers"]
        <= times["Initialized"]
        <= times["ContainersReady"]
        <= times["Ready"]
    ), times
    assert times["PodReadyToStartContainers"] < times["Initialized"], times


@case(
    "Conditions",
    "of a pod whose volume cannot be mounted",
    "e2e_node/pod_conditions_test.go [NodeConformance]",
)
async def stuck_conditions(scene: Scene) -> None:
    made = pod(
        container("true", volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        volumes=[{"name": "v", "secret": {"secretName": "no"}}],
    )
    await scene.start(made)
    await scene.event("p", "FailedMount")
    expected = {
        "PodScheduled": "True",
        "Initialized": "True",
        "PodReadyToStartContainers": "False",
        "Ready": "False",
    }
    await scene.until(
        "p",
        lambda p: all(condition(p, kind).get("status") == is_ for kind, is_ in expected.items()),
        "its conditions",
    )


@case("Conditions", "of a pod that has ended", "e2e_node/pod_conditions_test.go")
async def ended_conditions(scene: Scene) -> None:
    ended = await scene.ran(pod("true"))
    seen = {one["type"]: (one["status"], one.get("reason")) for one in ended["status"]["conditions"]}
    assert seen["Ready"] == seen["ContainersReady"] == ("False", "PodCompleted"), seen
    assert seen["Initialized"] == ("True", "PodCompleted"), seen
    await scene.until(
        "p",
        lambda p: condition(p, "PodReadyToStartContainers").get("status") == "False",
        "no sandbox any more",
    )


@case("Pods", "two hundred words of JSON in an annotation reach the node unchanged", "e2e_node")
async def annotation(scene: Scene) -> None:
    text = json.dumps({str(number): 'ä"\\\n' for number in range(200)})
    field = {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['a']"}}}
    said = await scene.says(pod(container('printf %s "$A"', env=[field]), meta={"annotations": {"a": text}}))
    assert said == text


@case(
    "Pods",
    "a mirror of a static pod, kept, and made again after it is deleted",
    "e2e_node/mirror_pod_test.go [NodeConformance]",
)
async def mirror(scene: Scene) -> None:
    raise NotHere(
        "the trial's edge has no folder of static pods; tests/integration/edged/test_static.py asks this"
    )
