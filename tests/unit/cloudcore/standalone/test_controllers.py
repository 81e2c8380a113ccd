from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cloudcore.standalone.controllers.deployments import Members, bounds, deployment_status, plan_rolling
from cloudcore.standalone.controllers.nodes import STOPPED, unknown_conditions, wanted_taints
from cloudcore.standalone.controllers.owned import deletion_order
from cloudcore.standalone.controllers.placement import Node, choose, requests, tolerates, trimmed
from cloudcore.standalone.controllers.taints import stay_s

NOW = "2026-01-01T00:00:00Z"


def node(name: str, cpu: str = "4", **spec: Any) -> Node:
    return Node.of(
        {
            "metadata": {"name": name, "labels": {"zone": name[0], "name": name}},
            "spec": spec,
            "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "3"}},
        }
    )


def pod(cpu: str = "1", labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    container = {"name": "c", "resources": {"requests": {"cpu": cpu}}}
    return {
        "metadata": {"name": "p", "namespace": "ns", "labels": labels or {}},
        "spec": {"containers": [container], **spec},
    }


def test_reasons_are_counted_in_words() -> None:
    nodes = [
        node("a", cpu="500m"),
        node("b", taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}]),
        node("c", unschedulable=True),
    ]
    assert choose(pod(), nodes).message == (
        "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {k: v}, "
        "1 node(s) were unschedulable."
    )
    assert choose(pod(), []).message == "no nodes available to schedule pods"
    assert choose(pod(nodeSelector={"name": "z"}), nodes).node == ""


def test_the_emptier_node_is_chosen_and_full_ones_are_not() -> None:
    busy, free = node("a"), node("b")
    busy.add(pod("3"))
    assert choose(pod(), [busy, free]).node == "b"
    for _ in range(3):
        free.add(pod("0"))
    assert choose(pod("0"), [busy, free]).node == "a"
    assert "Too many pods" in choose(pod("9"), [free]).message


def test_a_node_without_a_pod_is_as_before() -> None:
    term = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "x"}}}
    rule = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    shy = pod("2", affinity=rule)
    shy["metadata"] |= {"uid": "u1", "ownerReferences": [{"uid": "o"}]}
    shy["spec"]["containers"][0]["ports"] = [{"hostPort": 80}]
    there, empty = node("a"), node("a")
    there.add(trimmed(shy))
    assert (there.used["cpu"], there.ports, there.owners["o"]) == (2, {("TCP", 80)}, 1)
    assert choose(pod(labels={"app": "x"}), [there]).node == ""
    there.remove("another")
    there.remove("u1")
    assert choose(pod("4", labels={"app": "x"}), [there]).node == "a"
    assert (there.pods, there.ports, there.apart, there.used["cpu"]) == ([], set(), [], 0)
    assert empty.pods == there.pods


def test_affinity_anti_affinity_and_spread() -> None:
    nodes = [node("a1"), node("a2"), node("b1")]
    nodes[0].add(pod(labels={"app": "x"}))
    term = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "x"}}}
    rule = "requiredDuringSchedulingIgnoredDuringExecution"
    near = pod(affinity={"podAffinity": {rule: [term]}})
    assert choose(near, nodes).node == "a2"
    assert choose(pod(affinity={"podAntiAffinity": {rule: [term]}}), nodes).node == "b1"
    spread = pod(labels={"app": "x"}, topologySpreadConstraints=[{**term, "maxSkew": 1}])
    assert choose(spread, nodes).node == "b1"
    where = {
        "nodeSelectorTerms": [{"matchExpressions": [{"key": "name", "operator": "In", "values": ["a2"]}]}]
    }
    assert choose(pod(affinity={"nodeAffinity": {rule: where}}), nodes).node == "a2"


def test_tolerations() -> None:
    taint = {"key": "k", "value": "v", "effect": "NoSchedule"}
    assert tolerates([{"operator": "Exists"}], taint)
    assert tolerates([{"key": "k", "value": "v"}], taint)
    assert not tolerates([{"key": "k", "value": "w"}], taint)
    assert not tolerates([{"key": "k", "operator": "Exists", "effect": "NoExecute"}], taint)


def test_an_init_container_counts_only_when_it_is_larger() -> None:
    spec = pod("1")["spec"]
    spec["initContainers"] = [{"resources": {"requests": {"cpu": "3"}}}]
    assert requests(spec)["cpu"] == 3


def test_a_pod_that_can_never_have_what_it_asks_for_takes_what_it_has() -> None:
    resized = pod("500")
    resized["status"] = {
        "conditions": [{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}],
        "containerStatuses": [{"name": "c", "allocatedResources": {"cpu": "1"}}],
    }
    assert requests(trimmed(resized)["spec"]) == {"cpu": 1}
    resized["status"]["conditions"][0]["reason"] = "Deferred"
    assert requests(trimmed(resized)["spec"]) == {"cpu": 500}


