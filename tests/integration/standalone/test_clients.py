"""The client libraries that people use, against a control plane beside this process."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes.aio.client
import kubernetes.aio.config
import kubernetes.aio.watch
import kubernetes.client
import kubernetes.config
import kubernetes.dynamic
import kubernetes.watch
import lightkube
import lightkube.codecs
import lightkube.generic_resource
import lightkube.models.meta_v1
import pytest
import yaml
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
from lightkube.resources.core_v1 import ConfigMap

from tests.integration.standalone.server import control_plane
from tests.integration.standalone.test_kubectl import CRD


@contextlib.contextmanager
def served(state_dir: Path) -> Iterator[str]:
    """Run a control plane beside this process, for clients that block.  The path of its kubeconfig."""
    words = [sys.executable, "-m", "tests.integration.standalone.server", str(state_dir)]
    with subprocess.Popen(
        words, cwd=Path(__file__).parents[3], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield str(state_dir / "admin.kubeconfig")
        finally:
            process.stdin.close()
            process.wait(20)


@contextlib.contextmanager
def api(kubeconfig: str) -> Iterator[kubernetes.client.ApiClient]:
    with kubernetes.config.new_client_from_config(kubeconfig) as client:
        try:
            yield client
        finally:
            client.rest_client.pool_manager.clear()


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def test_the_kubernetes_package(tmp_path: Path) -> None:
    with served(tmp_path) as kubeconfig, api(kubeconfig) as client:
        core, apps = kubernetes.client.CoreV1Api(client), kubernetes.client.AppsV1Api(client)
        made = core.create_namespaced_config_map("default", config_map("a", k="v"))
        assert core.read_namespaced_config_map("a", "default").data == {"k": "v"}
        with pytest.raises(kubernetes.client.ApiException) as conflict:
            core.create_namespaced_config_map("default", config_map("a"))
        assert conflict.value.status == 409
        made.data = {"k": "w"}
        core.replace_namespaced_config_map("a", "default", made)
        with pytest.raises(kubernetes.client.ApiException) as stale:
            core.replace_namespaced_config_map("a", "default", made)
        assert stale.value.status == 409
        core.patch_namespaced_config_map("a", "default", {"data": {"n": "1"}})
        template = kubernetes.client.V1PodTemplateSpec(
            metadata=kubernetes.client.V1ObjectMeta(labels={"app": "x"}),
            spec=kubernetes.client.V1PodSpec(
                containers=[kubernetes.client.V1Container(name="c", image="busybox")]
            ),
        )
        deployment = kubernetes.client.V1Deployment(
            metadata=kubernetes.client.V1ObjectMeta(name="x"),
            spec=kubernetes.client.V1DeploymentSpec(
                selector=kubernetes.client.V1LabelSelector(match_labels={"app": "x"}), template=template
            ),
        )
        apps.create_namespaced_deployment("default", deployment)
        assert apps.read_namespaced_deployment_scale("x", "default").spec.replicas == 1
        apps.patch_namespaced_deployment_scale("x", "default", {"spec": {"replicas": 2}})
        assert apps.read_namespaced_deployment("x", "default").spec.replicas == 2
        account = kubernetes.client.AuthenticationV1TokenRequest(
            spec=kubernetes.client.V1TokenRequestSpec(audiences=[], expiration_seconds=600)
        )
        token = core.create_namespaced_service_account_token("default", "default", account)
        assert token.status.token.count(".") == 2
        assert core.delete_namespaced_config_map("a", "default")["status"] == "Success"


def root_authority_is_there(core: kubernetes.client.CoreV1Api) -> str:
    """Wait until the config map that each namespace gets is there, so that it is not met later; the version of the list."""
    until = time.monotonic() + 60
    while True:
        found = core.list_namespaced_config_map("default")
        if any(item.metadata.name == "kube-root-ca.crt" for item in found.items):
            version: str = found.metadata.resource_version
            return version
        assert time.monotonic() < until, "no kube-root-ca.crt"
        time.sleep(0.05)


def test_a_watch_of_the_kubernetes_package_resumes(tmp_path: Path) -> None:
    with served(tmp_path) as kubeconfig, api(kubeconfig) as client:
        core = kubernetes.client.CoreV1Api(client)
        start = root_authority_is_there(core)
        for name in ("a", "b"):
            core.create_namespaced_config_map("default", config_map(name))
        core.delete_namespaced_config_map("a", "default")
        seen: list[tuple[str, str]] = []
        first = kubernetes.watch.Watch()
        options = {"namespace": "default", "resource_version": start, "timeout_seconds": 5}
        for event in first.stream(core.list_namespaced_config_map, **options):
            seen.append((event["type"], event["object"].metadata.name))
            first.stop()
        options["resource_version"] = event["object"].metadata.resource_version
        second = kubernetes.watch.Watch()
        for event in second.stream(core.list_namespaced_config_map, **options):
            seen.append((event["type"], event["object"].metadata.name))
            if len(seen) == 3:
                second.stop()
        assert seen == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")]


def test_the_dynamic_client_finds_custom_resources(tmp_path: Path) -> None:
    with served(tmp_path) as kubeconfig, api(kubeconfig) as client:
        dynamic = kubernetes.dynamic.DynamicClient(client, cache_file=str(tmp_path / "discovery.json"))
        definitions = dynamic.resources.get(
            api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition"
        )
        definitions.create(body=yaml.safe_load(CRD))
        deadline = time.monotonic() + 60
        while True:
            found = definitions.get(name="widgets.test.example").to_dict()
            if any(c["type"] == "Established" for c in (found.get("status") or {}).get("conditions", ())):
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        widgets = dynamic.resources.get(api_version="test.example/v1", kind="Widget")
        body = {
            "apiVersion": "test.example/v1",
            "kind": "Widget",
            "metadata": {"name": "w"},
            "spec": {"size": 1},
        }
        widgets.create(body=body, namespace="default")
        body["spec"] = {"size": 2}
        widgets.server_side_apply(body=body, namespace="default", field_manager="me", force_conflicts=True)
        assert widgets.get(name="w", namespace="default").spec.size == 2
        events = widgets.watch(namespace="default", timeout=1)
        assert [event["type"] for event in events] == ["ADDED"]
        widgets.delete(name="w", namespace="default")
        assert widgets.get(namespace="default").items == []


def test_one_of_two_candidates_leads_and_the_other_takes_over(tmp_path: Path) -> None:
    with served(tmp_path) as kubeconfig:
        kubernetes.config.load_kube_config(kubeconfig)
        led: list[str] = []
        first_leads, second_leads = threading.Event(), threading.Event()

        def candidate(name: str, started: threading.Event) -> None:
            def start() -> None:
                led.append(name)
                started.set()

            settings = electionconfig.Config(
                LeaseLock("leader", "default", name),
                lease_duration=3,
                renew_deadline=2,
                retry_period=1.1,
                onstarted_leading=start,
                onstopped_leading=lambda: None,
            )
            election = leaderelection.LeaderElection(settings)
            # neither renews: the first has died when its lease ends
            assert election.acquire()
            start()

        one = threading.Thread(target=candidate, args=("one", first_leads))
        one.start()
        assert first_leads.wait(60)
        two = threading.Thread(target=candidate, args=("two", second_leads))
        two.start()
        assert not second_leads.wait(1)
        assert second_leads.wait(60)
        one.join(5)
        two.join(5)
        assert led == ["one", "two"]


def test_the_asyncio_client(tmp_path: Path) -> None:
    async def main() -> None:
        async with control_plane(tmp_path):
            client = await kubernetes.aio.config.new_client_from_config(str(tmp_path / "admin.kubeconfig"))
            async with client:
                core = kubernetes.aio.client.CoreV1Api(client)
                await core.create_namespaced_config_map("default", config_map("a", k="v"))
                listed = await core.list_namespaced_config_map("default", label_selector="", limit=1)
                assert len(listed.items) == 1
                seen = []
                async with kubernetes.aio.watch.Watch() as watch:
                    async for event in watch.stream(
                        core.list_namespaced_config_map, "default", field_selector="metadata.name=a"
                    ):
                        seen.append((event["type"], event["object"].metadata.name))
                        if event["type"] == "DELETED":
                            break
                        await core.delete_namespaced_config_map("a", "default")
                assert seen == [("ADDED", "a"), ("DELETED", "a")]

    asyncio.run(main())


OPERATOR = """
import kopf

