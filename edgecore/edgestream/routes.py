"""The paths of a kubelet that reach a pod or the node, as values.  Pure.

Source: kubelet, pkg/kubelet/server/server.go: paths, query parameters, what is refused and with which text."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import parse_qsl, unquote

from beehive.errors import NotFound, Refused

MAX_QUERY_FIELDS = 2048
"""Arguments of an exec are one field each."""


MAX_PORTS = 64


class Verb(Enum):
    """What a request is for; an operator can switch each off."""

    LOGS = "logs"
    EXEC = "exec"
    ATTACH = "attach"
    PORT_FORWARD = "portForward"
    PODS = "pods"
    STATS = "stats"
    METRICS = "metrics"
    HEALTH = "healthz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A request understood.  uid is set where the client named one."""

    verb: Verb
    namespace: str = ""
    pod: str = ""
    uid: str = ""
    container: str = ""
    rest: str = ""
    query: tuple[tuple[str, str], ...] = field(default=())

    def given(self, name: str) -> list[str]:
        """All values of a query parameter."""
        return [value for key, value in self.query if key == name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """The streams of an exec or attach."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


_PLAIN = {
    "pods": Verb.PODS,
    "runningpods": Verb.PODS,
    "healthz": Verb.HEALTH,
    "stats/summary": Verb.STATS,
    "metrics": Verb.METRICS,
    "metrics/resource": Verb.METRICS,
    "metrics/cadvisor": Verb.METRICS,
    "metrics/probes": Verb.METRICS,
}
_REFUSED = {"run": "run", "checkpoint": "checkpoint", "logs": "the node's log files", "debug": "debug"}


def parse(path: str) -> Route:
    """Understand a path with its query.  Raises NotFound, Refused."""
    # Not urlsplit: this is a path, and "//[" would be the beginning of an address there.
    where, _, text = path.partition("#")[0].partition("?")
    parts = [unquote(part) for part in where.strip("/").split("/")]
    if any(part in ("", ".", "..") or "/" in part or "\0" in part for part in parts):
        raise NotFound("404 page not found")
    try:
        query = tuple(
            parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS, errors="strict")
        )
    except ValueError as error:
        raise Refused(f"cannot read the query: {error}") from error
    plain = _PLAIN.get("/".join(parts))
    if plain is not None:
        return Route(verb=plain, rest="/".join(parts), query=query)
    if parts[0] in _REFUSED:
        raise Refused(f"{_REFUSED[parts[0]]} is not served by edge nodes", reason="Forbidden")
    match parts:
        case ["containerLogs", namespace, pod, container]:
            return Route(verb=Verb.LOGS, namespace=namespace, pod=pod, container=container, query=query)
        case ["exec" | "attach" as verb, namespace, pod, container]:
            return Route(verb=Verb(verb), namespace=namespace, pod=pod, container=container, query=query)
        case ["exec" | "attach" as verb, namespace, pod, uid, container]:
            return Route(
                verb=Verb(verb), namespace=namespace, pod=pod, uid=uid, container=container, query=query
            )
        case ["portForward", namespace, pod]:
            return Route(verb=Verb.PORT_FORWARD, namespace=namespace, pod=pod, query=query)
        case ["portForward", namespace, pod, uid]:
            return Route(verb=Verb.PORT_FORWARD, namespace=namespace, pod=pod, uid=uid, query=query)
    raise NotFound("404 page not found")


def terminal(route: Route) -> Terminal:
    """The streams that were asked for.  Raises Refused when there are none."""

    def wanted(name: str) -> bool:
        return route.given(name)[:1] in (["1"], ["true"])

    tty = wanted("tty")
    streams = Terminal(
        stdin=wanted("input"),
        stdout=wanted("output"),
        # a terminal has one output
        stderr=wanted("error") and not tty,
        tty=tty,
    )
    if not (streams.stdin or streams.stdout or streams.stderr):
        raise Refused("you must specify at least 1 of stdin, stdout, stderr")
    return streams


def ports(route: Route) -> list[int]:
    """The ports that a port-forward names in advance; SPDY clients name none.  Raises Refused."""
    found: list[int] = []
    for value in route.given("port"):
        # "80,81" is how some clients write two
        for text in value.split(","):
            if not text.isdecimal() or len(text) > 5 or not 0 < int(text) < 65536:
                raise Refused(f"invalid port {text[:64]!r}")
            found.append(int(text))
    if len(found) > MAX_PORTS:
        raise Refused(f"{len(found)} ports are over the limit of {MAX_PORTS}")
    return found
