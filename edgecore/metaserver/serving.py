"""The certificate that the local API serves with, and the small authority behind it.

A pod trusts whoever signed what its service account volume says, so this node makes an authority of its own and pods get its
certificate beside the cluster's (`inject.trust`).  Nothing has to be asked of the cloud, a node that never saw the cloud's
signer serves all the same, and no key leaves the machine.

Two files, each replaced by rename: `metaserver-ca.pem` (certificate and key of the authority), `metaserver.pem` (the
server's).  The server's begins with a line for the daemon: until when it is good, and for which addresses.  `cryptography`
is loaded in a child process only, once a year: `python -m edgecore.metaserver.serving make`."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import ssl
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from beehive.errors import SkerryError

CHILD_S = 60.0
"""A Raspberry Pi Zero needs about ten seconds to start Python and load the library."""
MAX_BYTES = 64 * 1024
CA_DAYS = 3650
SERVER_DAYS = 365
RENEW_DAYS = 60
NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)
_LINE = "# skerry: "


class CertificateError(SkerryError):
    """No certificate to serve with could be made."""

    reason = "CertificateFailed"


class Serving(msgspec.Struct, frozen=True):
    """Files to serve with, the authority's certificate (PEM) for whoever is to trust them, and the end in Unix seconds."""

    path: Path
    ca: bytes
    ends: float

    def context(self) -> ssl.SSLContext:
        """Raises CertificateError; then the file is gone, and the next `ensure` makes another."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        # a resumed session costs memory here and saves a local client nothing that it notices
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        try:
            context.load_cert_chain(self.path)
        except (OSError, ssl.SSLError) as error:
            with contextlib.suppress(OSError):
                self.path.unlink()
            raise CertificateError(f"cannot use {self.path}: {error}") from error
        return context


class ServingFiles:
    """In folder `pki`, for `node`."""

    def __init__(self, pki: Path, node: str) -> None:
        self._pki = pki
        self._node = node

    async def current(self, addresses: Iterable[str], now: float) -> Serving | None:
        """What is on disk if it is good now, be it not for long.  Raises CertificateError."""
        return await asyncio.to_thread(self._read, sorted(set(addresses)), now, 0.0)

    async def ensure(self, addresses: Iterable[str], now: float) -> Serving:
        """What is on disk if it is good for these addresses for a while, else a new one by the same authority.

        Raises CertificateError."""
        wanted = sorted(set(addresses))
        found = await asyncio.to_thread(self._read, wanted, now)
        if found is not None:
            return found
        given = {
            "node": self._node,
            "addresses": wanted,
            "now": now,
            "ca": await asyncio.to_thread(_text, self._pki / "metaserver-ca.pem"),
        }
        made = await _child(given)
        await asyncio.to_thread(self._write, made, wanted)
        found = await asyncio.to_thread(self._read, wanted, now)
        if found is None:
            raise CertificateError("the certificate that was made cannot be used")
        return found

    def _read(self, wanted: list[str], now: float, left_s: float = RENEW_DAYS * 86400.0) -> Serving | None:
        server, ca = _text(self._pki / "metaserver.pem"), _text(self._pki / "metaserver-ca.pem")
        if not server.startswith(_LINE) or not _has_certificate(ca):
            return None
        try:
            about = json.loads(server.partition("\n")[0].removeprefix(_LINE))
            ends, addresses, serial = float(about["ends"]), list(about["addresses"]), about["ca"]
        except (ValueError, KeyError, TypeError):
            return None
        # a clock that stands before the beginning is a clock that was not set yet
        if addresses != wanted or now > ends - left_s or serial != _mark(ca):
            return None
        return Serving(self._pki / "metaserver.pem", _certificate(ca), ends)

    def _write(self, made: dict[str, str], wanted: list[str]) -> None:
        about = {"ends": float(made["ends"]), "addresses": wanted, "ca": _mark(made["ca"])}
        try:
            self._pki.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(self._pki / "metaserver-ca.pem", made["ca"])
            _replace(self._pki / "metaserver.pem", f"{_LINE}{json.dumps(about)}\n{made['server']}")
        except OSError as error:
            raise CertificateError(
                f"cannot write the certificate to {self._pki}: {error.strerror}"
            ) from error


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES).decode("ascii", "replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise CertificateError(f"cannot read {path}: {error.strerror}") from error


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def _has_certificate(pem: str) -> bool:
    """Whether one is there in full: a card may have lost the rest of the file."""
    return 0 <= pem.find(_BEGIN) < pem.find(_END) and pem[pem.find(_BEGIN) : pem.find(_END)].count("\n") > 1


def _certificate(pem: str) -> bytes:
    at = pem.index(_BEGIN)
    return (pem[at : pem.index(_END, at) + len(_END)] + "\n").encode()


def _mark(ca: str) -> str:
    """Which authority: the last characters of its certificate's text."""
    return _certificate(ca).decode().split("\n")[-3][-16:]


