"""Pods that take all they can get, and images that mean harm: P06, P10, P11 and P14."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import ssl
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.skerry import eventually
from tests.faults.stage import BACK_S, TIMED, Stage
from tests.faults.test_hostile import GROWTH_KIB, memory_kib
from tests.integration.edged.machine import image_archive

MIB = 1024 * 1024
LOG_QUOTA = 5 * 4 * MIB
FOLLOWERS = 50


def make(
    stage: Stage,
    name: str,
    script: str,
    *,
    limits: dict[str, str] | None = None,
    volumes: list[dict[str, Any]] | None = None,
    image: str = "skerry.local/busybox:1",
) -> None:
    """A pod with one container that runs this script; `volumes` are mounted at /<name>."""
    volumes = volumes or []
    main = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", script],
        "resources": {"limits": limits or {}},
        "volumeMounts": [{"name": one["name"], "mountPath": f"/{one['name']}"} for one in volumes],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"herd": "hogs"}},
        "spec": {
            "nodeName": stage.skerry.node_name,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [main],
            "volumes": volumes,
        },
    }
    stage.skerry.kubectl("apply", "-f", "-", stdin=json.dumps(pod))


@contextlib.contextmanager
def undisturbed(stage: Stage, *, growth_kib: int = GROWTH_KIB) -> Iterator[None]:
    """What runs and the agent itself must be the same after it, the link and the heartbeat, too; then the hogs are gone.

    growth_kib: what the agent may keep of it."""
    before, agent, session = stage.containers(), stage.pid("edgecore"), stage.session()
    first = memory_kib(agent)
    try:
        yield
        since = time.time()
        eventually(lambda: stage.is_fresh(since), "the heartbeat", BACK_S)
        assert stage.pid("edgecore") == agent
        assert stage.session() == session
        assert before <= stage.containers()
        assert stage.served()
    finally:
        stage.drop_pods("hogs")
    eventually(lambda: stage.containers() == before, "only what was there before", 120)
    assert settled_kib(agent, first + growth_kib) <= first + growth_kib, f"it began with {first} KiB"


def settled_kib(pid: int, enough: int) -> int:
    """The least memory that a process has within a minute; sooner when that is enough."""
    least, end = memory_kib(pid), time.monotonic() + 60
    while least > enough and time.monotonic() < end:
        time.sleep(0.5)
        least = min(least, memory_kib(pid))
    return least


def state(stage: Stage, pod: str) -> tuple[str, str]:
    """Phase and reason."""
    status = stage.skerry.get("pod", pod)["status"]
    return status["phase"], status.get("reason", "")


def container_state(stage: Stage, pod: str) -> dict[str, Any]:
    status = stage.skerry.get("pod", pod)["status"]["containerStatuses"][0]
    return {**status["state"], "last": status.get("lastState", {}), "restarts": status["restartCount"]}


@contextlib.contextmanager
def configured(stage: Stage, line: str) -> Iterator[None]:
    """The agent has one more line in its kubelet's configuration."""
    config = stage.edge / "edgecore.yaml"
    text = config.read_text()
    mark = "      cgroupRoot:"
    assert mark in text
    stage.stop("edgecore")
    config.write_text(text.replace(mark, f"      {line}\n{mark}"))
    stage.start("edgecore")
    try:
        eventually(stage.is_linked, "the link", 60)
        eventually(stage.is_agreed, "agreement", 60)
        yield
    finally:
        stage.stop("edgecore")
        config.write_text(text)
        stage.start("edgecore")


@pytest.fixture
def few_processes(stage: Stage) -> Iterator[Stage]:
    """A node that gives each pod 100 processes, so that a bomb is no danger to the machine that tests it."""
    with configured(stage, "podPidsLimit: 100"):
        yield stage


@pytest.fixture
def small_logs(stage: Stage) -> Iterator[Stage]:
    """A node whose small disk has room for the logs, and for what comes between two looks at them."""
    with configured(stage, "containerLogMaxSize: 4Mi"):
        yield stage


EVICTED = ("Failed", "Evicted")


