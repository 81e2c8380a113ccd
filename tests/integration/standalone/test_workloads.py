"""The workload controllers as the stock kubectl sees them, with nodes whose kubelet is this test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from cloudcore.standalone.measured import UsageSource
from tests.integration.standalone.kubelet import Kubelet, kubelet
from tests.integration.standalone.server import client, control_plane, kubectl

Story = Callable[["Cluster"], Awaitable[None]]


class Cluster:
    """kubectl and the kubelet of one test."""

    def __init__(self, state_dir: Path, nodes: Kubelet) -> None:
        self._state_dir = state_dir
        self.nodes = nodes

    async def good(self, *arguments: str, stdin: str | None = None) -> str:
        code, out, err = await kubectl(self._state_dir, *arguments, stdin=stdin)
        assert code == 0, f"kubectl {arguments}: {err}"
        return out

    async def warned(self, body: dict[str, Any]) -> str:
        code, _, err = await kubectl(self._state_dir, "apply", "-f", "-", stdin=json.dumps(body))
        assert code == 0, err
        return err

    async def apply(self, *bodies: dict[str, Any]) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": bodies}
        await self.good("apply", "-f", "-", stdin=json.dumps(listed))

    async def read(self, *arguments: str) -> Any:
        return json.loads(await self.good("get", *arguments, "-o", "json"))

    async def pods(self, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.read("pods", *arguments))["items"]
        return found

    async def said(self, *arguments: str) -> str:
        """All that kubectl says, whether it succeeds or not."""
        _, out, err = await kubectl(self._state_dir, *arguments)
        return out + err

    async def versions(self, kinds: str) -> dict[str, tuple[str, int]]:
        """Which objects there are, and how often what is asked of them has changed."""
        found = (await self.read(kinds))["items"]
        return {
            f"{item['kind']}/{item['metadata']['name']}": (
                item["metadata"]["uid"],
                item["metadata"].get("generation", 0),
            )
            for item in found
        }

    async def said_of(self, text: str) -> str:
        """What kubectl warns of when manifests are applied."""
        code, _, err = await kubectl(self._state_dir, "apply", "-f", "-", stdin=text)
        assert code == 0, err
        return err

    async def tried(self, *arguments: str, stdin: str | None = None) -> tuple[int, str]:
        code, _, err = await kubectl(self._state_dir, *arguments, stdin=stdin)
        return code, err

    async def says(self, kind: str, text: str) -> bool:
        return text in await self.good("get", kind, "-o", "json")

    async def phase(self, kind: str, name: str, wanted: str) -> bool:
        code, out, _ = await kubectl(self._state_dir, "get", kind, name, "-o", "jsonpath={.status.phase}")
        return code == 0 and out == wanted

    async def unschedulable(self, pod: str, why: str) -> bool:
        conditions = (await self.read("pod", pod))["status"].get("conditions") or ()
        return any(why in item.get("message", "") for item in conditions if item["type"] == "PodScheduled")

    async def until(self, check: Callable[[], Awaitable[bool]], timeout_s: float = 30.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not await check():
                await asyncio.sleep(0.1)


def on_cluster(
    tmp_path: Path,
    story: Story,
    *nodes: str,
    node_grace_s: float = 60.0,
    usage: UsageSource | None = None,
) -> None:
    async def main() -> None:
        async with (
            control_plane(tmp_path, node_grace_s=node_grace_s, usage=usage) as plane,
            client(tmp_path) as session,
            kubelet(session, plane.server, *nodes) as played,
        ):
            await story(Cluster(tmp_path, played))

    asyncio.run(main())


def template(name: str, **annotations: str) -> dict[str, Any]:
    return {
        "metadata": {"labels": {"app": name}, "annotations": annotations},
        "spec": {
            "containers": [
                {"name": "c", "image": "busybox", "ports": [{"name": "web", "containerPort": 8080}]}
            ]
        },
    }


def workload(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template(name), **spec},
    }


def job(name: str, outcome: str, **spec: Any) -> dict[str, Any]:
    made = template(name, **({"test/outcome": outcome} if outcome else {}))
    made["spec"]["restartPolicy"] = "Never"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": made, **spec},
    }


def test_a_daemonset_follows_its_nodes_and_rolls(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.apply(workload("DaemonSet", "d"))
        await cluster.good("rollout", "status", "ds/d", "--timeout=15s")
        assert sorted(pod["spec"]["nodeName"] for pod in await cluster.pods()) == ["n1", "n2"]
        await cluster.nodes.add_node("n3")
        await cluster.until(lambda: _count(cluster, 3))
        await cluster.good("set", "image", "ds/d", "c=busybox:2")
        await cluster.good("rollout", "status", "ds/d", "--timeout=60s")
        assert {pod["spec"]["containers"][0]["image"] for pod in await cluster.pods()} == {"busybox:2"}
        assert len(await cluster.pods()) == 3
        await cluster.good("rollout", "undo", "ds/d")
        await cluster.good("rollout", "status", "ds/d", "--timeout=60s")
        assert {pod["spec"]["containers"][0]["image"] for pod in await cluster.pods()} == {"busybox"}
        status = (await cluster.read("ds", "d"))["status"]
        assert (status["desiredNumberScheduled"], status["numberAvailable"]) == (3, 3)

    on_cluster(tmp_path, story, "n1", "n2")


async def _count(cluster: Cluster, wanted: int) -> bool:
    pods = await cluster.pods()
    return len(pods) == wanted and all(pod["status"]["phase"] == "Running" for pod in pods)


def test_a_statefulset_keeps_names_and_order(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        claim = {
            "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }
        body = workload("StatefulSet", "s", replicas=2, serviceName="s", volumeClaimTemplates=[claim])
        assert "Warning" not in await cluster.warned(body)
        await cluster.good("rollout", "status", "sts/s", "--timeout=15s")
        pods = await cluster.pods()
        assert [pod["metadata"]["name"] for pod in pods] == ["s-0", "s-1"]
        assert pods[0]["metadata"]["creationTimestamp"] <= pods[1]["metadata"]["creationTimestamp"]
        assert (pods[1]["spec"]["hostname"], pods[1]["spec"]["subdomain"]) == ("s-1", "s")
        claims = await cluster.read("pvc")
        assert [item["metadata"]["name"] for item in claims["items"]] == ["data-s-0", "data-s-1"]
        assert {item["status"]["phase"] for item in claims["items"]} == {"Bound"}
        before = {pod["metadata"]["uid"] for pod in pods}
        await cluster.good("set", "image", "sts/s", "c=busybox:2")
        await cluster.good("rollout", "status", "sts/s", "--timeout=60s")
        pods = await cluster.pods()
        assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {"busybox:2"}
        assert not before & {pod["metadata"]["uid"] for pod in pods}
        await cluster.good("scale", "sts/s", "--replicas=1")
        await cluster.until(lambda: _count(cluster, 1))
        assert [pod["metadata"]["name"] for pod in await cluster.pods()] == ["s-0"]

    on_cluster(tmp_path, story, "n1")


def test_jobs_end_well_or_badly(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.apply(job("ok", "Succeeded", completions=3, parallelism=2))
        await cluster.good("wait", "--for=condition=complete", "job/ok", "--timeout=15s")
        status = (await cluster.read("job", "ok"))["status"]
        assert (status["succeeded"], status.get("failed"), status.get("active")) == (3, None, None)

        async def released() -> bool:
            status = (await cluster.read("job", "ok"))["status"]
            pods = await cluster.pods("-l", "job-name=ok")
            return not status["uncountedTerminatedPods"] and not any(
                pod["metadata"].get("finalizers") for pod in pods
            )

        await cluster.until(released)
        await cluster.apply(job("bad", "Failed", backoffLimit=0))
        await cluster.good("wait", "--for=condition=failed", "job/bad", "--timeout=15s")
        status = (await cluster.read("job", "bad"))["status"]
        assert status["failed"] == 1
        assert {c["reason"] for c in status["conditions"]} == {"BackoffLimitExceeded"}
        await cluster.apply(job("late", "", activeDeadlineSeconds=1))
        await cluster.good("wait", "--for=condition=failed", "job/late", "--timeout=15s")
        assert (await cluster.read("job", "late"))["status"]["conditions"][-1]["reason"] == "DeadlineExceeded"
        await cluster.apply(job("short", "Succeeded", ttlSecondsAfterFinished=1))
        await cluster.until(lambda: _gone(cluster, "job", "short"))
        await cluster.until(lambda: _none(cluster, "-l", "job-name=short"))

    on_cluster(tmp_path, story, "n1")


async def _gone(cluster: Cluster, *what: str) -> bool:
    return await cluster.good("get", *what, "--ignore-not-found", "-o", "name") == ""


async def _none(cluster: Cluster, *arguments: str) -> bool:
    return not await cluster.pods(*arguments)


def test_indexes_suspension_and_deletion_of_jobs(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.apply(job("i", "Succeeded", completions=3, parallelism=3, completionMode="Indexed"))
        await cluster.good("wait", "--for=condition=complete", "job/i", "--timeout=15s")
        assert (await cluster.read("job", "i"))["status"]["completedIndexes"] == "0-2"
        await cluster.apply(job("sus", "", suspend=True))
        await cluster.good("wait", "--for=condition=suspended", "job/sus", "--timeout=10s")
        assert not await cluster.pods("-l", "job-name=sus")
        await cluster.good("patch", "job", "sus", "-p", '{"spec":{"suspend":false}}')

        async def running() -> bool:
            return bool((await cluster.read("job", "sus"))["status"].get("ready") == 1)

        await cluster.until(running)
        await cluster.good("delete", "job", "sus", "--timeout=10s")
        await cluster.until(lambda: _none(cluster, "-l", "job-name=sus"))

    on_cluster(tmp_path, story, "n1")


def test_a_cronjob_makes_jobs(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        inner = job("c", "Succeeded")["spec"]
        body = {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": "c"},
            "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": inner}},
        }
        await cluster.apply(body)
        await cluster.good("create", "job", "now", "--from=cronjob/c")
        await cluster.good("wait", "--for=condition=complete", "job/now", "--timeout=15s")
        # a run that should have been, as after a night without power
        missed = '{"status":{"lastScheduleTime":"2026-01-01T00:00:00Z"}}'
        await cluster.good("patch", "cronjob", "c", "--subresource=status", "--type=merge", "-p", missed)

        async def made_up() -> bool:
            jobs = [item["metadata"]["name"] for item in (await cluster.read("jobs"))["items"]]
            status = (await cluster.read("cronjob", "c"))["status"]
            return (
                len([name for name in jobs if name.startswith("c-")]) == 1 and "lastSuccessfulTime" in status
            )

        await cluster.until(made_up)
        code, _, err = await kubectl(
            tmp_path, "patch", "cronjob", "c", "-p", '{"spec":{"schedule":"61 * * * *"}}'
        )
        assert code != 0
        assert "61 is not a minute" in err

    on_cluster(tmp_path, story, "n1")


def test_services_know_their_pods(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        for name, address in (("web", None), ("bare", "None")):
            spec = {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "web"}]}
            if address:
                spec["clusterIP"] = address
            await cluster.apply(
                {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
            )
        await cluster.apply(workload("Deployment", "web", replicas=2))
        await cluster.good("rollout", "status", "deploy/web", "--timeout=15s")

        async def listed() -> bool:
            body = await cluster.read("endpoints", "web")
            return [len(item.get("addresses", ())) for item in body.get("subsets", ())] == [2]

        await cluster.until(listed)
        subset = (await cluster.read("endpoints", "web"))["subsets"][0]
        assert subset["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
        pods = {pod["status"]["podIP"]: pod["metadata"]["name"] for pod in await cluster.pods()}
        assert {item["ip"]: item["targetRef"]["name"] for item in subset["addresses"]} == pods
        (piece,) = (await cluster.read("endpointslices", "-l", "kubernetes.io/service-name=bare"))["items"]
        assert "service.kubernetes.io/headless" in piece["metadata"]["labels"]
        assert all(item["conditions"]["ready"] for item in piece["endpoints"])
        await cluster.good("scale", "deploy/web", "--replicas=0")

        async def emptied() -> bool:
            (piece,) = (await cluster.read("endpointslices", "-l", "kubernetes.io/service-name=web"))["items"]
            return not piece.get("endpoints") and not (await cluster.read("endpoints", "web")).get("subsets")

        await cluster.until(emptied)
        await cluster.good("delete", "service", "web")
        await cluster.until(lambda: _gone(cluster, "endpoints", "web"))

    on_cluster(tmp_path, story, "n1")


def test_orphans_are_adopted_and_strangers_let_go(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.apply(workload("Deployment", "web", replicas=2))
        await cluster.good("rollout", "status", "deploy/web", "--timeout=15s")
        before = {pod["metadata"]["uid"] for pod in await cluster.pods()}
        await cluster.good("delete", "deploy", "web", "--cascade=orphan")
        (left,) = (await cluster.read("rs"))["items"]
        await cluster.good("delete", "rs", left["metadata"]["name"], "--cascade=orphan")
        await cluster.apply({**left, "metadata": {n: left["metadata"][n] for n in ("name", "labels")}})
        await cluster.apply(workload("Deployment", "web", replicas=2))
        await cluster.good("rollout", "status", "deploy/web", "--timeout=15s")
        assert {pod["metadata"]["uid"] for pod in await cluster.pods()} == before
        name = (await cluster.pods())[0]["metadata"]["name"]
        await cluster.good("label", "pod", name, "app=other", "--overwrite")

        async def replaced() -> bool:
            pods = {pod["metadata"]["name"]: pod["metadata"] for pod in await cluster.pods()}
            return len(pods) == 3 and not pods[name].get("ownerReferences")

        await cluster.until(replaced)

    on_cluster(tmp_path, story, "n1")


def test_a_rollout_that_stands_still_says_so(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        body = workload("Deployment", "w", replicas=1, progressDeadlineSeconds=2)
        body["spec"]["template"]["spec"]["nodeSelector"] = {"no": "such"}
        await cluster.apply(body)

        async def stuck() -> bool:
            conditions = (await cluster.read("deploy", "w"))["status"].get("conditions", ())
            return any(item["reason"] == "ProgressDeadlineExceeded" for item in conditions)

        await cluster.until(stuck)
        code, _, err = await kubectl(tmp_path, "rollout", "status", "deploy/w", "--timeout=5s")
        assert (code, "exceeded its progress deadline" in err) == (1, True)
        del body["spec"]["template"]["spec"]["nodeSelector"]
        body["spec"]["minReadySeconds"] = 2
        await cluster.apply(body)

        async def ready_not_available() -> bool:
            status = (await cluster.read("deploy", "w"))["status"]
            return status.get("readyReplicas") == 1 and not status.get("availableReplicas")

        await cluster.until(ready_not_available)
        await cluster.good("rollout", "status", "deploy/w", "--timeout=10s")

    on_cluster(tmp_path, story, "n1")


def test_pods_of_a_silent_node_stay(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.apply(
            workload("DaemonSet", "d"),
            workload("StatefulSet", "s", replicas=1, serviceName="s"),
            workload("Deployment", "w", replicas=1),
            job("j", ""),
        )
        await cluster.until(lambda: _count(cluster, 4))
        before = {pod["metadata"]["uid"] for pod in await cluster.pods()}
        cluster.nodes.away.add("n1")

        async def silent() -> bool:
            conditions = (await cluster.read("node", "n1"))["status"]["conditions"]
            return any(item["type"] == "Ready" and item["status"] == "Unknown" for item in conditions)

        await cluster.until(silent)
        # whatever is asked for meanwhile waits for the node
        await cluster.good("set", "image", "ds/d", "c=busybox:2")
        await cluster.good("set", "image", "sts/s", "c=busybox:2")
        await cluster.good("scale", "deploy/w", "--replicas=0")
        await cluster.good("patch", "job", "j", "-p", '{"spec":{"suspend":true}}')
        await asyncio.sleep(1.5)
        pods = [pod for pod in await cluster.pods() if pod["metadata"]["uid"] in before]
        assert len(pods) == 4
        assert not any("deletionTimestamp" in pod["metadata"] for pod in pods)
        cluster.nodes.away.clear()
        await cluster.nodes.heartbeat("n1")

        async def caught_up() -> bool:
            await cluster.nodes.heartbeat("n1")
            images = sorted(pod["spec"]["containers"][0]["image"] for pod in await cluster.pods())
            return images == ["busybox:2", "busybox:2"]

        await cluster.until(caught_up, 60)

    on_cluster(tmp_path, story, "n1", node_grace_s=2.0)


def test_a_taint_ends_the_pods_that_do_not_tolerate_it(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        stays = workload("Deployment", "stays")
        stays["spec"]["template"]["spec"]["tolerations"] = [{"key": "k", "operator": "Exists"}]
        brief = workload("Deployment", "brief")
        brief["spec"]["template"]["spec"]["tolerations"] = [
            {"key": "k", "operator": "Exists", "tolerationSeconds": 1}
        ]
        await cluster.apply(workload("Deployment", "goes"), stays, brief)
        for name in ("goes", "stays", "brief"):
            await cluster.good("rollout", "status", f"deployment/{name}", "--timeout=30s")
        before = {pod["metadata"]["name"] for pod in await cluster.pods()}
        await cluster.good("taint", "nodes", "n1", "k=v:NoExecute")

        async def ended() -> bool:
            left = before & {pod["metadata"]["name"] for pod in await cluster.pods()}
            return {name.partition("-")[0] for name in left} == {"stays"}

        await cluster.until(ended)
        assert "TaintManagerEviction" in await cluster.good("get", "events")
        await cluster.good("taint", "nodes", "n1", "k-")
        await cluster.good("rollout", "status", "deployment/goes", "--timeout=30s")

    on_cluster(tmp_path, story, "n1")


def test_a_node_is_drained(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.apply(workload("DaemonSet", "d"), workload("Deployment", "w", replicas=2))
        await cluster.until(lambda: _count(cluster, 4))
        budget = {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "w"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "w"}}},
        }
        await cluster.apply(budget)
        await cluster.good("drain", "n1", "--ignore-daemonsets", "--timeout=60s")

        async def moved() -> bool:
            found = [
                (pod["metadata"]["labels"]["app"], pod["spec"].get("nodeName"))
                for pod in await cluster.pods()
            ]
            return sorted(found) == [("d", "n1"), ("d", "n2"), ("w", "n2"), ("w", "n2")]

        await cluster.until(moved)
        await cluster.good("uncordon", "n1")

    on_cluster(tmp_path, story, "n1", "n2")


def test_pods_of_a_silent_node_go_elsewhere_when_its_owner_says_so(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.apply(
            workload("DaemonSet", "d"),
            workload("StatefulSet", "s", replicas=1, serviceName="s"),
            workload("Deployment", "w", replicas=2),
        )

        async def running(count: int) -> bool:
            for name in ("n1", "n2")[: count - 3]:
                await cluster.nodes.heartbeat(name)
            return await _count(cluster, count)

        await cluster.until(lambda: running(4))
        await cluster.nodes.add_node("n2")
        await cluster.until(lambda: running(5))  # the DaemonSet's second
        cluster.nodes.away.add("n1")

        async def silent() -> bool:
            await cluster.nodes.heartbeat("n2")
            conditions = (await cluster.read("node", "n1"))["status"]["conditions"]
            return any(item["type"] == "Ready" and item["status"] == "Unknown" for item in conditions)

        await cluster.until(silent)
        before = {pod["metadata"]["uid"]: pod for pod in await cluster.pods()}
        assert not any("deletionTimestamp" in pod["metadata"] for pod in before.values())
        await cluster.good("annotate", "node", "n1", "skerry.dev/reschedule-after=1s")

        async def elsewhere() -> bool:
            await cluster.nodes.heartbeat("n2")
            here = [
                pod["metadata"]["labels"]["app"]
                for pod in await cluster.pods()
                if pod["spec"]["nodeName"] == "n2" and pod["status"]["phase"] == "Running"
            ]
            return sorted(here) == ["d", "w", "w"]

        await cluster.until(elsewhere)
        old = [pod for pod in await cluster.pods() if pod["spec"].get("nodeName") == "n1"]
        ending = {pod["metadata"]["labels"]["app"] for pod in old if "deletionTimestamp" in pod["metadata"]}
        # the DaemonSet's stays, and the StatefulSet's is not made twice while nobody knows whether it runs
        assert ending == {"s", "w"}
        assert {pod["metadata"]["uid"] for pod in old} == {
            uid for uid, pod in before.items() if pod["spec"]["nodeName"] == "n1"
        }
        cluster.nodes.away.clear()
        await cluster.nodes.heartbeat("n1")

        async def caught_up() -> bool:
            for name in ("n1", "n2"):
                await cluster.nodes.heartbeat(name)
            pods = await cluster.pods()
            running = [
                pod["metadata"]["labels"]["app"] for pod in pods if pod["status"]["phase"] == "Running"
            ]
            return sorted(running) == ["d", "d", "s", "w", "w"] and len(pods) == 5

        await cluster.until(caught_up)

    on_cluster(tmp_path, story, "n1", node_grace_s=3.0)
