"""How a running container gets other resources."""

from __future__ import annotations

from typing import Any

import pytest

from edgecore.edged.pod import Container
from edgecore.edged.quantity import NANO
from edgecore.edged.resize import Applied, Way, applied, beyond, decide, decode, encode
from edgecore.edged.runtime import Resources
from tests.unit.edgecore.edged.builders import c, make

HAS = Applied(cpu_quota_us=50_000, cpu_shares=512, memory_limit_bytes=2**20)


def container(**policies: str) -> Container:
    rules: list[dict[str, Any]] = [{"resourceName": k, "restartPolicy": v} for k, v in policies.items()]
    return make(c(resizePolicy=rules)).spec.containers[0]


@pytest.mark.parametrize(
    ("has", "wanted", "policies", "way"),
    [
        (HAS, HAS, {}, Way.NOTHING),
        (None, HAS, {}, Way.NOTHING),
        (HAS, Applied(cpu_quota_us=60_000, cpu_shares=512, memory_limit_bytes=2**20), {}, Way.UPDATE),
        (
            HAS,
            Applied(cpu_quota_us=50_000, cpu_shares=512, memory_limit_bytes=2**21),
            {"cpu": "RestartContainer"},
            Way.UPDATE,
        ),
        (HAS, Applied(), {"memory": "RestartContainer"}, Way.RESTART),
        (HAS, Applied(cpu_shares=2, memory_limit_bytes=2**20), {"cpu": "RestartContainer"}, Way.RESTART),
    ],
)
def test_decide(has: Applied | None, wanted: Applied, policies: dict[str, str], way: Way) -> None:
    assert decide(container(**policies), has, wanted) is way


def test_what_is_kept_on_a_container_can_be_read_back() -> None:
    made = applied(Resources(cpu_quota_us=1, cpu_shares=2, memory_limit_bytes=3, oom_score_adj=4))
    assert decode(encode(made)) == made
    assert decode("") is None
    assert decode("{") is None


def test_what_a_node_never_has() -> None:
    pod = make(c(resources={"requests": {"cpu": "3", "memory": "1Mi"}}))
    assert beyond(pod, {"cpu": 4 * NANO}) == beyond(pod, {}) == ""
    told = beyond(pod, {"cpu": 2 * NANO, "memory": 2**30 * NANO})
    assert told == "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000"