def test_p06_what_a_pod_writes_anywhere_counts_for_its_limit(stage: Stage) -> None:
    """16 MiB each, where 8 are allowed; the disk has room for that."""
    limits = {"ephemeral-storage": "8Mi"}

    def fill(path: str) -> str:
        return f"dd if=/dev/zero of={path} bs=1M count=16; trap 'exit 0' TERM; sleep 100000 & wait"

    with undisturbed(stage):
        for name, path in (("hosts", "/etc/hosts"), ("message", "/dev/termination-log")):
            make(stage, name, fill(path), limits=limits)
            eventually(lambda name=name: state(stage, name) == EVICTED, f"{name} to be evicted", 120)  # type: ignore[misc]
            assert "ephemeral" in stage.skerry.get("pod", name)["status"]["message"]
        make(
            stage,
            "scratch",
            fill("/scratch/big"),
            volumes=[{"name": "scratch", "emptyDir": {"sizeLimit": "8Mi"}}],
        )
        eventually(lambda: state(stage, "scratch") == EVICTED, "the emptyDir to be counted", 120)
        # it is given back
        eventually(
            lambda: os.statvfs(stage.edge).f_bavail * os.statvfs(stage.edge).f_frsize > 40 * MIB, "room"
        )
        assert stage.condition("DiskPressure") == "False"


@pytest.mark.parametrize("path", ["/etc/hosts", "/scratch/big"])
def test_p06_a_pod_fills_the_disk(stage: Stage, path: str) -> None:
    """Without any limit, and again whenever there is room: the pod that did it goes, and no other."""
    try:
        with undisturbed(stage):
            script = f"while :; do cat /dev/zero >> {path}; sleep 0.2; done"
            make(stage, "filler", script, volumes=[{"name": "scratch", "emptyDir": {}}])
            eventually(lambda: stage.condition("DiskPressure") == "True", "DiskPressure", 120)
            eventually(lambda: state(stage, "filler") == EVICTED, "the pod that filled it to be evicted", 120)
    finally:
        # the condition stays for five minutes, as a kubelet's does, and keeps new pods away; not from the next case
        stage.kill("edgecore")


def log_bytes(stage: Stage, pod: str) -> int:
    total = 0
    for folder in (stage.edge / "logs").rglob(f"default_{pod}_*"):
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                total += path.stat().st_blocks * 512 if path.is_file() else 0
    return total


def free(stage: Stage) -> int:
    """Bytes that the edge's disk has left."""
    info = os.statvfs(stage.edge)
    return info.f_bavail * info.f_frsize


class Follower:
    """Asks the API for a pod's log as `kubectl logs -f` does, and takes a few bytes of it each second."""

    def __init__(self, stage: Stage, pod: str) -> None:
        config = yaml.safe_load((stage.skerry.home / "kubeconfig").read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._where = urllib.parse.urlsplit(cluster["server"])
        self._pod = pod
        self.tls = tls_of(cluster, user)
        self.got = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"follower of {pod}", daemon=True)
        self.problem = ""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)

    def _follow(self) -> None:
        host, port = str(self._where.hostname), int(self._where.port or 443)
        try:
            with self.tls.wrap_socket(
                socket.create_connection((host, port), 30), server_hostname=host
            ) as line:
                question = f"GET /api/v1/namespaces/default/pods/{self._pod}/log?follow=true HTTP/1.1\r\nHost: {host}\r\n\r\n"
                line.sendall(question.encode())
                head = line.recv(512)
                if b" 200 " not in head:
                    self.problem = head.decode(errors="replace")
                    return
                while not self._stop.wait(1):
                    chunk = line.recv(512)
                    if not chunk:
                        return
                    self.got += len(chunk)
        except OSError as error:
            self.problem = str(error)


def tls_of(cluster: dict[str, str], user: dict[str, str]) -> ssl.SSLContext:
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=authority)
    with tempfile.NamedTemporaryFile() as pair:
        pair.write(b"".join(base64.b64decode(user[f"client-{part}-data"]) for part in ("certificate", "key")))
        pair.flush()
        context.load_cert_chain(pair.name)
    return context


# As lines of 1,023 bytes, or as one line that never ends.  17 MiB a second are a gigabyte a minute; what a busy machine has
# between two looks at a log would fill a disk as small as this one.
MIB_PER_S = 17 if TIMED else 6
LINES = f"""
line=$(dd if=/dev/zero bs=1022 count=1 2>/dev/null | tr '\\0' x)
i=0; while [ $i -lt 1024 ]; do echo "$line"; i=$((i+1)); done > /tmp/lines
while :; do i=0; while [ $i -lt {MIB_PER_S} ]; do cat /tmp/lines; i=$((i+1)); done; sleep 1; done
"""
ONE_LINE = f"""
dd if=/dev/zero bs=1M count=1 2>/dev/null | tr '\\0' x > /tmp/part
i=0; while [ $i -lt {500 if TIMED else 200} ]; do
  cat /tmp/part; i=$((i+1)); [ $((i % {MIB_PER_S // 2})) -ne 0 ] || sleep 0.5
done
sleep 100000
"""


def watch_log(stage: Stage, pod: str, seconds: float) -> int:
    """The most that a pod's log took of the disk meanwhile."""
    most, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        most = max(most, log_bytes(stage, pod))
        time.sleep(0.2)
    return most


