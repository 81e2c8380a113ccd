"""What a new user does in the first five minutes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.skerry import Skerry, eventually, page


def test_up_ends_with_a_summary(first_up: tuple[Skerry, str, dict[str, Any]]) -> None:
    skerry, said, status = first_up
    (pod,) = status["pods"]
    for words in (
        "Skerry is up",
        "Ready",
        pod["name"],
        pod["ip"],
        "temperature",
        str(skerry.home / "kubeconfig"),
        str(skerry.home / "logs"),
        "kubectl get nodes,pods,devices,devicestatuses",
    ):
        assert words in said, said


def test_status_names_every_part(trial: Skerry) -> None:
    status = trial.status()
    assert status["up"], status["problem"]
    assert {part["name"] for part in status["parts"] if part["running"]} == {
        "containerd",
        "mosquitto",
        "cloudcore",
        "edgecore",
        "supervisor",
        "mapper",
    }
    assert [node["name"] for node in status["nodes"]] == ["edge-1"]


def test_kubeconfig_prints_a_private_file(trial: Skerry) -> None:
    path = trial.run("kubeconfig").stdout.strip()
    assert path == str(trial.home / "kubeconfig")
    assert (trial.home / "kubeconfig").stat().st_mode & 0o077 == 0


def test_kubectl_shows_all_of_it(trial: Skerry) -> None:
    trial.running_pod()
    shown = trial.kubectl("get", "nodes,pods,devices,devicestatuses").stdout
    assert "node/edge-1" in shown
    assert "pod/hello-" in shown
    assert "device.devices.kubeedge.io/thermostat" in shown
    assert "devicestatus.devices.kubeedge.io/thermostat" in shown
    (node,) = trial.get("nodes")["items"]
    assert "node-role.kubernetes.io/edge" in node["metadata"]["labels"]


def test_the_pod_has_its_configmap_and_its_secret(trial: Skerry) -> None:
    pod = trial.running_pod()
    assert page(pod["status"]["podIP"]) == "Hello from the edge.\n"
    (container,) = [one for one in trial.containers() if one.pod == pod["metadata"]["name"]]
    assert trial.inside(container, "/secret/password") == "seal-on-a-rock"
    assert container.environment()["PASSWORD"] == "seal-on-a-rock"
    assert container.environment()["NODE_NAME"] == "edge-1"
    assert trial.address(container) == pod["status"]["podIP"]


@pytest.mark.parametrize("target", ["24.5", "19"])
def test_a_changed_setpoint_is_reported(trial: Skerry, target: str) -> None:
    trial.set_target(target)
    eventually(lambda: float(trial.readings()["target"]) == float(target), f"target {target}", 60)
    # The room follows; at both targets it is warmer than outside.
    eventually(
        lambda: abs(float(trial.readings()["temperature"]) - float(target)) < 1.5, "the temperature", 60
    )


def test_a_deleted_pod_comes_back_as_another(trial: Skerry) -> None:
    old = trial.running_pod()
    trial.kubectl("delete", "pod", old["metadata"]["name"])
    new = eventually(
        lambda: [pod for pod in trial.pods() if pod["metadata"]["uid"] != old["metadata"]["uid"]], "a new pod"
    )
    assert len(new) == 1
    assert page(trial.running_pod()["status"]["podIP"]) == "Hello from the edge.\n"
    eventually(
        lambda: {one.pod_uid for one in trial.containers()} == {new[0]["metadata"]["uid"]},
        "the old one to be gone",
    )


def test_a_changed_configmap_reaches_the_pod(trial: Skerry) -> None:
    address = trial.running_pod()["status"]["podIP"]
    for text in ("Changed.\n", "Hello from the edge.\n"):
        patch = json.dumps({"data": {"index.html": text}})
        trial.kubectl("patch", "configmap", "hello", "--type=merge", "-p", patch)
        eventually(lambda text=text: page(address) == text, f"the page {text!r}", 60)  # type: ignore[misc]


def test_up_again_changes_nothing(trial: Skerry) -> None:
    pod, pids = trial.running_pod(), trial.pids()
    trial.set_target("20")
    trial.up()
    assert trial.pids() == pids
    again = trial.running_pod()
    assert again["metadata"]["uid"] == pod["metadata"]["uid"]
    assert again["status"]["containerStatuses"] == pod["status"]["containerStatuses"]
    (target,) = [
        one for one in trial.get("device", "thermostat")["spec"]["properties"] if one["name"] == "target"
    ]
    assert target["desired"]["value"] == "20"


def test_up_again_brings_back_what_died(trial: Skerry) -> None:
    pids = trial.pids()
    trial.run("stop", "mapper", "--kill")
    assert trial.run("status", check=False).returncode == 1
    trial.up()
    again = trial.pids()
    assert again.pop("mapper") not in (None, pids.pop("mapper"))
    assert again == pids


def test_killing_edgecore_restarts_no_container(trial: Skerry) -> None:
    trial.running_pod()
    before = {(one.id, one.pid) for one in trial.containers()}
    assert before
    trial.run("stop", "edgecore", "--kill")
    assert {(one.id, one.pid) for one in trial.containers()} == before
    trial.up()
    pod = trial.running_pod()
    assert {(one.id, one.pid) for one in trial.containers()} == before
    assert [status["restartCount"] for status in pod["status"]["containerStatuses"]] == [0]
