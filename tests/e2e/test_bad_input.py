"""What goes wrong at the beginning is said in one sentence, and nothing is left of it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import footprint
from tests.e2e.skerry import BIN, Skerry

CONFIGMAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad, namespace: default}\n"


@pytest.fixture
def other(machine: None) -> Iterator[Skerry]:
    """A trial that is not to come up."""
    skerry = Skerry()
    before = footprint.look(skerry.home)
    try:
        yield skerry
        assert footprint.left_behind(before, skerry.home) == {}
        assert not any(skerry.pids().values())
    finally:
        skerry.close()


def one_sentence(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode in (1, 2), (done.returncode, done.stdout, done.stderr)
    first = done.stderr.splitlines()[0]
    for word in words:
        assert word in first, done.stderr
    assert "Traceback" not in done.stderr


def test_not_root(other: Skerry) -> None:
    # An unmapped user namespace: the files can be read, but this is not root.
    done = subprocess.run(
        ["unshare", "--user", str(BIN / "skerry"), "up"],
        env=other.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    one_sentence(done, "need root", "sudo")
    assert not other.home.exists()


def test_a_port_in_use_names_its_user(other: Skerry) -> None:
    with socket.create_server(("127.0.0.1", other.hub_port)):
        done = other.up(check=False)
    one_sentence(done, f"port {other.hub_port}", f"(pid {os.getpid()})", "--port-base")
    assert not other.home.exists()


def test_a_missing_program_names_its_package(other: Skerry, tmp_path: Path) -> None:
    for program in ("kubectl", "containerd", "ctr", "runc", "busybox", "ip", "unshare"):
        found = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        assert found is not None
        (tmp_path / program).symlink_to(found)
    path = {"PATH": str(tmp_path)}
    # The sbin folders are always looked into, so only what lives in bin can be hidden.
    (tmp_path / "containerd").unlink()
    one_sentence(other.up(check=False, extra=path), "containerd", "apt-get install")
    assert not other.home.exists()


def test_a_kernel_without_bridges(other: Skerry, tmp_path: Path) -> None:
    fake = tmp_path / "ip"
    fake.write_text(
        '#!/bin/sh\ncase "$*" in *"type bridge"*) echo "RTNETLINK answers: Operation not supported" >&2; exit 2;; esac\n'
        f'exec {shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin")} "$@"\n'
    )
    fake.chmod(0o755)
    done = other.up(check=False, extra={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    one_sentence(done, "kernel cannot make bridges", "not supported", "module bridge")
    assert not other.home.exists()


def test_a_containerd_that_does_not_start(other: Skerry, tmp_path: Path) -> None:
    fake = tmp_path / "containerd"
    fake.write_text(
        "#!/bin/sh\necho 'containerd: failed to load plugin: these are its last words' >&2\nexit 1\n"
    )
    fake.chmod(0o755)
    done = other.up(check=False, extra={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    one_sentence(done, "containerd failed", "exit code 1")
    assert "these are its last words" in done.stderr


def test_other_settings_than_before(trial: Skerry) -> None:
    one_sentence(trial.run("up", "--node-name", "another", check=False), "other node name", "--purge")
    one_sentence(trial.run("up", "--port-base", "999", check=False), "other ports", "--purge")


def test_wrong_usage(machine: None) -> None:
    done = subprocess.run(
        [str(BIN / "skerry"), "upp"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "No such command" in done.stderr


@pytest.fixture
def second_edge(trial: Skerry, tmp_path: Path) -> Iterator[list[str]]:
    """`edgecore join` of another machine with an empty folder of its own; it is to leave that without an identity."""
    data = Path(tmp_path) / "edge"
    data.mkdir()
    config = data / "edgecore.yaml"
    text = (trial.home / "edge" / "edgecore.yaml").read_text()
    text = text.replace(str(trial.home / "edge"), str(data))
    config.write_text(text.replace(f"hostnameOverride: {trial.node_name}", 'hostnameOverride: ""'))
    yield ["join", "--config", str(config), "--cloud", f"127.0.0.1:{trial.hub_port}"]
    left = [
        path for path in data.rglob("*") if path.suffix in {".key", ".crt", ".pem"} or "identity" in path.name
    ]
    assert left == []


def token(trial: Skerry) -> str:
    config = str(trial.home / "cloud" / "cloudcore.yaml")
    return trial.program(
        "cloudcore", "token", "create", "--config", config, "--ttl", "5m", "--uses", "1"
    ).stdout.strip()


def test_a_wrong_token(trial: Skerry, second_edge: list[str]) -> None:
    authority, name, secret = token(trial).split(".")
    wrong = f"{authority}.{name}.{secret[::-1]}"
    done = trial.program("edgecore", *second_edge, "--token", wrong, "--node-name", "edge-2", check=False)
    one_sentence(done, "token")


def test_a_used_token(trial: Skerry, second_edge: list[str]) -> None:
    once = token(trial)
    # It is used up by the first that joins with it; that one gives its identity away at once.
    first = Path(second_edge[2]).parent.parent / "first"
    first.mkdir()
    config = first / "edgecore.yaml"
    config.write_text(Path(second_edge[2]).read_text().replace(str(Path(second_edge[2]).parent), str(first)))
    joined = ["join", "--config", str(config), *second_edge[3:], "--token", once, "--node-name", "edge-3"]
    trial.program("edgecore", *joined)
    done = trial.program("edgecore", *second_edge, "--token", once, "--node-name", "edge-2", check=False)
    one_sentence(done, "token")


def test_a_certificate_of_another_authority(trial: Skerry, second_edge: list[str]) -> None:
    _, name, secret = token(trial).split(".")
    other = f"{'0' * 64}.{name}.{secret}"
    done = trial.program("edgecore", *second_edge, "--token", other, "--node-name", "edge-2", check=False)
    one_sentence(done, "authority", "not the one in the token")


def test_a_name_that_is_taken(trial: Skerry, second_edge: list[str]) -> None:
    arguments = [*second_edge, "--token", token(trial), "--node-name", trial.node_name]
    one_sentence(trial.program("edgecore", *arguments, check=False), trial.node_name)


@pytest.mark.parametrize("program", ["cloudcore", "edgecore"])
def test_an_unknown_key_in_a_configuration_is_named(trial: Skerry, tmp_path: Path, program: str) -> None:
    folder = {"cloudcore": "cloud", "edgecore": "edge"}[program]
    text = (trial.home / folder / f"{program}.yaml").read_text()
    config = tmp_path / f"{program}.yaml"
    config.write_text(text.replace("modules:", "modules:\n  noSuchModule: {}", 1))
    done = trial.program(program, "run", "--config", str(config), check=False)
    one_sentence(done, "noSuchModule")


def test_an_unknown_field_in_a_manifest(trial: Skerry) -> None:
    done = trial.kubectl("apply", "-f", "-", stdin=CONFIGMAP + "dataa: {a: b}\n", check=False)
    assert done.returncode == 1
    assert 'unknown field "dataa"' in done.stderr


def test_a_bad_value_in_a_manifest(trial: Skerry) -> None:
    done = trial.kubectl(
        "apply", "-f", "-", stdin=CONFIGMAP.replace("name: bad", "name: Not_A_Name"), check=False
    )
    assert done.returncode == 1
    assert 'Invalid value: "Not_A_Name"' in done.stderr


def test_a_bad_device(trial: Skerry) -> None:
    device = (
        "apiVersion: devices.kubeedge.io/v1beta1\nkind: Device\nmetadata: {name: bad, namespace: default}\n"
        "spec: {deviceModelRef: {name: thermostat}, nodeName: 7}\n"
    )
    done = trial.kubectl("apply", "-f", "-", stdin=device, check=False)
    assert done.returncode == 1
    assert "spec.nodeName" in done.stderr
