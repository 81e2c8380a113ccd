"""What the rows of `kubectl get` are made of: cells that many kinds have.  Pure; `now` is given for ages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from beehive.clock import parse_rfc3339
from beehive.selectors import to_text

Json = dict[str, Any]
NONE, UNKNOWN = "<none>", "<unknown>"
Cell = Callable[[Json, datetime], Any]


def age(then: str | None, now: datetime) -> str:
    """How long ago, as kubectl says it: 5s, 3m2s, 4h, 2d3h, 5y."""
    if not then:
        return UNKNOWN
    try:
        at = parse_rfc3339(then)
    except ValueError:
        return "<invalid>"
    seconds = int((now - at).total_seconds())
    if seconds < -1:
        return "<invalid>"
    return duration(max(seconds, 0))


def duration(seconds: int) -> str:
    """Source: apimachinery, pkg/util/duration HumanDuration."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 730:
        return f"{days}d"
    if days < 2920:
        return f"{days // 365}y{days % 365}d" if days % 365 else f"{days // 365}y"
    return f"{days // 365}y"


def get(body: Any, path: str, default: Any = None) -> Any:
    for part in path.split("."):
        if not isinstance(body, dict) or part not in body:
            return default
        body = body[part]
    return body


def field(path: str, default: Any = "") -> Cell:
    return lambda body, now: get(body, path, default)


def name_of(body: Json, now: datetime) -> str:
    name: str = body["metadata"]["name"]
    return name


def age_of(body: Json, now: datetime) -> str:
    return age(get(body, "metadata.creationTimestamp"), now)


def count(*paths: str) -> Cell:
    return lambda body, now: sum(len(get(body, path) or ()) for path in paths)


def containers(part: str, path: str = "spec.template.spec") -> Cell:
    return lambda body, now: ",".join(item.get(part, "") for item in get(body, f"{path}.containers") or ())


def selector(path: str) -> Cell:
    return lambda body, now: to_text(get(body, path))


def pairs(path: str) -> Cell:
    def cell(body: Json, now: datetime) -> str:
        value = get(body, path) or {}
        return ",".join(f"{k}={v}" for k, v in sorted(value.items())) or NONE

    return cell


def rollout(done: str, wanted: str) -> Cell:
    return lambda body, now: f"{get(body, done, 0)}/{get(body, wanted, 0)}"


def ago(path: str) -> Cell:
    return lambda body, now: age(get(body, path), now) if get(body, path) else NONE


Row = tuple[str, str, int, Cell]
NAME: Row = ("Name", "string", 0, name_of)
AGE: Row = ("Age", "string", 0, age_of)
WORKLOAD: tuple[Row, ...] = (
    ("Containers", "string", 1, containers("name")),
    ("Images", "string", 1, containers("image")),
    ("Selector", "string", 1, selector("spec.selector")),
)
