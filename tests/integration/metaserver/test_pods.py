"""An unmodified kubectl inside a real pod: the cloud there, gone, the agent killed meanwhile, and back."""

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e import footprint
from tests.e2e.skerry import Container, Skerry, eventually, missing

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]

RBAC = "rbac.authorization.k8s.io"
RULES = [
    {
        "apiGroups": [""],
        "resources": ["pods", "configmaps"],
        "verbs": ["get", "list", "watch", "create", "delete"],
    },
    {"apiGroups": [""], "resources": ["pods/exec", "pods/portforward"], "verbs": ["create"]},
    {"apiGroups": ["devices.kubeedge.io"], "resources": ["devices"], "verbs": ["get", "list", "watch"]},
]
OBJECTS = [
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "ann"}},
    {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": {"name": "ann"}, "rules": RULES},
    {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "ann"},
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "ann"},
        "subjects": [{"kind": "ServiceAccount", "name": "ann", "namespace": "default"}],
    },
]


@pytest.fixture
def trial() -> Iterator[Skerry]:
    skerry = Skerry(node_name="edge-k")
    before = footprint.look(skerry.home)
    try:
        skerry.up()
        yield skerry
    finally:
        skerry.close()
    assert footprint.left_behind(before, skerry.home) == {}


def pod(skerry: Skerry) -> Container:
    """A pod with the machine's kubectl in it, and an account of its own."""
    image = skerry.running_pod()["spec"]["containers"][0]["image"]
    volume = {"name": "kubectl", "hostPath": {"path": "/usr/bin/kubectl"}}
    container = {
        "name": "c",
        "image": image,
        "command": ["sleep", "100000"],
        "volumeMounts": [{"name": "kubectl", "mountPath": "/kubectl"}],
    }
    spec = {"serviceAccountName": "ann", "nodeName": "edge-k", "containers": [container], "volumes": [volume]}
    asker = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "asker"}, "spec": spec}
    skerry.kubectl("apply", "-f", "-", stdin="\n".join(map(json.dumps, [*OBJECTS, asker])))
    skerry.kubectl("wait", "--for=condition=Ready", "pod/asker", "--timeout=60s")
    return next(found for found in skerry.containers() if found.pod == "asker")


def test_kubectl_in_a_pod(trial: Skerry) -> None:
    asker = pod(trial)
    count = iter(range(1000))
    web = trial.running_pod()["metadata"]["name"]

    def inside(*arguments: str) -> list[str]:
        program = ["ctr", "--address", str(trial.socket), "--namespace", "k8s.io", "tasks", "exec"]
        return [*program, "--exec-id", f"ask{next(count)}", asker.id, *arguments]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(inside(*arguments), capture_output=True, text=True, timeout=60, check=False)

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run("/kubectl", *arguments)

    def streams() -> None:
        """exec with its exit code, and a forwarded port: of a pod here, whether there is a cloud or not."""
        done = ask("exec", "asker", "--", "sh", "-c", "echo said; exit 3")
        assert (done.returncode, done.stdout) == (3, "said\n"), done.stderr
        assert "not found" in ask("exec", "nobody", "--", "ls").stderr
        assert "forbidden" in ask("attach", "asker").stderr
        forward = subprocess.Popen(
            inside("/kubectl", "port-forward", f"pod/{web}", "8081:8080"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            eventually(
                lambda: "Hello" in run("/bin/busybox", "wget", "-qO-", "http://127.0.0.1:8081/").stdout,
                "the forwarded page",
            )
        finally:
            run("/bin/busybox", "killall", "kubectl")
            forward.kill()
            forward.wait(30)

    def names(kind: str) -> set[str]:
        done = ask("get", kind, "-o", "name")
        assert done.returncode == 0, done.stderr
        return {line.rpartition("/")[2] for line in done.stdout.split()}

    eventually(lambda: ask("auth", "can-i", "list", "pods").returncode == 0, "rights at the edge")
    assert "asker" in names("pods")
    assert "thermostat" in names("devices")
    assert "forbidden" in ask("get", "secrets").stderr
    assert ask("create", "configmap", "made", "--from-literal=a=b").returncode == 0
    assert trial.get("configmap", "made")["data"] == {"a": "b"}
    assert "made" in names("configmaps")
    streams()

    trial.run("stop", "cloudcore", "--kill")
    eventually(lambda: {"asker"} <= names("pods"), "pods without the cloud")
    assert "made" in names("configmaps")
    assert "thermostat" in names("devices")
    assert "cloud cannot be reached" in ask("delete", "configmap", "made").stderr
    assert ask("auth", "can-i", "create", "pods/exec").stdout == "yes\n"
    streams()
    config = str(trial.home / "edge" / "edgecore.yaml")
    trial.program("edgecore", "restart", "--config", config, web)
    # READY, STATUS, RESTARTS: as the node knows it, though nobody could tell the cloud
    restarted = ["1/1", "Running", "1"]
    eventually(
        lambda: ask("get", "pod", web, "--no-headers").stdout.split()[1:4] == restarted, "the restart", 90
    )
    path = "/api/v1/namespaces/default/pods?resourceVersionMatch=Exact&resourceVersion="
    assert "too old resource version" in ask("get", "--raw", f"{path}1").stderr
    assert "Too large resource version" in ask("get", "--raw", f"{path}999999999").stderr
    assert "forbidden unless resourceVersion" in ask("get", "--raw", path).stderr

    trial.run("stop", "edgecore", "--kill")
    trial.run("start", "edgecore")
    eventually(lambda: ask("get", "pods").returncode == 0, "the local API after a crash without the cloud")
    assert "made" in names("configmaps")

    trial.run("start", "cloudcore")
    eventually(lambda: ask("delete", "configmap", "made").returncode == 0, "writes when the cloud is back")
    eventually(lambda: "made" not in names("configmaps"), "what the write did")
    assert [found.id for found in trial.containers() if found.pod == "asker"] == [asker.id]
