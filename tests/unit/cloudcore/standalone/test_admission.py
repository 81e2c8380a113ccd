"""What the server adds to pods before they are stored."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from cloudcore.standalone.admission import RUNTIMES, Admission
from cloudcore.standalone.status import ApiError
from cloudcore.standalone.store import Store

FAST = {
    "metadata": {"name": "fast", "uid": "r"},
    "handler": "crun",
    "overhead": {"podFixed": {"cpu": "250m", "memory": "64Mi"}},
    "scheduling": {
        "nodeSelector": {"runtime": "crun"},
        "tolerations": [{"key": "crun", "operator": "Exists"}],
    },
}


def given(tmp_path: Path, **spec: Any) -> dict[str, Any]:
    """A pod's spec as admitted where RuntimeClasses `fast` and `plain` are."""

    async def main() -> None:
        store = Store(tmp_path / "db", fields=lambda key, value: {})
        store.open()
        store.start()
        try:
            for body in (FAST, {"metadata": {"name": "plain", "uid": "p"}, "handler": "runc"}):
                _, done = store.put(RUNTIMES, "", body["metadata"]["name"], body)
                await done
            Admission(store, random.Random(1))._runtime_class({"name": "web"}, spec)
        finally:
            await store.stop()

    asyncio.run(main())
    return spec


def test_a_runtimes_overhead_and_place_become_the_pods(tmp_path: Path) -> None:
    own = {"key": "own", "operator": "Exists"}
    found = given(tmp_path, runtimeClassName="fast", nodeSelector={"a": "b"}, tolerations=[own])
    assert found["overhead"] == {"cpu": "250m", "memory": "64Mi"}
    assert found["nodeSelector"] == {"a": "b", "runtime": "crun"}
    assert found["tolerations"] == [own, {"key": "crun", "operator": "Exists"}]
    same = given(tmp_path, runtimeClassName="fast", overhead={"cpu": "0.25", "memory": "65536Ki"})
    assert same["overhead"] == {"cpu": "250m", "memory": "64Mi"}
    assert given(tmp_path, runtimeClassName="plain") == {"runtimeClassName": "plain", "tolerations": []}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"runtimeClassName": "none"}, 'pod rejected: RuntimeClass "none" not found'),
        ({"overhead": {"cpu": "1"}}, "Overhead set without corresponding RuntimeClass"),
        ({"runtimeClassName": "plain", "overhead": {"cpu": "1"}}, "without corresponding RuntimeClass"),
        ({"runtimeClassName": "fast", "overhead": {"cpu": "1"}}, "doesn't match RuntimeClass's defined"),
        (
            {"runtimeClassName": "fast", "nodeSelector": {"runtime": "runc"}},
            "nodeSelector\\[runtime\\] = crun; pod.spec.nodeSelector\\[runtime\\] = runc",
        ),
    ],
)
def test_a_pod_that_its_runtime_cannot_have_is_refused(
    tmp_path: Path, spec: dict[str, Any], words: str
) -> None:
    with pytest.raises(ApiError, match=words):
        given(tmp_path, **spec)
