"""The daemon as a process: what it keeps in memory, what it does without a cloud, a runtime or a broker, and how it stops."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgecore.local import ask
from edgecore.metamanager import upgrade

FORBIDDEN = (
    "kubernetes",
    "aiohttp",
    "requests",
    "cryptography",
    "pydantic",
    "grpc",
    "sqlite_utils",
    "uvloop",
    "click",
)

IMPORTS = f"""
import json, sys
import edgecore.cli, edgecore.main, edgecore.surroundings, edgecore.config, yaml
print(json.dumps([m for m in {FORBIDDEN!r} if m in sys.modules]))
print([line for line in open("/proc/self/smaps_rollup") if line.startswith("Pss:")][0].split()[1])
"""


def test_the_daemon_loads_no_library_that_costs_too_much() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True, timeout=60
    )
    found, pss_kib = done.stdout.split("\n")[:2]
    print(f"PSS of the daemon's imports: {int(pss_kib) / 1024:.1f} MiB")
    assert json.loads(found) == []
    assert int(pss_kib) < 45 * 1024


@contextmanager
def daemon(folder: Path, *, edged: bool = True) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    config = folder / "edgecore.yaml"
    config.write_text(
        json.dumps(
            {
                "dataDir": str(folder / "data"),
                "modules": {
                    "edgeHub": {"enable": False},
                    "edged": {
                        "enable": edged,
                        "hostnameOverride": "edge-1",
                        "tailoredKubeletConfig": {"containerRuntimeEndpoint": f"unix://{folder}/none.sock"},
                    },
                    "eventBus": {"mqttServerExternal": "tcp://127.0.0.1:1"},
                },
            }
        )
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "edgecore.cli", "run", "--config", str(config)], stderr=log
        )
        try:
            limit = time.monotonic() + 20
            while not (folder / "data/edgecore.sock").exists():
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < limit, (folder / "log").read_text()
                time.sleep(0.05)
            yield process, config
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="edged wants root")
def test_without_cloud_runtime_and_broker_it_runs_and_says_each_once(tmp_path: Path) -> None:
    with daemon(tmp_path) as (process, _):
        time.sleep(2.5)
        status = ask(tmp_path / "data/edgecore.sock", "status")
        assert status["node"] == "edge-1"
        assert not status["cloud"]["connected"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    log = (tmp_path / "log").read_text()
    assert log.count("Container runtime is away") == 1
    assert "Traceback" not in log
    assert not (tmp_path / "data/edgecore.sock").exists()


def test_a_second_agent_on_the_folder_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with daemon(tmp_path, edged=False) as (process, config):
        done = subprocess.run(
            [sys.executable, "-m", "edgecore.cli", "run", "--config", str(config)],
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 1
        assert f"another edgecore (process {process.pid})" in done.stderr
        assert ask(tmp_path / "data/edgecore.sock", "status")["node"] == "edge-1"


def test_local_questions_are_bounded_and_answered(tmp_path: Path) -> None:
    import socket

    with daemon(tmp_path, edged=False) as (_, config):
        path = tmp_path / "data/edgecore.sock"
        assert path.stat().st_mode & 0o777 == 0o600
        for bad in (b"\n", b"[]\n", b'{"verb":"x"}\n', b"\xff\n", b"x" * 200_000 + b"\n"):
            with socket.socket(socket.AF_UNIX) as caller:
                caller.settimeout(30)
                caller.connect(str(path))
                try:
                    caller.sendall(bad)
                    answer = caller.recv(65536)
                except (BrokenPipeError, ConnectionResetError):
                    continue
                assert not answer or b"error" in answer
        words = [sys.executable, "-m", "edgecore.cli", "get", "pods", "-o", "json", "--config", str(config)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
        assert json.loads(done.stdout)["items"] == []
        words = [
            sys.executable,
            "-m",
            "edgecore.cli",
            "get",
            "devices",
            "-o",
            "json",
            "--config",
            str(config),
        ]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
        assert json.loads(done.stdout)["twins"] == []
        words = [sys.executable, "-m", "edgecore.cli", "devices", "history", "pump", "--config", str(config)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stderr) == (1, "edgecore: there is no device 'default/pump' here\n")


def test_a_newer_store_is_refused_with_a_sentence(tmp_path: Path) -> None:
    import sqlite3

    (tmp_path / "data").mkdir()
    path = tmp_path / "data/edgecore.db"
    upgrade.migrate(path)
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    config = tmp_path / "edgecore.yaml"
    config.write_text(
        f"dataDir: {tmp_path}/data\nmodules: {{edged: {{enable: false}}, edgeHub: {{enable: false}}}}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "edgecore.cli", "run", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert "install the newer edgecore" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_service_manager_hears_of_its_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with daemon(tmp_path, edged=False) as (process, _):
            assert manager.recv(1024) == b"READY=1\nWATCHDOG=1"
            assert manager.recv(1024) == b"WATCHDOG=1"
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        said = b""
        while said != b"STOPPING=1":
            said = manager.recv(1024)


@pytest.mark.skipif(os.geteuid() != 0, reason="edged wants root")
@pytest.mark.parametrize("says", ["stopping", "running"])
def test_a_stop_is_the_machines_only_where_systemd_says_so(
    tmp_path: Path, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho {says}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with daemon(tmp_path) as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert ("The machine goes down: ending pods" in (tmp_path / "log").read_text()) is (says == "stopping")
