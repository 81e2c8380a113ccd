"""The pages that are scraped."""

from __future__ import annotations

from dataclasses import replace

from edgecore.edged.runtime import InterfaceUsage
from edgecore.edgestream import scraped
from edgecore.edgestream.stats import PodReading
from tests.unit.edgecore.edgestream.test_stats import container, node


def test_resource_metrics_are_what_metrics_server_reads() -> None:
    lines = scraped.resource(node(), [container("a"), container("b")]).splitlines()
    assert 'container_cpu_usage_seconds_total{container="a",namespace="default",pod="web"} 1 1000000' in lines
    assert (
        'container_memory_working_set_bytes{container="b",namespace="default",pod="web"} 100 1000000' in lines
    )
    assert "node_cpu_usage_seconds_total 5 1000000" in lines
    assert "node_memory_working_set_bytes 600 1000000" in lines
    assert 'pod_cpu_usage_seconds_total{namespace="default",pod="web"} 2 1000000' in lines
    assert 'pod_memory_working_set_bytes{namespace="default",pod="web"} 200 1000000' in lines
    assert "resource_scrape_error 0" in lines
    assert "scrape_error 0" in lines
    assert 'container_start_time_seconds{container="a",namespace="default",pod="web"} 900.5' in lines
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names)) == 9


def test_dashboards_find_containers_and_the_network_of_pods() -> None:
    eth0 = InterfaceUsage(name="eth0", rx_bytes=11, tx_bytes=12, tx_errors=1)
    pod = PodReading(at=1000.0, id="s", namespace="default", pod="web", uid="u", interfaces=[eth0])
    measured = replace(container("a"), memory_limit_bytes=200)
    lines = scraped.cadvisor(node(), [measured], [pod], cpus=4).splitlines()
    whose = 'container="a",id="web-a",image="busybox:1",name="web-a",namespace="default",pod="web"'
    assert f'container_cpu_usage_seconds_total{{{whose},cpu="total"}} 1 1000000' in lines
    assert f"container_memory_working_set_bytes{{{whose}}} 100 1000000" in lines
    assert f"container_memory_rss{{{whose}}} 80 1000000" in lines
    assert f"container_spec_memory_limit_bytes{{{whose}}} 200 1000000" in lines
    failures = f'container_memory_failures_total{{{whose},failure_type="pgmajfault",scope="container"}}'
    assert f"{failures} 1 1000000" in lines
    interface = 'container="",id="s",image="",interface="eth0",name="s",namespace="default",pod="web"'
    assert f"container_network_receive_bytes_total{{{interface}}} 11 1000000" in lines
    assert f"container_network_transmit_errors_total{{{interface}}} 1 1000000" in lines
    assert "machine_cpu_cores 4" in lines
    assert "machine_memory_bytes 1000" in lines


def test_probes_are_counted_and_nothing_ends_a_line_early() -> None:
    attempts = scraped.Attempts(
        namespace="default",
        pod='we"b\n',
        uid="u",
        container="c",
        kind="Liveness",
        result="failed",
        count=3,
    )
    assert scraped.probes([attempts]).splitlines()[2:] == [
        'prober_probe_total{container="c",namespace="default",pod="we\\"b\\n",pod_uid="u",'
        'probe_type="Liveness",result="failed"} 3'
    ]
