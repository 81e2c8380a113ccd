"""Pages of /metrics/resource as numbers, and rates from two of them."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from cloudcore.cloudstream import usage
from cloudcore.cloudstream.usage import NODE, Sample, Scrape, Usage
from edgecore.edgestream import scraped, stats

WEB = ("default", "web", "c")
LABELS = 'container="c",namespace="default",pod="web"'


def page(at: float, node_s: float, web_s: float) -> str:
    """As an edge of ours writes it."""
    node = stats.NodeReading(
        at=at, cpu_ns=int(node_s * 1e9), memory_bytes=4096, capacity_bytes=8192, boot_at=0.0
    )
    web = stats.ContainerReading(
        at=at,
        cpu_ns=int(web_s * 1e9),
        memory_bytes=2048,
        id="1",
        name="c",
        namespace="default",
        pod="web",
        uid="u",
    )
    return scraped.resource(node, [web])


def test_two_pages_of_our_edge_give_what_was_used_between_them() -> None:
    before = usage.parse(page(100.0, 50.0, 1.0), 1000.0)
    last = usage.parse(page(110.0, 55.0, 1.25), 1010.2)
    found = usage.between(before, last)
    assert found.at == 1010.2
    assert found.node == Usage(cpu_nanocores=500_000_000, memory_bytes=4096, window_s=10.0)
    assert found.pods == {
        ("default", "web"): {"c": Usage(cpu_nanocores=25_000_000, memory_bytes=2048, window_s=10.0)}
    }
    assert found.unready == frozenset()


def test_a_page_without_times_counts_from_when_it_came() -> None:
    text = "node_cpu_usage_seconds_total {}\nnode_memory_working_set_bytes 1.5e+06\n"
    before, last = usage.parse(text.format(10), 100.0), usage.parse(text.format("1.2e1"), 104.0)
    assert usage.between(before, last).node == Usage(
        cpu_nanocores=500_000_000, memory_bytes=1_500_000, window_s=4.0
    )


def test_a_container_that_was_read_once_makes_its_pod_unready() -> None:
    last = usage.parse(page(110.0, 55.0, 1.0), 110.0)
    found = usage.between(Scrape(at=100.0), last)
    assert (found.node, found.pods) == (None, {})
    assert found.unready == {("default", "web")}


def test_a_counter_that_began_anew_gives_no_rate() -> None:
    found = usage.between(
        usage.parse(page(100.0, 50.0, 9.0), 100.0), usage.parse(page(110.0, 51.0, 0.5), 110.0)
    )
    assert found.node is not None
    assert found.unready == {("default", "web")}


def test_readings_too_close_too_far_or_backwards_in_time_give_no_rate() -> None:
    before = Scrape(at=0.0, samples={WEB: Sample(1.0, 1, 100.0)})
    for at, ready in ((100.4, False), (99.0, False), (701.0, False), (100.5, True), (700.0, True)):
        found = usage.between(before, Scrape(at=1.0, samples={WEB: Sample(2.0, 1, at)}))
        assert bool(found.pods) is ready, at


def test_lines_that_mean_nothing_here_are_passed_over() -> None:
    bad = (
        f"container_cpu_usage_seconds_total{{{LABELS}}} NaN 1",
        f"container_cpu_usage_seconds_total{{{LABELS}}} -1 1",
        f"container_cpu_usage_seconds_total{{{LABELS}}} +Inf 1",
        f"container_cpu_usage_seconds_total{{{LABELS}}} 1e300 1",
        f"container_cpu_usage_seconds_total{{{LABELS}}} 1 {'9' * 40}",
        f"container_cpu_usage_seconds_total{{{LABELS}",
        'container_cpu_usage_seconds_total{container="c",pod="web"} 1 1',
        'container_cpu_usage_seconds_total{container="c",namespace="a\\"b",pod="web"} 1 1',
        f"container_start_time_seconds{{{LABELS}}} 5 1",
        "node_cpu_usage_seconds_total",
        "node_swap_usage_bytes 5",
        "pod_cpu_usage_seconds_total 5",
        "# node_cpu_usage_seconds_total 5",
    )
    assert usage.parse("\n".join(bad), 1.0).samples == {}
    good = usage.parse("\n".join((*bad, "node_cpu_usage_seconds_total 7 2000")), 1.0)
    assert good.samples == {NODE: Sample(cpu_s=7.0, at=2.0)}


def test_a_node_that_tells_without_end_is_cut_off_and_does_not_take_long() -> None:
    many = "\n".join(
        f'container_memory_working_set_bytes{{container="c",namespace="n",pod="p{number}"}} 1'
        for number in range(usage.MAX_SERIES + 10)
    )
    assert len(usage.parse(many, 1.0).samples) == usage.MAX_SERIES
    began = time.process_time()
    for nasty in (" ", "\t", "{", '"', "a", ",", 'a="",'):
        usage.parse("node_cpu_usage_seconds_total{" + nasty * 500_000, 1.0)
        usage.parse("node_cpu_usage_seconds_total 1" + nasty * 500_000, 1.0)
    assert time.process_time() - began < 5.0


@given(st.text(), st.text())
def test_whatever_comes_is_read(before: str, last: str) -> None:
    lines = ("node_cpu_usage_seconds_total ", f"container_cpu_usage_seconds_total{{{LABELS}}} ")
    pages = [usage.parse("\n".join(line + text for line in lines), 1.0) for text in (before, last)]
    usage.between(*pages)
