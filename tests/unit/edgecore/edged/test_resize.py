"""How a running container gets other resources."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edgecore.edged.pod import Condition, Container, ContainerStatusJson, PodStatus, ResourceRequirements
from edgecore.edged.quantity import NANO
from edgecore.edged.resize import (
    Applied,
    Pending,
    Progress,
    Way,
    applied,
    beyond,
    decide,
    decode,
    differs,
    encode,
    grant,
    granted_before,
    grows,
    last_told,
    with_grant,
)
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


def test_no_container_starts_again_that_nobody_resized() -> None:
    c = msgspec.structs.replace(
        container(memory="RestartContainer"),
        resources=ResourceRequirements(limits={"memory": "1Mi"}, requests={"cpu": "0.5"}),
    )
    same = ResourceRequirements(limits={"memory": "1024Ki"}, requests={"cpu": "500m"})
    other = ResourceRequirements(limits={"memory": "2Mi"}, requests={"cpu": "500m"})
    # by another reading of the same pod it is to have something else
    assert decide(c, Applied(), HAS, same) is Way.UPDATE
    assert decide(c, Applied(), HAS, other) is Way.RESTART
    assert decide(c, Applied(), HAS, ResourceRequirements()) is Way.RESTART


def test_what_was_told_of_containers() -> None:
    had = ResourceRequirements(limits={"memory": "1Mi"})
    status = PodStatus(
        container_statuses=[ContainerStatusJson(name="a", resources=had), ContainerStatusJson(name="b")],
        init_container_statuses=[ContainerStatusJson(name="side", resources=had)],
    )
    assert last_told(status) == {"a": had, "b": ResourceRequirements(), "side": had}


def test_a_status_that_says_odd_amounts_says_nothing() -> None:
    odd = ContainerStatusJson(name="a", resources=ResourceRequirements(limits={"memory": "much"}))
    status = PodStatus(
        container_statuses=[odd], conditions=[Condition(type="PodResizePending", status="True")]
    )
    pod = make(c("a", resources={"limits": {"memory": "1Mi"}}))
    given = granted_before(pod, status)
    assert given == grant(pod)
    assert not differs(pod, given)
    assert last_told(status) == {}


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


def asks(cpu: str, memory: str = "", **limits: str) -> dict[str, Any]:
    return {
        "resources": {"requests": {"cpu": cpu, **({"memory": memory} if memory else {})}, "limits": limits}
    }


def test_a_pod_goes_on_with_what_it_was_granted() -> None:
    before = make(c("a", **asks("100m")), c("b"))
    given = grant(before)
    assert list(given) == ["a"]
    after = make(c("a", **asks("200m")), c("b"))
    assert not differs(before, given)
    assert differs(after, given)
    assert with_grant(after, given).spec == before.spec
    assert with_grant(before, given) is before
    # one that had nothing asks for something
    other = make(c("a", **asks("100m")), c("b", **asks("1m")))
    assert differs(other, given)
    assert grows(other, given)
    assert with_grant(other, given).spec == before.spec
    # the same amount, written otherwise, or of something else
    assert not differs(make(c("a", **asks("0.1")), c("b")), given)
    more = make(c("a", resources={"requests": {"cpu": "100m", "ephemeral-storage": "1Gi"}}), c("b"))
    assert not differs(more, given)


def test_whether_it_asks_for_more() -> None:
    given = grant(make(c("a", **asks("100m", "10Mi")), c("b", **asks("100m"))))
    assert not grows(make(c("a", **asks("50m", "10Mi")), c("b", **asks("150m"))), given)
    assert grows(make(c("a", **asks("50m", "11Mi")), c("b", **asks("100m"))), given)


def test_what_an_agent_granted_that_did_not_write_it_down() -> None:
    pod = make(c("a", **asks("2")), c("b", **asks("1")))
    assert granted_before(pod, PodStatus()) == grant(pod)
    had = ContainerStatusJson(name="a", resources=ResourceRequirements(requests={"cpu": "1"}))
    waits = Condition(type="PodResizePending", status="True", reason="Infeasible")
    found = granted_before(pod, PodStatus(container_statuses=[had], conditions=[waits]))
    assert found["a"].requests == {"cpu": "1"}
    assert found["b"].requests == {"cpu": "1"}


def test_when_another_try_may_come_to_something_else() -> None:
    assert not Progress().again
    assert not Progress(pending=Pending(reason="Infeasible", message="")).again
    assert Progress(pending=Pending(reason="Deferred", message="")).again
    assert Progress(running=frozenset({"c"})).again
