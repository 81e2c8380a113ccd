"""A trial of the tests' own, driven as a user would: by the `skerry` command and the stock kubectl."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
BIN = Path(sys.executable).parent
NEEDED = ("containerd", "ctr", "runc", "mosquitto", "busybox", "ip", "iptables-save", "kubectl")


def missing() -> str:
    """Why these tests cannot run here; empty when they can."""
    if os.geteuid() != 0:
        return "not root"
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    programs = [program for program in NEEDED if shutil.which(program, path=path) is None]
    return f"not installed: {', '.join(programs)}" if programs else ""


def free_port_base() -> int:
    """The first of three TCP ports in a row that are free, below those that the kernel gives to clients."""
    for base in range(21000 + os.getpid() % 1000 * 4, 32000, 4):
        try:
            for port in range(base, base + 3):
                with socket.create_server(("127.0.0.1", port)):
                    pass
        except OSError:
            continue
        return base
    raise AssertionError("no three free ports in a row")


def eventually(look: Callable[[], T | None], what: str, timeout_s: float = 60.0) -> T:
    """Look until it gives something true, and return that."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            seen: Any = look()
        except (subprocess.SubprocessError, OSError, LookupError, ValueError) as error:
            seen, problem = None, repr(error)
        else:
            problem = repr(seen)
        if seen:
            found: T = seen
            return found
        assert time.monotonic() < deadline, f"not seen within {timeout_s:g} s: {what}; last: {problem[:2000]}"
        time.sleep(0.1)


class Skerry:
    """One trial in a folder of its own."""

    def __init__(self, node_name: str = "edge-1") -> None:
        self.home = Path(tempfile.mkdtemp(prefix="sk-", dir="/tmp")) / "h"
        self.port_base = free_port_base()
        self.node_name = node_name
        self.environment = {**os.environ, "SKERRY_HOME": str(self.home)}

    @property
    def hub_port(self) -> int:
        return self.port_base + 1

    @property
    def mqtt_port(self) -> int:
        return self.port_base + 2

    @property
    def socket(self) -> Path:
        return self.home / "containerd" / "containerd.sock"

    # -- commands

    def run(
        self, *arguments: str, check: bool = True, timeout_s: float = 240.0, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(BIN / "skerry"), *arguments],
            env={**self.environment, **options.pop("extra", {})},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            **options,
        )
        if check:
            assert done.returncode == 0, f"skerry {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"
        return done

    def up(self, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run("up", "--port-base", str(self.port_base), "--node-name", self.node_name, **options)

    def down(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("down", *arguments)

    def close(self) -> None:
        """Take it down and remove its folder."""
        try:
            self.down("--purge")
        finally:
            shutil.rmtree(self.home.parent)

    def status(self) -> dict[str, Any]:
        seen: dict[str, Any] = json.loads(self.run("status", "-o", "json", check=False).stdout)
        return seen

    def pids(self) -> dict[str, int | None]:
        return {part["name"]: part["pid"] for part in self.status()["parts"]}

    def program(
        self, program: str, *arguments: str, check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run cloudcore or edgecore.   stdin: what is piped in."""
        done = subprocess.run(
            [str(BIN / program), *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{program} {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"
        return done

    def log(self, part: str) -> str:
        return (self.home / "logs" / f"{part}.log").read_text()

    # -- the API, by kubectl

    def kubectl(
        self, *arguments: str, check: bool = True, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [
                "kubectl",
                "--kubeconfig",
                str(self.home / "kubeconfig"),
                "--cache-dir",
                str(self.home / "kc"),
                *arguments,
            ],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"kubectl {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"
        return done

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)

    def pods(self, selector: str = "app=hello") -> list[dict[str, Any]]:
        """Pods that are not going away."""
        listed = self.get("pods", "-l", selector)["items"]
        return [pod for pod in listed if "deletionTimestamp" not in pod["metadata"]]

    def running_pod(self) -> dict[str, Any]:
        """The sample's one pod, once it is ready."""

        def look() -> dict[str, Any] | None:
            pods = self.pods()
            ready = [
                pod
                for pod in pods
                if all(
                    status["ready"] for status in pod["status"].get("containerStatuses", [{"ready": False}])
                )
            ]
            return ready[0] if len(ready) == len(pods) == 1 else None

        return eventually(look, "one ready pod")

    def readings(self) -> dict[str, str]:
        """The thermostat's, as the API has them."""
        status = self.get("devicestatus", "thermostat").get("status") or {}
        return {
            twin["propertyName"]: twin["reported"]["value"]
            for twin in status.get("twins", [])
            if twin.get("reported")
        }

    def set_target(self, value: str) -> None:
        """What `kubectl edit device thermostat` does."""
        device = self.get("device", "thermostat")
        for property_ in device["spec"]["properties"]:
            if property_["name"] == "target":
                property_["desired"] = {"value": value}
        self.kubectl("replace", "-f", "-", stdin=json.dumps(device))

    # -- the edge, without the cloud

    def ctr(self, *arguments: str, check: bool = True) -> str:
        return subprocess.run(
            ["ctr", "--address", str(self.socket), "--namespace", "k8s.io", *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=check,
        ).stdout

    def containers(self) -> list[Container]:
        """What containerd runs, without the sandboxes' own processes."""
        found = []
        for line in self.ctr("tasks", "ls").splitlines()[1:]:
            identifier, pid, state = line.split()[:3]
            info = json.loads(self.ctr("containers", "info", identifier))
            labels = info["Labels"]
            if state == "RUNNING" and labels.get("io.cri-containerd.kind") == "container":
                found.append(
                    Container(
                        id=identifier,
                        pid=int(pid),
                        pod=labels["io.kubernetes.pod.name"],
                        pod_uid=labels["io.kubernetes.pod.uid"],
                        name=labels["io.kubernetes.container.name"],
                    )
                )
        return found

    def inside(self, container: Container, path: str) -> str:
        """A file as the container sees it."""
        return Path(f"/proc/{container.pid}/root/{path.lstrip('/')}").read_text()

    def address(self, container: Container) -> str:
        """The pod's IP, from its network namespace."""
        shown = subprocess.run(
            ["nsenter", "-t", str(container.pid), "-n", "ip", "-4", "-o", "addr", "show", "dev", "eth0"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout
        match = re.search(r"inet ([0-9.]+)/", shown)
        assert match is not None, shown
        return match[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    id: str
    pid: int
    pod: str
    pod_uid: str
    name: str

    def environment(self) -> dict[str, str]:
        raw = Path(f"/proc/{self.pid}/environ").read_bytes().decode()
        return dict(pair.split("=", 1) for pair in raw.split("\0") if "=" in pair)


def page(address: str) -> str:
    """What the sample pod serves."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}:8080/", timeout=3) as answer:
        text: str = answer.read().decode()
    return text
