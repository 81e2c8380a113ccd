from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import cluster
from deploy.cluster import Wish
from deploy.errors import TrialError
from deploy.kubectl import Kubectl

IMAGE = "registry.example.org:5000/skerry/cloudcore:0.1.0"


class FakeKubectl(Kubectl):
    """Remembers what it was asked, and answers lists with what a test puts here."""

    def __init__(self, held: dict[str, list[dict[str, Any]]] | None = None, *, rollout: str = "") -> None:
        super().__init__(None)
        self.held = held or {}
        self.rollout = rollout
        self.asked: list[list[str]] = []

    def run(self, *arguments: str | Path, stdin: bytes = b"", timeout_s: float = 1.0) -> str:
        self.asked.append([str(word) for word in arguments])
        if "rollout" in arguments and self.rollout:
            raise TrialError(self.rollout)
        if "get" in arguments:
            return json.dumps({"items": self.held.get(str(arguments[1]), [])})
        return "join.token\n"


def service(port: dict[str, Any], **status: Any) -> dict[str, list[dict[str, Any]]]:
    return {"services": [{"spec": {"ports": [port]}, "status": status}]}


def documents(wish: Wish) -> dict[str, Any]:
    return {item["kind"]: item for item in yaml.safe_load_all(cluster.manifests(wish))}


def test_the_manifests_get_what_was_asked_for() -> None:
    wish = Wish(
        image=IMAGE, addresses=("10.1.2.3", "hub.example.org", "fd00::7"), service="NodePort", replicas=2
    )
    found = documents(wish)
    spec = found["Deployment"]["spec"]
    assert (spec["replicas"], spec["template"]["spec"]["containers"][0]["image"]) == (2, IMAGE)
    assert found["Service"]["spec"]["type"] == "NodePort"
    hub = yaml.safe_load(found["ConfigMap"]["data"]["cloudcore.yaml"])["modules"]["cloudHub"]
    assert hub["advertiseAddress"] == ["10.1.2.3", "fd00::7"]
    assert hub["dnsNames"] == ["cloudcore.kubeedge.svc", "hub.example.org"]


def test_a_stream_of_all_documents() -> None:
    kinds = [item["kind"] for item in yaml.safe_load_all(cluster.render(Wish(image=IMAGE)))]
    assert kinds[0] == "CustomResourceDefinition"
    assert {"Namespace", "Deployment", "ClusterRole"} <= set(kinds)
    assert None not in kinds


@pytest.mark.parametrize(
    "wish",
    [
        Wish(image=""),
        Wish(image="a b"),
        Wish(image="-x"),
        Wish(image="x" * 600),
        Wish(image=IMAGE, addresses=("https://hub.example.org",)),
        Wish(image=IMAGE, addresses=("hub.example.org:10000",)),
        Wish(image=IMAGE, addresses=("",)),
        Wish(image=IMAGE, service="ExternalName"),
    ],
)
def test_what_cannot_be(wish: Wish) -> None:
    with pytest.raises(TrialError):
        cluster.manifests(wish)


def test_the_steps_of_an_installation() -> None:
    kubectl = FakeKubectl()
    assert list(cluster.install(kubectl, Wish(image=IMAGE)))[-1] == "cloudcore runs"
    assert [words[0] for words in kubectl.asked] == ["apply", "apply", "-n"]


def test_why_it_does_not_come_up() -> None:
    waiting = {"state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}
    kubectl = FakeKubectl({"pods": [{"status": {"containerStatuses": [waiting]}}]}, rollout="timed out")
    with pytest.raises(TrialError, match="ErrImagePull: not found"):
        list(cluster.install(kubectl, Wish(image=IMAGE)))
    condition = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}
    kubectl = FakeKubectl({"pods": [{"status": {"conditions": [condition]}}]}, rollout="timed out")
    with pytest.raises(TrialError, match="0/1 nodes are available"):
        list(cluster.install(kubectl, Wish(image=IMAGE)))
    with pytest.raises(TrialError, match="timed out"):
        list(cluster.install(FakeKubectl(rollout="timed out"), Wish(image=IMAGE)))


def test_where_boards_reach_it() -> None:
    balanced = service({"port": 10000}, loadBalancer={"ingress": [{"ip": "192.0.2.9"}]})
    assert cluster.reached_at(FakeKubectl(balanced), Wish(image=IMAGE)) == "192.0.2.9:10000"
    named = Wish(image=IMAGE, addresses=("fd00::7",), service="NodePort")
    assert cluster.reached_at(FakeKubectl(service({"nodePort": 30100})), named) == "[fd00::7]:30100"
    inside = Wish(image=IMAGE, addresses=("hub.example.org",), service="ClusterIP")
    assert cluster.reached_at(FakeKubectl(service({"port": 10000})), inside) == "hub.example.org:10000"
    assert (
        cluster.reached_at(FakeKubectl(service({"nodePort": 30100})), Wish(image=IMAGE, service="NodePort"))
        == ""
    )
    with pytest.raises(TrialError, match="not in the namespace"):
        cluster.reached_at(FakeKubectl(), Wish(image=IMAGE))
