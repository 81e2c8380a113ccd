"""Certificates from a stock KubeEdge cloud: its form of token, and its HTTPS port beside the hub's.

Source: protocol notes on the hub, 2.2 to 2.5."""

from __future__ import annotations

import base64
import re
import ssl
from dataclasses import dataclass

from beehive.errors import ConfigError, ProtocolError, Refused, Unavailable
from edgecore.edgehub import https
from edgecore.edgehub.websocket import UNTRUSTED, untrusted
from edgecore.errors import JoinRefused

PORT = 10002
_TOKEN = re.compile(r"([0-9a-f]{64})\.([A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)")
MAX_TOKEN = 4096


@dataclass(frozen=True, slots=True)
class StockToken:
    """ca_hash: SHA-256 of the authority's DER, hex.   jwt: what goes into the Authorization header."""

    ca_hash: str
    jwt: str


def parse_token(text: str) -> StockToken | None:
    """A token of KubeEdge's form, or None if it is another."""
    found = _TOKEN.fullmatch(text.strip()) if len(text) <= MAX_TOKEN else None
    return StockToken(found[1], found[2]) if found else None


def https_address(hub: str, configured: str) -> str:
    """Where the certificates are: `httpServer` of the configuration, or the hub's host.  Raises: ConfigError."""
    if not configured:
        return f"{hub.rpartition(':')[0]}:{PORT}"
    found = re.fullmatch(r"https://([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(?::(\d{1,5}))?/?", configured)
    if found is None:
        raise ConfigError(
            f"modules.edgeHub.httpServer: {configured!r} is not a URL such as https://host:{PORT}"
        )
    return f"{found[1]}:{found[2] or 443}"


async def certificate(
    address: str,
    node: str,
    csr: str,
    *,
    tls: ssl.SSLContext,
    token: StockToken | None,
    any_time: bool = False,
) -> str:
    """Have a request signed; PEM.  tls: trusts the cloud's authority, and without a token shows the old certificate.
    any_time: the server's certificate may be over; only to find out what time it is.

    Raises: Unavailable, JoinRefused, ProtocolError."""
    headers = {"NodeName": node}
    if token is not None:
        headers["Authorization"] = f"Bearer {token.jwt}"
    try:
        answer = await https.get(
            address, "/edge.crt", tls=tls, headers=headers, body=_der(csr), any_time=any_time
        )
    except ssl.SSLCertVerificationError as error:
        raise Refused(untrusted(address, error), reason=UNTRUSTED) from error
    if answer.status in (401, 403):
        raise JoinRefused(f"the cloud refused a certificate: {answer.text}")
    if answer.status != 200:
        raise Unavailable(f"the cloud gave no certificate: {answer.status} {answer.text}")
    if not answer.body.startswith(b"\x30"):
        raise ProtocolError("the cloud's answer is not a certificate")
    return ssl.DER_cert_to_PEM_cert(answer.body)


def _der(pem: str) -> bytes:
    """The bytes between the lines of a PEM text."""
    lines = [line for line in pem.splitlines() if line and not line.startswith("-----")]
    return base64.b64decode("".join(lines))
