"""Put the address that pods reach the local API at onto this machine's loopback device.

KubeEdge makes a device of its own for it (`edge-dummy0`); an address on `lo` does the same and needs no kernel module:
what a pod sends there goes to its gateway, which is this machine, and is delivered locally.  Spoken to the kernel
directly, by one netlink message.   Source: Linux, rtnetlink(7); include/uapi/linux/if_addr.h."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct

from beehive.errors import Unavailable

_RTM_NEWADDR, _RTM_DELADDR = 20, 21
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_CREATE, _NLM_F_REPLACE = 0x01, 0x04, 0x400, 0x100
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RT_SCOPE_HOST = 254
_NLMSG_ERROR = 2
_NETLINK_ROUTE = 0
_TIMEOUT_S = 5.0


def is_link_local(address: str) -> bool:
    """Whether this is an address that only this machine uses, so that we may take it."""
    return ipaddress.ip_address(address).is_link_local


def is_here(address: str) -> bool:
    """Whether a server could listen at `address` now."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
        return True


def add(address: str, device: str = "lo") -> None:
    """Give `device` this address; it may have it already.  Raises Unavailable."""
    _change(_RTM_NEWADDR, _NLM_F_CREATE | _NLM_F_REPLACE, address, device, fine=errno.EEXIST)


def remove(address: str, device: str = "lo") -> None:
    """Take the address away; it may be gone already.  Raises Unavailable."""
    _change(_RTM_DELADDR, 0, address, device, fine=errno.EADDRNOTAVAIL)


def _change(kind: int, flags: int, address: str, device: str, *, fine: int) -> None:
    packed = ipaddress.ip_address(address).packed
    family, bits = (socket.AF_INET, 32) if len(packed) == 4 else (socket.AF_INET6, 128)
    try:
        index = socket.if_nametoindex(device)
        body = struct.pack("=BBBBI", family, bits, 0, _RT_SCOPE_HOST, index)
        for attribute in (_IFA_LOCAL, _IFA_ADDRESS):
            body += struct.pack("=HH", 4 + len(packed), attribute) + packed
        head = struct.pack("=IHHII", 16 + len(body), kind, flags | _NLM_F_REQUEST | _NLM_F_ACK, 1, 0)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE) as link:
            link.settimeout(_TIMEOUT_S)
            link.send(head + body)
            answer = link.recv(4096)
    except OSError as error:
        raise Unavailable(f"cannot change the addresses of {device}: {error.strerror or error}") from error
    number, code = struct.unpack_from("=H", answer, 4)[0], struct.unpack_from("=i", answer, 16)[0]
    if number == _NLMSG_ERROR and code and -code != fine:
        raise Unavailable(f"cannot change the addresses of {device}: {os.strerror(-code)}")
