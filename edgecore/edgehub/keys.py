"""Make a node's key and request, and judge a certificate.  The only file of the edge that knows `cryptography`.

Run as `python -m edgecore.edgehub.keys request <node>` or `… check <node>` in a process of its own: the library takes 12 MB,
which the daemon would keep for ever for two seconds of work a year.  Input and output are JSON on the standard streams, never
files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime

from beehive.errors import Unavailable
from edgecore.errors import JoinRefused

CHILD_S = 60.0
"""A Raspberry Pi Zero needs about ten seconds to start Python and load the library."""

MAX_OUTPUT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """PEM texts."""

    key: str
    csr: str


@dataclass(frozen=True, slots=True)
class Validity:
    """Unix seconds.   authority: the hash of the one that signed it."""

    not_before: float
    not_after: float
    authority: str = ""


async def make_request(node: str) -> Request:
    """A new P-256 key and a signing request for node `node`.  Raises: JoinRefused (it failed), Unavailable (too slow)."""
    return Request(**await _child("request", node, {}))


async def check(node: str, *, key: str, certificate: str, ca: str, now: float | None) -> Validity:
    """Whether `certificate` is for `key`, is named for `node`, is signed by `ca` (or by one of several in it), may be used by a
    client, and is valid at `now` (Unix seconds); None: whenever that is.

    Raises: JoinRefused, saying what is wrong; Unavailable (too slow)."""
    at = "" if now is None else f"{now:.0f}"
    found = await _child("check", node, {"key": key, "certificate": certificate, "ca": ca, "now": at})
    return Validity(float(found["not_before"]), float(found["not_after"]), str(found["authority"]))


async def _child(verb: str, node: str, given: dict[str, str]) -> dict[str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, verb, node),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(CHILD_S):
            out, err = await process.communicate(json.dumps(given).encode())
    except BaseException as error:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if isinstance(error, TimeoutError):
            raise Unavailable(
                f"cannot {verb} in {CHILD_S:.0f} s: this machine is too busy or short of memory"
            ) from error
        raise
    if process.returncode != 0:
        text = err.decode("utf-8", "replace").strip().splitlines()
        raise JoinRefused(text[-1][:256] if text else f"cannot {verb}: exit code {process.returncode}")
    answer: dict[str, str] = json.loads(out[:MAX_OUTPUT_BYTES])
    return answer


def _request(node: str) -> dict[str, str]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node}"),
        ]
    )
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {"key": key_pem.decode(), "csr": csr.public_bytes(serialization.Encoding.PEM).decode()}


def _check(node: str, given: dict[str, str]) -> dict[str, str]:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    try:
        certificate = x509.load_pem_x509_certificate(given["certificate"].encode())
        authorities = x509.load_pem_x509_certificates(given["ca"].encode())
        key = serialization.load_pem_private_key(given["key"].encode(), password=None)
    except ValueError as error:
        raise SystemExit(f"cannot read the certificate: {error}") from error
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if certificate.public_key().public_bytes(*form) != key.public_key().public_bytes(*form):
        raise SystemExit("the certificate that came is for another key")
    for authority in authorities:
        with contextlib.suppress(ValueError, TypeError, InvalidSignature):
            certificate.verify_directly_issued_by(authority)
            break
    else:
        raise SystemExit("the certificate that came is not signed by the cloud's authority")
    names = [str(n.value) for n in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [f"system:node:{node}"]:
        raise SystemExit(f"the certificate that came is for {', '.join(names) or 'nobody'}")
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
            raise SystemExit("the certificate that came is not for a client")
    except x509.ExtensionNotFound:
        pass  # none listed: all allowed
    before, after = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    now = datetime.fromtimestamp(float(given["now"]), UTC) if given["now"] else before
    if not before <= now < after:
        raise SystemExit(
            f"the certificate that came is valid from {before:%Y-%m-%d %H:%M} to {after:%Y-%m-%d %H:%M} UTC"
            f" and this machine's clock says {now:%Y-%m-%d %H:%M}: set the clock"
        )
    return {
        "not_before": str(before.timestamp()),
        "not_after": str(after.timestamp()),
        "authority": authority.fingerprint(SHA256()).hex(),
    }


def main(arguments: list[str]) -> None:
    verb, node = arguments
    given = json.loads(sys.stdin.buffer.read(MAX_OUTPUT_BYTES))
    answer = _request(node) if verb == "request" else _check(node, given)
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
