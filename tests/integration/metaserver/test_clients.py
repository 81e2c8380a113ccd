"""Stock clients against the local API: kubectl and the `kubernetes` package, with the cloud there, gone, and back."""

import asyncio
import contextlib
import json
import threading
from pathlib import Path
from typing import Any

import kubernetes
import pytest

from edgecore.podlogs import PodLogs
from tests.integration.metaserver.stage import (
    CONFIGMAP,
    DEPLOYMENT,
    KUBECTL,
    Edge,
    Stage,
    config_map,
    deployment,
    pod_token,
)

pytestmark = pytest.mark.skipif(KUBECTL is None, reason="needs kubectl")


def client(edge: Edge) -> kubernetes.client.CoreV1Api:
    configuration = kubernetes.client.Configuration()
    configuration.host = edge.url
    configuration.ssl_ca_cert = str(edge.folder / "pod-ca.crt")
    configuration.api_key = {"authorization": f"Bearer {edge.token}"}
    edge.kubeconfig()
    return kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(configuration))


def test_kubectl_with_the_cloud_gone_and_back(tmp_path: Path) -> None:
    async def story() -> None:
        stage = Stage(tmp_path)
        async with stage.cloud() as cloud:
            await stage.furnish(cloud)
            await cloud.create(CONFIGMAP, config_map("greeting", text="hello"))
            async with stage.edge() as edge:
                edge.token = await pod_token(edge)
                code, out, err = await edge.kubectl("get", "pods", "-o", "name")
                assert (code, out) == (0, "pod/p\n"), err
                code, out, err = await edge.kubectl(
                    "get", "configmap", "greeting", "-o", "jsonpath={.data.text}"
                )
                assert (code, out) == (0, "hello"), err
                code, _, err = await edge.kubectl("get", "secrets")
                assert code == 1
                assert "forbidden" in err
                code, _, err = await edge.kubectl("get", "pods", token="nonsense")
                assert code == 1
                assert "Unauthorized" in err
                code, out, err = await edge.kubectl("create", "configmap", "made", "--from-literal=a=1")
                assert code == 0, err
                code, out, err = await edge.kubectl("label", "configmap", "made", "color=red")
                assert code == 0, err
                code, out, err = await edge.kubectl("get", "configmaps", "-l", "color=red", "-o", "name")
                assert out == "configmap/made\n", err
        # the edge restarts while the cloud is gone
        async with stage.edge() as edge:
            edge.token = _token_of(tmp_path)
            code, out, err = await edge.kubectl("get", "pods")
            assert code == 0, err
            assert "p" in out.split()
            code, out, err = await edge.kubectl("get", "configmaps", "-o", "name")
            assert "configmap/made" in out.split(), err
            code, _, err = await edge.kubectl("logs", "p")
            assert code == 1, "no pod runs here yet"
            edge.server.api.logs = PodLogs(tmp_path / "logs", lambda uid: False)
            held = await edge.meta.get("pod", "default", "p")
            assert held is not None
            uid = json.loads(bytes(held))["metadata"]["uid"]
            folder = tmp_path / "logs" / f"default_p_{uid}" / "c"
            folder.mkdir(parents=True)
            lines = [f"2026-01-01T00:00:0{n}Z stdout F line {n}\n" for n in range(5)]
            (folder / "0.log").write_text("".join(lines))
            code, out, err = await edge.kubectl("logs", "p", "--tail=2")
            assert (code, out) == (0, "line 3\nline 4\n"), err
            code, out, err = await edge.kubectl("logs", "-f", "p")
            assert (code, len(out.splitlines())) == (0, 5), err
            code, _, err = await edge.kubectl("logs", "p", "-p")
            assert code == 1
            assert "has not run before" in err
            code, _, err = await edge.kubectl("create", "configmap", "no", "--from-literal=a=1")
            assert code == 1
            assert "cloud cannot be reached" in err
            async with stage.cloud() as cloud:
                await edge.until(lambda: edge.meta.online, 40)
                code, out, err = await edge.kubectl("delete", "configmap", "made")
                assert code == 0, err
                code, out, err = await edge.kubectl("get", "configmaps", "-o", "name")
                assert "configmap/made" not in out.split(), err

    asyncio.run(story())


