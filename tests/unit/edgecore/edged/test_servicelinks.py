"""What containers are told of Services."""

from __future__ import annotations

import json
from typing import Any

from edgecore.edged.servicelinks import variables


def _service(name: str, address: str | None, *ports: dict[str, Any]) -> bytes:
    return json.dumps(
        {"metadata": {"name": name}, "spec": {"clusterIP": address, "ports": list(ports)}}
    ).encode()


def test_the_variables_are_a_kubelets() -> None:
    """The example of the Kubernetes documentation, with a second port that has a name."""
    found = variables(
        [
            _service(
                "redis-primary",
                "10.0.0.11",
                {"name": "main", "port": 6379, "protocol": "TCP"},
                {"name": "gossip-x", "port": 7000, "protocol": "UDP"},
            )
        ]
    )
    assert found == {
        "REDIS_PRIMARY_SERVICE_HOST": "10.0.0.11",
        "REDIS_PRIMARY_SERVICE_PORT": "6379",
        "REDIS_PRIMARY_SERVICE_PORT_MAIN": "6379",
        "REDIS_PRIMARY_SERVICE_PORT_GOSSIP_X": "7000",
        "REDIS_PRIMARY_PORT": "tcp://10.0.0.11:6379",
        "REDIS_PRIMARY_PORT_6379_TCP": "tcp://10.0.0.11:6379",
        "REDIS_PRIMARY_PORT_6379_TCP_PROTO": "tcp",
        "REDIS_PRIMARY_PORT_6379_TCP_PORT": "6379",
        "REDIS_PRIMARY_PORT_6379_TCP_ADDR": "10.0.0.11",
        "REDIS_PRIMARY_PORT_7000_UDP": "udp://10.0.0.11:7000",
        "REDIS_PRIMARY_PORT_7000_UDP_PROTO": "udp",
        "REDIS_PRIMARY_PORT_7000_UDP_PORT": "7000",
        "REDIS_PRIMARY_PORT_7000_UDP_ADDR": "10.0.0.11",
    }


def test_an_address_of_six_is_in_brackets_where_a_port_follows() -> None:
    found = variables([_service("db", "fd00::5", {"port": 5432})])
    assert found["DB_SERVICE_HOST"] == "fd00::5"
    assert found["DB_PORT"] == "tcp://[fd00::5]:5432"
    assert found["DB_PORT_5432_TCP_ADDR"] == "fd00::5"


def test_headless_and_unreadable_ones_give_nothing() -> None:
    assert (
        variables(
            [
                _service("headless", "None", {"port": 1}),
                _service("none-yet", None, {"port": 1}),
                _service("external", "", {"port": 1}),
                _service("portless", "10.0.0.1"),
                b"{",
                b'{"metadata": {}}',
                b'{"metadata": {"name": "x"}, "spec": {"ports": 3}}',
                b"\xff",
                b"[" * 9999,
            ]
        )
        == {}
    )


def test_one_may_be_left_out() -> None:
    assert variables([_service("kubernetes", "10.0.0.1", {"port": 443})], leave_out="kubernetes") == {}
