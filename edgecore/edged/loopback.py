"""Keep pods away from what listens on this machine's loopback device only.

The plugin that gives pods host ports sets `route_localnet` on the interface that leads to them, so that the machine itself
reaches them at 127.0.0.1.  With that, a pod that makes its packets itself, as pods may by default, reaches all that listens on
127.0.0.1 of the machine (CVE-2020-8558).  So what comes in there for 127.0.0.0/8 is dropped, before any address is
translated: what host ports answer comes back for another address.  Without iptables the setting is taken back instead, and
host ports answer at the machine's other addresses only.

Source: kubelet, kubelet_network_linux.go; containernetworking/plugins, plugins/meta/portmap/portmap.go.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import shlex
import shutil
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger(__name__)

ROUTES = Path("/proc/net/route")
SETTINGS = Path("/proc/sys/net/ipv4/conf")
_WHY = "no pod reaches the loopback of this machine"
_TIMEOUT_S = 30.0


def interface_to(address: str, routes: str) -> str:
    """The interface that leads to an IPv4 address by a route of its own; empty where only the default route does.

    routes: /proc/net/route."""
    try:
        wanted = int(ipaddress.IPv4Address(address))
    except ValueError:
        return ""
    best = (0, "")
    for line in routes.splitlines()[1:]:
        words = line.split()
        if len(words) < 8:
            continue
        net, mask = (_number(word) for word in (words[1], words[7]))
        if mask and wanted & mask == net:
            best = max(best, (mask, words[0]))
    return best[1]


def _number(word: str) -> int:
    """As the file has addresses: bytes in the order of the network, shown as this machine's number."""
    return int.from_bytes(struct.pack("=I", int(word, 16)), "big")


def rule(interface: str) -> list[str]:
    """What follows `iptables -A`: chain and specification."""
    words = ["PREROUTING", "-i", interface, "-d", "127.0.0.0/8", "-m", "comment", "--comment", _WHY]
    return [*words, "-j", "DROP"]


def shut(addresses: Iterable[str], *, routes: Path = ROUTES, settings: Path = SETTINGS) -> None:
    """Drop what pods with these addresses send to 127.0.0.0/8, where the machine would take it.  Blocking."""
    try:
        found = routes.read_text()
    except OSError as err:
        log.warning("Cannot keep pods away from 127.0.0.1: %s", err)
        return
    for interface in sorted({interface_to(address, found) for address in addresses} - {""}):
        try:
            _shut(interface, settings / interface / "route_localnet")
        except OSError as err:
            log.warning("Cannot keep pods behind %s away from 127.0.0.1: %s", interface, err)


def _shut(interface: str, setting: Path) -> None:
    if setting.read_text().strip() != "1":
        return
    problem = _drop(interface)
    if problem:
        setting.write_text("0")
        log.warning(
            "Host ports answer at other addresses than 127.0.0.1 only, for pods would reach more there: %s",
            problem[:256],
        )


def interfaces(rules: str) -> list[str]:
    """Which interfaces our rules are about.   rules: `iptables -S PREROUTING`."""
    found = []
    for line in rules.splitlines():
        if _WHY not in line:
            continue
        words = shlex.split(line)
        if "-i" in words[:-1]:
            found.append(words[words.index("-i") + 1])
    return found


def tidy(*, settings: Path = SETTINGS, everything: bool = False) -> None:
    """Take back the rules about interfaces that are gone: some networks give each pod one of its own.  Blocking.

    everything: those that are there, too, for this machine runs no pods any more."""
    listed, problem = _iptables("-S", "PREROUTING")
    if problem:
        # without iptables no rule was ever made
        log.debug("Cannot see which rules about 127.0.0.1 are there: %s", problem[:256])
        return
    for interface in interfaces(listed):
        if everything or not (settings / interface).is_dir():
            _, problem = _iptables("-D", *rule(interface))
            if problem:
                log.warning("Cannot take back the rule about %s and 127.0.0.1: %s", interface, problem[:256])


def _drop(interface: str) -> str:
    """Have the rule; why it cannot be had, empty when it is there."""
    words = rule(interface)
    if not _iptables("-C", *words)[1]:
        return ""
    return _iptables("-I", *words)[1]


def _iptables(*words: str) -> tuple[str, str]:
    """What it prints about the table that is asked first of all, and what went wrong, empty for nothing."""
    program = shutil.which("iptables", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if program is None:
        return "", "iptables is not installed"
    try:
        done = subprocess.run(
            [program, "-w", "10", "-t", "raw", *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        return "", str(err)
    if done.returncode != 0:
        return "", done.stderr.strip() or f"it ended with {done.returncode}"
    return done.stdout, ""
