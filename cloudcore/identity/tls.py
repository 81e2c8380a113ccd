"""TLS contexts out of keys that are only in memory."""

from __future__ import annotations

import contextlib
import os
import ssl

from cloudcore.identity.authority import Authority, hub_client


def use_certificate(context: ssl.SSLContext, certificate_pem: bytes, key_pem: bytes) -> None:
    """Show this pair from the next handshake on."""
    # OpenSSL reads from a path only; this one is memory, and gone when closed
    handle = os.memfd_create("hub", os.MFD_CLOEXEC)
    with contextlib.closing(os.fdopen(handle, "wb")) as file:
        file.write(certificate_pem + key_pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{handle}")


def peer_context(authority: Authority) -> ssl.SSLContext:
    """Towards another cloudcore: its certificate must be the authority's, for servers and its address; ours is new."""
    context = ssl.create_default_context(cadata=authority.pair.certificate_pem.decode("ascii"))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    pair = hub_client(authority)
    use_certificate(context, pair.certificate_pem, pair.key_pem)
    return context
