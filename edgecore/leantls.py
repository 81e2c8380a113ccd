"""TLS connections of this process with small buffers.

asyncio takes a buffer of 256 KiB for each to read into; a record of TLS has 16 KiB at most, and a board has other uses for the
memory.  Source: CPython, asyncio/sslproto.py."""

from __future__ import annotations

import asyncio.sslproto

READ_BYTES = 16 * 1024


def use() -> None:
    """From now on.  Call before the first connection is made."""
    asyncio.sslproto.SSLProtocol.max_size = READ_BYTES
