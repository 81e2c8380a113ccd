from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from cloudcore.identity import pki

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DAY = timedelta(days=1)
CA = pki.make_ca("test-ca", lifetime=10 * DAY, now=NOW)


def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "system:masters")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("evil")]), critical=False)
    return builder.sign(key, digest).public_bytes(serialization.Encoding.DER)


def test_an_authority_signs_certificates_only() -> None:
    certificate = x509.load_pem_x509_certificate(CA.certificate_pem)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert constraints.critical
    assert constraints.value.ca
    assert usage.key_cert_sign
    assert usage.digital_signature
    assert not usage.key_encipherment
    assert certificate.not_valid_after_utc == NOW + 10 * DAY


def test_a_server_certificate_verifies_for_its_names_only() -> None:
    pair = pki.issue(
        CA, common_name="api", dns=["localhost"], ips=["127.0.0.1", "::1"], server=True, lifetime=DAY, now=NOW
    )
    leaf = x509.load_pem_x509_certificate(pair.certificate_pem)
    store = Store([x509.load_pem_x509_certificate(CA.certificate_pem)])
    policy = PolicyBuilder().store(store).time(NOW)
    policy.build_server_verifier(x509.IPAddress(ipaddress.ip_address("127.0.0.1"))).verify(leaf, [])
    policy.build_server_verifier(x509.DNSName("localhost")).verify(leaf, [])
    with pytest.raises(x509.verification.VerificationError):
        policy.build_server_verifier(x509.DNSName("other")).verify(leaf, [])
    other = Store([x509.load_pem_x509_certificate(pki.make_ca("o", lifetime=DAY, now=NOW).certificate_pem)])
    with pytest.raises(x509.verification.VerificationError):
        PolicyBuilder().store(other).time(NOW).build_server_verifier(x509.DNSName("localhost")).verify(
            leaf, []
        )


def test_a_request_gives_only_its_public_key() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = pki.sign_request(
        CA, request(key), common_name="system:node:n", organizations=["system:nodes"], lifetime=DAY, now=NOW
    )
    leaf = x509.load_pem_x509_certificate(pem)
    assert leaf.subject.rfc4514_string() == "CN=system:node:n,O=system:nodes"
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert leaf.not_valid_after_utc == NOW + DAY
    assert leaf.public_key() == key.public_key()
    with pytest.raises(x509.ExtensionNotFound):
        leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()],
    ids=["p384", "ed25519"],
)
def test_other_good_keys_are_signed(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> None:
    pem = pki.sign_request(CA, request(key), common_name="x", lifetime=DAY, now=NOW)
    assert x509.load_pem_x509_certificate(pem).public_key() == key.public_key()


def test_weak_keys_are_refused() -> None:
    weak: list[rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = [
        rsa.generate_private_key(public_exponent=65537, key_size=1024),
        ec.generate_private_key(ec.SECP521R1()),
    ]
    for key in weak:
        with pytest.raises(pki.BadRequest, match="must be P-256"):
            pki.sign_request(CA, request(key), common_name="x", lifetime=DAY, now=NOW)


def test_a_request_signed_by_another_key_is_refused() -> None:
    der = bytearray(request(ec.generate_private_key(ec.SECP256R1())))
    der[-5] ^= 0xFF
    with pytest.raises(pki.BadRequest):
        pki.sign_request(CA, bytes(der), common_name="x", lifetime=DAY, now=NOW)


@pytest.mark.parametrize(
    "body", [b"", b"\x30\x03", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA", b"x" * 70_000]
)
def test_rubbish_is_refused(body: bytes) -> None:
    with pytest.raises(pki.BadRequest):
        pki.sign_request(CA, body, common_name="x", lifetime=DAY, now=NOW)


def test_fingerprint_is_of_the_der_form() -> None:
    der = x509.load_pem_x509_certificate(CA.certificate_pem).public_bytes(serialization.Encoding.DER)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(der)
    assert pki.fingerprint(CA.certificate_pem) == digest.finalize().hex()
    with pytest.raises(pki.BadCertificate):
        pki.fingerprint(b"nothing")


def test_a_key_pair_does_not_print_its_key() -> None:
    assert b"PRIVATE" in CA.key_pem
    assert "PRIVATE" not in repr(CA)
