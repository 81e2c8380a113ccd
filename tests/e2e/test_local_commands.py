"""What whoever stands in front of the edge may ask and do, with the cloud and without."""

from __future__ import annotations

import os
import pty
import subprocess
import termios

from tests.e2e import footprint
from tests.e2e.skerry import BIN, Skerry, eventually


def edgecore(
    trial: Skerry, *words: str, check: bool = True, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    verb, *others = words
    config = str(trial.home / "edge" / "edgecore.yaml")
    return trial.program("edgecore", verb, "--config", config, *others, check=check, stdin=stdin)


def at_a_terminal(trial: Skerry, pod: str, script: str) -> tuple[str, int]:
    """What a program prints once it knows that its terminal has 33 rows and 99 columns, and its exit code."""
    ours, theirs = pty.openpty()
    try:
        termios.tcsetwinsize(theirs, (33, 99))
        config = str(trial.home / "edge" / "edgecore.yaml")
        until = 'until [ "$(stty -F /dev/tty size 2>/dev/null)" = "33 99" ]; do sleep 0.1; done'
        program = [str(BIN / "edgecore"), "exec", "-it", "--config", config, pod, "--"]
        child = subprocess.Popen(
            [*program, "sh", "-c", f"{until}; {script}"],
            stdin=theirs,
            stdout=theirs,
            stderr=subprocess.DEVNULL,
        )
        code = child.wait(120)
        return os.read(ours, 4096).decode().strip(), code
    finally:
        os.close(ours)
        os.close(theirs)


def test_logs_describe_and_restart(trial: Skerry) -> None:
    pod = trial.running_pod()
    name = pod["metadata"]["name"]
    described = edgecore(trial, "describe", "pod", name).stdout
    assert described.startswith("READY")
    assert f"uid: {pod['metadata']['uid']}" in described
    assert "seal-on-a-rock" not in described
    # httpd -v says what it served; the readiness probe asks every second
    eventually(lambda: "response:200" in edgecore(trial, "logs", name, "--tail", "5").stdout, "a log", 60)
    assert len(edgecore(trial, "logs", name, "--tail", "1", "--timestamps").stdout.splitlines()) == 1

    (before,) = [one for one in trial.containers() if one.pod == name]
    trial.run("stop", "cloudcore")
    try:
        done = edgecore(trial, "exec", name, "--", "cat", "/secret/password")
        assert (done.stdout, done.returncode) == ("seal-on-a-rock", 0)
        done = edgecore(trial, "exec", name, "--", "sh", "-c", "echo no >&2; exit 7", check=False)
        assert (done.stderr, done.returncode) == ("no\n", 7)
        words = ("exec", "-i", name, "--", "sh", "-c", "cat; exit 5")
        done = edgecore(trial, *words, check=False, stdin="piped in\n")
        assert (done.stdout, done.returncode) == ("piped in\n", 5)
        done = edgecore(trial, "exec", name, "--", "nosuch", check=False)
        assert (done.returncode, done.stderr) == (
            127,
            "edgecore: there is no program 'nosuch' in the container\n",
        )
        assert at_a_terminal(trial, name, "echo there; exit 9") == ("there", 9)
        done = edgecore(trial, "exec", "-it", name, "--", "sh", check=False)
        assert (done.returncode, "needs a terminal" in done.stderr) == (1, True)
        done = edgecore(trial, "unhold", name, check=False)
        assert (done.returncode, "on hold" in done.stderr) == (1, True)
        assert "stopped web" in edgecore(trial, "restart", name).stdout

        def again() -> bool:
            (now,) = [one for one in trial.containers() if one.pod == name]
            return now.id != before.id

        eventually(again, "another container", 60)
        assert edgecore(trial, "logs", name, "-p", "--tail", "1").stdout
        done = edgecore(trial, "restart", "nobody", check=False)
        assert done.returncode == 1
        assert done.stderr.strip().endswith("there is no pod default/nobody here")
        # without the daemon, too
        trial.run("stop", "edgecore", "--kill")
        assert edgecore(trial, "logs", name, "--tail", "1").stdout
        described = edgecore(trial, "describe", "pod", name).stdout
        assert f"name: {name}" in described
        assert "CONTAINER" in described  # as it was when the daemon last wrote it down
        assert "Running" in edgecore(trial, "get", "pods").stdout
        done = edgecore(trial, "status", check=False)
        assert (done.returncode, "systemctl start edgecore" in done.stdout) == (1, True)
        assert trial.node_name in done.stdout
    finally:
        trial.run("start", "cloudcore")
        trial.run("start", "edgecore")
    ready = ("get", "--raw", "/readyz")
    eventually(lambda: trial.kubectl(*ready, check=False).returncode == 0, "the API", 60)
    eventually(
        lambda: trial.running_pod()["status"]["containerStatuses"][0]["restartCount"] == 1, "the count"
    )


def test_reset_ends_the_pods_and_removes_the_identity(machine: None) -> None:
    skerry = Skerry(node_name="edge-r")
    before = footprint.look(skerry.home)
    try:
        skerry.up()
        skerry.running_pod()
        refused = edgecore(skerry, "reset", check=False)
        assert (refused.returncode, "--yes" in refused.stderr) == (1, True)
        running = edgecore(skerry, "reset", "--yes", check=False)
        assert running.returncode == 1
        assert "another edgecore" in running.stderr
        assert len(skerry.containers()) == 1
        skerry.run("stop", "edgecore")
        assert "1 pods ended" in edgecore(skerry, "reset", "--yes").stdout
        assert skerry.containers() == []
        left = {path.name for path in (skerry.home / "edge").iterdir()}
        assert "edgecore.yaml" in left
        assert not left & {"pki", "pods", "edgecore.db", "keys"}
    finally:
        skerry.close()
    assert footprint.left_behind(before, skerry.home) == {}
