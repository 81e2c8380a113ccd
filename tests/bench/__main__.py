"""Print what Skerry takes on this machine: `make bench`.  Asserts nothing.

It brings a trial up in a folder of its own, measures, and takes it down.  Memory is PSS (shared pages counted once,
divided among those that share them) and private-dirty, from /proc/PID/smaps_rollup."""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.skerry import Skerry, missing

SETTLE_S = 15.0
IDLE_S = 20.0
PODS_ONE_AT_A_TIME = 10
PODS_AT_ONCE = 20
POD_PATH = "/api/v1/namespaces/default/pods"


def main() -> int:
    # it shows as this does
    from tests.bench import start

    if reason := missing():
        print(f"cannot measure here: {reason}", file=sys.stderr)
        return 1
    print(
        f"# {os.uname().machine}, {os.cpu_count()} cores, Linux {os.uname().release}, Python {sys.version.split()[0]}"
    )
    skerry = Skerry()
    try:
        began = time.monotonic()
        skerry.up()
        show("skerry up, first time", time.monotonic() - began, "s")
        time.sleep(SETTLE_S)
        measure_idle(skerry)
        measure_pods(skerry)
        began = time.monotonic()
        skerry.up()
        show("skerry up, all there", time.monotonic() - began, "s")
        began = time.monotonic()
        skerry.down()
        show("skerry down", time.monotonic() - began, "s")
        began = time.monotonic()
        skerry.up()
        show("skerry up, after down", time.monotonic() - began, "s")
        start.prepare(skerry)
        start.measure(skerry)
    finally:
        skerry.close()
    return 0


def show(what: str, value: float, unit: str) -> None:
    print(f"{what:<48} {value:10.2f} {unit}", flush=True)


def measure_idle(skerry: Skerry) -> None:
    pids = {part: pid for part, pid in skerry.pids().items() if pid is not None}
    cpu = {part: cpu_s(pid) for part, pid in pids.items()}
    time.sleep(IDLE_S)
    for part in ("edgecore", "cloudcore", "mapper", "containerd"):
        pid = pids[part]
        memory = rollup(pid)
        show(f"{part} idle, PSS", memory["Pss"] / 1024, "MiB")
        show(f"{part} idle, private-dirty", memory["Private_Dirty"] / 1024, "MiB")
        show(f"{part} idle, RSS", memory["Rss"] / 1024, "MiB")
        show(f"{part} idle, CPU", 100 * (cpu_s(pid) - cpu[part]) / IDLE_S, "% of a core")


def measure_pods(skerry: Skerry) -> None:
    took = []
    for number in range(PODS_ONE_AT_A_TIME):
        with pods(skerry, [f"one-{number}"]) as seconds:
            took.append(seconds)
    show(f"pod create -> Running, one at a time, p50 of {len(took)}", statistics.median(took), "s")
    show(f"pod create -> Running, one at a time, max of {len(took)}", max(took), "s")
    with pods(skerry, [f"many-{number}" for number in range(PODS_AT_ONCE)]) as seconds:
        show(f"{PODS_AT_ONCE} pods at once -> all Running", seconds, "s")


@contextmanager
def pods(skerry: Skerry, names: list[str]) -> Iterator[float]:
    """Create pods, give the seconds until a watch of the API showed all of them Running, and delete them.

    kubectl's own start takes a good part of a pod's, so this speaks to the API itself."""
    api = Api(skerry.home / "kubeconfig")
    version = api.call("GET", POD_PATH)["metadata"]["resourceVersion"]
    waiting = set(names)
    with api.watch(f"{POD_PATH}?watch=true&resourceVersion={version}&timeoutSeconds=120") as events:
        began = time.monotonic()
        for name in names:
            api.call("POST", POD_PATH, pod(name, skerry.node_name))
        for event in events:
            if event["object"].get("status", {}).get("phase") == "Running":
                waiting.discard(event["object"]["metadata"]["name"])
            if not waiting:
                break
        seconds = time.monotonic() - began
    assert not waiting, f"never seen running: {waiting}"
    try:
        yield seconds
    finally:
        skerry.kubectl("delete", "pods", "-l", "bench=yes", "--grace-period=0", "--wait=true")


class Api:
    """The API server that a kubeconfig names."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._address = cluster["server"].removeprefix("https://")
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._tls = ssl.create_default_context(cadata=authority)
        self._headers = {"Content-Type": "application/json"}
        if "token" in user:
            self._headers["Authorization"] = f"Bearer {user['token']}"
        else:
            pair = kubeconfig.with_name("bench.pem")
            pair.write_bytes(
                base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"])
            )
            self._tls.load_cert_chain(pair)
            pair.unlink()
        self._connection = self._connect()

    def _connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self._address, context=self._tls, timeout=130)

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        self._connection.request(method, path, json.dumps(body) if body else None, self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        assert answer.status < 300, text
        value: dict[str, Any] = json.loads(text)
        return value

    @contextmanager
    def watch(self, path: str) -> Iterator[Iterator[dict[str, Any]]]:
        connection = self._connect()
        try:
            connection.request("GET", path, headers=self._headers)
            yield (json.loads(line) for line in connection.getresponse())
        finally:
            connection.close()


def pod(name: str, node_name: str) -> dict[str, Any]:
    container = {
        "name": "c",
        "image": "skerry.local/busybox:1",
        "imagePullPolicy": "Never",
        "command": ["/bin/sleep", "1000000"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"bench": "yes"}},
        "spec": {"nodeName": node_name, "terminationGracePeriodSeconds": 0, "containers": [container]},
    }


def rollup(pid: int) -> dict[str, int]:
    """KiB by kind of memory."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {key: int(value.split()[0]) for key, value in (line.split(":", 1) for line in lines)}


def cpu_s(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
