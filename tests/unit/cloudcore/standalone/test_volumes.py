from __future__ import annotations

from typing import Any

from cloudcore.standalone import volumes
from cloudcore.standalone.controllers.placement import Node, choose

Json = dict[str, Any]


def node(name: str) -> Node:
    return Node.of(
        {
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}},
        }
    )


def claim(name: str = "c", size: str = "1Gi", phase: str = "Pending", **spec: Any) -> Json:
    return {
        "metadata": {"name": name, "namespace": "ns", "uid": f"uid-{name}"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec},
        "status": {"phase": phase},
    }


def volume(name: str, size: str = "1Gi", on: str = "", **spec: Any) -> Json:
    body: Json = {
        "metadata": {"name": name, "labels": {"v": name}},
        "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], **spec},
    }
    if on:
        term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [on]}]}
        body["spec"]["nodeAffinity"] = {"required": {"nodeSelectorTerms": [term]}}
    return body


def storage_class(name: str, provisioner: str = "p", mode: str = "WaitForFirstConsumer") -> dict[str, Json]:
    return {name: {"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode}}


FOLDERS = storage_class("f", volumes.PROVISIONER)


def test_the_smallest_volume_that_fits_is_taken() -> None:
    there = [volume("big", "5Gi"), volume("fits", "2Gi"), volume("small", "500Mi")]
    assert volumes.best(claim(), there) == there[1]
    assert volumes.best(claim(size="6Gi"), there) is None


def test_what_must_agree() -> None:
    assert not volumes.fits(volume("v"), claim(storageClassName="x"))
    assert volumes.fits(volume("v", storageClassName="x"), claim(storageClassName="x"))
    assert not volumes.fits(volume("v"), claim(accessModes=["ReadWriteMany"]))
    assert not volumes.fits(volume("v", volumeMode="Block"), claim())
    assert not volumes.fits(volume("v"), claim(selector={"matchLabels": {"v": "w"}}))
    assert volumes.fits(volume("v"), claim(selector={"matchLabels": {"v": "v"}}))
    taken = {"namespace": "ns", "name": "c", "uid": "another"}
    assert not volumes.fits(volume("v", claimRef=taken), claim())


def test_a_volume_made_for_a_claim_is_preferred_whatever_its_class() -> None:
    reserved = volume("z", "9Gi", storageClassName="other", claimRef={"namespace": "ns", "name": "c"})
    assert volumes.best(claim(), [volume("a"), reserved]) == reserved


def test_a_claim_that_names_its_volume_gets_no_other() -> None:
    assert volumes.best(claim(volumeName="b"), [volume("a")]) is None


def test_only_volumes_of_the_node_are_taken() -> None:
    there = [volume("a", on="n1"), volume("b", "2Gi", on="n2")]
    assert volumes.best(claim(), there, node("n2")) == there[1]


def test_a_folder_is_made_on_the_node_for_the_claim() -> None:
    wanted = claim(storageClassName="f")
    made = volumes.provisioned(wanted, FOLDERS, node("n1"), "/data/")
    assert made["spec"]["hostPath"] == {"path": "/data/ns_c_pvc-uid-c", "type": "DirectoryOrCreate"}
    assert volumes.fits(made, wanted)
    assert volumes.on_node(made, node("n1"))
    assert not volumes.on_node(made, node("n2"))


def test_the_newest_default_class_counts() -> None:
    def marked(name: str, made: str, value: str = "true") -> Json:
        return {
            "metadata": {
                "name": name,
                "creationTimestamp": made,
                "annotations": {volumes.IS_DEFAULT: value},
            }
        }

    assert volumes.default_class([]) == ""
    classes = [
        marked("a", "2026-01-02T00:00:00Z"),
        marked("b", "2026-01-01T00:00:00Z"),
        marked("c", "2027-01-01T00:00:00Z", "false"),
    ]
    assert volumes.default_class(classes) == "a"


def pod(*claims: str) -> Json:
    return {
        "metadata": {"name": "p", "namespace": "ns"},
        "spec": {
            "containers": [{"name": "c"}],
            "volumes": [{"name": n, "persistentVolumeClaim": {"claimName": n}} for n in claims],
        },
    }


def needs(
    there: dict[str, Json], made: dict[str, Json], classes: dict[str, Json], *names: str
) -> volumes.Needs:
    return volumes.needs(pod(*names)["spec"], there, made, classes)


def test_a_pod_waits_for_its_claims_in_words() -> None:
    assert needs({}, {}, {}, "c").fault == 'persistentvolumeclaim "c" not found'
    assert "unbound immediate" in needs({"c": claim()}, {}, {}, "c").fault
    assert "non-existent" in needs({"c": claim(phase="Bound", volumeName="v")}, {}, {}, "c").fault


def test_a_pod_goes_where_its_volume_is() -> None:
    there = {"c": claim(phase="Bound", volumeName="v")}
    wants = needs(there, {"v": volume("v", on="n2")}, {}, "c")
    assert choose(pod("c"), [node("n1"), node("n2")], wants.refuse).node == "n2"
    assert choose(pod("c"), [node("n1")], wants.refuse).message == (
        f"0/1 nodes are available: 1 {volumes.WRONG_NODE}."
    )


def test_two_claims_do_not_count_on_one_volume() -> None:
    there = {"a": claim("a", storageClassName="l"), "b": claim("b", storageClassName="l")}
    made = {"v": volume("v", on="n1", storageClassName="l")}
    assert needs(there, made, storage_class("l"), "a").refuse(node("n1")) == ""
    assert needs(there, made, storage_class("l"), "a", "b").refuse(node("n1")) == volumes.NO_VOLUME


def test_a_folder_can_be_had_on_any_node() -> None:
    wants = needs({"c": claim(storageClassName="f")}, {}, FOLDERS, "c")
    assert wants.refuse(node("n1")) == ""
    assert [item["metadata"]["name"] for item in wants.waiting] == ["c"]
