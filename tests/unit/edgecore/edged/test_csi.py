from __future__ import annotations

import hashlib
import json

import pytest

from edgecore.edged import csi, persistent, volumes
from edgecore.edged.csi import Wanted
from edgecore.edged.errors import BadPod, VolumeError
from edgecore.edged.podread import decode_pod
from tests.unit.edgecore.edged.builders import make, raw


def wanted(*modes: str, **fields: object) -> Wanted:
    base = {"spec_name": "pv", "driver": "d", "handle": "h", "ephemeral": False}
    return Wanted(modes=modes, **{**base, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("modes", "can", "mode"),
    [
        (("ReadWriteOnce",), (), csi.SINGLE_NODE_WRITER),
        (("ReadWriteOnce",), (csi.CAN_SINGLE_NODE_MULTI_WRITER,), csi.SINGLE_NODE_MULTI_WRITER),
        (("ReadWriteOncePod",), (csi.CAN_SINGLE_NODE_MULTI_WRITER,), csi.SINGLE_NODE_SINGLE_WRITER),
        (("ReadOnlyMany",), (), csi.MULTI_NODE_READER_ONLY),
        (("ReadWriteOnce", "ReadWriteMany"), (), csi.MULTI_NODE_MULTI_WRITER),
        ((), (), csi.SINGLE_NODE_WRITER),
    ],
)
def test_access_modes(modes: tuple[str, ...], can: tuple[int, ...], mode: int) -> None:
    assert csi.access_mode(wanted(*modes), can) == mode


def test_a_driver_is_told_whose_a_volume_is_when_it_asks() -> None:
    pod = make(serviceAccountName="robot")
    volume = wanted(attributes={"a": "b"})
    assert csi.context(pod, volume, pod_info=False) == {"a": "b"}
    told = csi.context(pod, volume, pod_info=True)
    assert told["csi.storage.k8s.io/pod.uid"] == "u"
    assert told["csi.storage.k8s.io/serviceAccount.name"] == "robot"
    assert told["csi.storage.k8s.io/ephemeral"] == "false"


def test_names_are_a_kubelets() -> None:
    digest = hashlib.sha256(b"hdedge-1").hexdigest()
    assert csi.attachment_name(wanted(), "edge-1") == f"csi-{digest}"
    pod = make(volumes=[{"name": "v", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "s"}}}])
    volume = csi.inline(pod, pod.spec.volumes[0])
    assert volume.handle == "csi-" + hashlib.sha256(b"uv").hexdigest()
    assert volume.ephemeral
    assert volume.publish_secret == ("ns", "s")


def test_a_group_is_given_to_one_nodes_file_systems_only() -> None:
    assert csi.group_applies(wanted("ReadWriteOnce", fs_type="ext4"))
    assert not csi.group_applies(wanted("ReadWriteOnce", fs_type="ext4"), "None")
    assert csi.group_applies(wanted("ReadWriteMany"), "File")
    assert not csi.group_applies(wanted("ReadWriteMany", read_only=True), "File")
    assert not csi.group_applies(wanted("ReadWriteOnce"))
    assert not csi.group_applies(wanted("ReadWriteMany", fs_type="ext4"))
    assert not csi.group_applies(wanted("ReadWriteOnce", fs_type="ext4", read_only=True))


def test_what_a_cluster_says_of_a_driver() -> None:
    assert csi.Driver().attach_required
    assert csi.Driver().serves(ephemeral=False)
    assert not csi.Driver().serves(ephemeral=True)


def pv(**source: object) -> bytes:
    return json.dumps(
        {
            "metadata": {"name": "pv"},
            "spec": {
                "claimRef": {"namespace": "ns", "name": "c", "uid": "1"},
                "csi": {"driver": "d", "volumeHandle": "h", **source},
                "accessModes": ["ReadWriteOnce"],
                "mountOptions": ["noatime"],
            },
        }
    ).encode()


CLAIM = json.dumps(
    {
        "metadata": {"name": "c", "namespace": "ns", "uid": "1"},
        "spec": {"volumeName": "pv"},
        "status": {"phase": "Bound"},
    }
).encode()


def test_a_claim_on_a_drivers_volume() -> None:
    found = persistent.resolve(
        "c", CLAIM, pv(fsType="ext4", nodeStageSecretRef={"name": "s", "namespace": "x"})
    )
    assert found == Wanted(
        claim_uid="1",
        spec_name="pv",
        driver="d",
        handle="h",
        ephemeral=False,
        fs_type="ext4",
        mount_flags=("noatime",),
        modes=("ReadWriteOnce",),
        stage_secret=("x", "s"),
    )
    # it becomes the name of a folder
    with pytest.raises(VolumeError):
        persistent.resolve("c", CLAIM, pv(driver="../d"))
    with pytest.raises(BadPod):
        decode_pod(raw(volumes=[{"name": "v", "csi": {"driver": "a/b"}}]))


def test_a_claim_that_was_made_for_the_pod_is_no_other_pods() -> None:
    pod = make(volumes=[{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}])
    claim = pod.spec.volumes[0].persistent_volume_claim
    assert claim is not None
    assert claim.claim_name == "p-v"
    assert volumes.is_own_claim(pod, "p-v")
    with pytest.raises(VolumeError, match="was not created for this pod"):
        persistent.resolve("c", CLAIM, pv(), owner="u")
    owned = json.loads(CLAIM)
    owned["metadata"]["ownerReferences"] = [{"uid": "u", "controller": True}]
    assert persistent.resolve("c", json.dumps(owned).encode(), pv(), owner="u")


def test_what_drivers_say_of_a_node_becomes_its_csinode_and_labels() -> None:
    found = {
        "b.example.com": csi.NodeInfo(node_id="2", topology={"example.com/rack": "r", "example.com/row": ""}),
        "a.example.com": csi.NodeInfo(node_id="1", most=2**40),
    }
    assert csi.node_drivers(found) == [
        {
            "name": "a.example.com",
            "nodeID": "1",
            "topologyKeys": [],
            "allocatable": {"count": 2**31 - 1},
        },
        {"name": "b.example.com", "nodeID": "2", "topologyKeys": ["example.com/rack", "example.com/row"]},
    ]
    assert csi.topology_labels(found) == {"example.com/rack": "r", "example.com/row": ""}


@pytest.mark.parametrize(
    ("node_id", "topology", "fault"),
    [
        ("n", {}, ""),
        ("n", {"rack": "1", "topology.kubernetes.io/zone": "z"}, ""),
        ("", {}, "its name for it has 0 characters"),
        ("n" * 193, {}, "its name for it has 193 characters"),
        ("n", {"a b": "1"}, "is no label"),
        ("n", {"rack": "a/b"}, "is no label"),
        ("n", {"/rack": "a"}, "is no label"),
        ("n", {"node-role.kubernetes.io/x": "a"}, "is not a driver's to set"),
        ("n", {"kubernetes.io/hostname": "other"}, "is not a driver's to set"),
        ("n", {f"k{i}": "" for i in range(33)}, "more than 32 places"),
    ],
)
def test_what_cannot_be_a_label_is_refused(node_id: str, topology: dict[str, str], fault: str) -> None:
    assert fault in csi.node_fault(node_id, topology)
    assert bool(fault) == bool(csi.node_fault(node_id, topology))
