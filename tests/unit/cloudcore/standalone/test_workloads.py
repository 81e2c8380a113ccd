from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cloudcore.standalone.controllers import cronjobs, daemons, endpoints, jobs, owned, stateful
from cloudcore.standalone.controllers.deployments import deployment_status
from cloudcore.standalone.controllers.placement import Node
from cloudcore.standalone.controllers.revisions import LABEL, template_data, template_of, to_forget
from cloudcore.standalone.cron import parse

Json = dict[str, Any]
NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
STAMP = "2026-01-01T12:00:00Z"
EARLY = "2026-01-01T11:00:00Z"


def pod(
    name: str,
    phase: str = "Running",
    *,
    ready: bool = True,
    node: str = "n1",
    letters: str = "new",
    **metadata: Any,
) -> Json:
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": EARLY}] if ready else []
    return {
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": f"uid-{name}",
            "creationTimestamp": EARLY,
            "labels": {"app": "a", LABEL: letters},
            **metadata,
        },
        "spec": {"nodeName": node, "containers": [{"name": "c"}]},
        "status": {"phase": phase, "conditions": conditions, "podIP": "10.0.0.1"},
    }


def owner(kind: str, **spec: Any) -> Json:
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {
            "name": "o",
            "namespace": "ns",
            "uid": "uid-o",
            "generation": 1,
            "creationTimestamp": EARLY,
        },
        "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": template, **spec},
    }


def names(pods: list[Json]) -> list[str]:
    return [item["metadata"]["name"] for item in pods]


# ownership -------------------------------------------------------------------------------------------


def test_whose_a_pod_is() -> None:
    body = owner("ReplicaSet")
    selector = owned.selector_of(body)
    mine = [{"controller": True, "uid": "uid-o"}]
    assert owned.claim(body, selector, pod("p")) == "adopt"
    assert owned.claim(body, selector, pod("p", ownerReferences=mine)) == "own"
    assert owned.claim(body, selector, pod("p", ownerReferences=mine, labels={})) == "release"
    assert (
        owned.claim(body, selector, pod("p", ownerReferences=[{"controller": True, "uid": "x"}])) == "other"
    )
    assert owned.claim(body, selector, pod("p", deletionTimestamp=STAMP)) == "other"
    body["metadata"]["deletionTimestamp"] = STAMP
    assert owned.claim(body, selector, pod("p")) == "other"
    assert owned.selector_of(owner("ReplicaSet", selector={})) is None


def test_available_after_having_been_ready_for_long_enough() -> None:
    assert owned.available_in(pod("p"), 0, NOW) == 0
    assert owned.available_in(pod("p"), 3600 + 60, NOW) == 60
    assert owned.available_in(pod("p", ready=False), 0, NOW) is None


# daemons ---------------------------------------------------------------------------------------------


def node(name: str, *taints: str, **labels: str) -> Node:
    found = [dict(zip(("key", "effect"), taint.split(":"), strict=True)) for taint in taints]
    return Node.of({"metadata": {"name": name, "labels": labels}, "spec": {"taints": found}, "status": {}})


def test_one_pod_on_every_node_that_fits() -> None:
    body = owner("DaemonSet")
    body["spec"]["template"]["spec"]["nodeSelector"] = {"edge": "yes"}
    nodes = [node("n1", edge="yes"), node("n2", edge="yes"), node("n3")]
    plan = daemons.plan(body, "new", nodes, [pod("p", node="n1"), pod("q", node="n3")], NOW)
    assert (plan.make, names(plan.end)) == (["n2"], ["q"])


def test_a_daemon_bears_silence_but_not_other_evictions() -> None:
    spec = owner("DaemonSet")["spec"]["template"]["spec"]
    silent = node(
        "n", "node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"
    )
    assert daemons.suits(spec, silent) == (False, True)
    assert daemons.suits(spec, node("n", "node.kubernetes.io/unschedulable:NoSchedule")) == (True, True)
    assert daemons.suits(spec, node("n", "mine:NoExecute")) == (False, False)


