"""Whether a port can be listened on.  The standard library only, and of that little: the broker's runner stays in memory."""

from __future__ import annotations

import socket


def refusal(address: str, port: int) -> OSError | None:
    """Why this cannot be listened on now; None if it can.   address: of IPv4 or IPv6."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
            probe.listen(1)
    except OSError as error:
        return error
    return None
