"""The key in an authority's certificate."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from beehive.errors import ProtocolError
from cloudcore.identity import pki
from edgecore.edgehub.certkey import p256_key
from edgecore.metaserver.jwt import ec_verifies
from tests.unit.edgecore.edgehub.chain import Ca


def made(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *, old: bool = False) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x" * 60)] * (1 if old else 3))
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def test_the_key_is_the_one_that_signs() -> None:
    for ca in (Ca(), Ca("a longer name, so that lengths take two bytes" * 1)):
        found = p256_key(ca.der)
        numbers = x509.load_der_x509_certificate(ca.der).public_key()
        assert isinstance(numbers, ec.EllipticCurvePublicKey)
        assert (found.x, found.y) == (numbers.public_numbers().x, numbers.public_numbers().y)
        assert ec_verifies(found, b"said", pki.sign(ca.pair, b"said"))
        assert not ec_verifies(found, b"else", pki.sign(ca.pair, b"said"))


def test_a_certificate_with_long_names_is_read() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    assert p256_key(made(key)).x == key.public_key().public_numbers().x


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)]
)
def test_another_kind_of_key_is_refused(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    with pytest.raises(ProtocolError, match="not on P-256"):
        p256_key(made(key))


def test_a_point_that_is_not_on_the_curve_is_refused() -> None:
    der = bytearray(Ca().der)
    at = bytes(der).index(bytes.fromhex("03420004")) + 4
    der[at + 63] ^= 1
    with pytest.raises(ProtocolError, match="no point"):
        p256_key(bytes(der))


def test_garbage_raises_nothing_else() -> None:
    good, rng = Ca().der, random.Random(1)
    for size in range(len(good)):
        with pytest.raises(ProtocolError):
            p256_key(good[:size])
    for _ in range(2000):
        bad = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        try:
            p256_key(bytes(bad))
        except ProtocolError:
            continue
