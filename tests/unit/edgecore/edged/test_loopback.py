"""Who is kept away from 127.0.0.1 of the machine."""

from __future__ import annotations

import logging
import socket
import struct
from pathlib import Path

import pytest

from edgecore.edged import loopback


def route(interface: str, net: str, bits: int) -> str:
    """A line as the kernel of this machine writes it."""
    mask = (0xFFFFFFFF << (32 - bits)) & 0xFFFFFFFF
    shown = [
        f"{struct.unpack('=I', packed)[0]:08X}" for packed in (socket.inet_aton(net), struct.pack("!I", mask))
    ]
    return f"{interface}\t{shown[0]}\t00000000\t0001\t0\t0\t0\t{shown[1]}\t0\t0\t0"


ROUTES = "\n".join(
    [
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT",
        route("eth0", "0.0.0.0", 0),
        route("cni0", "10.88.0.0", 16),
        route("cali1", "10.88.3.7", 32),
        "a line that is none",
    ]
)


@pytest.mark.parametrize(
    ("address", "interface"),
    [
        ("10.88.0.9", "cni0"),
        ("10.88.3.7", "cali1"),
        ("10.89.0.9", ""),
        ("fd00::2", ""),
        ("", ""),
    ],
)
def test_the_interface_that_leads_to_a_pod(address: str, interface: str) -> None:
    assert loopback.interface_to(address, ROUTES) == interface


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings of interfaces as files, and an `iptables` that writes down how it is called and has no rule yet."""
    for name, value in (("cni0", "1"), ("cali1", "0")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "route_localnet").write_text(f"{value}\n")
    (tmp_path / "routes").write_text(ROUTES)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "iptables").write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/called\n'
        f'case "$*" in *" -C "*) exit 1;; *" -S "*) cat {tmp_path}/rules;; esac\n'
        f"[ ! -e {tmp_path}/broken ] || {{ echo 'no such table' >&2; exit 3; }}\n"
    )
    (bin_ / "iptables").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:/bin:/usr/bin")
    return tmp_path


def shut(machine: Path, *addresses: str) -> list[str]:
    """How iptables was called."""
    loopback.shut(addresses, routes=machine / "routes", settings=machine)
    called = machine / "called"
    return called.read_text().splitlines() if called.exists() else []


def test_where_the_machine_takes_what_pods_send_there_it_is_dropped(machine: Path) -> None:
    # many pods are behind one interface
    looked, made = shut(machine, "10.88.0.9", "10.88.0.10", "10.88.3.7", "fd00::2")
    assert " -C PREROUTING -i cni0 -d 127.0.0.0/8 " in looked
    assert made.startswith("-w 10 -t raw -I PREROUTING -i cni0 -d 127.0.0.0/8 ")
    assert made.endswith("-j DROP")
    assert (machine / "cni0" / "route_localnet").read_text().strip() == "1"


def test_elsewhere_nothing_is_done(machine: Path) -> None:
    assert shut(machine, "10.88.3.7") == []
    assert shut(machine, "8.8.8.8") == []


def test_without_a_rule_the_machine_takes_nothing(machine: Path, caplog: pytest.LogCaptureFixture) -> None:
    (machine / "broken").touch()
    with caplog.at_level(logging.WARNING):
        shut(machine, "10.88.0.9")
    assert (machine / "cni0" / "route_localnet").read_text() == "0"
    assert "no such table" in caplog.text


RULES = """-P PREROUTING ACCEPT
-A PREROUTING -i eth0 -m comment --comment "somebody\'s own" -j ACCEPT
-A PREROUTING -d 127.0.0.0/8 -i cni0 -m comment --comment "no pod reaches the loopback of this machine" -j DROP
-A PREROUTING -d 127.0.0.0/8 -i cali9 -m comment --comment "no pod reaches the loopback of this machine" -j DROP
"""


@pytest.mark.parametrize(("everything", "gone"), [(False, ["cali9"]), (True, ["cni0", "cali9"])])
def test_rules_go_with_their_interfaces_and_all_with_the_last_pods(
    machine: Path, *, everything: bool, gone: list[str]
) -> None:
    (machine / "rules").write_text(RULES)
    loopback.tidy(settings=machine, everything=everything)
    taken = [line for line in (machine / "called").read_text().splitlines() if " -D " in line]
    assert [line.partition("-i ")[2].split()[0] for line in taken] == gone


def test_where_no_rules_can_be_seen_there_are_none(machine: Path) -> None:
    loopback.tidy(settings=machine, everything=True)
    assert all(" -D " not in line for line in (machine / "called").read_text().splitlines())


def test_an_interface_that_goes_meanwhile_leaves_the_others_shut(machine: Path) -> None:
    (machine / "routes").write_text(ROUTES + "\n" + route("a-gone", "10.90.0.0", 16))
    assert len(shut(machine, "10.90.0.1", "10.88.0.9")) == 2
