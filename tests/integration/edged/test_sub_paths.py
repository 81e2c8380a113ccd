"""Who may use a folder that was made for a subPath: whoever may use the volume."""

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