def test_daemons_roll_one_by_one_and_broken_ones_first() -> None:
    body = owner("DaemonSet")
    nodes = [node(name) for name in ("n1", "n2", "n3")]
    old = [pod(f"p{n}", node=f"n{n}", letters="old") for n in (1, 2, 3)]
    assert names(daemons.plan(body, "new", nodes, old, NOW).end) == ["p1"]
    old[1] = pod("p2", node="n2", letters="old", ready=False)
    assert names(daemons.plan(body, "new", nodes, old, NOW).end) == ["p2"]
    body["spec"]["updateStrategy"] = {"type": "OnDelete"}
    assert daemons.plan(body, "new", nodes, old, NOW).end == []
    body["spec"]["updateStrategy"] = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    old[1] = pod("p2", node="n2", letters="old")
    plan = daemons.plan(body, "new", nodes, old, NOW)
    assert (plan.make, plan.end) == (["n1"], [])
    plan = daemons.plan(body, "new", nodes, [*old, pod("q1", node="n1")], NOW)
    assert (plan.make, names(plan.end)) == ([], ["p1"])


def test_a_daemon_that_failed_is_replaced_after_a_while() -> None:
    body = owner("DaemonSet")
    fresh = pod("p", "Failed", creationTimestamp="2026-01-01T11:59:57Z")
    plan = daemons.plan(body, "new", [node("n1")], [fresh], NOW)
    assert (plan.make, plan.end, plan.again_s) == ([], [], 7)
    assert names(daemons.plan(body, "new", [node("n1")], [pod("p", "Failed")], NOW).end) == ["p"]


def test_a_daemon_pod_finds_its_node_again() -> None:
    made = daemons.daemon_pod(owner("DaemonSet"), "n7", "new")
    assert daemons.node_of(made) == "n7"
    assert made["metadata"]["labels"][LABEL] == "new"


# stateful --------------------------------------------------------------------------------------------


def test_in_order_and_each_waits_for_the_one_before() -> None:
    body = owner("StatefulSet", replicas=3)
    assert stateful.plan(body, "new", [], NOW).make == [0]
    assert stateful.plan(body, "new", [pod("o-0", ready=False)], NOW) == stateful.Plan()
    assert stateful.plan(body, "new", [pod("o-0")], NOW).make == [1]
    body["spec"]["podManagementPolicy"] = "Parallel"
    assert stateful.plan(body, "new", [pod("o-0", ready=False)], NOW).make == [1, 2]


def test_updates_go_down_and_keep_the_partition() -> None:
    body = owner("StatefulSet", replicas=3)
    pods = [pod(f"o-{n}", letters="old") for n in range(3)]
    assert names(stateful.plan(body, "new", pods, NOW).end) == ["o-2"]
    pods[2] = pod("o-2")
    assert names(stateful.plan(body, "new", pods, NOW).end) == ["o-1"]
    body["spec"]["updateStrategy"] = {"rollingUpdate": {"partition": 2}}
    assert stateful.plan(body, "new", pods, NOW) == stateful.Plan()


def test_a_pod_that_never_became_ready_does_not_block_its_repair() -> None:
    body = owner("StatefulSet", replicas=2)
    broken = pod("o-0", letters="old", ready=False)
    assert names(stateful.plan(body, "new", [broken], NOW).end) == ["o-0"]


def test_scaling_down_takes_the_last_and_waits() -> None:
    body = owner("StatefulSet", replicas=1)
    pods = [pod(f"o-{n}") for n in range(3)]
    assert names(stateful.plan(body, "new", pods, NOW).end) == ["o-2"]
    pods[2]["metadata"]["deletionTimestamp"] = STAMP
    assert stateful.plan(body, "new", pods, NOW) == stateful.Plan()


