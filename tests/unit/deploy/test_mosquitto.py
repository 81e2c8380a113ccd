"""mosquitto's configuration."""

from __future__ import annotations

from deploy.mosquitto import render_config


def test_it_listens_on_loopback_and_writes_no_file() -> None:
    lines = render_config(21883).splitlines()
    assert "listener 21883 127.0.0.1" in lines
    assert "persistence false" in lines
    assert not [
        line for line in lines if line.startswith(("pid_file", "log_dest file", "persistence_location"))
    ]
