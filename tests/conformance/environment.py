"""What a container finds in its environment, its command and its arguments."""

from __future__ import annotations

import re
from typing import Any

from tests.conformance.case import Scene, case, container, pod
from tests.conformance.images import ENTRY

NODE = "e2e/common/node"
CONFORMANCE = "[NodeConformance] [Conformance]"


def field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def resource(name: str, what: str, divisor: str = "0") -> dict[str, Any]:
    reference = {"resource": what, "divisor": divisor}
    return {"name": name, "valueFrom": {"resourceFieldRef": reference}}


async def environment(scene: Scene, spec: dict[str, Any], **more: Any) -> dict[str, str]:
    said = await scene.says(pod(container("env", **spec) | {"command": ["env"]}, **more))
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


for _kind, _reference, _area in (
    ("configmaps", "configMap", "ConfigMap in variables"),
    ("secrets", "secret", "Secret in variables"),
):

    @case(_area, "a variable takes its value from a key", f"{NODE} {CONFORMANCE}", quick=True)
    async def by_key(scene: Scene, kind: str = _kind, reference: str = _reference) -> None:
        await scene.make(kind, "o", **{"data": {"k": "dmFsdWU="}})
        key = {"name": "o", "key": "k"}
        env = [{"name": "A", "valueFrom": {f"{reference}KeyRef": key}}]
        missing = {"name": "B", "valueFrom": {f"{reference}KeyRef": {**key, "key": "no", "optional": True}}}
        seen = await environment(scene, {"env": [*env, missing]})
        assert seen["A"] == ("dmFsdWU=" if kind == "configmaps" else "value"), seen
        assert "B" not in seen

    @case(_area, "all keys become variables, with a prefix", f"{NODE} {CONFORMANCE}")
    async def by_all(scene: Scene, kind: str = _kind, reference: str = _reference) -> None:
        await scene.make(kind, "o", **{"data": {"one": "MQ==", "two": "Mg=="}})
        source = {f"{reference}Ref": {"name": "o"}}
        absent = {f"{reference}Ref": {"name": "absent", "optional": True}}
        seen = await environment(scene, {"envFrom": [source, {"prefix": "p-", **source}, absent]})
        one = "MQ==" if kind == "configmaps" else "1"
        assert (seen["one"], seen["p-one"]) == (one, one), seen
        assert "two" in seen
        assert "p-two" in seen

    @case(_area, "a missing one holds the container and says so, until it is there", "e2e/common/node")
    async def held(scene: Scene, kind: str = _kind, reference: str = _reference) -> None:
        env = [{"name": "A", "valueFrom": {f"{reference}KeyRef": {"name": "o", "key": "k"}}}]
        name = await scene.start(pod(container("env", env=env)))
        await scene.until(
            name,
            lambda p: "CreateContainerConfigError" in str(p["status"].get("containerStatuses")),
            "CreateContainerConfigError",
        )
        await scene.make(kind, "o", data={"k": "dmFsdWU="})
        await scene.until(name, lambda p: p["status"].get("phase") == "Succeeded", "its end")


@case("Downward API in variables", "name, namespace and address", f"{NODE} {CONFORMANCE}", quick=True)
async def identity(scene: Scene) -> None:
    paths = {
        "NAME": "metadata.name",
        "SPACE": "metadata.namespace",
        "IP": "status.podIP",
        "IPS": "status.podIPs",
        "NODE": "spec.nodeName",
        "ACCOUNT": "spec.serviceAccountName",
    }
    seen = await environment(scene, {"env": [field(name, path) for name, path in paths.items()]})
    last = scene.seen("p")[-1]
    assert (seen["NAME"], seen["SPACE"]) == ("p", scene.namespace)
    assert seen["IP"] == last["status"]["podIP"] == seen["IPS"]
    assert (seen["NODE"], seen["ACCOUNT"]) == (scene.world.node, "default")


@case("Downward API in variables", "the node's address", f"{NODE} {CONFORMANCE}")
async def host(scene: Scene) -> None:
    env = [field("IP", "status.hostIP"), field("IPS", "status.hostIPs")]
    seen = await environment(scene, {"env": env})
    assert seen["IP"] == seen["IPS"].split(",")[0] == scene.world.host


@case("Downward API in variables", "the node's address for a pod on the host's network", NODE)
async def host_network(scene: Scene) -> None:
    env = [field("IP", "status.podIP"), field("HOST", "status.hostIP")]
    seen = await environment(scene, {"env": env}, hostNetwork=True)
    assert seen["IP"] == seen["HOST"] == scene.world.host


@case("Downward API in variables", "limits and requests of cpu and memory", f"{NODE} {CONFORMANCE}")
async def limits(scene: Scene) -> None:
    env = [
        resource("CL", "limits.cpu"),
        resource("ML", "limits.memory"),
        resource("CR", "requests.cpu"),
        resource("MR", "requests.memory"),
        resource("MILLI", "requests.cpu", "1m"),
        resource("MI", "limits.memory", "1Mi"),
    ]
    resources = {"requests": {"cpu": "25m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"}}
    seen = await environment(scene, {"env": env, "resources": resources})
    told = {name: seen[name] for name in ("CL", "ML", "CR", "MR", "MILLI", "MI")}
    assert told == {"CL": "2", "ML": "67108864", "CR": "1", "MR": "33554432", "MILLI": "25", "MI": "64"}, told