async def _child(given: dict[str, object]) -> dict[str, str]:
    """Raises CertificateError, whatever went wrong: a node without a local API still runs its pods."""
    try:
        return await _make_in_child(given)
    except TimeoutError as error:
        raise CertificateError(
            f"cannot make the local API's certificate in {CHILD_S:.0f} s: the machine is too busy"
        ) from error
    except (OSError, ValueError) as error:
        raise CertificateError(f"cannot make the local API's certificate: {error}") from error


async def _make_in_child(given: dict[str, object]) -> dict[str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, "make"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(CHILD_S):
            out, err = await process.communicate(json.dumps(given).encode())
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    if process.returncode != 0:
        text = err.decode("utf-8", "replace").strip().splitlines()
        raise CertificateError(
            f"cannot make the local API's certificate: {text[-1][:256] if text else process.returncode}"
        )
    answer: dict[str, str] = json.loads(out[:MAX_BYTES])
    return answer


def _make(given: dict[str, object]) -> dict[str, str]:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def pem(key: ec.EllipticCurvePrivateKey) -> str:
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return key.private_bytes(*form).decode()

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def key_usage(*, signs: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            digital_signature=not signs,
            key_cert_sign=signs,
            crl_sign=signs,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )

    node, now = str(given["node"]), datetime.fromtimestamp(float(str(given["now"])), UTC)
    # boards without a clock of their own begin in the past, in 1970 some of them, and their pods with them
    begins = datetime(1970, 1, 1, tzinfo=UTC)
    text = str(given["ca"])
    authority: x509.Certificate | None = None
    # one that cannot be read is as good as none: pods are told of the new one
    with contextlib.suppress(ValueError):
        loaded = serialization.load_pem_private_key(text.encode(), password=None)
        if isinstance(loaded, ec.EllipticCurvePrivateKey):
            ca_key = loaded
            authority = x509.load_pem_x509_certificate(text.encode())
    if authority is None or authority.not_valid_after_utc < now + timedelta(days=SERVER_DAYS):
        ca_key = ec.generate_private_key(ec.SECP256R1())
        subject = name(f"skerry node {node}"[:64])
        authority = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(ca_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(now + timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
    key = ec.generate_private_key(ec.SECP256R1())
    addresses = given["addresses"]
    assert isinstance(addresses, list), "the caller gives a list"
    others: list[x509.GeneralName] = [x509.DNSName(item) for item in NAMES]
    others += [x509.IPAddress(ipaddress.ip_address(item)) for item in addresses]
    ends = min(now + timedelta(days=SERVER_DAYS), authority.not_valid_after_utc)
    server = (
        x509.CertificateBuilder()
        .subject_name(name("kubernetes"))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName(others), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    form = serialization.Encoding.PEM
    return {
        "ca": authority.public_bytes(form).decode() + pem(ca_key),
        "server": server.public_bytes(form).decode() + pem(key),
        "ends": str(ends.timestamp()),
    }


def main(arguments: list[str]) -> None:
    if arguments != ["make"]:
        raise SystemExit("only `make` is known here")
    json.dump(_make(json.loads(sys.stdin.buffer.read(MAX_BYTES))), sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
