"""Summaries and metrics from readings."""

from __future__ import annotations

from dataclasses import replace

from edgecore.edged.imagegc import Disk
from edgecore.edged.runtime import InterfaceUsage, MemoryDetail
from edgecore.edgestream import stats
from edgecore.edgestream.stats import (
    ContainerReading,
    NodeDisks,
    NodeReading,
    PodDisk,
    PodReading,
    Reading,
    Usage,
    VolumeReading,
)


def node(at: float = 1000.0, cpu_ns: int = 5_000_000_000) -> NodeReading:
    return NodeReading(at=at, cpu_ns=cpu_ns, memory_bytes=600, capacity_bytes=1000, boot_at=10.0)


def container(
    name: str, *, at: float = 1000.0, cpu_ns: int = 1_000_000_000, pod: str = "web"
) -> ContainerReading:
    return ContainerReading(
        id=f"{pod}-{name}",
        name=name,
        namespace="default",
        pod=pod,
        uid=f"uid-{pod}",
        at=at,
        cpu_ns=cpu_ns,
        memory_bytes=100,
        disk_bytes=7,
        inodes=3,
        image="busybox:1",
        started_at=900.5,
        memory=MemoryDetail(usage_bytes=150, rss_bytes=80, page_faults=9, major_page_faults=1),
    )


def test_rates_need_two_readings_that_are_apart() -> None:
    usage = Usage()
    assert usage.nanocores("a", Reading(at=1.0, cpu_ns=0, memory_bytes=0)) == 0
    assert usage.nanocores("a", Reading(at=3.0, cpu_ns=1_000_000_000, memory_bytes=0)) == 500_000_000
    assert usage.nanocores("a", Reading(at=3.5, cpu_ns=9_000_000_000, memory_bytes=0)) == 500_000_000
    # a counter that began anew
    assert usage.nanocores("a", Reading(at=9.0, cpu_ns=0, memory_bytes=0)) == 0
    usage.forget_all_but(set())
    assert usage._last == {}


def test_the_summary_adds_containers_to_pods() -> None:
    usage = Usage()
    stats.summary("edge-1", node(), [container("a"), container("b")], usage)
    later = [
        container("a", at=1002, cpu_ns=2_000_000_000),
        container("b", at=1002),
        container("c", pod="other"),
    ]
    found = stats.summary("edge-1", node(1002, 7_000_000_000), later, usage)
    assert found["node"]["nodeName"] == "edge-1"
    assert found["node"]["startTime"] == "1970-01-01T00:00:10Z"
    assert found["node"]["cpu"]["usageNanoCores"] == 1_000_000_000
    assert found["node"]["memory"]["availableBytes"] == 400
    web, other = found["pods"]
    assert web["podRef"] == {"name": "web", "namespace": "default", "uid": "uid-web"}
    assert web["cpu"]["usageNanoCores"] == 500_000_000
    assert web["cpu"]["usageCoreNanoSeconds"] == 3_000_000_000
    assert web["memory"]["workingSetBytes"] == 200
    assert [c["name"] for c in other["containers"]] == ["c"]


def test_the_summary_says_what_is_on_the_disks() -> None:
    disks = NodeDisks(
        at=1000.0,
        pods=Disk(bytes_total=100, bytes_free=40, inodes=10, inodes_free=9),
        images=Disk(bytes_total=50, bytes_free=20),
        pids=7,
        pids_max=99,
    )
    claim = VolumeReading(
        name="data", used_bytes=3, disk=Disk(bytes_total=5, bytes_free=2), claim=("default", "pvc")
    )
    held = {
        "uid-web": PodDisk(used_bytes=12, volumes=[VolumeReading(name="v", used_bytes=5, inodes=2), claim])
    }
    read = [replace(container("a"), log_bytes=4), container("b", pod="new")]
    found = stats.summary("edge-1", node(), read, Usage(), disks, held)
    when, pods = "1970-01-01T00:16:40Z", {"availableBytes": 40, "capacityBytes": 100}
    whole = {**pods, "inodesFree": 9, "inodes": 10}
    assert found["node"]["fs"] == {"time": when, "usedBytes": 60, "inodesUsed": 1, **whole}
    assert found["node"]["runtime"]["imageFs"]["usedBytes"] == 30
    assert found["node"]["rlimit"] == {"time": when, "maxpid": 99, "curproc": 7}
    web, new = found["pods"]
    assert web["ephemeral-storage"] == {"time": when, "usedBytes": 12, **whole}
    assert web["containers"][0]["logs"] == {"time": when, "usedBytes": 4, **whole}
    assert web["containers"][0]["rootfs"] == {
        "time": when,
        "usedBytes": 7,
        "inodesUsed": 3,
        "availableBytes": 20,
        "capacityBytes": 50,
    }
    assert web["volume"] == [
        {"time": when, "usedBytes": 5, "inodesUsed": 2, "name": "v", **whole},
        {
            "time": when,
            "usedBytes": 3,
            "availableBytes": 2,
            "capacityBytes": 5,
            "name": "data",
            "pvcRef": {"namespace": "default", "name": "pvc"},
        },
    ]
    assert "ephemeral-storage" not in new
    assert "logs" not in new["containers"][0]


def test_the_summary_says_more_of_memory_and_what_went_over_the_network() -> None:
    limited = replace(container("a"), memory_limit_bytes=130)
    eth0 = InterfaceUsage(name="eth0", rx_bytes=1, rx_errors=2, tx_bytes=3, tx_errors=4)
    sandboxes = [
        PodReading(
            at=1000.0,
            id="s",
            namespace="default",
            pod="web",
            uid="uid-web",
            interfaces=[eth0],
            processes=5,
        ),
        # its containers have not been measured yet
        PodReading(at=1000.0, id="s2", namespace="default", pod="new", uid="uid-new", interfaces=[eth0]),
    ]
    found = stats.summary(
        "edge-1", replace(node(), interfaces=[eth0]), [limited, container("b")], Usage(), sandboxes=sandboxes
    )
    (web,) = found["pods"]
    first, second = web["containers"]
    assert first["memory"] == {
        "time": "1970-01-01T00:16:40Z",
        "availableBytes": 30,
        "usageBytes": 150,
        "workingSetBytes": 100,
        "rssBytes": 80,
        "pageFaults": 9,
        "majorPageFaults": 1,
    }
    assert "availableBytes" not in second["memory"]
    assert (web["memory"]["rssBytes"], web["memory"]["majorPageFaults"]) == (160, 2)
    row = {"name": "eth0", "rxBytes": 1, "rxErrors": 2, "txBytes": 3, "txErrors": 4}
    network = {"time": "1970-01-01T00:16:40Z", **row, "interfaces": [row]}
    assert (web["network"], found["node"]["network"]) == (network, network)
    assert web["process_stats"] == {"process_count": 5}


def test_the_machine_can_be_read() -> None:
    found = stats.read_node()
    assert found.memory.usage_bytes > 0
    assert found.memory.page_faults > 0
    assert 0 < found.memory_bytes < found.capacity_bytes
    assert found.cpu_ns > 0
    assert found.boot_at < found.at