def test_p11_a_gigabyte_of_log_a_minute_and_fifty_who_follow_it_slowly(small_logs: Stage) -> None:
    stage = small_logs
    agent, cloud = stage.pid("edgecore"), stage.pid("cloudcore")
    first = {pid: memory_kib(pid) for pid in (agent, cloud)}
    # the blocks of so many streams leave gaps in its heap, which the next ones fill: 22 MiB
    with undisturbed(stage, growth_kib=2 * GROWTH_KIB):
        make(stage, "talker", LINES)
        eventually(lambda: state(stage, "talker")[0] == "Running", "the talker", 60)
        followers = [Follower(stage, "talker") for _ in range(FOLLOWERS)]
        try:
            for one in followers:
                one.start()
            eventually(
                lambda: all(one.got or one.problem for one in followers), "all of them to get something", 120
            )
            assert [one.problem for one in followers if one.problem] == []
            # what comes between two looks is beyond it, and more on a busy machine; it comes back to it, and what was removed
            # is not kept by those who read it slowly
            for _ in range(3):
                assert watch_log(stage, "talker", 10) > 0, container_state(stage, "talker")
                eventually(lambda: log_bytes(stage, "talker") <= LOG_QUOTA + 20 * MIB, "the quota", 60)
                eventually(lambda: free(stage) > 40 * MIB, "room", 60)
            assert stage.condition("DiskPressure") == "False"
            # a window of its own for each stream, and no more
            assert memory_kib(agent) - first[agent] < FOLLOWERS * 1024 + GROWTH_KIB
            assert memory_kib(cloud) - first[cloud] < FOLLOWERS * 1024 + 2 * GROWTH_KIB
            assert stage.is_linked()
            # others are answered meanwhile
            assert stage.skerry.kubectl("logs", "herd-1").returncode == 0
        finally:
            for one in followers:
                one.stop()
        assert container_state(stage, "talker")["restarts"] == 0


def test_p11_one_line_of_500_mb(small_logs: Stage) -> None:
    stage = small_logs
    agent = stage.pid("edgecore")
    first = memory_kib(agent)
    with undisturbed(stage):
        make(stage, "liner", ONE_LINE)
        eventually(lambda: state(stage, "liner")[0] == "Running", "it to begin", 60)
        highest = 0
        with Reading(stage, "liner") as reading:
            most = watch_log(stage, "liner", 45)
            highest = reading.highest
        assert most > LOG_QUOTA // 5
        eventually(lambda: log_bytes(stage, "liner") <= LOG_QUOTA + 5 * MIB, "the quota", 60)
        assert highest - first < 3 * GROWTH_KIB
        # it comes in pieces, the last of them too
        told = stage.skerry.kubectl("logs", "liner", "--limit-bytes=100000").stdout
        assert set(told) <= {"x", "\n"}
        assert len(told) >= 50_000


class Reading:
    """Takes the last of a pod's log again and again, and looks at what the agent needs for it."""

    def __init__(self, stage: Stage, pod: str) -> None:
        self._stage, self._pod = stage, pod
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="reading")
        self.highest = 0

    def _read(self) -> None:
        pid = self._stage.pid("edgecore")
        while not self._stop.wait(0.5):
            self._stage.skerry.kubectl("logs", self._pod, "--tail=1", "--limit-bytes=1000000", check=False)
            self.highest = max(self.highest, memory_kib(pid))

    def __enter__(self) -> Reading:
        self._thread.start()
        return self

    def __exit__(self, *others: object) -> None:
        self._stop.set()
        self._thread.join(120)


HOGS = {
    "bomb": ("f() { f | f & }; while :; do f; sleep 0.1; done", {"memory": "64Mi", "cpu": "200m"}),
    "memory": ("tail /dev/zero", {"memory": "32Mi", "cpu": "200m"}),
    "cpu": (
        "for i in 1 2 3 4 5 6 7 8; do while :; do :; done & done; wait",
        {"memory": "32Mi", "cpu": "200m"},
    ),
    "files": (
        'i=10; while [ $i -lt 100000 ]; do eval "exec $i</dev/null" || break; i=$((i+1)); done; sleep 100000',
        {"memory": "48Mi", "cpu": "200m"},
    ),
}


def pids_in(stage: Stage, pod: str) -> int:
    """Processes and threads of a pod, as its cgroup counts them."""
    uid = stage.skerry.get("pod", pod)["metadata"]["uid"]
    found = [
        int(path.read_text())
        for path in Path("/sys/fs/cgroup").rglob(f"*{uid}*/pids.current")
        if path.exists()
    ]
    return max(found, default=0)