@given(st.integers(0, 5), st.integers(0, 5), st.booleans(), st.sampled_from(["OrderedReady", "Parallel"]))
def test_a_stateful_set_settles(wanted: int, there: int, old: bool, policy: str) -> None:
    body = owner("StatefulSet", replicas=wanted, podManagementPolicy=policy)
    pods = {f"o-{n}": pod(f"o-{n}", letters="old" if old else "new") for n in range(there)}
    for _ in range(40):
        todo = stateful.plan(body, "new", list(pods.values()), NOW)
        if todo == stateful.Plan():
            break
        for item in todo.end:
            del pods[item["metadata"]["name"]]
        pods |= {f"o-{n}": pod(f"o-{n}") for n in todo.make}
    assert sorted(pods) == [f"o-{n}" for n in range(wanted)]
    assert all(item["metadata"]["labels"][LABEL] == "new" for item in pods.values())


def test_revisions_bring_the_template_back() -> None:
    template = owner("StatefulSet")["spec"]["template"]
    assert template_of({"data": template_data(template)}) == template
    listed = [{"metadata": {"labels": {LABEL: str(n)}}, "revision": n} for n in range(5)]
    assert [item["revision"] for item in to_forget(listed, {"0", "4"}, 1)] == [1, 2]


# jobs ------------------------------------------------------------------------------------------------


def worker(name: str, phase: str, **more: Any) -> Json:
    made = pod(name, phase, ready=False, **more)
    made["metadata"]["finalizers"] = [jobs.FINALIZER]
    return made


def test_ended_pods_are_counted_once_whatever_happens_between() -> None:
    body = owner("Job", completions=2, parallelism=2)
    pods = [worker("a", "Succeeded"), worker("b", "Failed"), worker("c", "Running")]
    first = jobs.account(body, pods)
    assert (first.succeeded, first.failed, first.release) == (1, 1, [])
    # a crash after the status was written: the same again, and now the finalizers may go
    body["status"] = first.counted
    second = jobs.account(body, pods)
    assert (second.succeeded, second.failed, names(second.release)) == (1, 1, ["a", "b"])
    assert second.counted == first.counted
    pods[0]["metadata"]["finalizers"] = []
    third = jobs.account({**body, "status": second.counted}, [pods[0], pods[2]])
    assert (third.counted["succeeded"], third.counted["failed"]) == (1, 1)
    assert third.counted["uncountedTerminatedPods"] == {}
    again = jobs.account({**body, "status": third.counted}, [pods[0], pods[2]])
    assert (again.succeeded, again.failed) == (1, 1)


def test_when_a_job_is_over() -> None:
    body = owner("Job", completions=1, parallelism=1, backoffLimit=1, activeDeadlineSeconds=60)
    body["spec"]["template"]["spec"]["restartPolicy"] = "Never"

    def over(status: Json, *pods: Json) -> str:
        job = {**body, "status": status}
        found = jobs.verdict(job, jobs.account(job, list(pods)), list(pods), NOW)
        return found[1] if found else ""

    assert over({}, worker("a", "Running")) == ""
    assert over({}, worker("a", "Succeeded")) == "CompletionsReached"
    assert over({}, worker("a", "Failed")) == ""
    assert over({}, worker("a", "Failed"), worker("b", "Failed")) == "BackoffLimitExceeded"
    assert over({"startTime": EARLY}, worker("a", "Running")) == "DeadlineExceeded"
    del body["spec"]["completions"]
    assert over({}, worker("a", "Succeeded"), worker("b", "Running")) == ""
    assert over({}, worker("a", "Succeeded")) == "CompletionsReached"


def test_what_a_job_starts_and_stops() -> None:
    body = owner("Job", completions=5, parallelism=2)

    def plan(*pods: Json) -> jobs.Plan:
        return jobs.plan(body, jobs.account(body, list(pods)), list(pods), NOW)

    assert len(plan().make) == 2
    assert len(plan(*(worker(f"s{n}", "Succeeded") for n in range(4))).make) == 1
    body["spec"]["parallelism"] = 1
    assert len(plan(worker("a", "Running"), worker("b", "Running")).end) == 1
    body["spec"]["suspend"] = True
    assert len(plan(worker("a", "Running"), worker("b", "Running")).end) == 2


