"""Every verb of the stock kubectl that makes sense against a control plane without real nodes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.integration.standalone.kubelet import kubelet
from tests.integration.standalone.server import client, control_plane, kubectl
from tests.integration.standalone.test_kubectl import WEB

Run = Callable[..., Awaitable[tuple[int, str, str]]]
MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: v}\n"


def on_server(tmp_path: Path, story: Callable[[Run], Awaitable[None]], *nodes: str) -> None:
    async def main() -> None:
        async with (
            control_plane(tmp_path) as plane,
            client(tmp_path) as session,
            kubelet(session, plane.server, *nodes),
        ):

            async def run(*arguments: str, stdin: str | None = None) -> tuple[int, str, str]:
                return await kubectl(tmp_path, *arguments, stdin=stdin)

            await story(run)

    asyncio.run(main())


async def good(run: Run, *arguments: str, stdin: str | None = None) -> str:
    code, out, err = await run(*arguments, stdin=stdin)
    assert code == 0, f"kubectl {arguments}: {err}"
    return out


async def read(run: Run, *arguments: str) -> Any:
    return json.loads(await good(run, "get", *arguments, "-o", "json"))


def test_server_side_apply_and_its_conflicts(tmp_path: Path) -> None:
    async def story(run: Run) -> None:
        await good(run, "apply", "--server-side", "-f", "-", stdin=MAP)
        # another manager owns the field now
        await good(
            run,
            "apply",
            "--server-side",
            "--field-manager=two",
            "--force-conflicts",
            "-f",
            "-",
            stdin=MAP.replace("k: v", "k: w"),
        )
        code, _, err = await run("apply", "--server-side", "-f", "-", stdin=MAP)
        assert code == 1
        assert 'conflict with "two": .data.k' in err
        await good(run, "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=MAP)
        fields = (await read(run, "configmap", "a", "--show-managed-fields"))["metadata"]["managedFields"]
        assert {item["manager"]: item["operation"] for item in fields} == {"kubectl": "Apply"}
        # client-side apply, then server-side: the annotation does not get in the way
        await good(run, "apply", "-f", "-", stdin=WEB)
        await good(run, "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=WEB)

    on_server(tmp_path, story)


def test_diff_and_dry_run_change_nothing(tmp_path: Path) -> None:
    async def story(run: Run) -> None:
        await good(run, "apply", "-f", "-", stdin=MAP)
        changed = MAP.replace("k: v", "k: w")
        code, out, err = await run("diff", "-f", "-", stdin=changed)
        assert code == 1, err
        assert "+  k: w" in out
        assert (await run("diff", "-f", "-", stdin=MAP))[0] == 0
        await good(run, "apply", "--dry-run=server", "-f", "-", stdin=changed)
        await good(run, "create", "configmap", "b", "--dry-run=server")
        await good(run, "delete", "configmap", "a", "--dry-run=server")
        assert (await read(run, "configmap", "a"))["data"] == {"k": "v"}
        assert (await run("get", "configmap", "b"))[0] == 1

    on_server(tmp_path, story)


def test_edit_changes_what_the_editor_changed(tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/k: v/k: edited/' \"$1\"\n")
    editor.chmod(0o700)

    async def story(run: Run) -> None:
        await good(run, "apply", "-f", "-", stdin=MAP)
        process = await asyncio.create_subprocess_exec(
            "kubectl",
            "--kubeconfig",
            str(tmp_path / "admin.kubeconfig"),
            "--cache-dir",
            str(tmp_path / "cache"),
            "edit",
            "configmap",
            "a",
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "KUBE_EDITOR": str(editor), "HOME": str(tmp_path)},
            stdout=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(30):
            assert await process.wait() == 0
        assert (await read(run, "configmap", "a"))["data"] == {"k": "edited"}

    on_server(tmp_path, story)


def test_a_watch_shows_what_changes(tmp_path: Path) -> None:
    async def story(run: Run) -> None:
        process = await asyncio.create_subprocess_exec(
            "kubectl",
            "--kubeconfig",
            str(tmp_path / "admin.kubeconfig"),
            "get",
            "configmaps",
            "-w",
            "--output-watch-events",
            "--field-selector=metadata.name=a",
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            await good(run, "create", "-f", "-", stdin=MAP)
            await good(
                run, "patch", "configmap", "a", "--type=json", "-p", '[{"op":"remove","path":"/data/k"}]'
            )
            await good(run, "delete", "configmap", "a")
            seen = []
            async with asyncio.timeout(30):
                while "DELETED" not in seen:
                    seen.append((await process.stdout.readline()).decode().split()[0])
            assert [word for word in seen if word != "EVENT"][-1] == "DELETED"
            assert "ADDED" in seen
        finally:
            process.kill()
            await process.wait()

    on_server(tmp_path, story)


def test_workloads_are_made_shown_and_moved(tmp_path: Path) -> None:
    async def story(run: Run) -> None:
        await good(run, "create", "deployment", "web", "--image=busybox", "--replicas=2")
        await good(run, "rollout", "status", "deploy/web", "--timeout=30s")
        await good(run, "expose", "deployment", "web", "--port=80", "--target-port=8080")
        assert (await read(run, "service", "web"))["spec"]["clusterIP"].startswith("10.")
        await good(run, "set", "env", "deploy/web", "A=b")
        await good(run, "set", "resources", "deploy/web", "--limits=cpu=1")
        await good(run, "set", "serviceaccount", "deploy/web", "default")
        await good(run, "rollout", "pause", "deploy/web")
        await good(run, "rollout", "resume", "deploy/web")
        await good(run, "rollout", "restart", "deploy/web")
        await good(run, "rollout", "status", "deploy/web", "--timeout=30s")
        assert "REVISION" in await good(run, "rollout", "history", "deploy/web")
        await good(run, "autoscale", "deployment", "web", "--max=3", "--cpu-percent=50")
        assert (await read(run, "hpa", "web"))["spec"]["metrics"][0]["resource"]["name"] == "cpu"
        await good(run, "taint", "node", "n1", "a=b:NoExecute")
        await good(run, "drain", "n1", "--ignore-daemonsets", "--force", "--timeout=30s")
        await good(run, "rollout", "status", "deploy/web", "--timeout=30s")
        assert {pod["spec"]["nodeName"] for pod in (await read(run, "pods"))["items"]} == {"n2"}
        await good(run, "uncordon", "n1")
        await good(run, "describe", "node", "n1")
        await good(run, "describe", "deploy/web")
        await good(run, "describe", "svc/web")
        await good(run, "wait", "--for=jsonpath={.status.readyReplicas}=2", "deploy/web", "--timeout=30s")
        await good(run, "delete", "deploy/web", "--cascade=foreground", "--timeout=30s")
        await good(run, "create", "cronjob", "c", "--image=busybox", "--schedule=*/5 * * * *")
        await good(run, "create", "job", "j", "--from=cronjob/c")
        await good(run, "create", "quota", "q", "--hard=pods=5")
        await good(run, "create", "priorityclass", "p", "--value=5")
        await good(run, "create", "pdb", "b", "--selector=app=x", "--min-available=1")
        await good(run, "create", "ingress", "i", "--rule=a.b/x=web:80")
        assert "ingress.networking.k8s.io/i" in await good(run, "get", "ingress", "-o", "name")
        await good(run, "replace", "--force", "-f", "-", stdin=MAP)

    on_server(tmp_path, story, "n1", "n2")


def test_what_is_there_is_explained(tmp_path: Path) -> None:
    async def story(run: Run) -> None:
        assert "apps/v1" in await good(run, "api-versions")
        namespaced = await good(run, "api-resources", "--namespaced=true", "--verbs=list", "-o", "name")
        # everything that says it can be listed can be
        everything = ",".join(name for name in namespaced.split() if not name.endswith("metrics.k8s.io"))
        await good(run, "get", everything, "-A")
        assert "maxUnavailable" in await good(run, "explain", "deployment.spec.strategy", "--recursive")
        assert "yes" in await good(run, "auth", "can-i", "delete", "nodes")
        assert "*.*" in await good(run, "auth", "can-i", "--list")
        assert "skerry-admin" in await good(run, "auth", "whoami")
        assert "is running at" in await good(run, "cluster-info")
        assert "Server Version" in await good(run, "version")
        assert "ok" in await good(run, "get", "--raw", "/readyz?verbose")
        assert (await run("events"))[0] == 0
        role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: r, namespace: default}\nrules: []\n"
        await good(run, "auth", "reconcile", "-f", "-", stdin=role)
        assert "kind: ConfigMap" in await good(run, "get", "cm", "kube-root-ca.crt", "-o", "yaml")
        assert "kube-root-ca.crt" in await good(
            run, "get", "cm", "-o", "custom-columns=N:.metadata.name", "--sort-by=.metadata.name"
        )

    on_server(tmp_path, story)


def test_debug_makes_containers_and_pods(tmp_path: Path) -> None:
    async def story(run: Run) -> None:
        await good(run, "run", "p", "--image=busybox")
        await good(run, "wait", "--for=condition=Ready", "pod/p", "--timeout=30s")
        await good(run, "debug", "p", "--image=busybox", "-c", "look", "--profile=general", "--attach=false")
        found = await read(run, "pod", "p")
        assert [item["name"] for item in found["spec"]["ephemeralContainers"]] == ["look"]
        # what is there cannot be taken away or changed
        changed = json.dumps({"spec": {"ephemeralContainers": []}})
        code, _, err = await run("patch", "pod", "p", "--subresource=ephemeralcontainers", "-p", changed)
        assert (await read(run, "pod", "p"))["spec"]["ephemeralContainers"], (code, err)
        await good(run, "debug", "p", "--image=busybox", "--copy-to=q", "--profile=general", "--attach=false")
        assert len((await read(run, "pod", "q"))["spec"]["containers"]) == 2
        await good(run, "debug", "node/n1", "--image=busybox", "--profile=general", "--attach=false")
        pods = (await read(run, "pods"))["items"]
        (on_node,) = (item for item in pods if item["metadata"]["name"].startswith("node-debugger"))
        assert on_node["spec"]["nodeName"] == "n1"
        assert on_node["spec"]["hostPID"] is True
        code, _, err = await run("logs", "p")
        assert code == 1
        assert "no way to its nodes' kubelets" in err

    on_server(tmp_path, story, "n1")