def test_a_pod_that_asks_for_something_as_a_whole_takes_that_room() -> None:
    whole = pod("1", resources={"requests": {"cpu": "3"}})
    one = node("a", cpu="4")
    one.add(trimmed(whole))
    assert one.used["cpu"] == 3
    assert "Insufficient cpu" in choose(pod("2"), [one]).message


@given(
    st.integers(0, 8),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 8),
    st.integers(0, 8),
    st.integers(0, 8),
)
def test_a_rollout_keeps_its_bounds_and_ends(
    wanted: int, surge: int, missing: int, old_size: int, old_ready: int, new_size: int
) -> None:
    missing = min(missing, wanted)
    if surge == missing == 0:
        surge = 1
    new = Members(name="new", wanted=new_size, current=new_size, available=new_size)
    old = Members(name="old", wanted=old_size, current=old_size, available=min(old_ready, old_size))
    for _ in range(40):
        ready = new.available + old.available
        change = plan_rolling(wanted, surge, missing, new, [old])
        grown = max(change.get("new", new.wanted), new.wanted)
        if grown > new.wanted:
            assert grown + old.wanted <= wanted + surge
        shrunk = change.get("old", old.wanted)
        lost = max(old.available - shrunk, 0)
        if lost:
            assert ready - lost >= wanted - missing
        new = Members(
            name="new",
            wanted=change.get("new", new.wanted),
            current=0,
            available=change.get("new", new.wanted),
        )
        old = Members(name="old", wanted=shrunk, current=0, available=min(old.available, shrunk))
        if not change:
            break
    assert (new.wanted, old.wanted) == (wanted, 0)
    assert plan_rolling(wanted, surge, missing, new, [old]) == {}


def test_percentages_round_as_kubernetes_does() -> None:
    spec = {"replicas": 3, "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}}
    assert bounds(spec) == (1, 0)


def test_a_status_keeps_the_time_of_what_did_not_change() -> None:
    body: dict[str, Any] = {"metadata": {"generation": 2}, "spec": {"replicas": 1}}
    new = {"metadata": {"name": "w-1"}, "status": {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1}}
    body["status"] = deployment_status(body, new, [new], NOW)
    assert deployment_status(body, new, [new], "2026-02-02T00:00:00Z") == body["status"]
    assert body["status"]["availableReplicas"] == 1
    assert "unavailableReplicas" not in body["status"]


def test_a_silent_node_is_unknown_and_tainted_but_keeps_other_taints() -> None:
    silent: dict[str, Any] = {
        "metadata": {"name": "n"},
        "spec": {"taints": [{"key": "mine", "effect": "NoSchedule"}]},
        "status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": NOW}]},
    }
    silent["status"]["conditions"] = unknown_conditions(silent, NOW)
    ready = silent["status"]["conditions"][0]
    assert (ready["status"], ready["reason"], ready["lastHeartbeatTime"]) == ("Unknown", STOPPED[0], NOW)
    taints = wanted_taints(silent)
    assert [taint["key"] for taint in taints] == ["mine", *["node.kubernetes.io/unreachable"] * 2]
    silent["spec"]["taints"] = taints
    assert wanted_taints(silent) == taints
    ready["status"] = "True"
    assert [taint["key"] for taint in wanted_taints(silent)] == ["mine"]


def test_which_pods_go_first() -> None:
    def one(name: str, node_name: str = "", ready: str = "False", born: str = NOW) -> dict[str, Any]:
        return {
            "metadata": {"name": name, "creationTimestamp": born},
            "spec": {"nodeName": node_name},
            "status": {
                "phase": "Running" if node_name else "Pending",
                "conditions": [{"type": "Ready", "status": ready}],
            },
        }

    pods = [
        one("old-ready", "n", "True"),
        one("young-ready", "n", "True", "2026-02-01T00:00:00Z"),
        one("broken", "n"),
        one("waiting"),
    ]
    order = [item["metadata"]["name"] for item in sorted(pods, key=deletion_order)]
    assert order == ["waiting", "broken", "young-ready", "old-ready"]


def test_how_long_a_pod_may_stay_under_a_taint() -> None:
    taint = {"key": "k", "value": "v", "effect": "NoExecute"}
    other = {"key": "o", "effect": "NoExecute"}
    for_a_while = {"key": "k", "operator": "Exists", "tolerationSeconds": 30}
    assert stay_s([], [taint]) == 0
    assert stay_s([], [{**taint, "effect": "NoSchedule"}]) is None
    assert stay_s([{"operator": "Exists"}], [taint, other]) is None
    assert stay_s([for_a_while], [taint]) == 30
    assert stay_s([for_a_while, {**for_a_while, "tolerationSeconds": -1}], [taint]) == 0
    assert stay_s([for_a_while], [taint, other]) == 0
    # what the control plane only guesses of a node ends no pod on it
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        assert stay_s([], [{"key": key, "effect": "NoExecute"}]) is None