def test_a_failed_pod_is_not_replaced_at_once() -> None:
    body = owner("Job", completions=1, parallelism=1)
    failed = worker("a", "Failed", creationTimestamp="2026-01-01T11:59:58Z")
    plan = jobs.plan(body, jobs.account(body, [failed]), [failed], NOW)
    assert (plan.make, plan.again_s) == ([], 8)
    later = jobs.plan(body, jobs.account(body, [failed]), [failed], NOW + timedelta(seconds=9))
    assert later.make == [-1]


def test_each_index_succeeds_once() -> None:
    body = owner("Job", completions=3, parallelism=3, completionMode="Indexed")

    def at(name: str, index: int, phase: str) -> Json:
        return worker(name, phase, annotations={jobs.INDEX: str(index)})

    pods = [at("a", 0, "Succeeded"), at("b", 0, "Succeeded"), at("c", 2, "Running")]
    seen = jobs.account(body, pods)
    assert (seen.succeeded, seen.counted["completedIndexes"], names(seen.release)) == (1, "0", ["b"])
    assert jobs.plan(body, seen, pods, NOW).make == [1]
    made = jobs.job_pod(body, 1)
    assert made["metadata"]["annotations"][jobs.INDEX] == "1"
    assert made["spec"]["containers"][0]["env"][0]["name"] == "JOB_COMPLETION_INDEX"


@given(st.sets(st.integers(0, 40)))
def test_indexes_are_written_as_ranges(numbers: set[int]) -> None:
    assert jobs.read_indexes(jobs.write_indexes(numbers)) == numbers


def test_a_finished_job_lives_as_long_as_it_was_given() -> None:
    over = [{"type": "Complete", "status": "True", "lastTransitionTime": EARLY}]
    body = {**owner("Job", ttlSecondsAfterFinished=3700), "status": {"conditions": over}}
    assert jobs.expires_in(body, NOW) == 100
    assert jobs.expires_in(owner("Job", ttlSecondsAfterFinished=1), NOW) is None


# cron jobs -------------------------------------------------------------------------------------------


def cron_job(**spec: Any) -> Json:
    body = owner("CronJob", schedule="0 * * * *", jobTemplate={"spec": {}}, **spec)
    body["status"] = {"lastScheduleTime": "2026-01-01T09:00:00Z"}
    return body


def test_missed_times_are_made_up_for_once() -> None:
    schedule = parse("0 * * * *")
    assert cronjobs.due(cron_job(), schedule, NOW) == NOW
    assert cronjobs.due(cron_job(), schedule, NOW + timedelta(minutes=59)) == NOW
    late = cron_job(startingDeadlineSeconds=60)
    assert cronjobs.due(late, schedule, NOW + timedelta(minutes=30)) is None
    old = cron_job()
    old["status"]["lastScheduleTime"] = "2016-01-01T09:00:00Z"
    assert cronjobs.due(old, schedule, NOW) == NOW


def test_concurrency_and_history() -> None:
    schedule = parse("0 * * * *")
    running = owner("Job")

    def ended(number: int, kind: str) -> Json:
        job = owner("Job")
        job["metadata"]["name"] = f"{kind}-{number}"
        condition = {"type": kind, "status": "True"}
        job["status"] = {"startTime": f"2026-01-01T0{number}:00:00Z", "conditions": [condition]}
        return job

    assert cronjobs.plan(cron_job(), schedule, [running], NOW).start == NOW
    forbid = cronjobs.plan(cron_job(concurrencyPolicy="Forbid"), schedule, [running], NOW)
    assert (forbid.start, bool(forbid.skipped)) == (None, True)
    replace = cronjobs.plan(cron_job(concurrencyPolicy="Replace"), schedule, [running], NOW)
    assert (replace.start, replace.end) == (NOW, [running])
    history = [ended(n, "Complete") for n in range(5)] + [ended(n, "Failed") for n in range(2)]
    plan = cronjobs.plan(cron_job(suspend=True), schedule, history, NOW)
    assert (plan.start, names(plan.forget)) == (None, ["Complete-0", "Complete-1", "Failed-0"])
    name = cronjobs.job_for(cron_job(), NOW)["metadata"]["name"]
    assert name == f"o-{int(NOW.timestamp()) // 60}"


