"""The stock kubectl against a control plane with nodes that only exist as objects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.standalone.server import control_plane, kubectl

NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "n1", "labels": {"node-role.kubernetes.io/edge": ""}},
    "status": {
        "capacity": {"cpu": "4", "memory": "8Gi", "pods": "20"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
    },
}
WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: busybox}]}
"""
CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.test.example}
spec:
  group: test.example
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, required: [size], properties: {size: {type: integer, description: how many}}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""
Run = Callable[..., Awaitable[str]]


def against_server(tmp_path: Path, story: Callable[[Run, Run], Awaitable[None]]) -> None:
    """Run a story of kubectl calls; `good` wants exit code 0, `bad` another, both give the output."""

    async def main() -> None:
        async with control_plane(tmp_path):

            async def good(*arguments: str, stdin: str | None = None) -> str:
                code, out, err = await kubectl(tmp_path, *arguments, stdin=stdin)
                assert code == 0, f"kubectl {arguments}: {err}"
                return out

            async def bad(*arguments: str, stdin: str | None = None) -> str:
                code, out, err = await kubectl(tmp_path, *arguments, stdin=stdin)
                assert code != 0, f"kubectl {arguments} succeeded: {out}"
                return err

            await story(good, bad)

    asyncio.run(main())


async def read(good: Run, *arguments: str) -> Any:
    return json.loads(await good("get", *arguments, "-o", "json"))


