"""Make keys and certificates: bytes in, bytes out; the caller gives the time and keeps the files.

Every private key made here is P-256: small, quick on a board, and known to every TLS stack Kubernetes uses.
The signer decides what a certificate says.  From a request it takes the public key and nothing else, so a
request cannot ask for a name, a usage or a lifetime.

    PkiError
      BadRequest      a signing request that is malformed, not signed by its own key, or has a weak key
      BadCertificate  PEM that is not a certificate or a key we can use
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from beehive.errors import SkerryError

# A certificate is valid from a little before it is made, because boards without a clock battery lag behind.
CLOCK_SKEW = timedelta(minutes=5)
MIN_RSA_BITS = 2048
MAX_REQUEST_BYTES = 64 * 1024

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


class PkiError(SkerryError):
    """Root of what this module raises."""


class BadRequest(PkiError):
    """The signing request cannot be accepted; the message says why."""


class BadCertificate(PkiError):
    """A PEM that should hold a certificate or a private key does not."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate with its private key (PKCS#8, not encrypted), both PEM."""

    certificate_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return f"KeyPair({fingerprint(self.certificate_pem)[:16]})"


def make_ca(common_name: str, *, lifetime: timedelta, now: datetime) -> KeyPair:
    """A self-signed authority that may sign certificates but no further authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name, ())
    public = key.public_key()
    certificate = (
        _builder(name, name, public, lifetime=lifetime, now=now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return KeyPair(_certificate_pem(certificate), _key_pem(key))


def issue(
    ca: KeyPair,
    *,
    common_name: str,
    organizations: Iterable[str] = (),
    dns: Iterable[str] = (),
    ips: Iterable[str] = (),
    client: bool = False,
    server: bool = False,
    lifetime: timedelta,
    now: datetime,
) -> KeyPair:
    """A new key and a certificate for it, signed by `ca`, for the usages asked.

    Raises: BadCertificate when `ca` cannot be read; ValueError for an address in `ips` that is none."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _sign(
        ca,
        key.public_key(),
        common_name=common_name,
        organizations=organizations,
        dns=dns,
        ips=ips,
        client=client,
        server=server,
        lifetime=lifetime,
        now=now,
    )
    return KeyPair(certificate, _key_pem(key))


def sign_request(
    ca: KeyPair,
    csr_der_or_pem: bytes,
    *,
    common_name: str,
    organizations: Iterable[str] = (),
    lifetime: timedelta,
    now: datetime,
    dns: Iterable[str] = (),
    ips: Iterable[str] = (),
    server: bool = False,
) -> bytes:
    """A client's certificate (PEM), or a server's, for the public key in a PKCS#10 request.

    Nothing but the public key is taken from the request.
    Raises: BadRequest when it is malformed, not signed by the key it carries, or that key is too weak."""
    if len(csr_der_or_pem) > MAX_REQUEST_BYTES:
        raise BadRequest(f"cannot sign request: it has more than {MAX_REQUEST_BYTES} bytes")
    pem = csr_der_or_pem.lstrip().startswith(b"-----BEGIN")
    load = x509.load_pem_x509_csr if pem else x509.load_der_x509_csr
    try:
        request = load(csr_der_or_pem)
        public = request.public_key()
        genuine = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise BadRequest(f"cannot sign request: {error}") from error
    if not genuine:
        raise BadRequest("cannot sign request: it is not signed by the key it carries")
    return _sign(
        ca,
        _acceptable(public),
        common_name=common_name,
        organizations=organizations,
        client=not server,
        server=server,
        dns=dns,
        ips=ips,
        lifetime=lifetime,
        now=now,
    )


def request_names(csr_der_or_pem: bytes) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """The DNS names and the addresses that a signing request asks for, and whether it asks for names of other kinds.

    Raises: BadRequest."""
    if len(csr_der_or_pem) > MAX_REQUEST_BYTES:
        raise BadRequest(f"cannot read request: it has more than {MAX_REQUEST_BYTES} bytes")
    pem = csr_der_or_pem.lstrip().startswith(b"-----BEGIN")
    load = x509.load_pem_x509_csr if pem else x509.load_der_x509_csr
    try:
        names = load(csr_der_or_pem).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), (), False
    except (ValueError, TypeError) as error:
        raise BadRequest(f"cannot read request: {error}") from error
    dns = tuple(name.value for name in names if isinstance(name, x509.DNSName))
    ips = tuple(str(name.value) for name in names if isinstance(name, x509.IPAddress))
    return dns, ips, len(dns) + len(ips) < len(list(names))


def fingerprint(pem: bytes) -> str:
    """SHA-256 of the certificate's DER form, in lower-case hex."""
    return _load_certificate(pem).fingerprint(hashes.SHA256()).hex()


def to_der(pair: KeyPair) -> tuple[bytes, bytes]:
    """The certificate, and its key in SEC1 form, both DER: how KubeEdge keeps them in its Secrets."""
    key = _load_key(pair.key_pem).private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return _load_certificate(pair.certificate_pem).public_bytes(serialization.Encoding.DER), key