def test_kubectl_writes_while_the_cloud_is_gone(tmp_path: Path) -> None:
    async def story() -> None:
        stage, kinds = Stage(tmp_path), frozenset({"configmaps", "deployments.apps"})
        async with stage.cloud() as cloud:
            await stage.furnish(cloud)
            for name in ("settings", "contested", "owned"):
                await cloud.create(CONFIGMAP, config_map(name, text="old"))
            await cloud.create(DEPLOYMENT, deployment("web", replicas=0))
            async with stage.edge(offline_writes=kinds) as edge:
                edge.token = await pod_token(edge)
                code, out, err = await edge.kubectl("get", "configmaps", "-o", "name")
                assert "configmap/contested" in out.split(), err
                code, out, err = await edge.kubectl("get", "deployments", "-o", "name")
                assert out == "deployment.apps/web\n", err
                manifest = {"apiVersion": "v1", "kind": "ConfigMap", **config_map("applied", text="1")}
                code, out, err = await edge.kubectl("apply", "-f", "-", stdin=json.dumps(manifest).encode())
                assert code == 0, err
        async with stage.edge(offline_writes=kinds) as edge:
            edge.token = _token_of(tmp_path)
            manifest["data"] = {"text": "2"}
            owned = {**manifest, **config_map("owned", edge="1")}
            operations = [
                {"op": "test", "path": "/data/text", "value": "old"},
                {"op": "add", "path": "/data/edge", "value": "1"},
            ]
            for arguments, stdin in (
                (("create", "configmap", "made", "--from-literal=a=1"), b""),  # this one sends protobuf
                (("label", "configmap", "made", "color=red"), b""),
                (("annotate", "configmap", "made", "note=1"), b""),
                (("patch", "configmap", "settings", "--type=json", "-p", json.dumps(operations)), b""),
                (("apply", "-f", "-"), json.dumps(manifest).encode()),
                (("apply", "--server-side", "-f", "-"), json.dumps(owned).encode()),
                (("scale", "deployment", "web", "--replicas=3"), b""),
                (("set", "image", "deployment/web", "c=skerry.local/busybox:2"), b""),
                (("set", "env", "deployment/web", "A=1", "B=2"), b""),
                (("set", "env", "deployment/web", "A-", "B=3"), b""),
            ):
                code, out, err = await edge.kubectl(*arguments, stdin=stdin)
                assert code == 0, err
                assert "accepted on this node only" in err
            code, out, err = await edge.kubectl("get", "configmap", "contested", "-o", "json")
            replaced = json.loads(out) | {"data": {"text": "edge"}}
            code, out, err = await edge.kubectl("replace", "-f", "-", stdin=json.dumps(replaced).encode())
            assert code == 0, err
            code, out, err = await edge.kubectl("get", "configmaps", "-l", "color=red", "-o", "name")
            assert out == "configmap/made\n", err
            code, out, err = await edge.kubectl("get", "deployment", "web", "-o", "jsonpath={.spec.replicas}")
            assert out == "3", err
            operations[0]["value"] = "other"
            arguments = ("patch", "configmap", "settings", "--type=json", "-p", json.dumps(operations))
            code, _, err = await edge.kubectl(*arguments)
            assert "test failed" in err
            code, out, err = await edge.kubectl("auth", "can-i", "delete", "configmaps")
            assert (code, out) == (0, "yes\n"), err
            code, out, err = await edge.kubectl("auth", "can-i", "delete", "nodes")
            assert (code, out) == (1, "no\n"), err
            code, out, err = await edge.kubectl("auth", "whoami", "-o", "json")
            assert json.loads(out)["status"]["userInfo"]["username"] == "system:serviceaccount:default:ann", (
                err
            )
            code, out, err = await edge.kubectl("auth", "can-i", "--list")
            assert "deployments.apps/scale" in out, err
            code, out, err = await edge.kubectl(
                "get",
                "deployment",
                "web",
                "-o",
                "jsonpath={.spec.template.spec.containers[*]['image','env']}",
            )
            assert (code, out) == (0, 'skerry.local/busybox:2 [{"name":"B","value":"3"}]'), err
            code, out, err = await edge.kubectl("get", "deployment", "web", "-o", "wide")
            assert out.splitlines()[1].split()[:2] == ["web", "0/3"], err
            assert "skerry.local/busybox:2" in out
            # nobody asked for the schema of this group yet
            web = {"apiVersion": "apps/v1", "kind": "Deployment", **deployment("web", replicas=4)}
            arguments = ("diff", "--field-manager=kubectl-client-side-apply", "-f", "-")
            code, out, err = await edge.kubectl(*arguments, stdin=json.dumps(web).encode())
            assert (code, "+  replicas: 4" in out) == (1, True), (out, err)
            code, out, err = await edge.kubectl("explain", "deployment")
            assert "not known on this node" in out, err
            code, _, err = await edge.kubectl("delete", "pod", "p")
            assert code == 1
            assert "edgecore restart" in err
            assert len(edge.server.writes) == 6
        # the edge restarts, and meanwhile somebody changes one of the objects in the cloud
        async with stage.cloud() as cloud:
            await cloud.patch(CONFIGMAP, "contested", {"data": {"text": "cloud"}})
            spec = deployment("web", replicas=0)["spec"]
            spec["template"]["spec"]["containers"][0]["env"] = [{"name": "CLOUD", "value": "1"}]
            await cloud.patch(DEPLOYMENT, "web", {"spec": {"template": spec["template"]}})
            async with stage.edge(offline_writes=kinds) as edge:
                await edge.until(lambda: len(edge.server.writes) == 0, 40)
                assert edge.server.writes.describe()["dropped"] == {"configmaps/Conflict": 1}
            texts = {}
            for name in ("made", "settings", "applied", "contested", "owned"):
                found = json.loads((await cloud.api.get(CONFIGMAP, name, "default")).raw)
                texts[name] = found["data"]
                assert "skerry.dev/pending" not in found["metadata"].get("annotations", {})
            assert texts == {
                "made": {"a": "1"},
                "settings": {"text": "old", "edge": "1"},
                "applied": {"text": "2"},
                "contested": {"text": "cloud"},
                "owned": {"text": "old", "edge": "1"},
            }
            managers = {(one["manager"], one["operation"]) for one in found["metadata"]["managedFields"]}
            assert ("kubectl", "Apply") in managers
            web = json.loads((await cloud.api.get(DEPLOYMENT, "web", "default")).raw)
            assert web["spec"]["replicas"] == 3
            # what was named here counts, and what the cloud put beside it stays
            (container,) = web["spec"]["template"]["spec"]["containers"]
            assert container["image"] == "skerry.local/busybox:2"
            assert {one["name"]: one["value"] for one in container["env"]} == {"CLOUD": "1", "B": "3"}

    asyncio.run(story())


