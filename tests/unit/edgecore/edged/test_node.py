from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from edgecore.edged import node
from edgecore.edged.config import EdgedConfig
from edgecore.edged.runtime import Image, RuntimeConditions, RuntimeVersion

GIB = 2**30
CONFIG = EdgedConfig(version="v1.34.0-skerry", kubelet_port=10350)
FACTS = node.Facts(
    hostname="board",
    ips=("10.1.1.1",),
    cpus=4,
    memory_bytes=4 * GIB,
    memory_available_bytes=2 * GIB,
    disk_bytes=32 * GIB,
    disk_available_bytes=16 * GIB,
    inodes=1000,
    inodes_free=900,
    pid_max=1000,
    pids=100,
    arch="arm64",
)
GOOD = RuntimeConditions(runtime_ready=True, runtime_message="", network_ready=True, network_message="")
RUNTIME = node.RuntimeFacts(
    version=RuntimeVersion(name="containerd", version="1.7", api_version="v1"), conditions=GOOD
)


def conditions(facts: node.Facts = FACTS, runtime: node.RuntimeFacts = RUNTIME) -> dict[str, str]:
    status = node.build_status(CONFIG, facts, runtime, previous=node.Before(), now=5.0)
    return {c["type"]: c["status"] for c in status["conditions"]}


def test_a_node_as_a_kubelet_registers_it() -> None:
    status = node.build_status(CONFIG, FACTS, RUNTIME, previous=node.Before(), now=5.0)
    made = node.build_node("edge-1", CONFIG, FACTS, status)
    labels = made["metadata"]["labels"]
    assert labels["kubernetes.io/arch"] == "arm64"
    assert labels["kubernetes.io/hostname"] == "board"
    assert labels["node-role.kubernetes.io/edge"] == ""
    assert status["capacity"] == {
        "cpu": "4",
        "memory": "4194304Ki",
        "ephemeral-storage": "33554432Ki",
        "pods": "110",
    }
    assert status["addresses"] == [
        {"type": "InternalIP", "address": "10.1.1.1"},
        {"type": "Hostname", "address": "board"},
    ]
    assert status["nodeInfo"]["containerRuntimeVersion"] == "containerd://1.7"
    assert status["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10350}}
    assert conditions() == {
        "MemoryPressure": "False",
        "DiskPressure": "False",
        "PIDPressure": "False",
        "Ready": "True",
    }


@pytest.mark.parametrize("condition", ["MemoryPressure", "DiskPressure", "PIDPressure"])
def test_pressure(condition: str) -> None:
    status = node.build_status(CONFIG, FACTS, RUNTIME, previous=node.Before(), now=0.0, pressures={condition})
    on = {c["type"] for c in status["conditions"] if c["status"] == "True"}
    assert on == {condition, "Ready"}


@pytest.mark.parametrize(
    "runtime",
    [
        node.RuntimeFacts(error="away"),
        replace(RUNTIME, conditions=replace(GOOD, runtime_ready=False)),
        replace(RUNTIME, conditions=replace(GOOD, network_ready=False)),
    ],
)
def test_not_ready(runtime: node.RuntimeFacts) -> None:
    assert conditions(runtime=runtime)["Ready"] == "False"


def test_transitions_keep_their_time() -> None:
    first = node.build_status(CONFIG, FACTS, RUNTIME, previous=node.Before(), now=5.0)
    later = node.build_status(
        CONFIG, FACTS, node.RuntimeFacts(error="x"), previous=node.before(first), now=65.0
    )
    times = {c["type"]: (c["lastTransitionTime"], c["lastHeartbeatTime"]) for c in later["conditions"]}
    assert times["Ready"] == ("1970-01-01T00:01:05Z", "1970-01-01T00:01:05Z")
    assert times["DiskPressure"] == ("1970-01-01T00:00:05Z", "1970-01-01T00:01:05Z")


def test_reservations_are_kept_back() -> None:
    facts = replace(FACTS, reserved_cpu_milli=500, reserved_memory_bytes=GIB)
    status = node.build_status(CONFIG, facts, RUNTIME, previous=node.Before(), now=5.0)
    assert (status["allocatable"]["cpu"], status["allocatable"]["memory"]) == ("3500m", "3145728Ki")
    assert facts.allocatable["cpu"] == 3500 * 10**6


def test_what_must_be_left_of_the_disk_is_not_promised() -> None:
    config = EdgedConfig(system_reserved_disk_bytes=10)
    assert node.reserved_disk(config, 1000) == 10 + 100
    assert node.reserved_disk(replace(config, evict=None), 1000) == 10
    facts = replace(FACTS, disk_bytes=1000, reserved_disk_bytes=110)
    status = node.build_status(CONFIG, facts, RUNTIME, previous=node.Before(), now=5.0)
    assert (status["capacity"]["ephemeral-storage"], status["allocatable"]["ephemeral-storage"]) == (
        "0Ki",
        "890",
    )


def test_images_are_bounded_and_largest_first() -> None:
    many = [Image(id=str(i), tags=tuple(f"t{i}{j}" for j in range(9)), size_bytes=i) for i in range(80)]
    listed = node.images([*many, Image(id="nameless", size_bytes=10**9)])
    assert len(listed) == 50
    assert listed[0]["sizeBytes"] == 79
    assert len(listed[0]["names"]) == 5


def test_files_of_proc() -> None:
    assert node.parse_meminfo("MemTotal:  10 kB\nHugePages_Total: 3\nodd\n") == {
        "MemTotal": 10240,
        "HugePages_Total": 3,
    }
    assert node.parse_os_release('NAME="x"\nPRETTY_NAME="Debian 12"\n') == "Debian 12"


def test_this_machine_can_be_read(tmp_path: Path) -> None:
    facts = node.read_facts(EdgedConfig(root_dir=tmp_path / "not" / "yet"))
    assert facts.cpus > 0
    assert facts.memory_bytes > 0
    assert facts.disk_bytes > 0
    assert facts.ips


def test_the_host_is_named_as_its_label_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.socket, "gethostname", lambda: "RaspberryPi")
    assert node.read_facts(EdgedConfig(root_dir=tmp_path)).hostname == "raspberrypi"


def test_a_kernel_without_its_memory_controller_is_said_with_the_remedy() -> None:
    lacking = replace(FACTS, memory_limits=False)
    status = node.build_status(CONFIG, lacking, RUNTIME, previous=node.Before(), now=5.0)
    (said,) = [c for c in status["conditions"] if c["type"] == node.IGNORED]
    assert said["status"] == "True"
    assert "cgroup_enable=memory" in said["message"]
    assert node.IGNORED not in conditions()
    # once it was said the API holds it until it is taken back
    status = node.build_status(CONFIG, FACTS, RUNTIME, previous=node.Before(), now=5.0, limits_told=True)
    assert {c["type"]: c["status"] for c in status["conditions"]}[node.IGNORED] == "False"
