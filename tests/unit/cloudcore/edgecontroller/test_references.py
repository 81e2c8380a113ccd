"""What a pod cannot run without."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from beehive.errors import ProtocolError
from cloudcore.edgecontroller.references import closure, pull_secrets, services_of
from cloudcore.objects import POD, SERVICEACCOUNT, Object, read

CM, SECRET, CLAIM = "configmap", "secret", "persistentvolumeclaim"


def pod(**spec: Any) -> Object:
    body = {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "1"},
        "spec": {"enableServiceLinks": False, "nodeName": "n", **spec},
    }
    return read(POD, msgspec.json.encode(body))


def refs(**spec: Any) -> set[tuple[str, str]]:
    found = closure(pod(**spec)).refs
    assert {ref[1] for ref in found} <= {"ns"}
    return {(kind, name) for kind, _, name in found}


@pytest.mark.parametrize(
    ("volume", "found"),
    [
        ({"configMap": {"name": "a"}}, {(CM, "a")}),
        ({"secret": {"secretName": "a"}}, {(SECRET, "a")}),
        ({"persistentVolumeClaim": {"claimName": "a"}}, {(CLAIM, "a")}),
        ({"ephemeral": {"volumeClaimTemplate": {}}}, {(CLAIM, "p-v")}),
        ({"csi": {"driver": "d", "nodePublishSecretRef": {"name": "a"}}}, {(SECRET, "a")}),
        ({"csi": {"driver": "d"}}, set()),
        (
            {"projected": {"sources": [{"configMap": {"name": "a"}}, {"secret": {"name": "b"}}]}},
            {(CM, "a"), (SECRET, "b")},
        ),
        ({"configMap": {}}, set()),
        ({"emptyDir": {}}, set()),
        ({"projected": None}, set()),
    ],
)
def test_volumes(volume: dict[str, Any], found: set[tuple[str, str]]) -> None:
    assert refs(volumes=[{"name": "v", **volume}]) == found


@pytest.mark.parametrize("group", ["containers", "initContainers", "ephemeralContainers"])
def test_variables_of_every_container(group: str) -> None:
    container = {
        "name": "c",
        "env": [
            {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "k"}}},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "b", "key": "k"}}},
            {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "D", "value": "d"},
        ],
        "envFrom": [{"configMapRef": {"name": "c"}}, {"secretRef": {"name": "d"}}],
    }
    assert refs(**{group: [container]}) == {(CM, "a"), (SECRET, "b"), (CM, "c"), (SECRET, "d")}


def test_pull_secrets_of_the_pod_and_of_its_account() -> None:
    assert refs(imagePullSecrets=[{"name": "a"}, {}]) == {(SECRET, "a")}
    assert closure(pod()).account == ("ns", "default")
    assert closure(pod(serviceAccountName="robot")).account == ("ns", "robot")
    body = {
        "metadata": {"name": "robot", "namespace": "ns"},
        "imagePullSecrets": [{"name": "a"}, {"name": ""}],
    }
    account = read(SERVICEACCOUNT, msgspec.json.encode(body))
    assert pull_secrets(account) == {(SECRET, "ns", "a")}


def test_services_unless_it_wants_none() -> None:
    assert closure(pod(enableServiceLinks=None)).refs == {services_of("ns")}
    assert closure(pod(enableServiceLinks=True)).refs == {services_of("ns")}
    assert closure(pod(enableServiceLinks=False)).refs == frozenset()


def test_tokens_are_as_long_as_the_longest_that_is_asked_for() -> None:
    def source(audience: str, seconds: int | None) -> dict[str, Any]:
        return {"serviceAccountToken": {"audience": audience, "expirationSeconds": seconds, "path": "t"}}

    sources = [source("", None), source("x", 600), source("x", 7200), source("x", 900)]
    facts = closure(pod(volumes=[{"name": "v", "projected": {"sources": sources}}])).facts
    assert facts.tokens == {"": 3600, "x": 7200}
    assert (facts.node, facts.uid, facts.service_account) == ("n", "u", "default")


def test_what_cannot_be_read_refers_to_nothing_silently() -> None:
    with pytest.raises(ProtocolError):
        closure(pod(volumes=[{"name": "v", "configMap": "text"}]))