# endpoints -------------------------------------------------------------------------------------------


def service(**spec: Any) -> Json:
    ports = [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s", "namespace": "ns", "uid": "u"},
        "spec": {"selector": {"app": "a"}, "ports": ports, **spec},
    }


def serving(name: str, ip: str, *, ready: bool = True, port: int = 8080) -> Json:
    made = pod(name, ready=ready)
    made["status"]["podIP"] = ip
    made["spec"]["containers"][0]["ports"] = [{"name": "web", "containerPort": port}]
    return made


def test_addresses_are_ready_or_not_and_ports_are_each_pods_own() -> None:
    pods = [serving("a", "10.0.0.1"), serving("b", "10.0.0.2", ready=False), serving("c", "10.0.0.3", port=9)]
    pods.append(pod("ended", "Succeeded"))
    found = endpoints.addresses(service(), pods)
    body = endpoints.endpoints(service(), found)
    assert [item["ports"][0]["port"] for item in body["subsets"]] == [9, 8080]
    assert [item["ip"] for item in body["subsets"][1]["addresses"]] == ["10.0.0.1"]
    assert [item["ip"] for item in body["subsets"][1]["notReadyAddresses"]] == ["10.0.0.2"]
    pieces = endpoints.slices(service(), found)
    assert sorted(len(piece["endpoints"]) for piece in pieces) == [1, 2]
    assert endpoints.slices(service(), found) == pieces
    eager = endpoints.addresses(service(publishNotReadyAddresses=True), pods)
    assert all(address.ready for address in eager)


def test_slices_are_bounded_and_none_is_said_by_an_empty_one() -> None:
    many = [serving(f"p{n:03}", f"10.0.{n // 200}.{n % 200 + 1}") for n in range(250)]
    pieces = endpoints.slices(service(), endpoints.addresses(service(), many))
    assert [len(piece["endpoints"]) for piece in pieces] == [100, 100, 50]
    assert len({piece["metadata"]["name"] for piece in pieces}) == 3
    (empty,) = endpoints.slices(service(), [])
    assert empty["endpoints"] == []
    assert not endpoints.same(
        endpoints.endpoints(service(), []),
        endpoints.endpoints(service(), endpoints.addresses(service(), many)),
    )


# deployments -----------------------------------------------------------------------------------------


def test_a_rollout_that_makes_no_step_is_told_after_its_deadline() -> None:
    body = owner("Deployment", replicas=2, progressDeadlineSeconds=60)
    new = {"metadata": {"name": "o-1"}, "status": {"replicas": 2}}

    def reason(at: datetime, ready: int = 0) -> str:
        new["status"] = {"replicas": 2, "readyReplicas": ready, "availableReplicas": ready}
        body["status"] = deployment_status(body, new, [new], at.strftime("%Y-%m-%dT%H:%M:%SZ"))
        (found,) = [c["reason"] for c in body["status"]["conditions"] if c["type"] == "Progressing"]
        return str(found)

    assert reason(NOW) == "ReplicaSetUpdated"
    assert reason(NOW + timedelta(seconds=50)) == "ReplicaSetUpdated"
    assert reason(NOW + timedelta(seconds=50), 1) == "ReplicaSetUpdated"
    assert reason(NOW + timedelta(seconds=100), 1) == "ReplicaSetUpdated"
    assert reason(NOW + timedelta(seconds=111), 1) == "ProgressDeadlineExceeded"
    assert reason(NOW + timedelta(seconds=112), 1) == "ProgressDeadlineExceeded"
    assert reason(NOW + timedelta(seconds=113), 2) == "NewReplicaSetAvailable"
    assert reason(NOW + timedelta(seconds=114), 1) == "NewReplicaSetAvailable"
