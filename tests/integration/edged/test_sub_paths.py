"""Who may use a folder that was made for a subPath, and what a container finds at one when it starts again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.edged.bench import Bench, container, pod
from tests.integration.edged.machine import Containerd
from tests.integration.edged.test_faults import on_containerd


@pytest.mark.root
def test_a_user_other_than_root_writes_below_a_sub_path(tmp_path: Path, containerd: Containerd) -> None:
    mounts = [{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/deep", "subPath": "a/b"}]

    def wanted(name: str, **context: int) -> dict[str, object]:
        return pod(
            name,
            container(volumeMounts=mounts),
            securityContext={"runAsUser": 1000, "runAsGroup": 1000, **context},
            volumes=[{"name": "v", "emptyDir": {}}],
        )

    async def story(b: Bench) -> None:
        async with b.edged():
            plain, grouped = b.want(wanted("plain")), b.want(wanted("grouped", fsGroup=2000))
            for uid in (plain, grouped):
                await b.running(uid)
                assert (await b.exec(uid, "touch", "/deep/file"))[0] == 0
                assert (await b.exec(uid, "test", "-e", "/v/a/b/file"))[0] == 0
            assert (await b.exec(plain, "stat", "-c", "%a", "/deep"))[1].strip() == "777"
            # what is made in it belongs to the pod's group as well
            assert (await b.exec(grouped, "stat", "-c", "%a %g", "/deep"))[1].strip() == "2777 2000"
            assert (await b.exec(grouped, "stat", "-c", "%g", "/deep/file"))[1].strip() == "2000"

    on_containerd(tmp_path, containerd, story)


@pytest.mark.root
def test_a_container_that_starts_again_finds_what_is_there_now(
    tmp_path: Path, containerd: Containerd
) -> None:
    mounts = [
        {"name": "v", "mountPath": "/etc/key", "subPath": "key"},
        {"name": "v", "mountPath": "/whole"},
    ]
    # ends when it is told to, and is started again
    waits = ["sh", "-c", "cat /etc/key; until [ -e /tmp/end ]; do sleep 0.2; done"]
    wanted = pod(
        "one",
        container(command=waits, volumeMounts=mounts),
        volumes=[{"name": "v", "configMap": {"name": "cm"}}],
    )

    async def story(b: Bench) -> None:
        b.put("configmap", "cm", data={"key": "old"})
        async with b.edged():
            uid = b.want(wanted)
            await b.running(uid)
            b.put("configmap", "cm", data={"key": "new"})
            whole = b.config.root_dir / uid / "volumes/kubernetes.io~configmap/v/key"
            await b.until(lambda: whole.read_text() == "new", "the volume is new")
            # one that runs keeps what it has, as in a kubelet
            assert (await b.exec(uid, "cat", "/etc/key"))[1] == "old"
            await b.exec(uid, "touch", "/tmp/end")
            await b.until(lambda: b.container(uid)["restartCount"] == 1 and b.ready(uid), "started again")
            assert (await b.exec(uid, "cat", "/etc/key"))[1] == "new"

    on_containerd(tmp_path, containerd, story)
