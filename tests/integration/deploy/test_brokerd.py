"""A listener for other machines whose address is not there yet: a real mosquitto in a network namespace of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy import brokerd, machine
from deploy.broker import Broker
from tests.support.namespace import Namespace, namespace

MOSQUITTO = machine.find("mosquitto") or ""
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not MOSQUITTO or os.geteuid() != 0 or shutil.which("unshare") is None,
        reason="needs mosquitto, root, unshare",
    ),
]
WAIT_S = 30.0
PORT, LAN_PORT = 1883, 8883
PROBE = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family, socket.SOCK_STREAM) as probe:
    probe.settimeout(2)
    sys.exit(probe.connect_ex((sys.argv[1], int(sys.argv[2]))) != 0)
"""
SESSION = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=30) as session:
    session.sendall(bytes([0x10, 14]) + b"\\0\\4MQTT\\4\\2\\0\\0\\0\\2me")
    assert session.recv(4)[3] == 0
    print("in", flush=True)
    session.settimeout(None)
    print("over" if session.recv(1) == b"" else "?", flush=True)
"""


def until(what: Callable[[], Any], why: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.05)


@pytest.fixture
def alone() -> Iterator[Namespace]:
    """A machine whose one interface is there and has no address."""
    with namespace() as made:
        made.do("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
        for name in ("lan0", "lan1"):
            made.do("ip", "link", "set", name, "up")
        yield made


def answers(place: Namespace, address: str, port: int) -> bool:
    words = place.words(sys.executable, "-c", PROBE, address, str(port))
    return subprocess.run(words, check=False).returncode == 0


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    monkeypatch.setattr(machine, "can_listen", lambda address, port: None)  # it could when that was said
    with tempfile.TemporaryDirectory(prefix="skb") as name:
        made = Broker(Path(name) / "mosquitto", PORT)
        made.password("edgecore")
        made.set_anonymous(allowed=True)
        yield made


@contextlib.contextmanager
def running(alone: Namespace, broker: Broker) -> Iterator[subprocess.Popen[bytes]]:
    with (broker.folder / "log").open("wb") as log:
        process = subprocess.Popen(
            alone.words(*broker.command()), stdout=log, stderr=log, env=machine.environment(), cwd="/"
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(WAIT_S)


def log(broker: Broker) -> str:
    return (broker.folder / "log").read_text(errors="replace")


def mosquittos(broker: Broker) -> list[int]:
    """Pids of those that read this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdecimal() else []
            if len(words) > 2 and words[0].decode() == MOSQUITTO and str(broker.folder) in words[2].decode():
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("address", ["192.0.2.10", "2001:db8::10"])
def test_the_lan_comes_late_goes_and_comes_back(alone: Namespace, broker: Broker, address: str) -> None:
    broker.set_lan(address, LAN_PORT)
    prefix = f"{address}/{64 if ':' in address else 24}"
    with running(alone, broker) as process:
        until(lambda: answers(alone, "127.0.0.1", PORT), f"the local listener at once: {log(broker)}")
        assert not answers(alone, address, LAN_PORT)
        assert "no such address yet" in log(broker)
        (before,) = mosquittos(broker)
        alone.do("ip", "address", "add", prefix, "dev", "lan0")
        until(lambda: answers(alone, address, LAN_PORT), f"the late listener: {log(broker)}")
        until(lambda: answers(alone, "127.0.0.1", PORT), "the local listener")
        (after,) = mosquittos(broker)
        assert after != before
        # from here on nobody's session is touched, whatever the address does
        session = subprocess.Popen(
            alone.words(sys.executable, "-c", SESSION, str(PORT)), stdout=subprocess.PIPE, text=True
        )
        with session:
            assert session.stdout is not None
            assert session.stdout.readline() == "in\n"
            alone.do("ip", "address", "del", prefix, "dev", "lan0")
            until(lambda: not answers(alone, address, LAN_PORT), "the address is gone")
            alone.do("ip", "address", "add", "198.51.100.7/24", "dev", "lan0")
            alone.do("ip", "address", "add", prefix, "dev", "lan0")
            until(lambda: answers(alone, address, LAN_PORT), "the listener is back with its address")
            assert mosquittos(broker) == [after]
            assert session.poll() is None
            process.terminate()
            assert process.wait(WAIT_S) == 0
            assert session.stdout.readline() == "over\n"
    assert mosquittos(broker) == []


def test_accounts_are_read_again_and_both_end_together(alone: Namespace, broker: Broker) -> None:
    broker.set_lan("192.0.2.10", LAN_PORT)
    with running(alone, broker) as process:
        until(lambda: answers(alone, "127.0.0.1", PORT), "it listens")
        process.send_signal(signal.SIGHUP)
        until(lambda: "Reloading config" in log(broker), log(broker))
        (child,) = mosquittos(broker)
        os.kill(child, signal.SIGKILL)
        assert process.wait(WAIT_S) == 128 + signal.SIGKILL
    with running(alone, broker) as process:
        until(lambda: answers(alone, "127.0.0.1", PORT), "it listens")
        process.kill()
        process.wait()
        until(lambda: not mosquittos(broker), "nothing is left behind")


def test_a_port_that_somebody_holds_costs_the_lan_only(alone: Namespace, broker: Broker) -> None:
    broker.set_lan("127.0.0.2", LAN_PORT)
    holder = f"import socket; s = socket.create_server(('127.0.0.2', {LAN_PORT})); print(flush=True); input()"
    with subprocess.Popen(
        alone.words(sys.executable, "-c", holder), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holds:
        assert holds.stdout is not None
        holds.stdout.readline()
        with running(alone, broker):
            until(lambda: answers(alone, "127.0.0.1", PORT), "the local listener")
            assert "in use" in log(broker)
        holds.communicate(b"\n")


def test_without_a_lan_it_becomes_mosquitto(alone: Namespace, broker: Broker) -> None:
    with running(alone, broker) as process:
        until(lambda: answers(alone, "127.0.0.1", PORT), "it listens")
        assert mosquittos(broker) == [process.pid]


def test_what_can_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "in use" in brokerd.why_not("127.0.0.1", taken.getsockname()[1])
    assert brokerd.why_not("127.0.0.1", 0) == ""
    assert "no such address" in brokerd.why_not("192.0.2.1", 0)
