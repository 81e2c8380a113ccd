"""Tokens: ours accepts what a real signer makes, and nothing else.  Keys and signatures come from `cryptography`."""

import base64
import functools
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecore.metaserver import jwt
from edgecore.metaserver.jwt import BadToken, Claims, EcKey, Expired, Key, RsaKey

NOW = 1_800_000_000.0
ISSUER = "https://kubernetes.default.svc"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@functools.cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@functools.cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def ours(kid: str = "k1") -> RsaKey:
    numbers = rsa_key().public_key().public_numbers()
    return RsaKey(n=numbers.n, e=numbers.e, kid=kid)


def ours_ec(kid: str = "k2") -> EcKey:
    numbers = ec_key().public_key().public_numbers()
    return EcKey(x=numbers.x, y=numbers.y, kid=kid)


def claims(**more: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "iss": ISSUER,
        "aud": [ISSUER],
        "sub": "system:serviceaccount:web:ann",
        "exp": NOW + 600,
        "nbf": NOW - 10,
        "kubernetes.io": {
            "namespace": "web",
            "serviceaccount": {"name": "ann", "uid": "u1"},
            "pod": {"name": "p", "uid": "u2"},
        },
    }
    return {key: value for key, value in (base | more).items() if value is not None}


def rs_sign(text: str) -> bytes:
    return rsa_key().sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())


def es_sign(text: str) -> bytes:
    r, s = decode_dss_signature(ec_key().sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def token(body: dict[str, Any] | None = None, *, alg: str = "RS256", kid: str = "k1", **header: Any) -> str:
    head = b64(json.dumps({"alg": alg, "kid": kid} | header).encode())
    text = f"{head}.{b64(json.dumps(body or claims()).encode())}"
    return f"{text}.{b64(es_sign(text) if alg == 'ES256' else rs_sign(text))}"


def judge(text: str, *keys: Key, now: float = NOW) -> Claims:
    return jwt.verify(text, keys or (ours(), ours_ec()), issuers={ISSUER}, audiences={ISSUER}, now=now)


def test_a_good_token_says_who_it_is() -> None:
    found = judge(token())
    assert found.sub == "system:serviceaccount:web:ann"
    assert found.bound.pod is not None
    assert (found.bound.pod.name, found.bound.pod.uid) == ("p", "u2")


def test_an_elliptic_one_too() -> None:
    assert judge(token(alg="ES256", kid="k2")).bound.namespace == "web"


@pytest.mark.parametrize(("bits", "hash_"), [("384", hashes.SHA384()), ("512", hashes.SHA512())])
def test_longer_hashes(bits: str, hash_: hashes.HashAlgorithm) -> None:
    signature = rsa_key().sign(b"text", padding.PKCS1v15(), hash_)
    assert jwt.rsa_verifies(ours(), bits, b"text", signature)
    assert not jwt.rsa_verifies(ours(), "256", b"text", signature)


def test_one_audience_may_be_a_string() -> None:
    assert judge(token(claims(aud=ISSUER))).audiences == [ISSUER]


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "https://other"},
        {"aud": ["other"]},
        {"aud": []},
        {"aud": None},
        {"exp": None},
        {"nbf": NOW + 300},
        {"sub": "system:serviceaccount:web:bob"},
        {"sub": "system:node:n"},
        {"kubernetes.io": {}},
        {"kubernetes.io": "x"},
        {"exp": "never"},
    ],
)
def test_claims_that_do_not_fit(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadToken):
        judge(token(claims(**wrong)))


def test_an_old_one_says_when_it_ended() -> None:
    with pytest.raises(Expired) as caught:
        judge(token(), now=NOW + 661)
    assert caught.value.at == NOW + 600
    assert judge(token(), now=NOW + 659)


def test_only_the_named_key_counts() -> None:
    with pytest.raises(BadToken):
        judge(token(kid="other"))
    assert judge(token(kid=""))
    assert judge(token(kid="any"), ours(kid=""))


def test_no_key_no_token() -> None:
    with pytest.raises(BadToken):
        jwt.verify(token(), [], issuers={ISSUER}, audiences={ISSUER}, now=NOW)


def forged(alg: str, signature: bytes = b"") -> str:
    text = f"{b64(json.dumps({'alg': alg}).encode())}.{b64(json.dumps(claims()).encode())}"
    return f"{text}.{b64(signature)}"


@pytest.mark.parametrize("alg", ["none", "", "HS256", "RS1", "PS256", "ES384", "RS256", "ES256"])
def test_forged_ones(alg: str) -> None:
    for signature in (
        b"",
        b"\0",
        b"\0" * 64,
        b"\0" * 256,
        b"\1" * 256,
        b"\xff" * 256,
        b"\1" * 64,
        b"\xff" * 64,
    ):
        with pytest.raises(BadToken):
            judge(forged(alg, signature))