@case("Downward API in variables", "what the node can give, where no limit is set", f"{NODE} {CONFORMANCE}")
async def no_limits(scene: Scene) -> None:
    node = await scene.world.call("GET", f"/api/v1/nodes/{scene.world.node}")
    seen = await environment(
        scene,
        {"env": [resource("C", "limits.cpu"), resource("M", "limits.memory"), resource("R", "requests.cpu")]},
    )
    can = node["status"]["allocatable"]
    assert seen["C"] == can["cpu"], (seen["C"], can)
    assert seen["M"] == str(int(re.sub("Ki$", "", can["memory"])) * 1024), (seen["M"], can)
    assert seen["R"] == "0"


@case("Downward API in variables", "the pod's uid", f"{NODE} {CONFORMANCE}")
async def uid(scene: Scene) -> None:
    seen = await environment(scene, {"env": [field("UID", "metadata.uid")]})
    assert seen["UID"] == scene.seen("p")[-1]["metadata"]["uid"]


@case("Downward API in variables", "a label and an annotation by name", NODE)
async def labels(scene: Scene) -> None:
    env = [field("L", "metadata.labels['app']"), field("A", "metadata.annotations['x/y']")]
    seen = await environment(
        scene, {"env": env}, meta={"labels": {"app": "web"}, "annotations": {"x/y": "two words"}}
    )
    assert (seen["L"], seen["A"]) == ("web", "two words")


@case("Expansion", "variables are composed of earlier ones", f"{NODE}/expansion.go {CONFORMANCE}", quick=True)
async def compose(scene: Scene) -> None:
    env = [
        {"name": "FOO", "value": "foo"},
        {"name": "BAR", "value": "bar"},
        {"name": "BOTH", "value": "$(FOO);;$(BAR)"},
        {"name": "LATER", "value": "$(NEXT)"},
        {"name": "NEXT", "value": "$$(FOO)"},
    ]
    seen = await environment(scene, {"env": env})
    assert (seen["BOTH"], seen["LATER"], seen["NEXT"]) == ("foo;;bar", "$(NEXT)", "$(FOO)"), seen


@case("Expansion", "in a command", f"{NODE}/expansion.go {CONFORMANCE}")
async def command(scene: Scene) -> None:
    env = [{"name": "W", "value": "word"}]
    said = await scene.says(pod(container("sh", "-c", 'W=wrong echo "$(W)"', env=env)))
    assert said == "word\n"


@case("Expansion", "in arguments", f"{NODE}/expansion.go {CONFORMANCE}")
async def arguments(scene: Scene) -> None:
    env = [{"name": "W", "value": "word"}]
    said = await scene.says(
        pod(container("echo", env=env) | {"command": ["echo"], "args": ["$(W)", "$$(W)", "$(NO)"]})
    )
    assert said == "word $(W) $(NO)\n"


_IMAGE = {"name": "c", "image": ENTRY, "imagePullPolicy": "Never"}
for _asks, _given, _said in (
    ("nothing said: the image's own command and arguments", {}, "entry default"),
    ("other arguments for the image's command", {"args": ["mine"]}, "entry mine"),
    ("another command, without the image's arguments", {"command": ["/bin/echo", "own"]}, "own"),
    ("another command with other arguments", {"command": ["/bin/echo", "own"], "args": ["mine"]}, "own mine"),
):

    @case("Command and arguments", _asks, f"{NODE}/containers.go {CONFORMANCE}", quick="image's own" in _asks)
    async def image_defaults(scene: Scene, given: dict[str, Any] = _given, said: str = _said) -> None:
        told = await scene.says(pod(_IMAGE | given))
        assert told == f"{said}\n", told


@case("Command and arguments", "a working directory, also one that is not there yet", NODE)
async def working_directory(scene: Scene) -> None:
    said = await scene.says(pod(container("pwd", workingDir="/tmp/new/place")))
    assert said == "/tmp/new/place\n"


@case("Services in variables", "host and ports of the namespace's services", f"{NODE}/pods.go {CONFORMANCE}")
async def services(scene: Scene) -> None:
    made = await scene.make(
        "services",
        "foo-service",
        spec={"selector": {"a": "b"}, "ports": [{"port": 8765, "targetPort": 8080}]},
    )
    address = made["spec"]["clusterIP"]
    seen = await environment(scene, {})
    expected = {
        "FOO_SERVICE_SERVICE_HOST": address,
        "FOO_SERVICE_SERVICE_PORT": "8765",
        "FOO_SERVICE_PORT": f"tcp://{address}:8765",
        "FOO_SERVICE_PORT_8765_TCP": f"tcp://{address}:8765",
        "FOO_SERVICE_PORT_8765_TCP_PORT": "8765",
        "FOO_SERVICE_PORT_8765_TCP_PROTO": "tcp",
        "FOO_SERVICE_PORT_8765_TCP_ADDR": address,
    }
    assert {name: seen.get(name) for name in expected} == expected


@case("Services in variables", "the API's service; with enableServiceLinks off only that", NODE)
async def services_off(scene: Scene) -> None:
    await scene.make("services", "foo", spec={"selector": {"a": "b"}, "ports": [{"port": 80}]})
    seen = await environment(scene, {}, enableServiceLinks=False)
    assert "KUBERNETES_SERVICE_HOST" in seen
    assert "FOO_SERVICE_HOST" not in seen
