"""What nodes and containers use, from two readings of a kubelet's /metrics/resource.  Pure.

Source: kubelet, pkg/kubelet/metrics/collectors/resource_metrics.go for the names; what a node says is bounded here, since a
node may say anything."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

MAX_SERIES = 4096
"""Series of one node that are kept: several times what its pods can have."""
LEAST_S, MOST_S = 0.5, 600.0
"""Two readings of a counter this far apart give a rate."""
MOST = 2.0**60
"""No counter, size or time is beyond this."""

_LINE = re.compile(r"([a-z_]{1,64})(?:\{([^{}]{0,1024})\})?[ \t]+(\S{1,32})(?:[ \t]+(\d{1,15}))?\s*")
_LABEL = re.compile(r'([a-z_]{1,32})="([A-Za-z0-9._-]{0,253})"(?:,|$)')

_CPU = "cpu_usage_seconds_total"
_MEMORY = "memory_working_set_bytes"

Place = tuple[str, str, str]
"""(namespace, pod, container); all empty for the node itself."""
NODE: Place = ("", "", "")


@dataclass(slots=True)
class Sample:
    """One reading.  cpu_s: seconds of CPU so far; at: Unix seconds by the node's clock; None is what was not told."""

    cpu_s: float | None = None
    memory_bytes: int | None = None
    at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrape:
    """All readings of one page.  at: Unix seconds by our clock."""

    at: float
    samples: dict[Place, Sample] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What something used over `window_s`."""

    cpu_nanocores: int
    memory_bytes: int
    window_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeUsage:
    """What one node and its containers used until `at` (Unix seconds by our clock).

    `unready` are the pods (namespace, name) with a container that has not been measured twice."""

    at: float
    node: Usage | None
    pods: dict[tuple[str, str], dict[str, Usage]]
    unready: frozenset[tuple[str, str]] = frozenset()


def parse(text: str, at: float) -> Scrape:
    """Read a page in the Prometheus text form.  What is not understood or not asked for is passed over.

    at: when it came, Unix seconds by our clock."""
    samples: dict[Place, Sample] = {}
    for line in text.splitlines():
        if not line.startswith(("node_", "container_")):
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            continue
        name, labels, number, stamp = found.groups()
        scope, _, what = name.partition("_")
        value = _number(number)
        place = NODE if scope == "node" else _place(labels or "")
        if value is None or place is None or what not in (_CPU, _MEMORY):
            continue
        sample = samples.get(place)
        if sample is None:
            if len(samples) >= MAX_SERIES:
                continue
            sample = samples[place] = Sample()
        if what == _CPU:
            sample.cpu_s = value
            sample.at = int(stamp) / 1000 if stamp else at
        else:
            sample.memory_bytes = int(value)
    return Scrape(at=at, samples=samples)


def between(before: Scrape, last: Scrape) -> NodeUsage:
    """What was used between two readings of the same node."""
    node: Usage | None = None
    pods: dict[tuple[str, str], dict[str, Usage]] = {}
    unready: set[tuple[str, str]] = set()
    for place, sample in last.samples.items():
        used = _used(before.samples.get(place), sample)
        namespace, pod, container = place
        if place == NODE:
            node = used
        elif used is None:
            unready.add((namespace, pod))
        else:
            pods.setdefault((namespace, pod), {})[container] = used
    return NodeUsage(at=last.at, node=node, pods=pods, unready=frozenset(unready))


def _used(before: Sample | None, last: Sample) -> Usage | None:
    if before is None or before.cpu_s is None or last.cpu_s is None or last.memory_bytes is None:
        return None
    passed = last.at - before.at
    # a counter that went down began anew: another container, or a node that was started again
    if not LEAST_S <= passed <= MOST_S or last.cpu_s < before.cpu_s:
        return None
    rate = (last.cpu_s - before.cpu_s) / passed
    return Usage(
        cpu_nanocores=math.ceil(rate * 1e9), memory_bytes=last.memory_bytes, window_s=round(passed, 3)
    )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= MOST else None  # not a number fails this too


def _place(labels: str) -> Place | None:
    found = dict(_LABEL.findall(labels))
    place = (found.get("namespace", ""), found.get("pod", ""), found.get("container", ""))
    return place if all(place) else None