def _token_of(folder: Path) -> str:
    token: str = json.loads((folder / "kubeconfig").read_text())["users"][0]["user"]["token"]
    return token


def test_a_python_watch_runs_through_a_cut(tmp_path: Path) -> None:
    async def story() -> None:
        stage = Stage(tmp_path)
        seen: list[tuple[str, str]] = []

        def events(api: kubernetes.client.CoreV1Api, version: str, stop: threading.Event) -> None:
            watch = kubernetes.watch.Watch()
            for event in watch.stream(
                api.list_namespaced_config_map, "default", resource_version=version, timeout_seconds=90
            ):
                seen.append((event["type"], event["object"].metadata.name))
                if stop.is_set() or event["object"].metadata.name == "last":
                    watch.stop()

        async with contextlib.AsyncExitStack() as first:
            cloud = await first.enter_async_context(stage.cloud())
            await stage.furnish(cloud)
            await cloud.create(CONFIGMAP, config_map("one"))
            async with stage.edge() as edge:
                edge.token = await pod_token(edge)
                api = client(edge)
                try:
                    listed: Any = await asyncio.to_thread(api.list_namespaced_config_map, "default")
                    assert "one" in [item.metadata.name for item in listed.items]
                    stop = threading.Event()
                    thread = asyncio.get_running_loop().run_in_executor(
                        None, events, api, listed.metadata.resource_version, stop
                    )
                    await cloud.create(CONFIGMAP, config_map("two"))
                    await edge.until(lambda: ("ADDED", "two") in seen)
                    await cloud.patch(CONFIGMAP, "two", {"data": {"x": "1"}})
                    await edge.until(lambda: ("MODIFIED", "two") in seen)
                    await cloud.api.delete(CONFIGMAP, "one", "default")
                    await edge.until(lambda: ("DELETED", "one") in seen)
                    await first.aclose()
                    await edge.until(lambda: not edge.meta.online, 20)
                    async with stage.cloud() as cloud:
                        await cloud.api.delete(CONFIGMAP, "two", "default")
                        await cloud.create(CONFIGMAP, config_map("last"))
                        await edge.until(lambda: ("ADDED", "last") in seen, 40)
                        await thread
                    assert ("DELETED", "two") in seen
                finally:
                    api.api_client.close()

    asyncio.run(story())
