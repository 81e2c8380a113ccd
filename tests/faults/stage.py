"""What the cases act on: a whole trial, the line between its edge and its hub, and a herd of pods to be left alone."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from beehive.errors import SkerryError
from deploy.home import Home
from deploy.parts import PARTS
from deploy.progress import Progress
from deploy.trial import Trial
from edgecore import local
from tests.e2e.skerry import Container, Skerry, eventually, page
from tests.fakes import edge
from tests.support.badline import BadLine
from tests.support.card import Card

HERD = 9
"""With the sample's pod, the ten pods of the cases."""

DISK_MIB, DISK_INODES = 96, 6000
"""The edge's whole disk: small, so that it can be filled."""

# Times are held against the clock by `make faults`, which has the machine for itself.  Elsewhere a busy machine may take
# longer for the same, and what is tried is that it comes, not when.
TIMED = os.environ.get("SKERRY_TIMES") == "held"
BACK_S = 30.0 if TIMED else 120.0
"""P3: how long edge and cloud may take to agree again."""

_BARE = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default, labels: {{herd: {herd}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  tolerations: [{{operator: Exists}}]
  containers:
  - name: main
    image: skerry.local/busybox:1
    imagePullPolicy: Never
    command: [/bin/sleep, "100000"]
    volumeMounts: [{{name: page, mountPath: /www}}]
  volumes: [{{name: page, configMap: {{name: hello}}}}]
---"""


class Stage:
    """A trial whose edge reaches its hub through `line`.   card: its disk is one whose writes are counted."""

    def __init__(self, *, card: bool = False) -> None:
        self.card: Card | None = None
        self._wants_card = card
        self.skerry = Skerry()
        self.parts = Trial(Home.at(self.skerry.home))
        self._exits = contextlib.ExitStack()
        self.line: BadLine

    def open(self) -> None:
        self.edge.mkdir(parents=True, mode=0o700)
        if self._wants_card:
            self.card = self._exits.enter_context(Card(self.edge))
        else:
            self._mount_small_disk()
        self.skerry.up()
        self._begin()

    def _mount_small_disk(self) -> None:
        size = f"size={DISK_MIB}m,nr_inodes={DISK_INODES},mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "edge", str(self.edge)], check=True)

    def _begin(self) -> None:
        self.line = self._exits.enter_context(BadLine("127.0.0.1", self.skerry.hub_port))
        self.kill("edgecore")
        config = self.edge / "edgecore.yaml"
        text = config.read_text()
        direct = f"127.0.0.1:{self.skerry.hub_port}"
        assert direct in text
        servers = f"127.0.0.1:{self.line.port},127.0.0.1:{self.other_port}"
        config.write_text(text.replace(direct, servers))
        self.start("edgecore")
        self.make_pods("herd", HERD)

    def close(self) -> list[str]:
        """What could not be removed."""
        try:
            with open(os.devnull, "w") as nowhere:
                return self.parts.down(Progress(nowhere))
        finally:
            if self.edge.is_mount() and self.card is None:
                subprocess.run(["umount", str(self.edge)], check=True)
            self._exits.close()
            shutil.rmtree(self.skerry.home.parent)
            for daemon in self.parts.daemons.values():
                daemon.pid()  # collects those that we started

    @property
    def edge(self) -> Path:
        return self.skerry.home / "edge"

    @property
    def other_port(self) -> int:
        """Another port where the edge looks for its hub; nobody listens there."""
        return self.skerry.port_base + 3

    def identity(self) -> edge.Identity:
        """The node's own, as somebody who stole it has it."""
        text = (self.edge / "pki" / "node.pem").read_text()
        key = serialization.load_pem_private_key(text.encode(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        certificate = text[text.index("-----BEGIN CERT") :].split("-----END CERTIFICATE-----")[0]
        return edge.Identity(
            node=self.skerry.node_name,
            ca=(self.edge / "pki" / "ca.pem").read_text(),
            certificate=f"{certificate}-----END CERTIFICATE-----\n",
            key=key,
        )

    @property
    def hub(self) -> str:
        """The hub itself, not through the line."""
        return f"127.0.0.1:{self.skerry.hub_port}"

    def token(self, **options: str) -> str:
        """A join token for one use."""
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        config = str(self.skerry.home / "cloud" / "cloudcore.yaml")
        made = self.skerry.program(
            "cloudcore", "token", "create", "--config", config, "--ttl", "5m", "--uses", "1", *words
        )
        return made.stdout.strip()

    # -- parts

    def kill(self, part: str) -> None:
        self.parts.stop_part(part, kill=True)

    def stop(self, part: str) -> None:
        self.parts.stop_part(part)

    def start(self, part: str) -> None:
        self.parts.start_part(part)

    def pid(self, part: str) -> int:
        pid = self.parts.daemons[part].pid()
        assert pid is not None, f"{part} does not run:\n" + "\n".join(self.parts.daemons[part].tail())
        return pid

    def settle(self) -> None:
        """Everything runs, is linked and agrees, whatever the case before did."""
        self.line.good()
        for part in PARTS:
            self.start(part)
        eventually(self.api_is_ready, "the API", 60)
        eventually(self.is_linked, "the link", 60)
        eventually(self.is_agreed, "edge and API to agree", 60)

    # -- looking

    def api_is_ready(self) -> bool:
        return self.skerry.kubectl("get", "--raw", "/readyz", check=False).returncode == 0

    def edge_status(self) -> dict[str, Any]:
        """What the daemon says of itself; empty while it does not answer."""
        try:
            found: dict[str, Any] = local.ask(self.edge / "edgecore.sock", "status")
        except SkerryError:
            return {}
        return found

    def is_linked(self) -> bool:
        return bool(self.edge_status().get("cloud", {}).get("connected"))

    def address(self) -> str:
        """Where the link goes; empty without one."""
        cloud = self.edge_status().get("cloud", {})
        return str(cloud["address"]) if cloud.get("connected") else ""

    def session(self) -> int:
        return int(self.edge_status()["cloud"]["session"])

    def is_fresh(self, since: float) -> bool:
        """Whether the node's lease was renewed since then (Unix seconds)."""
        lease = self.skerry.get("lease", "-n", "kube-node-lease", self.skerry.node_name)
        return datetime.fromisoformat(lease["spec"]["renewTime"]).timestamp() > since

    def condition(self, kind: str) -> str:
        """The status of one of the node's conditions in the API; empty without it."""
        conditions = self.skerry.get("node", self.skerry.node_name)["status"]["conditions"]
        return next((str(one["status"]) for one in conditions if one["type"] == kind), "")

    def containers(self) -> frozenset[tuple[str, str, int]]:
        """(pod UID, container id, pid) of all that runs: what must be the same after a fault that pods must not feel."""
        return frozenset((one.pod_uid, one.id, one.pid) for one in self.skerry.containers())

    def all_pods(self) -> list[dict[str, Any]]:
        """As the API has them.  Raises ConnectionError while it is away, which `eventually` waits out."""
        done = self.skerry.kubectl("get", "pods", "-o", "json", check=False)
        if done.returncode:
            raise ConnectionError(done.stderr.strip())
        items: list[dict[str, Any]] = json.loads(done.stdout)["items"]
        return items

    def container_of(self, pod: str) -> Container:
        (found,) = [one for one in self.skerry.containers() if one.pod == pod]
        return found

    def is_agreed(self) -> bool:
        """Whether exactly the pods of the API run, once each, ready, and known there as they run."""
        wanted = {}
        for pod in self.all_pods():
            statuses = pod["status"].get("containerStatuses", [])
            if "deletionTimestamp" in pod["metadata"] or not all(one["ready"] for one in statuses):
                return False
            for one in statuses:
                wanted[pod["metadata"]["uid"], one["containerID"].rpartition("/")[2]] = 1
            if not statuses:
                return False
        running = [(uid, container) for uid, container, _ in self.containers()]
        return sorted(running) == sorted(wanted)

    def restarts(self) -> dict[str, int]:
        """Pod UID to the restarts that the API knows of."""
        return {
            pod["metadata"]["uid"]: sum(
                one["restartCount"] for one in pod["status"].get("containerStatuses", [])
            )
            for pod in self.all_pods()
        }

    def served(self) -> bool:
        """Whether the sample's page is served."""
        (web,) = [one for one in self.skerry.containers() if one.name == "web"]
        return bool(page(self.skerry.address(web)))

    def log_since(self, part: str, offset: int) -> str:
        with (self.skerry.home / "logs" / f"{part}.log").open("rb") as file:
            file.seek(offset)
            return file.read().decode(errors="replace")

    def log_size(self, part: str) -> int:
        return (self.skerry.home / "logs" / f"{part}.log").stat().st_size

    # -- acting

    def make_pods(self, herd: str, count: int) -> None:
        text = "\n".join(
            _BARE.format(name=f"{herd}-{number}", herd=herd, node=self.skerry.node_name)
            for number in range(count)
        )
        self.skerry.kubectl("apply", "-f", "-", stdin=text)

    def make_pod(self, name: str, herd: str) -> None:
        text = _BARE.format(name=name, herd=herd, node=self.skerry.node_name)
        self.skerry.kubectl("apply", "-f", "-", stdin=text)

    def drop_pods(self, herd: str) -> None:
        self.skerry.kubectl("delete", "pod", "-l", f"herd={herd}", "--wait=false", check=False)

    def make_configmaps(self, prefix: str, count: int, value: str) -> None:
        items = [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": f"{prefix}-{number}", "namespace": "default"},
                "data": {"value": value, "fill": "x" * 400},
            }
            for number in range(count)
        ]
        self.skerry.kubectl(
            "apply",
            "--server-side",
            "--force-conflicts",
            "-f",
            "-",
            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}),
        )


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def shim_of(container: Container) -> int:
    """The pid of the shim that holds a container."""
    status = Path(f"/proc/{container.pid}/status").read_text()
    match = re.search(r"^PPid:\s+(\d+)$", status, re.MULTILINE)
    assert match is not None, status
    return int(match[1])


@contextlib.contextmanager
def took_at_most(seconds: float, what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took <= seconds or not TIMED, f"{what} took {took:.1f} s, at most {seconds:g} s are allowed"
