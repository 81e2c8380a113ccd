"""The daemon's own numbers in Prometheus' text format: what `/metrics` of the node answers, through the cloud.  Pure.

What was given up, by kind and reason, is there as it is in `edgecore status` and in the Node's annotation: a report that does
not arrive must not be missing silently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DROPPED_ANNOTATION = "skerry.dev/dropped"
MAX_ANNOTATION = 1024

Dropped = Mapping[tuple[str, str], int]
"""(kind, reason) to how many, ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """connected: whether there is a link.   waiting, bytes: of the outbox.   writes: made by applications offline, that wait.
    commits, failures, damaged, locked: of the store.   devices: what mappers and local clients said and was not taken, by
    where it came from and why.   statements_refused: by which the cloud's authority was to be another one."""

    connected: bool
    waiting: int
    bytes: int
    dropped: Dropped
    writes: int
    writes_dropped: Dropped
    commits: int
    failures: int
    damaged: int
    locked: int
    devices: Dropped = field(default_factory=dict)
    statements_refused: int = 0


def render(numbers: Numbers) -> str:
    """One page."""
    lines: list[str] = []

    def family(name: str, kind: str, text: str, rows: Mapping[str, int]) -> None:
        lines.append(f"# HELP skerry_edge_{name} {text}")
        lines.append(f"# TYPE skerry_edge_{name} {kind}")
        lines.extend(f"skerry_edge_{name}{labels} {value}" for labels, value in rows.items())

    family("connected", "gauge", "Whether there is a link to the cloud.", {"": int(numbers.connected)})
    family("outbox_reports", "gauge", "Reports that wait for the cloud.", {"": numbers.waiting})
    family("outbox_bytes", "gauge", "Their size.", {"": numbers.bytes})
    family(
        "outbox_dropped_total",
        "counter",
        "Reports that were given up, by kind and reason.",
        _rows(numbers.dropped),
    )
    family("offline_writes", "gauge", "Writes of applications that wait for the cloud.", {"": numbers.writes})
    family(
        "offline_writes_dropped_total",
        "counter",
        "Writes of applications that the cloud refused, by kind and reason.",
        _rows(numbers.writes_dropped),
    )
    family(
        "device_dropped_total",
        "counter",
        "What mappers (dmi) and MQTT clients said, or were to hear, and was not taken, by way and reason.",
        _rows(numbers.devices),
    )
    family("store_commits_total", "counter", "Commits, each made durable.", {"": numbers.commits})
    family("store_failures_total", "counter", "Commits that the disk refused.", {"": numbers.failures})
    family(
        "store_damaged_rows", "gauge", "Rows that were found damaged since the start.", {"": numbers.damaged}
    )
    family("store_locked_rows", "gauge", "Secrets and tokens whose key is not there.", {"": numbers.locked})
    family(
        "succession_refused_total",
        "counter",
        "Statements about a new authority of the cloud that counted for nothing.",
        {"": numbers.statements_refused},
    )
    return "\n".join(lines) + "\n"


def annotation(dropped: Dropped) -> str:
    """What was dropped, most first, cut to a length that a Node can carry; empty when nothing was."""
    ordered = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    text = ""
    for (kind, reason), count in ordered:
        more = f"{kind}/{reason}={count}"
        if len(text) + len(more) + 2 > MAX_ANNOTATION:
            return f"{text} ..."
        text = f"{text} {more}" if text else more
    return text


def _rows(dropped: Dropped) -> dict[str, int]:
    return {
        f'{{kind="{_label(kind)}",reason="{_label(reason)}"}}': count
        for (kind, reason), count in sorted(dropped.items())
    }


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
