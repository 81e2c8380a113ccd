"""The public key in an authority's certificate.  Pure.

`ssl` verifies certificates and shows no keys, and `cryptography` costs a daemon 16 MB.  Only the way to the key is walked, and
only the one kind of key that our authorities have is known: a point on P-256, uncompressed.

Source: RFC 5280 4.1, RFC 5480 2.1.1; X.690 8.1."""

from __future__ import annotations

from beehive.errors import ProtocolError
from edgecore.metaserver.jwt import EcKey, on_curve

_SEQUENCE, _INTEGER, _VERSION = 0x30, 0x02, 0xA0
# SubjectPublicKeyInfo of a P-256 key up to the point: ecPublicKey, prime256v1, 65 bytes that begin with 4
_P256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")


def p256_key(certificate: bytes) -> EcKey:
    """From a certificate's DER.  Raises ProtocolError when it is none, or its key is another one than of P-256."""
    at, end = _inside(certificate, 0, len(certificate), _SEQUENCE)
    if end != len(certificate):
        raise ProtocolError("cannot read a certificate: something follows it")
    at, end = _inside(certificate, at, end, _SEQUENCE)
    if certificate[at : at + 1] == bytes([_VERSION]):
        _, at = _inside(certificate, at, end, _VERSION)
    # serial number, algorithm, issuer, validity, subject
    for tag in (_INTEGER, _SEQUENCE, _SEQUENCE, _SEQUENCE, _SEQUENCE):
        _, at = _inside(certificate, at, end, tag)
    _, stop = _inside(certificate, at, end, _SEQUENCE)
    info = certificate[at:stop]
    if len(info) != len(_P256) + 64 or not info.startswith(_P256):
        raise ProtocolError("cannot use an authority: its key is not on P-256")
    x, y = int.from_bytes(info[-64:-32], "big"), int.from_bytes(info[-32:], "big")
    if not on_curve(x, y):
        raise ProtocolError("cannot use an authority: its key is no point of the curve")
    return EcKey(x=x, y=y)


def _inside(data: bytes, at: int, end: int, tag: int) -> tuple[int, int]:
    """Where the value of the element at `at` begins and ends."""
    if at + 2 > end or data[at] != tag:
        raise ProtocolError("cannot read a certificate: it is not DER")
    size, at = data[at + 1], at + 2
    if size >= 0x80:
        count = size & 0x7F
        if not 1 <= count <= 3 or at + count > end:
            raise ProtocolError("cannot read a certificate: a length is wrong")
        size, at = int.from_bytes(data[at : at + count], "big"), at + count
    if at + size > end:
        raise ProtocolError("cannot read a certificate: it is cut off")
    return at, at + size
