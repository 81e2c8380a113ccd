"""kubectl's ways into pods and the node beyond logs and exec: debug, run, port-forward to what stands before pods."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import urllib.request
from collections.abc import Iterator

from tests.e2e.skerry import Skerry, eventually

IMAGE = "skerry.local/busybox:1"


@contextlib.contextmanager
def forwarded(trial: Skerry, what: str, port: str) -> Iterator[str]:
    """The local address of a port-forward."""
    child = subprocess.Popen(
        [
            *(
                "kubectl",
                "--kubeconfig",
                str(trial.home / "kubeconfig"),
                "--cache-dir",
                str(trial.home / "kc"),
            ),
            *("port-forward", what, f":{port}"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        found = re.search(r"Forwarding from (127\.0\.0\.1:\d+)", line)
        assert found is not None, line + child.stdout.read()
        yield found.group(1)
    finally:
        child.kill()
        child.communicate()


def test_an_ephemeral_container_looks_into_a_running_pod(trial: Skerry) -> None:
    pod = trial.running_pod()["metadata"]["name"]
    script = "ps; echo ready; exec sleep 600"
    trial.kubectl("debug", pod, "--image", IMAGE, "-c", "look", "--target", "web", "--", "sh", "-c", script)
    seen = eventually(
        lambda: (
            (out := trial.kubectl("logs", pod, "-c", "look", check=False).stdout).endswith("ready\n") and out
        ),
        "the debugger's log",
    )
    # it sees the processes of its target
    assert re.search(r"^ +1 .*httpd", seen, re.MULTILINE), seen
    assert trial.kubectl("exec", pod, "-c", "look", "--", "echo", "inside").stdout == "inside\n"
    assert "ready" in trial.kubectl("logs", pod, "--all-containers", "--prefix").stdout
    trial.kubectl("delete", "pod", pod, "--now")
    trial.running_pod()


def test_a_debugging_pod_sees_the_node(trial: Skerry) -> None:
    script = "ls /host/etc/passwd; hostname; exit 3"
    told = trial.kubectl("debug", "node/edge-1", "--image", IMAGE, "--", "sh", "-c", script)
    found = re.search(r"debugging pod (\S+) ", told.stdout + told.stderr)
    assert found is not None, told
    name = found.group(1)
    try:
        pod = eventually(
            lambda: (p := trial.get("pod", name))["status"].get("phase") in ("Failed", "Succeeded") and p,
            "its end",
        )
        state = pod["status"]["containerStatuses"][0]["state"]["terminated"]
        assert state["exitCode"] == 3, state
        # it is in the machine's own network, so it has the machine's name
        assert trial.kubectl("logs", name).stdout.split() == ["/host/etc/passwd", socket.gethostname()]
    finally:
        trial.kubectl("delete", "pod", name, "--now")


def test_a_pod_for_one_command_is_gone_after_it(trial: Skerry) -> None:
    # a pause, because kubectl shows the log instead of the session when the pod was quicker than it
    script = "sleep 1; cat; exit 4"
    done = trial.kubectl(
        *("run", "-i", "--rm", "--restart=Never", "--image", IMAGE, "one-off", "--", "sh", "-c", script),
        stdin="said\n",
        check=False,
    )
    assert done.returncode == 4, done
    assert "said" in done.stdout
    assert trial.kubectl("get", "pod", "one-off", check=False).returncode == 1


def test_ports_of_services_and_deployments(trial: Skerry) -> None:
    trial.running_pod()
    trial.kubectl("expose", "deployment", "hello", "--port=80", "--target-port=8080", "--name=hello-page")
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for what, port in (("svc/hello-page", "80"), ("deploy/hello", "8080")):
            with forwarded(trial, what, port) as where, opener.open(f"http://{where}/", timeout=20) as answer:
                assert b"edge" in answer.read()
    finally:
        trial.kubectl("delete", "service", "hello-page")


def test_what_is_wrong_is_said_as_a_kubelet_says_it(trial: Skerry) -> None:
    body = (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: stuck}\n"
        "spec: {containers: [{name: c, image: 'skerry.test/absent:1', imagePullPolicy: Never}]}\n"
    )
    trial.kubectl("apply", "-f", "-", stdin=body)
    try:
        eventually(
            lambda: (
                "is waiting to start: ErrImageNeverPull" in trial.kubectl("logs", "stuck", check=False).stderr
            ),
            "the reason",
        )
        for verb, text in (
            (
                ("exec", "stuck", "--", "true"),
                'error: unable to upgrade connection: container not found ("c")\n',
            ),
            (
                ("attach", "stuck"),
                "error: unable to upgrade connection: container c not found in pod stuck_default\n",
            ),
            (("logs", "stuck", "-c", "x"), "error: container x is not valid for pod stuck\n"),
            (
                ("logs", "nope"),
                'error: error from server (NotFound): pods "nope" not found in namespace "default"\n',
            ),
        ):
            got = trial.kubectl(*verb, check=False)
            assert (got.returncode, got.stderr.endswith(text)) == (1, True), got.stderr
    finally:
        trial.kubectl("delete", "pod", "stuck", "--now")