def test_p14_bombs_and_hogs_of_memory_cpu_and_files(few_processes: Stage) -> None:
    stage = few_processes
    with undisturbed(stage):
        for name, (script, limits) in HOGS.items():
            make(stage, f"hog-{name}", script, limits=limits)
        eventually(lambda: "restarts" in container_state(stage, "hog-memory"), "the memory hog", 60)

        def out_of_memory() -> bool:
            told = container_state(stage, "hog-memory")
            ends = (told.get("terminated", {}), told["last"].get("terminated", {}))
            return any(end.get("reason") == "OOMKilled" for end in ends)

        eventually(out_of_memory, "the memory hog to be killed, and told as such", 120)
        eventually(lambda: pids_in(stage, "hog-bomb") > 50, "the bomb", 60)
        for _ in range(20):
            assert pids_in(stage, "hog-bomb") <= 100
            time.sleep(0.5)
        agent = int(Path(f"/proc/{stage.pid('edgecore')}/oom_score_adj").read_text())
        for one in stage.skerry.containers():
            if one.pod.startswith("hog-"):
                with contextlib.suppress(FileNotFoundError):
                    assert int(Path(f"/proc/{one.pid}/oom_score_adj").read_text()) >= agent, one.pod
        # newcomers start, and what was there answers
        make(stage, "hog-newcomer", "sleep 100000")
        eventually(lambda: state(stage, "hog-newcomer")[0] == "Running", "a newcomer", 60)
        assert stage.skerry.kubectl("exec", "herd-1", "--", "true").returncode == 0
        assert stage.condition("Ready") == "True"


# what an image may say of itself to be more than it may
HOSTILE: dict[str, dict[str, object]] = {
    "volumes": {"Volumes": {f"/{'../' * 12}tmp/skerry-p10-mark": {}, "../up": {}, "/proc/x": {}, "": {}}},
    "labels": {
        "Labels": {
            "io.cri-containerd.kind": "sandbox",
            "io.kubernetes.pod.uid": "somebody-else",
            "io.kubernetes.pod.namespace": "kube-system",
            "io.kubernetes.pod.name": "herd-1",
            "io.kubernetes.container.name": "another",
            "containerd.io/log-uri": "binary:///bin/touch?/tmp/skerry-p10-mark",
            "io.containerd.image.config.stop-signal": "SIGKILL",
            "big": "x" * 200_000,
        }
    },
    "environment": {"Env": ["PATH=/bin", "=x", "A", "LD_PRELOAD=/x.so", "B=" + "x" * 60_000]},
    "stop": {"StopSignal": "SIGNOTHING", "WorkingDir": "/../../../../tmp/skerry-p10-mark"},
    "shell": {
        "Shell": ["/bin/touch"],
        "OnBuild": ["RUN touch /x"],
        "ExposedPorts": {"99999/tcp": {}, "x": {}},
    },
}
MARK = Path("/tmp/skerry-p10-mark")


def test_p10_images_that_mean_harm(stage: Stage, tmp_path: Path) -> None:
    """Each runs as what it is, or its pod says why it does not; the machine and the other pods do not feel it."""
    names = [*HOSTILE, "zeros"]
    assert not MARK.exists()
    with undisturbed(stage):
        for name in names:
            zeros = 200 * MIB if name == "zeros" else 0
            archive = tmp_path / "image.tar"
            more = HOSTILE.get(name, {})
            archive.write_bytes(image_archive(f"skerry.local/harm:{name}", more=more, zeros=zeros))
            stage.skerry.ctr("images", "import", "--no-unpack", str(archive))
            make(stage, f"harm-{name}", "sleep 100000", image=f"skerry.local/harm:{name}")

        def told(name: str) -> bool:
            status = stage.skerry.get("pod", f"harm-{name}")["status"]
            (main,) = status.get("containerStatuses", [{"state": {}}])
            waits = main["state"].get("waiting", {}).get("reason", "")
            return bool(main.get("ready")) or waits not in ("", "ContainerCreating")

        for name in names:
            eventually(lambda name=name: told(name), f"harm-{name} to run or to say why not", 120)  # type: ignore[misc]
        # what runs is known as what it is, not as what its image says
        running = [one for one in stage.skerry.containers() if one.pod.startswith("harm-")]
        assert {one.pod for one in running} >= {"harm-labels", "harm-zeros"}
        uids = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in stage.all_pods()}
        assert all(one.pod_uid == uids[one.pod] and one.name == "main" for one in running)
        assert not MARK.exists()
    for name in names:
        stage.skerry.ctr("images", "rm", f"skerry.local/harm:{name}", check=False)
