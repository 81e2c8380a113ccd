"""The pages of a node that are scraped, in Prometheus' text format, with a kubelet's names: metrics/resource (what
metrics-server reads), metrics/cadvisor (what dashboards read of containers) and metrics/probes.  Pure.

Sources: kubelet, pkg/kubelet/metrics/collectors/resource_metrics.go and pkg/kubelet/prober/prober_manager.go; cadvisor,
metrics/prometheus.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from edgecore.edged.runtime import InterfaceUsage
from edgecore.edgestream.stats import ContainerReading, NodeReading, PodReading

Row = tuple[str, float, float]
"""Labels as they are written, the value, and when it was so (Unix seconds; 0 without a time)."""


@dataclass(slots=True)
class Page:
    """One page, family by family."""

    _lines: list[str] = field(default_factory=list)

    def family(self, name: str, kind: str, text: str, rows: Iterable[Row]) -> None:
        self._lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        self._lines.extend(
            f"{name}{labels} {_number(value)}{f' {int(at * 1000)}' if at else ''}"
            for labels, value, at in rows
        )

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


def resource(node: NodeReading, containers: Sequence[ContainerReading]) -> str:
    """metrics/resource."""
    page = Page()

    def labelled(c: ContainerReading) -> str:
        return labels(container=c.name, namespace=c.namespace, pod=c.pod)

    page.family(
        "container_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
        [(labelled(c), c.cpu_ns / 1e9, c.at) for c in containers],
    )
    page.family(
        "container_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the container in bytes",
        [(labelled(c), c.memory_bytes, c.at) for c in containers],
    )
    page.family(
        "container_start_time_seconds",
        "gauge",
        "[STABLE] Start time of the container since unix epoch in seconds",
        [(labelled(c), c.started_at, 0) for c in containers if c.started_at],
    )
    page.family(
        "node_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
        [("", node.cpu_ns / 1e9, node.at)],
    )
    page.family(
        "node_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the node in bytes",
        [("", node.memory_bytes, node.at)],
    )
    pods: dict[tuple[str, str], list[ContainerReading]] = {}
    for c in containers:
        pods.setdefault((c.namespace, c.pod), []).append(c)
    page.family(
        "pod_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
        [
            (labels(namespace=namespace, pod=pod), sum(c.cpu_ns for c in rows) / 1e9, max(c.at for c in rows))
            for (namespace, pod), rows in pods.items()
        ],
    )
    page.family(
        "pod_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the pod in bytes",
        [
            (labels(namespace=namespace, pod=pod), sum(c.memory_bytes for c in rows), max(c.at for c in rows))
            for (namespace, pod), rows in pods.items()
        ],
    )
    error = "1 if there was an error while getting container metrics, 0 otherwise"
    page.family("resource_scrape_error", "gauge", f"[STABLE] {error}", [("", 0, 0)])
    # its old name, which scrapers of old releases still look for
    page.family("scrape_error", "gauge", f"[ALPHA] {error}", [("", 0, 0)])
    return page.text()


_GAUGES: tuple[tuple[str, str, Callable[[ContainerReading], float]], ...] = (
    (
        "container_memory_working_set_bytes",
        "Current working set in bytes.",
        lambda c: c.memory_bytes,
    ),
    (
        "container_memory_usage_bytes",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        lambda c: c.memory.usage_bytes,
    ),
    ("container_memory_rss", "Size of RSS in bytes.", lambda c: c.memory.rss_bytes),
    (
        "container_fs_usage_bytes",
        "Number of bytes that are consumed by the container on this filesystem.",
        lambda c: c.disk_bytes,
    ),
    (
        "container_spec_memory_limit_bytes",
        "Memory limit for the container.",
        lambda c: c.memory_limit_bytes,
    ),
)

_NETWORK: tuple[tuple[str, str, Callable[[InterfaceUsage], float]], ...] = (
    (
        "container_network_receive_bytes_total",
        "Cumulative count of bytes received",
        lambda i: i.rx_bytes,
    ),
    (
        "container_network_receive_errors_total",
        "Cumulative count of errors encountered while receiving",
        lambda i: i.rx_errors,
    ),
    (
        "container_network_transmit_bytes_total",
        "Cumulative count of bytes transmitted",
        lambda i: i.tx_bytes,
    ),
    (
        "container_network_transmit_errors_total",
        "Cumulative count of errors encountered while transmitting",
        lambda i: i.tx_errors,
    ),
)


def cadvisor(
    node: NodeReading, containers: Sequence[ContainerReading], pods: Sequence[PodReading], *, cpus: int
) -> str:
    """metrics/cadvisor: what this node knows of it."""
    page = Page()

    def labelled(c: ContainerReading, **more: str) -> str:
        return labels(
            container=c.name, id=c.id, image=c.image, name=c.id, namespace=c.namespace, pod=c.pod, **more
        )

    def of_pod(p: PodReading, interface: str) -> str:
        return labels(
            container="",
            id=p.id,
            image="",
            interface=interface,
            name=p.id,
            namespace=p.namespace,
            pod=p.pod,
        )

    page.family(
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed in seconds.",
        [(labelled(c, cpu="total"), c.cpu_ns / 1e9, c.at) for c in containers],
    )
    for name, text, value in _GAUGES:
        page.family(name, "gauge", text, [(labelled(c), value(c), c.at) for c in containers])
    page.family(
        "container_memory_failures_total",
        "counter",
        "Cumulative count of memory allocation failures.",
        [
            (labelled(c, failure_type=kind, scope="container"), value, c.at)
            for c in containers
            for kind, value in (("pgfault", c.memory.page_faults), ("pgmajfault", c.memory.major_page_faults))
        ],
    )
    page.family(
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds.",
        [(labelled(c), c.started_at, c.at) for c in containers if c.started_at],
    )
    for name, text, count in _NETWORK:
        rows = [(of_pod(p, i.name), count(i), p.at) for p in pods for i in p.interfaces]
        page.family(name, "counter", text, rows)
    page.family("machine_cpu_cores", "gauge", "Number of logical CPU cores.", [("", cpus, 0)])
    page.family(
        "machine_memory_bytes",
        "gauge",
        "Amount of memory installed on the machine.",
        [("", node.capacity_bytes, 0)],
    )
    return page.text()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """How often a probe ended in one way.  kind: Liveness, Readiness or Startup; result: successful, failed or unknown."""

    namespace: str
    pod: str
    uid: str
    container: str
    kind: str
    result: str
    count: int


def probes(attempts: Iterable[Attempts]) -> str:
    """metrics/probes."""
    page = Page()
    page.family(
        "prober_probe_total",
        "counter",
        "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.",
        [
            (
                labels(
                    container=a.container,
                    namespace=a.namespace,
                    pod=a.pod,
                    pod_uid=a.uid,
                    probe_type=a.kind,
                    result=a.result,
                ),
                a.count,
                0,
            )
            for a in attempts
        ],
    )
    return page.text()


def labels(**values: str) -> str:
    """In braces, with what would end a label's value or a line escaped."""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in values.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    """Whole, or with all its nanoseconds; never with an exponent that costs digits."""
    return str(value) if isinstance(value, int) else f"{value:.9f}".rstrip("0").rstrip(".")