def test_another_claim_under_a_good_signature() -> None:
    head, _, signature = token().split(".")
    body = b64(json.dumps(claims(sub="system:serviceaccount:kube-system:root")).encode())
    with pytest.raises(BadToken):
        judge(f"{head}.{body}.{signature}")


def raw_power(block: bytes) -> bytes:
    """Sign a block of our own making, as a signer with a wrong padding would."""
    private = rsa_key().private_numbers()
    n = private.public_numbers.n
    return pow(int.from_bytes(block, "big"), private.d, n).to_bytes(256, "big")


def test_every_deviation_from_the_one_block_is_refused() -> None:
    """RFC 8017's block is one: short padding with garbage after it (Bleichenbacher 2006) and its kin must fail."""
    import hashlib

    info = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(b"m").digest()
    good = b"\0\1" + b"\xff" * (256 - len(info) - 3) + b"\0" + info
    assert jwt.rsa_verifies(ours(), "256", b"m", raw_power(good))
    bad = [
        b"\0\1" + b"\xff" * 8 + b"\0" + info + b"\0" * (256 - len(info) - 11),
        b"\0\2" + good[2:],
        b"\0\1" + b"\xfe" + good[3:],
        good[:-1] + bytes([good[-1] ^ 1]),
        # NULL parameters left out of the AlgorithmIdentifier
        b"\0\1" + b"\xff" * (256 - len(info) - 1) + b"\0"
        + bytes.fromhex("302f300b0609608648016503040201" + "0420") + info[19:],
    ]  # fmt: skip
    for block in bad:
        assert len(block) == 256
        assert not jwt.rsa_verifies(ours(), "256", b"m", raw_power(block))
    signature = raw_power(good)
    n = ours().n
    too_big = int.from_bytes(signature, "big") + n
    if too_big < 2**2048:
        assert not jwt.rsa_verifies(ours(), "256", b"m", too_big.to_bytes(256, "big"))
    assert not jwt.rsa_verifies(ours(), "256", b"m", b"\0" + signature)
    assert not jwt.rsa_verifies(ours(), "256", b"m", signature[:-1])


@settings(max_examples=25)
@given(st.binary(max_size=40))
def test_our_curve_agrees_with_the_library(message: bytes) -> None:
    r, s = decode_dss_signature(ec_key().sign(message, ec.ECDSA(hashes.SHA256())))
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    assert jwt.ec_verifies(ours_ec(), message, signature)
    assert not jwt.ec_verifies(ours_ec(), message + b"x", signature)
    assert not jwt.ec_verifies(ours_ec(), message, signature[32:] + signature[:32])


@settings(max_examples=200)
@given(st.one_of(st.text(max_size=60), st.text("ab.", max_size=20)))
def test_any_text_is_refused_by_a_BadToken(text: str) -> None:
    with pytest.raises(BadToken):
        judge(text)
    with pytest.raises(BadToken):
        jwt.unverified(text)


def test_a_huge_token_is_refused_before_it_is_read() -> None:
    with pytest.raises(BadToken):
        judge("a" * jwt.MAX_TOKEN + ".b.c")


def jwk(**more: Any) -> dict[str, Any]:
    numbers = rsa_key().public_key().public_numbers()
    base = {
        "kty": "RSA",
        "alg": "RS256",
        "use": "sig",
        "kid": "k1",
        "n": b64(numbers.n.to_bytes(256, "big")),
        "e": "AQAB",
    }
    return base | more


def test_published_keys_are_read() -> None:
    point = ec_key().public_key().public_numbers()
    published = {
        "keys": [
            jwk(),
            {"kty": "EC", "crv": "P-256", "kid": "k2", "x": b64(point.x.to_bytes(32, "big")),
             "y": b64(point.y.to_bytes(32, "big"))},
        ]
    }  # fmt: skip
    assert jwt.read_jwks(json.dumps(published).encode()) == [ours(), ours_ec()]


@pytest.mark.parametrize(
    "item",
    [
        jwk(use="enc"),
        jwk(kty="oct"),
        jwk(n="AQAB"),
        jwk(e="AQ"),
        jwk(e=""),
        jwk(n="!"),
        jwk(n="A" * 9000),
        {"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ"},
        {"kty": "EC", "crv": "P-521", "x": "AQ", "y": "AQ"},
    ],
)
def test_keys_that_cannot_be_used_are_left_out(item: dict[str, Any]) -> None:
    assert jwt.read_jwks(json.dumps({"keys": [item]}).encode()) == []


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"keys":{}}', b"[" * 100_000])
def test_what_is_no_key_set(data: bytes) -> None:
    with pytest.raises(BadToken):
        jwt.read_jwks(data)
