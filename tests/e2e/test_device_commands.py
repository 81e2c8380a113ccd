"""`skerry device` and `skerry token` on a trial."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from tests.e2e.skerry import BIN, Skerry, eventually


def said(trial: Skerry, *words: str) -> str:
    """What a command that must fail says."""
    done = trial.run(*words, check=False)
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("error: ")
    return done.stderr


def test_list_and_describe(trial: Skerry) -> None:
    eventually(lambda: len(trial.readings()) == 3, "the readings", 60)
    lines = {line.split()[3]: line.split() for line in trial.run("device", "list").stdout.splitlines()}
    assert lines["PROPERTY"] == ["DEVICE", "NODE", "STATE", "PROPERTY", "READING", "DESIRED", "UNIT", "AGE"]
    assert lines["target"][:3] == ["thermostat", "edge-1", "online"]
    assert lines["temperature"][4] == trial.readings()["temperature"]
    described = trial.run("device", "describe", "thermostat").stdout
    assert "virtual" in described
    assert "5 to 35" in described
    assert "there is no device default/nobody" in said(trial, "device", "describe", "nobody")


def test_set_waits_until_the_device_does_it(trial: Skerry) -> None:
    for value in ("23.5", "19"):
        assert f"target is {value}" in trial.run("device", "set", "thermostat", "target", value).stdout
        assert float(trial.readings()["target"]) == float(value)


def test_set_refuses_what_the_model_does_not_allow(trial: Skerry) -> None:
    before = trial.get("device", "thermostat")["spec"]
    assert "above the maximum 35" in said(trial, "device", "set", "thermostat", "target", "99")
    assert "below the minimum 5" in said(trial, "device", "set", "thermostat", "target", "-4")
    assert "can only be read" in said(trial, "device", "set", "thermostat", "temperature", "20")
    assert trial.get("device", "thermostat")["spec"] == before


def test_set_says_that_the_device_is_not_there(trial: Skerry) -> None:
    trial.run("stop", "mapper")
    try:
        told = said(trial, "device", "set", "thermostat", "target", "27", "--timeout", "2")
        assert "has not reported target 27 within 2 s" in told
        assert "the wish stays" in told
    finally:
        trial.run("start", "mapper")
    eventually(lambda: float(trial.readings()["target"]) == 27, "the wish", 60)


def test_call_does_a_method_and_tells_what_came_of_it(trial: Skerry) -> None:
    eventually(lambda: len(trial.readings()) == 3, "the readings", 60)
    assert "celsius now" in trial.run("device", "call", "thermostat", "boost").stdout
    assert "it has no method bost: did you mean boost?" in said(trial, "device", "call", "thermostat", "bost")
    assert "it takes nothing, not target" in said(trial, "device", "call", "thermostat", "boost", "target=7")
    config = ("--config", str(trial.home / "edge" / "edgecore.yaml"))
    local = (str(BIN / "edgecore"), "devices", "call", "thermostat", "boost", *config)
    told = subprocess.run(local, capture_output=True, text=True, timeout=60, check=False)
    assert "celsius now" in told.stdout, told.stderr
    # nothing is left of it
    assert trial.get("devicecalls")["items"] == []


def test_watch_prints_changes_and_ends_with_its_kubectl(trial: Skerry) -> None:
    trial.run("device", "set", "thermostat", "target", "21")
    watch = subprocess.Popen(
        [str(BIN / "skerry"), "device", "watch", "thermostat"],
        env={**trial.environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert watch.stdout is not None
        assert "is online" in watch.stdout.readline()
        trial.run("device", "set", "thermostat", "target", "22")
        while not (line := watch.stdout.readline()).rstrip().endswith("thermostat  target 22"):
            assert line, "it ended"
        watch.send_signal(signal.SIGTERM)
        assert watch.wait(30) == 0  # how a watch ends is no fault
    finally:
        if watch.poll() is None:
            watch.kill()
        watch.communicate()
    held = ("pgrep", "-f", f"{trial.home}/kubeconfig.*--watch")
    assert subprocess.run(held, capture_output=True, check=False).stdout == b""


def test_tokens(trial: Skerry) -> None:
    token = trial.run("token", "create", "--ttl", "5m", "--uses", "2", "--node", "board-7").stdout.strip()
    identifier = token.split(".")[1]
    (line,) = [line for line in trial.run("token", "list").stdout.splitlines() if line.startswith(identifier)]
    assert "board-7" in line
    assert token.rpartition(".")[2] not in line
    assert identifier in trial.run("token", "revoke", identifier).stdout
    assert identifier not in trial.run("token", "list").stdout
    assert f"there is no token {identifier}" in said(trial, "token", "revoke", identifier)
    assert "'soon' is not a time" in said(trial, "token", "create", "--ttl", "soon")


def test_a_board_joins_and_leaves(trial: Skerry, tmp_path: Path) -> None:
    config = tmp_path / "edgecore.yaml"
    config.write_text(
        f"apiVersion: edgecore.config.kubeedge.io/v1alpha2\nkind: EdgeCore\ndataDir: {tmp_path}/data\n"
        "modules: {edged: {enable: false}, eventBus: {enable: false}}\n"
    )
    token = trial.run("token", "create", "--node", "board-1").stdout.strip()
    board = ("--config", str(config))
    where = ("--cloud", f"127.0.0.1:{trial.hub_port}")
    told = trial.run("join", *board, *where, "--token", "-", "--node-name", "board-1", input=token).stdout
    assert "joined as node board-1" in told
    assert (tmp_path / "data" / "pki").is_dir()
    if not Path("/run/systemd/system").exists():
        assert f"edgecore run --config {config}" in told
    # a token is used up by one board
    again = said(trial, "join", *board, *where, "--token", token, "--node-name", "board-2", "--force")
    assert "token" in again
    assert "say --yes" in said(trial, "leave", *board)
    assert "no node any more" in trial.run("leave", *board, "--yes").stdout
    assert not (tmp_path / "data" / "pki").exists()
    assert config.exists(), "it was not written by join"
