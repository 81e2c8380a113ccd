"""The addresses of this machine, for certificates and for whoever is told where to come.

Reads /proc, where no library is needed for it."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from pathlib import Path

EVERYWHERE = frozenset({"", "0.0.0.0", "::"})
"""To listen on: every address of both protocols, of IPv4, of IPv6 (asyncio keeps a listener on :: to IPv6)."""
_LOCAL = re.compile(r"\|-- (\d+\.\d+\.\d+\.\d+)\n\s+/32 host LOCAL")


def parse_fib(text: str) -> set[str]:
    """The IPv4 addresses of this machine in the text of /proc/net/fib_trie."""
    return set(_LOCAL.findall(text))


def parse_if_inet6(text: str) -> set[str]:
    """The IPv6 addresses in /proc/net/if_inet6; link-local ones need a zone and are left out."""
    found: set[str] = set()
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 6 and len(fields[0]) == 32:
            address = ipaddress.IPv6Address(bytes.fromhex(fields[0]))
            if not address.is_link_local:
                found.add(str(address))
    return found


def local_addresses() -> set[str]:
    """Every address of this machine, loopback included."""
    found = {"127.0.0.1"}
    # a kernel without one of the two protocols lacks that file
    with contextlib.suppress(OSError):
        found |= parse_fib(Path("/proc/net/fib_trie").read_text())
    with contextlib.suppress(OSError):
        found |= parse_if_inet6(Path("/proc/net/if_inet6").read_text())
    return found


def primary_address(listening: str = "") -> str:
    """The address that this machine uses towards others, IPv4 before IPv6, or loopback.  Sends nothing.

    listening: one of EVERYWHERE; only of a protocol that is listened on there."""
    # addresses for documentation, which every default route covers: only the route is looked up
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        if (family == socket.AF_INET and listening == "::") or (
            family == socket.AF_INET6 and listening == "0.0.0.0"
        ):
            continue
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return local_of(listening)


def local_of(listening: str) -> str:
    """How this machine itself reaches what listens there."""
    if listening in EVERYWHERE:
        return "::1" if listening == "::" else "127.0.0.1"
    return listening


def host_port(host: str, port: int) -> str:
    """As they stand in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_names(names: set[str]) -> tuple[list[str], list[str]]:
    """DNS names and addresses, each sorted."""
    dns: list[str] = []
    ips: list[str] = []
    for name in sorted(names):
        try:
            ips.append(str(ipaddress.ip_address(name)))
        except ValueError:
            dns.append(name)
    return dns, ips
