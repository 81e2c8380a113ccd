"""TLS contexts out of keys that are only in memory."""

from __future__ import annotations

import contextlib
import os
import ssl

from cloudcore.identity.authority import Authority, hub_client
from cloudcore.identity.pki import KeyPair
from cloudcore.identity.succession import accepted


class Door:
    """What the hub's ports serve TLS with.  A listening port keeps the context it was opened with, and a context can learn to
    trust more authorities but not fewer; so `context` hands each connection over to the newest that `show` made."""

    def __init__(self, authority: Authority, pair: KeyPair) -> None:
        self._authority = authority
        self._current = self.context = self._made(pair)
        self.context.sni_callback = self._hand_over

    def show(self, pair: KeyPair) -> None:
        """Show this pair, and ask for certificates of the authorities that count now, from the next handshake on."""
        self._current = self._made(pair)

    def _hand_over(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        # called with each handshake, also where the client names nobody
        connection.context = self._current

    def _made(self, pair: KeyPair) -> ssl.SSLContext:
        """TLS 1.2 and newer; a client certificate is asked for and, if shown, must be an authority's that counts."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=b"".join(accepted(self._authority.held)).decode("ascii"))
        context.set_alpn_protocols(["http/1.1"])
        # links last for days: tickets would only fill OpenSSL's cache with the sessions of a fleet
        context.num_tickets = 0
        use_certificate(context, pair.certificate_pem, pair.key_pem)
        return context


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
    held = authority.held
    trusted = [pair.certificate_pem for pair in (held.pair, held.old) if pair is not None]
    context = ssl.create_default_context(cadata=b"".join(trusted).decode("ascii"))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    pair = hub_client(authority)
    use_certificate(context, pair.certificate_pem, pair.key_pem)
    return context
