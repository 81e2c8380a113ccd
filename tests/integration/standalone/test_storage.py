"""Claims and volumes, as charts use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.integration.standalone.test_workloads import Cluster, on_cluster

Json = dict[str, Any]


def claim(name: str, **spec: Any) -> Json:
    asked = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {**asked, **spec},
    }


def pod(name: str, *claims: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "containers": [{"name": "c", "image": "busybox"}],
            "volumes": [{"name": item, "persistentVolumeClaim": {"claimName": item}} for item in claims],
        },
    }


def volume(name: str, node: str, **spec: Any) -> Json:
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "local": {"path": f"/mnt/{name}"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
            **spec,
        },
    }


def test_a_claim_gets_a_folder_where_its_pod_goes(tmp_path: Path) -> None:
    async def story(on: Cluster) -> None:
        await on.apply(claim("data"))
        assert (await on.read("pvc", "data"))["spec"]["storageClassName"] == "node-folder"
        await on.apply(pod("web", "data"))
        await on.until(lambda: on.phase("pod", "web", "Running"))
        found = await on.read("pvc", "data")
        assert found["status"]["phase"] == "Bound"
        assert found["status"]["capacity"] == {"storage": "1Gi"}
        made = await on.read("pv", found["spec"]["volumeName"])
        assert made["spec"]["hostPath"]["type"] == "DirectoryOrCreate"
        # a second pod follows the data
        await on.apply(pod("second", "data"))
        await on.until(lambda: on.phase("pod", "second", "Running"))
        assert len({item["spec"]["nodeName"] for item in await on.pods()}) == 1
        # in use it stays, and then its volume is kept for whoever wants the data
        await on.good("delete", "pvc", "data", "--wait=false")
        assert "deletionTimestamp" in (await on.read("pvc", "data"))["metadata"]
        await on.good("delete", "pod", "web", "second")
        await on.until(lambda: on.phase("pv", made["metadata"]["name"], "Released"))
        assert "No resources" in await on.said("get", "pvc")

    on_cluster(tmp_path, story, "n1", "n2")


def test_a_pod_goes_to_the_node_of_its_local_volume(tmp_path: Path) -> None:
    async def story(on: Cluster) -> None:
        local = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": "local"},
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        }
        await on.apply(local, volume("disk", "n2", storageClassName="local"))
        await on.until(lambda: on.phase("pv", "disk", "Available"))
        await on.apply(claim("data", storageClassName="local"), pod("web", "data"))
        await on.until(lambda: on.phase("pod", "web", "Running"))
        assert (await on.read("pod", "web"))["spec"]["nodeName"] == "n2"
        assert (await on.read("pv", "disk"))["spec"]["claimRef"]["name"] == "data"
        await on.apply(claim("more", storageClassName="local"), pod("late", "more"))
        await on.until(lambda: on.unschedulable("late", "didn't find available persistent volumes"))

    on_cluster(tmp_path, story, "n1", "n2")


def test_claims_are_bound_at_once_when_their_class_does_not_wait(tmp_path: Path) -> None:
    async def story(on: Cluster) -> None:
        await on.apply(claim("data", storageClassName=""), claim("wrong", storageClassName="absent"))
        await on.apply(pod("web", "data"))
        await on.until(lambda: on.unschedulable("web", "unbound immediate"))
        await on.apply(volume("disk", "n1", storageClassName="", persistentVolumeReclaimPolicy="Delete"))
        await on.until(lambda: on.phase("pod", "web", "Running"))
        assert 'storageclass.storage.k8s.io "absent" not found' in await on.good("describe", "pvc", "wrong")
        await on.good("delete", "pod", "web")
        await on.good("delete", "pvc", "data")
        await on.until(lambda: on.phase("pv", "disk", "Failed"))
        await on.good("delete", "pv", "disk")

    on_cluster(tmp_path, story, "n1")
