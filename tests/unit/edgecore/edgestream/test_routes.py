"""A kubelet's paths as values."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from beehive.errors import NotFound, Refused
from edgecore.edgestream import routes
from edgecore.edgestream.routes import Route, Terminal, Verb


@pytest.mark.parametrize(
    ("path", "route"),
    [
        (
            "/containerLogs/default/web/c?follow=true",
            Route(verb=Verb.LOGS, namespace="default", pod="web", container="c", query=(("follow", "true"),)),
        ),
        (
            "/exec/default/web/c?command=a+b&command=%26",
            Route(
                verb=Verb.EXEC,
                namespace="default",
                pod="web",
                container="c",
                query=(("command", "a b"), ("command", "&")),
            ),
        ),
        ("/attach/ns/p/u-1/c", Route(verb=Verb.ATTACH, namespace="ns", pod="p", uid="u-1", container="c")),
        ("/portForward/ns/p", Route(verb=Verb.PORT_FORWARD, namespace="ns", pod="p")),
        ("/portForward/ns/p/u", Route(verb=Verb.PORT_FORWARD, namespace="ns", pod="p", uid="u")),
        ("/metrics/resource", Route(verb=Verb.METRICS, rest="metrics/resource")),
        ("/stats/summary", Route(verb=Verb.STATS, rest="stats/summary")),
        ("/pods", Route(verb=Verb.PODS, rest="pods")),
        ("/healthz", Route(verb=Verb.HEALTH, rest="healthz")),
    ],
)
def test_paths(path: str, route: Route) -> None:
    assert routes.parse(path) == route


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nothing",
        "/containerLogs/default/web",
        "/containerLogs/default/web/c/d",
        "/containerLogs/default/../c",
        "/containerLogs/default/a%2Fb/c",
        "/containerLogs/default/%00/c",
        "/exec//web/c",
    ],
)
def test_what_is_no_path_of_a_kubelet(path: str) -> None:
    with pytest.raises(NotFound, match="404 page not found"):
        routes.parse(path)


@pytest.mark.parametrize(
    "path", ["/run/default/web/c", "/checkpoint/default/web/c", "/logs/syslog", "/debug/pprof"]
)
def test_what_an_edge_does_not_do(path: str) -> None:
    with pytest.raises(Refused) as caught:
        routes.parse(path)
    assert caught.value.reason == "Forbidden"


@pytest.mark.parametrize(
    "text", ["0", "-1", "65536", "x", "000001" + "9" * 5000, "0000019999", "\N{SUPERSCRIPT TWO}"]
)
def test_a_port_is_a_number_of_five_digits_at_most(text: str) -> None:
    with pytest.raises(Refused, match="invalid port"):
        routes.ports(Route(verb=Verb.PORT_FORWARD, query=(("port", text),)))


def test_too_many_fields_are_refused() -> None:
    with pytest.raises(Refused):
        routes.parse("/exec/default/web/c?" + "&".join(["command=x"] * 3000))


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), max_size=60))
@example("/[")
def test_garbage_is_refused(text: str) -> None:
    try:
        routes.parse("/" + text)
    except Refused:
        return


def test_streams_of_a_terminal() -> None:
    def ask(query: str) -> Terminal:
        return routes.terminal(routes.parse(f"/exec/ns/p/c?{query}"))

    assert ask("input=1&output=1&error=1") == Terminal(stdin=True, stdout=True, stderr=True, tty=False)
    assert ask("output=true&error=1&tty=1") == Terminal(stdin=False, stdout=True, stderr=False, tty=True)
    for query in ("", "tty=1", "output=0", "error=1&tty=1"):
        with pytest.raises(Refused, match="at least 1 of"):
            ask(query)


def test_ports() -> None:
    def ask(query: str) -> list[int]:
        return routes.ports(routes.parse(f"/portForward/ns/p?{query}"))

    assert ask("") == []
    assert ask("port=80&port=81,82") == [80, 81, 82]
    for query in (
        "port=0",
        "port=65536",
        "port=x",
        "port=",
        "port=" + "9" * 5000,
        "port=" + ",".join(["1"] * 65),
    ):
        with pytest.raises(Refused):
            ask(query)
