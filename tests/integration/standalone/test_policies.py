"""Limits, quotas, disruption budgets and priorities, with nodes whose kubelet is this test."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cloudcore.cloudstream.usage import NodeUsage, Usage
from tests.integration.standalone.test_workloads import Cluster, on_cluster, workload

Json = dict[str, Any]


def made(kind: str, name: str, spec: Json, api: str = "v1") -> Json:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec}


def pod(name: str, cpu: str = "", **spec: Any) -> Json:
    container: Json = {"name": "c", "image": "busybox"}
    if cpu:
        container["resources"] = {"requests": {"cpu": cpu}}
    return made("Pod", name, {"containers": [container], **spec})


async def refused(on: Cluster, body: Json) -> str:
    code, err = await on.tried("create", "-f", "-", stdin=json.dumps(body))
    assert code != 0
    return err


def test_limits_and_quotas_are_held(tmp_path: Path) -> None:
    async def story(on: Cluster) -> None:
        limit = {"type": "Container", "default": {"cpu": "200m"}, "max": {"cpu": "1"}}
        hard = {"pods": "2", "requests.cpu": "1", "count/configmaps": "2"}
        await on.apply(
            made("LimitRange", "l", {"limits": [limit]}), made("ResourceQuota", "q", {"hard": hard})
        )
        await on.apply(pod("a"))
        assert (await on.read("pod", "a"))["spec"]["containers"][0]["resources"] == {
            "requests": {"cpu": "200m"},
            "limits": {"cpu": "200m"},
        }
        too_much = pod("b", "600m")
        too_much["spec"]["containers"][0]["resources"]["limits"] = {"cpu": "2"}
        assert 'pods "b" is forbidden: maximum cpu usage per Container is 1, but limit is 2' in await refused(
            on, too_much
        )
        await on.apply(pod("b"))
        assert (
            'pods "c" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2'
            in await refused(on, pod("c"))
        )

        async def counted() -> bool:
            status = (await on.read("quota", "q"))["status"]
            return bool(
                status
                == {"hard": hard, "used": {"pods": "2", "requests.cpu": "400m", "count/configmaps": "1"}}
            )

        await on.until(counted)
        # many at once: not one more than is allowed
        await on.apply(workload("Deployment", "d", replicas=3))
        await on.until(lambda: on.says("rs", "exceeded quota"))
        await on.good("delete", "pod", "b")
        await on.until(lambda: _pods(on, 2))

    on_cluster(tmp_path, story, "n1")


async def _pods(on: Cluster, wanted: int) -> bool:
    return len(await on.pods()) == wanted


def test_a_budget_holds_evictions_and_says_what_it_allows(tmp_path: Path) -> None:
    async def story(on: Cluster) -> None:
        chosen = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
        warned = await on.warned(made("PodDisruptionBudget", "b", chosen, "policy/v1"))
        assert "Warning" not in warned
        await on.apply(workload("Deployment", "web", replicas=2))
        await on.good("rollout", "status", "deploy/web", "--timeout=30s")

        async def allowed(number: int) -> bool:
            status = (await on.read("pdb", "b")).get("status") or {}
            return bool(status.get("disruptionsAllowed") == number and status.get("expectedPods") == 2)

        await on.until(lambda: allowed(1))
        # the pods that make up for the evicted ones have no node to go to, so the budget must hold
        await on.good("cordon", "n1")
        said = await on.said("drain", "n1", "--timeout=8s")
        assert "Cannot evict pod as it would violate the pod's disruption budget" in said
        assert len([pod for pod in await on.pods() if pod["status"]["phase"] == "Running"]) == 1
        await on.good("uncordon", "n1")
        await on.good("rollout", "status", "deploy/web", "--timeout=30s")
        await on.until(lambda: allowed(1))

    on_cluster(tmp_path, story, "n1")


def test_a_pod_of_high_priority_makes_room_for_itself(tmp_path: Path) -> None:
    async def story(on: Cluster) -> None:
        for name, value, general in (("high", 1000, False), ("usual", 10, True)):
            await on.apply(
                {
                    "apiVersion": "scheduling.k8s.io/v1",
                    "kind": "PriorityClass",
                    "metadata": {"name": name},
                    "value": value,
                    "globalDefault": general,
                }
            )
        await on.apply(pod("low", "6"))
        await on.until(lambda: on.phase("pod", "low", "Running"))
        assert (await on.read("pod", "low"))["spec"]["priority"] == 10
        await on.apply(pod("equal", "6"))
        await on.until(lambda: on.unschedulable("equal", "Insufficient cpu"))
        await on.apply(pod("urgent", "6", priorityClassName="high"))
        await on.until(lambda: on.phase("pod", "urgent", "Running"))
        assert 'pods "low" not found' in await on.said("get", "pod", "low")
        assert "Preempted" in await on.good("get", "events")
        assert (await on.read("pod", "equal"))["status"]["phase"] == "Pending"

    on_cluster(tmp_path, story, "n1")


class Busy:
    """Every pod that the test names uses three times what it asks for."""

    def __init__(self) -> None:
        self.pods: list[str] = []

    async def usage(self) -> Mapping[str, NodeUsage]:
        part = Usage(cpu_nanocores=300_000_000, memory_bytes=2**20, window_s=15.0)
        pods = {("default", name): {"c": part} for name in self.pods}
        return {"n1": NodeUsage(at=1_000_000_000.0, node=part, pods=pods)}


def test_an_autoscaler_follows_the_load(tmp_path: Path) -> None:
    busy = Busy()

    async def story(on: Cluster) -> None:
        deployment = workload("Deployment", "web", replicas=1)
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        container["resources"] = {"requests": {"cpu": "100m"}}
        await on.apply(deployment)
        await on.good("rollout", "status", "deploy/web", "--timeout=30s")
        busy.pods = [item["metadata"]["name"] for item in await on.pods()]
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
        metric = {
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 100}},
        }
        spec = {"scaleTargetRef": target, "maxReplicas": 5, "metrics": [metric]}
        await on.apply(made("HorizontalPodAutoscaler", "web", spec, "autoscaling/v2"))

        async def scaled() -> bool:
            return bool((await on.read("deploy", "web"))["spec"]["replicas"] == 3)

        await on.until(scaled)
        status = (await on.read("hpa", "web"))["status"]
        assert status["desiredReplicas"] == 3
        assert {item["type"]: item["status"] for item in status["conditions"]} == {
            "AbleToScale": "True",
            "ScalingActive": "True",
            "ScalingLimited": "False",
        }
        assert "300%/100%" in (await on.good("get", "hpa", "web"))
        assert "SuccessfulRescale" in await on.good("describe", "hpa", "web")

    on_cluster(tmp_path, story, "n1", usage=busy)


def test_an_approved_request_makes_a_user(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "devs"),
            x509.NameAttribute(NameOID.COMMON_NAME, "ann"),
        ]
    )
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    pem = request.public_bytes(serialization.Encoding.PEM)

    async def story(on: Cluster) -> None:
        spec = {
            "request": base64.b64encode(pem).decode(),
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"],
            "username": "somebody-else",
        }
        for name in ("ann", "refused"):
            await on.apply(made("CertificateSigningRequest", name, spec, "certificates.k8s.io/v1"))
        await on.good("certificate", "approve", "ann")
        await on.good("certificate", "deny", "refused")
        await on.until(lambda: on.says("csr", '"certificate"'))
        found = await on.read("csr", "ann")
        assert found["spec"]["username"] == "skerry-admin"
        certificate = base64.b64decode(found["status"]["certificate"])
        (tmp_path / "ann.crt").write_bytes(certificate)
        (tmp_path / "ann.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        await on.good(
            "create", "rolebinding", "ann", "--clusterrole=view", "--user=ann", "--namespace=default"
        )
        config = tmp_path / "admin.kubeconfig"
        context = yaml.safe_load(config.read_text())
        context["users"][0]["user"] = {
            "client-certificate": str(tmp_path / "ann.crt"),
            "client-key": str(tmp_path / "ann.key"),
        }
        config.write_text(yaml.safe_dump(context))
        assert "ann" in await on.good("auth", "whoami")
        await on.good("get", "pods")
        assert 'User "ann" cannot create resource' in (await on.tried("create", "configmap", "x"))[1]

    on_cluster(tmp_path, story)
