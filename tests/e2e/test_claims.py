"""A claim of the default class is a folder on the node, and its data outlives the pods that use it."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.skerry import Skerry, eventually

CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "kept"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
}


def job(name: str, command: str) -> dict[str, Any]:
    container = {
        "name": "c",
        "image": "skerry.local/busybox:1",
        "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", command],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "kept"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"test": "claims"}},
        "spec": {"restartPolicy": "Never", "containers": [container], "volumes": [volume]},
    }


def test_data_outlives_the_pod_that_wrote_it(trial: Skerry) -> None:
    def succeeded(name: str) -> bool:
        return bool(trial.get("pod", name)["status"]["phase"] == "Succeeded")

    try:
        trial.kubectl("apply", "-f", "-", stdin=json.dumps(CLAIM))
        trial.kubectl("apply", "-f", "-", stdin=json.dumps(job("writer", "echo here > /data/file")))
        eventually(lambda: succeeded("writer"), "the pod that writes has ended well")
        trial.kubectl("delete", "pod", "writer", "--timeout=60s")
        reads = job("reader", 'test "$(cat /data/file)" = here')
        trial.kubectl("apply", "-f", "-", stdin=json.dumps(reads))
        eventually(lambda: succeeded("reader"), "the pod that reads has ended well")
        (folder,) = (trial.home / "volumes").iterdir()
        assert (folder / "file").read_text() == "here\n"
    finally:
        trial.kubectl("delete", "pods", "-l", "test=claims", "--timeout=60s")
        trial.kubectl("delete", "pvc", "kept", "--ignore-not-found", "--timeout=60s")
        trial.kubectl("delete", "pv", "--all", "--timeout=60s")
    assert (folder / "file").exists()
