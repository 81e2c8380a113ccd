"""A cloud and a node that have IPv6 only, each in a network namespace of its own without any IPv4 address; and both at once."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.namespace import Namespace, join_up, namespace

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("kubectl") is None,
        reason="needs root, unshare, kubectl",
    ),
]
BIN = Path(sys.executable).parent
CLOUD, EDGE = "2001:db8:5::1", "2001:db8:5::2"
WAIT_S = 60.0


def until(what: Callable[[], Any], why: str) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (found := what()):
        assert time.monotonic() < deadline, why
        time.sleep(0.1)
    return found


@contextlib.contextmanager
def running(place: Namespace, folder: Path, *words: str) -> Iterator[Path]:
    """A daemon; its log."""
    log = folder / f"{Path(words[0]).name}.log"
    with log.open("wb") as file, subprocess.Popen(place.words(*words), stdout=file, stderr=file) as process:
        try:
            yield log
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(WAIT_S)


def cloud_config(folder: Path, address: str) -> Path:
    config = folder / "cloudcore.yaml"
    modules = {
        "cloudHub": {"websocket": {"address": address, "port": 10000}},
        "deviceController": {"enable": False},
        "standalone": {"address": address, "port": 6443, "stateDir": str(folder / "state")},
    }
    config.write_text(
        json.dumps(
            {
                "apiVersion": "cloudcore.config.kubeedge.io/v1alpha1",
                "kind": "CloudCore",
                "commonConfig": {"monitorServer": {"bindAddress": ""}},
                "modules": modules,
            }
        )
    )
    return config


def kubectl(place: Namespace, folder: Path, *words: str) -> str:
    """What it says; nothing while the API does not answer."""
    base = (
        "kubectl",
        "--kubeconfig",
        str(folder / "state/admin.kubeconfig"),
        "--cache-dir",
        str(folder / "cache"),
    )
    done = subprocess.run(
        place.words(*base, *words), capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    (folder / "kubectl.log").write_text(done.stderr)
    return done.stdout if done.returncode == 0 else ""


def server_in(folder: Path) -> str:
    found = yaml.safe_load((folder / "state/admin.kubeconfig").read_text())
    return str(found["clusters"][0]["cluster"]["server"])


def without_ipv4(place: Namespace, address: str) -> None:
    place.do("ip", "address", "del", "127.0.0.1/8", "dev", "lo")
    # without the look whether somebody else has it, which takes a second
    place.do("ip", "address", "add", f"{address}/64", "dev", "line", "nodad")
    place.do("ip", "-6", "route", "add", "default", "dev", "line")


def test_a_node_over_ipv6_only(tmp_path: Path) -> None:
    with namespace() as cloud, namespace() as edge:
        join_up(cloud, edge)
        without_ipv4(cloud, CLOUD)
        without_ipv4(edge, EDGE)
        config = cloud_config(tmp_path, "::")
        with running(
            cloud, tmp_path, str(BIN / "cloudcore"), "run", "--standalone", "--config", str(config)
        ) as log:
            until(lambda: (tmp_path / "state/admin.kubeconfig").is_file(), f"the API: {log.read_text()}")
            assert server_in(tmp_path) == "https://[::1]:6443"
            until(lambda: kubectl(cloud, tmp_path, "get", "namespaces"), log.read_text())
            # what it tells and certifies is right for others, too
            told = json.loads(
                kubectl(edge, tmp_path, "--server", f"https://[{CLOUD}]:6443", "get", "--raw", "/api")
            )
            assert told["serverAddressByClientCIDRs"][0]["serverAddress"] == f"[{CLOUD}]:6443"
            token = cloud.do(str(BIN / "cloudcore"), "token", "create", "--config", str(config)).strip()
            own = tmp_path / "edgecore.yaml"
            own.write_text(
                json.dumps(
                    {
                        "dataDir": str(tmp_path / "edge"),
                        "modules": {
                            "edgeHub": {"websocket": {"server": f"[{CLOUD}]:10000"}},
                            "edged": {
                                "hostnameOverride": "six",
                                "tailoredKubeletConfig": {
                                    "containerRuntimeEndpoint": f"unix://{tmp_path}/nothing.sock"
                                },
                            },
                            "eventBus": {"enable": False},
                            "deviceTwin": {"enable": False},
                            "metaManager": {"metaServer": {"enable": False}},
                        },
                    }
                )
            )
            edge.do(
                *(str(BIN / "edgecore"), "join", "--config", str(own)),
                *("--cloud", f"[{CLOUD}]:10000", "--token", token, "--node-name", "six"),
            )
            with running(edge, tmp_path, str(BIN / "edgecore"), "run", "--config", str(own)) as edge_log:

                def addresses() -> list[str]:
                    node = json.loads(kubectl(cloud, tmp_path, "get", "node", "six", "-o", "json") or "{}")
                    shown = node.get("status", {}).get("addresses", [])
                    return [item["address"] for item in shown if item["type"] == "InternalIP"]

                assert until(addresses, edge_log.read_text()) == [EDGE]
                lease = ("get", "lease", "-n", "kube-node-lease", "six", "-o", "name")
                until(lambda: kubectl(cloud, tmp_path, *lease), "its lease")


def test_both_protocols_where_no_address_is_named(tmp_path: Path) -> None:
    with namespace() as cloud:
        config = cloud_config(tmp_path, "")
        with running(
            cloud, tmp_path, str(BIN / "cloudcore"), "run", "--standalone", "--config", str(config)
        ) as log:
            until(lambda: (tmp_path / "state/admin.kubeconfig").is_file(), f"the API: {log.read_text()}")
            assert server_in(tmp_path) == "https://127.0.0.1:6443"
            for host in ("127.0.0.1", "[::1]"):
                words = ("--server", f"https://{host}:6443", "get", "namespaces", "-o", "name")
                told = until(
                    lambda words=words: kubectl(cloud, tmp_path, *words), f"{host}: {log.read_text()}"
                )
                assert "namespace/default" in told