def sign(pair: KeyPair, message: bytes) -> bytes:
    """ES256 by the pair's key: r and s, 32 bytes each.  Raises: BadCertificate when the key is not on P-256."""
    key = _load_key(pair.key_pem)
    if key.curve.name != "secp256r1":
        raise BadCertificate(f"cannot sign with this authority: its key is on {key.curve.name}, not on P-256")
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def der_to_pem(certificate: bytes) -> bytes:
    """Raises: BadCertificate."""
    try:
        return _certificate_pem(x509.load_der_x509_certificate(certificate))
    except ValueError as error:
        raise BadCertificate(f"cannot read certificate: {error}") from error


def from_der(certificate: bytes, key: bytes) -> KeyPair:
    """The reverse of `to_der`.  Raises: BadCertificate when it is no such pair."""
    try:
        loaded = x509.load_der_x509_certificate(certificate)
        private = serialization.load_der_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadCertificate(f"cannot read certificate: {error}") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != loaded.public_key():
        raise BadCertificate("cannot read certificate: its key is another one, or not an elliptic-curve key")
    return KeyPair(_certificate_pem(loaded), _key_pem(private))


@dataclass(frozen=True, slots=True)
class Facts:
    """What a certificate says that somebody decides by.  `names`: DNS names and addresses it is valid for."""

    names: frozenset[str]
    not_before: datetime
    not_after: datetime


def facts(pem: bytes) -> Facts:
    """Raises: BadCertificate."""
    certificate = _load_certificate(pem)
    names: set[str] = set()
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        pass
    else:
        names.update(san.get_values_for_type(x509.DNSName))
        names.update(str(address) for address in san.get_values_for_type(x509.IPAddress))
    return Facts(frozenset(names), certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def signed_by(pem: bytes, ca_pem: bytes) -> bool:
    """Whether `ca_pem` signed this certificate.  Raises: BadCertificate."""
    try:
        _load_certificate(pem).verify_directly_issued_by(_load_certificate(ca_pem))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def request_key(csr_der_or_pem: bytes) -> str:
    """SHA-256 of the public key in a signing request, in lower-case hex: two requests with the same key are the same asker.

    Raises: BadRequest."""
    if len(csr_der_or_pem) > MAX_REQUEST_BYTES:
        raise BadRequest(f"cannot read request: it has more than {MAX_REQUEST_BYTES} bytes")
    pem = csr_der_or_pem.lstrip().startswith(b"-----BEGIN")
    load = x509.load_pem_x509_csr if pem else x509.load_der_x509_csr
    try:
        public = load(csr_der_or_pem).public_key()
        data = public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadRequest(f"cannot read request: {error}") from error
    return hashlib.sha256(data).hexdigest()


def request_subject(csr_der_or_pem: bytes) -> tuple[str, frozenset[str]]:
    """The common name and the organizations that a signing request asks for.  Raises: BadRequest."""
    if len(csr_der_or_pem) > MAX_REQUEST_BYTES:
        raise BadRequest(f"cannot read request: it has more than {MAX_REQUEST_BYTES} bytes")
    pem = csr_der_or_pem.lstrip().startswith(b"-----BEGIN")
    load = x509.load_pem_x509_csr if pem else x509.load_der_x509_csr
    try:
        subject = load(csr_der_or_pem).subject
        names = [str(part.value) for part in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        groups = [str(part.value) for part in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    except (ValueError, TypeError) as error:
        raise BadRequest(f"cannot read request: {error}") from error
    return (names[0] if len(names) == 1 else ""), frozenset(groups)


def not_after(pem: bytes) -> datetime:
    """When the certificate ends, in UTC."""
    return _load_certificate(pem).not_valid_after_utc


def _acceptable(public: object) -> PublicKey:
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in ("secp256r1", "secp384r1"):
        return public
    if isinstance(public, ed25519.Ed25519PublicKey):
        return public
    if isinstance(public, rsa.RSAPublicKey) and public.key_size >= MIN_RSA_BITS:
        return public
    raise BadRequest(
        "cannot sign request: the key must be P-256, P-384, Ed25519, or RSA of at least 2048 bits"
    )


def _sign(
    ca: KeyPair,
    public: PublicKey,
    *,
    common_name: str,
    organizations: Iterable[str],
    lifetime: timedelta,
    now: datetime,
    dns: Iterable[str] = (),
    ips: Iterable[str] = (),
    client: bool = False,
    server: bool = False,
) -> bytes:
    authority = _load_certificate(ca.certificate_pem)
    authority_key = _load_key(ca.key_pem)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH] * server + [ExtendedKeyUsageOID.CLIENT_AUTH] * client
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ips]
    builder = (
        _builder(_name(common_name, organizations), authority.subject, public, lifetime=lifetime, now=now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
        )
    )
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _certificate_pem(builder.sign(authority_key, hashes.SHA256()))


def _builder(
    subject: x509.Name, issuer: x509.Name, public: PublicKey, *, lifetime: timedelta, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
    )


def _name(common_name: str, organizations: Iterable[str]) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, sign_certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _load_certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise BadCertificate(f"cannot read certificate: {error}") from error


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadCertificate(f"cannot read private key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadCertificate("cannot sign with this authority: its key is not an elliptic-curve key")
    return key


def _certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
