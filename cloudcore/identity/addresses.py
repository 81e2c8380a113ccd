"""The addresses of this machine, for the hub's certificate.  Reads /proc, where no library is needed for it."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from pathlib import Path

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


def primary_address() -> str:
    """The address that this machine uses towards others, IPv4 before IPv6, or loopback.  Sends nothing."""
    # addresses for documentation, which every default route covers: only the route is looked up
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return "127.0.0.1"


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