async def eventually(check: Callable[[], Awaitable[bool]], timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not await check():
            await asyncio.sleep(0.1)


def test_objects(tmp_path: Path) -> None:
    async def story(good: Run, bad: Run) -> None:
        await good("create", "configmap", "a", "--from-literal=k=v")
        await good("create", "secret", "generic", "s", "--from-literal=p=q")
        assert (await read(good, "secret", "s"))["data"] == {"p": "cQ=="}
        await good("label", "configmap", "a", "x=y")
        await good("annotate", "configmap", "a", "note=here")
        assert await good("get", "configmap", "-l", "x=y", "-o", "name") == "configmap/a\n"
        await good("patch", "configmap", "a", "--type=merge", "-p", '{"data":{"k":null,"n":"1"}}')
        assert (await read(good, "configmap", "a"))["data"] == {"n": "1"}
        changed = json.dumps({**await read(good, "configmap", "a"), "data": {"r": "1"}})
        await good("replace", "-f", "-", stdin=changed)
        assert "the object has been modified" in await bad("replace", "-f", "-", stdin=changed)
        assert "unchanged" not in await good("apply", "-f", "-", stdin=WEB)
        assert "unchanged" in await good("apply", "-f", "-", stdin=WEB)
        await good("edit", "configmap", "a")
        await good("delete", "configmap", "a")
        assert 'configmaps "a" not found' in await bad("get", "configmap", "a")
        unknown = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndta: {}\n"
        assert 'unknown field "dta"' in await bad("apply", "-f", "-", stdin=unknown)
        assert "Required value" in await bad(
            "create", "-f", "-", stdin="apiVersion: v1\nkind: Pod\nmetadata: {name: b}\nspec: {}\n"
        )
        assert "<[]Container>" in await good("explain", "pod.spec.containers")
        assert "deployments" in await good("api-resources")

    against_server(tmp_path, story)


def test_a_deployment_becomes_bound_pods_and_back(tmp_path: Path) -> None:
    async def story(good: Run, bad: Run) -> None:
        await good("apply", "-f", "-", stdin=WEB)

        async def refused() -> bool:
            pods = (await read(good, "pods"))["items"]
            conditions = [c for pod in pods for c in pod["status"].get("conditions", ())]
            return len(pods) == 2 and any(
                c["reason"] == "Unschedulable" and c["message"].startswith("no nodes available")
                for c in conditions
            )

        await eventually(refused)
        await good("create", "-f", "-", stdin=json.dumps(NODE))
        await good("wait", "--for=condition=PodScheduled", "pod", "-l", "app=web", "--timeout=10s")
        pods = (await read(good, "pods", "--field-selector", "spec.nodeName=n1"))["items"]
        assert len(pods) == 2
        assert any(volume["name"].startswith("kube-api-access") for volume in pods[0]["spec"]["volumes"])
        assert "Successfully assigned" in await good("describe", "pod", pods[0]["metadata"]["name"])
        name = pods[0]["metadata"]["name"]
        await good("delete", "pod", name, "--wait=false")
        ending = await read(good, "pod", name)
        assert ending["metadata"]["deletionGracePeriodSeconds"] == 30
        await good("delete", "pod", name, "--grace-period=0", "--force")

        async def replaced() -> bool:
            names = {pod["metadata"]["name"] for pod in (await read(good, "pods"))["items"]}
            return name not in names and len(names) == 2

        await eventually(replaced)
        await good("scale", "deployment", "web", "--replicas=0")
        for pod in (await read(good, "pods"))["items"]:
            await good(
                "delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force", "--ignore-not-found"
            )
        await good("rollout", "status", "deployment", "web", "--timeout=10s")
        await good("delete", "deployment", "web")

        async def collected() -> bool:
            return not (await read(good, "replicasets"))["items"]

        await eventually(collected)

    against_server(tmp_path, story)


def test_a_rollout_waits_for_its_pods(tmp_path: Path) -> None:
    async def story(good: Run, bad: Run) -> None:
        await good("create", "-f", "-", stdin=json.dumps(NODE))
        await good("apply", "-f", "-", stdin=WEB)

        async def ready(count: int) -> None:
            """Play the kubelet until `count` pods of the newest template run."""

            async def step() -> bool:
                pods = (await read(good, "pods"))["items"]
                for pod in pods:
                    metadata = pod["metadata"]
                    if "deletionTimestamp" in metadata:
                        await good(
                            "delete",
                            "pod",
                            metadata["name"],
                            "--grace-period=0",
                            "--force",
                            "--ignore-not-found",
                        )
                    elif pod["spec"].get("nodeName") and pod["status"]["phase"] == "Pending":
                        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
                        await good(
                            "patch",
                            "pod",
                            metadata["name"],
                            "--subresource=status",
                            "-p",
                            json.dumps({"status": status}),
                        )
                web = await read(good, "deployment", "web")
                return bool(
                    web["status"].get("observedGeneration") == web["metadata"]["generation"]
                    and web["status"].get("updatedReplicas")
                    == web["status"].get("availableReplicas")
                    == count
                    and web["status"].get("replicas") == len(pods) == count
                )

            await eventually(step, 25)

        await ready(2)
        await good("set", "image", "deployment/web", "c=busybox:2")
        await ready(2)
        assert "successfully rolled out" in await good("rollout", "status", "deployment/web", "--timeout=10s")
        assert {p["spec"]["containers"][0]["image"] for p in (await read(good, "pods"))["items"]} == {
            "busybox:2"
        }
        await good("rollout", "undo", "deployment/web")
        await ready(2)
        assert {p["spec"]["containers"][0]["image"] for p in (await read(good, "pods"))["items"]} == {
            "busybox"
        }

    against_server(tmp_path, story)


def test_custom_resources(tmp_path: Path) -> None:
    async def story(good: Run, bad: Run) -> None:
        await good("apply", "-f", "-", stdin=CRD)
        await good("wait", "--for=condition=Established", "crd/widgets.test.example", "--timeout=10s")
        widget = "apiVersion: test.example/v1\nkind: Widget\nmetadata: {name: w}\nspec: {size: 3}\n"
        await good("apply", "-f", "-", stdin=widget)
        assert "SIZE" in await good("get", "wd")
        assert "how many" in await good("explain", "widget.spec.size")
        assert "must be of type integer" in await bad("apply", "-f", "-", stdin=widget.replace("3", "three"))
        await good(
            "patch", "widget", "w", "--type=merge", "--subresource=status", "-p", '{"status":{"seen":true}}'
        )
        assert (await read(good, "widget", "w"))["status"] == {"seen": True}
        await good("delete", "crd", "widgets.test.example")
        await bad("get", "widgets")

    against_server(tmp_path, story)


def test_a_namespace_goes_with_its_contents(tmp_path: Path) -> None:
    async def story(good: Run, bad: Run) -> None:
        await good("create", "namespace", "x")

        async def furnished() -> bool:
            accounts = (await read(good, "serviceaccounts", "-n", "x"))["items"]
            return bool([item["metadata"]["name"] for item in accounts] == ["default"])

        await eventually(furnished)
        await good("run", "p", "--image=busybox", "-n", "x")
        await good("create", "configmap", "c", "-n", "x")
        await good("delete", "namespace", "x", "--timeout=20s")
        assert "not found" in await bad("get", "namespace", "x")

    against_server(tmp_path, story)


def test_roles_decide(tmp_path: Path) -> None:
    async def story(good: Run, bad: Run) -> None:
        token = (await good("create", "token", "default")).strip()
        assert token.count(".") == 2
        person = ("--as", "system:serviceaccount:default:default")
        assert "cannot list resource" in await bad("get", "pods", *person)
        await good("create", "role", "r", "--verb=get,list", "--resource=pods")
        await good("create", "rolebinding", "b", "--role=r", "--serviceaccount=default:default")
        await good("get", "pods", *person)
        assert (await good("auth", "can-i", "list", "pods", *person)).strip() == "yes"
        assert "no" in (await kubectl(tmp_path, "auth", "can-i", "delete", "pods", *person))[1]

    against_server(tmp_path, story)


@pytest.mark.slow
def test_objects_survive_a_restart(tmp_path: Path) -> None:
    async def story(good: Run, bad: Run) -> None:
        await good("create", "configmap", "kept", "--from-literal=k=v")

    async def later(good: Run, bad: Run) -> None:
        assert (await read(good, "configmap", "kept"))["data"] == {"k": "v"}

    against_server(tmp_path, story)
    against_server(tmp_path, later)