@kopf.on.startup()
def configure(settings, **_):
    settings.posting.enabled = True
    settings.watching.server_timeout = 5

@kopf.on.create("test.example", "v1", "widgets")
def create(spec, name, namespace, patch, **_):
    child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name + "-data"}, "data": {"size": str(spec["size"])}}
    kopf.adopt(child)
    import kubernetes.client, kubernetes.config
    with kubernetes.config.new_client_from_config() as client:
        kubernetes.client.CoreV1Api(client).create_namespaced_config_map(namespace, child)
        client.rest_client.pool_manager.clear()
    patch.status["seen"] = spec["size"]

@kopf.on.update("test.example", "v1", "widgets", field="spec.size")
def update(old, new, patch, **_):
    patch.status["seen"] = new
    patch.status["before"] = old

@kopf.on.delete("test.example", "v1", "widgets")
def delete(name, logger, **_):
    logger.info("gone: %s", name)
"""


def _eventually(check: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_operator_of_kopf(tmp_path: Path) -> None:
    """Finalizers, status patches, owned objects, resumed watches and events, by an operator that knows nothing of us."""
    (tmp_path / "operator.py").write_text(OPERATOR)
    with served(tmp_path / "state") as kubeconfig, api(kubeconfig) as client:
        kubernetes.client.ApiextensionsV1Api(client).create_custom_resource_definition(yaml.safe_load(CRD))
        core, custom = kubernetes.client.CoreV1Api(client), kubernetes.client.CustomObjectsApi(client)
        place = ("test.example", "v1", "default", "widgets")
        words = [
            sys.executable,
            "-m",
            "kopf",
            "run",
            "-n",
            "default",
            "--standalone",
            str(tmp_path / "operator.py"),
        ]
        environment = {"PATH": "/usr/bin:/bin", "KUBECONFIG": kubeconfig, "HOME": str(tmp_path)}
        log = tmp_path / "operator.log"
        with (
            log.open("wb") as out,
            subprocess.Popen(words, env=environment, stdout=out, stderr=out) as operator,
        ):
            try:
                body = {
                    "apiVersion": "test.example/v1",
                    "kind": "Widget",
                    "metadata": {"name": "w"},
                    "spec": {"size": 3},
                }

                def made() -> bool:
                    try:
                        custom.create_namespaced_custom_object(*place, body)
                    except kubernetes.client.ApiException as error:
                        return bool(error.status == 409)
                    return True

                def seen() -> Any:
                    return custom.get_namespaced_custom_object(*place, "w").get("status", {}).get("seen")

                _eventually(made)
                _eventually(lambda: seen() == 3)
                widget = custom.get_namespaced_custom_object(*place, "w")
                assert widget["metadata"]["finalizers"]
                assert core.read_namespaced_config_map("w-data", "default").data == {"size": "3"}
                custom.patch_namespaced_custom_object(*place, "w", {"spec": {"size": 4}})
                _eventually(lambda: seen() == 4)
                custom.delete_namespaced_custom_object(*place, "w")

                def gone() -> bool:
                    maps = core.list_namespaced_config_map("default").items
                    widgets = custom.list_namespaced_custom_object(*place)["items"]
                    return not widgets and "w-data" not in {item.metadata.name for item in maps}

                _eventually(gone)
                assert "gone: w" in log.read_text()
                assert operator.poll() is None
            except BaseException:
                print(log.read_text())
                raise
            finally:
                operator.terminate()
                operator.wait(30)


def test_lightkube(tmp_path: Path) -> None:
    with served(tmp_path) as kubeconfig:
        client = lightkube.Client(lightkube.KubeConfig.from_file(kubeconfig), field_manager="me")
        meta = lightkube.models.meta_v1.ObjectMeta(name="a", namespace="default")
        client.create(ConfigMap(metadata=meta, data={"k": "v"}))
        with pytest.raises(lightkube.ApiError) as refused:
            client.create(ConfigMap(metadata=meta, data={"k": "v"}))
        assert refused.value.status.reason == "AlreadyExists"
        client.patch(ConfigMap, "a", {"data": {"n": "1"}}, namespace="default")
        client.apply(ConfigMap(metadata=meta, data={"k": "w"}), force=True)
        assert client.get(ConfigMap, "a", namespace="default").data == {"k": "w", "n": "1"}

        def names() -> set[str]:
            listed = client.list(ConfigMap, namespace="default", chunk_size=1)
            return {item.metadata.name for item in listed}

        _eventually(lambda: names() == {"a", "kube-root-ca.crt"})
        widget = lightkube.generic_resource.create_namespaced_resource(
            "test.example", "v1", "Widget", "widgets"
        )
        definition = lightkube.codecs.load_all_yaml(CRD)[0]
        client.create(definition)
        client.wait(type(definition), "widgets.test.example", for_conditions=["Established"])
        client.create(widget({"metadata": {"name": "w", "namespace": "default"}, "spec": {"size": 1}}))
        for event, item in client.watch(widget, namespace="default"):
            assert (event, item.spec["size"]) == ("ADDED", 1)
            break
        client.delete(ConfigMap, "a", namespace="default")
        client.deletecollection(widget, namespace="default")
        assert list(client.list(widget, namespace="default")) == []
        client.close()
