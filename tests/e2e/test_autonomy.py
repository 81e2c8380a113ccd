"""The edge stands without its cloud, across a reboot, and both agree again afterwards."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deploy.cri import remove_everything
from tests.e2e.broker import Bus
from tests.e2e.skerry import Container, Skerry, eventually, page

THERMOSTAT = "default/thermostat"


def served(trial: Skerry) -> Container:
    """The sample's container, once its page is served; seen without the cloud."""

    def look() -> Container | None:
        (container,) = [one for one in trial.containers() if one.name == "web"]
        return container if page(trial.address(container)) else None

    return eventually(look, "the sample's page, served from the store")


@contextmanager
def no_link(trial: Skerry) -> Iterator[None]:
    """Packets to the hub are lost."""
    rule = ["OUTPUT", "-o", "lo", "-p", "tcp", "--dport", str(trial.hub_port), "-j", "DROP"]
    subprocess.run(["/usr/sbin/iptables", "-w", "-I", *rule], check=True)
    try:
        yield
    finally:
        subprocess.run(["/usr/sbin/iptables", "-w", "-D", *rule], check=True)


def api_is_ready(trial: Skerry) -> bool:
    return trial.kubectl("get", "--raw", "/readyz", check=False).returncode == 0


def node_is_fresh(trial: Skerry, since: float) -> bool:
    """Whether the edge has renewed its lease since then."""
    from datetime import datetime

    lease = trial.get("lease", "-n", "kube-node-lease", trial.node_name)
    return datetime.fromisoformat(lease["spec"]["renewTime"]).timestamp() > since


def test_a_reboot_without_a_cloud(trial: Skerry) -> None:
    trial.set_target("22")
    eventually(lambda: float(trial.readings()["target"]) == 22, "the target before the fault", 60)
    before = trial.running_pod()
    uid = before["metadata"]["uid"]
    old = [one.id for one in trial.containers()]
    assert old

    # (a) the cloud goes away
    trial.run("stop", "cloudcore")

    # (b) the power is cut: edgecore and the mapper end without a word, and nothing of the pods is left
    trial.run("stop", "edgecore", "--kill")
    trial.run("stop", "mapper", "--kill")
    assert remove_everything(trial.socket) >= 1
    assert trial.containers() == []

    # (c) edgecore starts with no cloud: the pod runs again from the store, and the device is read again
    trial.run("start", "edgecore")
    trial.run("start", "mapper")
    container = served(trial)
    assert container.pod_uid == uid
    assert container.id not in old
    assert page(trial.address(container)) == "Hello from the edge.\n"
    assert trial.inside(container, "/secret/password") == "seal-on-a-rock"
    assert container.environment()["PASSWORD"] == "seal-on-a-rock"
    with Bus(trial.mqtt_port, trial.home) as bus:
        # The setpoint came from the store; the room, new and cold, is seen to warm up to it.
        eventually(lambda: float(bus.actual(THERMOSTAT)["target"]) == 22, "the stored setpoint at the device")
        eventually(lambda: abs(float(bus.actual(THERMOSTAT)["temperature"]) - 22) < 0.5, "readings going on")
    assert [one.id for one in trial.containers()] == [container.id]

    # (d) the cloud is back, and before the link is, objects change
    with no_link(trial):
        trial.run("start", "cloudcore")
        eventually(lambda: api_is_ready(trial), "the API")
        trial.set_target("26")
        change = json.dumps({"data": {"index.html": "Changed meanwhile.\n"}})
        trial.kubectl("patch", "configmap", "hello", "--type=merge", "-p", change)
        assert page(trial.address(container)) == "Hello from the edge.\n"
    since = time.time()
    eventually(lambda: node_is_fresh(trial, since), "the node's lease")

    def status() -> dict[str, Any] | None:
        pod = trial.running_pod()
        (seen,) = pod["status"]["containerStatuses"]
        return pod if seen["containerID"].endswith(container.id) else None

    after = eventually(status, "the status of the container that was started offline")
    assert after["metadata"]["uid"] == uid
    assert after["status"]["podIP"] == trial.address(container)
    eventually(lambda: page(trial.address(container)) == "Changed meanwhile.\n", "the changed page", 90)
    eventually(lambda: float(trial.readings()["target"]) == 26, "the changed setpoint, reported")
    eventually(lambda: abs(float(trial.readings()["temperature"]) - 26) < 0.5, "readings in the cloud")

    # ... once, and no pod was restarted by the reconnect
    first = trial.running_pod()
    version = first["metadata"]["resourceVersion"]
    time.sleep(3)  # three relists: what were to come twice would come now
    again = trial.running_pod()
    assert again["metadata"]["resourceVersion"] == version
    assert [pod["metadata"]["uid"] for pod in trial.pods()] == [uid]
    assert [one.id for one in trial.containers()] == [container.id]
    assert again["status"]["containerStatuses"] == first["status"]["containerStatuses"]
    change = json.dumps({"data": {"index.html": "Hello from the edge.\n"}})
    trial.kubectl("patch", "configmap", "hello", "--type=merge", "-p", change)


def test_a_cut_link_restarts_nothing(trial: Skerry) -> None:
    trial.running_pod()
    before = {(one.id, one.pid) for one in trial.containers()}
    with no_link(trial):
        trial.run("stop", "cloudcore", "--kill")
        trial.run("start", "cloudcore")
        eventually(lambda: api_is_ready(trial), "the API")
        assert {(one.id, one.pid) for one in trial.containers()} == before
    since = time.time()
    eventually(lambda: node_is_fresh(trial, since), "the node's lease")
    trial.running_pod()
    assert {(one.id, one.pid) for one in trial.containers()} == before
