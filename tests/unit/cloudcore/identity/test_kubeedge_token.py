"""KubeEdge's join token: cloudcore.identity.kubeedge_token."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive.errors import Refused
from cloudcore.identity import kubeedge_token

CA = b"example-ca-der"
KEY = b"example-ca-key-der"
EXPIRES = datetime.fromtimestamp(1893456000, UTC)
# the worked example in the notes on KubeEdge's protocol
EXAMPLE = (
    "5d8d73ccf9e0dad38e3ef59fa768494a0247c762aaf3e23583b2c4ef9cddd0a5.eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."
    "eyJleHAiOjE4OTM0NTYwMDB9.OPa_W6Rnw8PBqfUrJL9VgxHJMU_RxvCnjJhTGLQLj3I"
)


def jwt_of(head: bytes, claims: bytes, key: bytes = KEY) -> str:
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (head, claims)]
    signature = hmac.new(key, ".".join(parts).encode(), hashlib.sha256).digest()
    return ".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=").decode()])


def test_the_worked_example() -> None:
    made = kubeedge_token.make(CA, KEY, now=EXPIRES - timedelta(hours=24), lifetime=timedelta(hours=24))
    assert made == EXAMPLE
    kubeedge_token.verify(made.partition(".")[2], KEY, now=EXPIRES - timedelta(seconds=1))


@pytest.mark.parametrize(
    ("jwt", "text"),
    [
        (EXAMPLE, "three parts"),
        (EXAMPLE.partition(".")[2][:-2] + "AA", "signature"),
        (jwt_of(b'{"alg":"HS256"}', b'{"exp":1893456000}', b"other"), "signature"),
        (jwt_of(b'{"alg":"none"}', b'{"exp":1893456000}'), "cannot be read"),
        (jwt_of(b'{"alg":"RS256"}', b'{"exp":1893456000}'), "cannot be read"),
        (jwt_of(b'{"alg":"HS256"}', b"{}"), "cannot be read"),
        (jwt_of(b'{"alg":"HS256"}', b'{"exp":"never"}'), "cannot be read"),
        (jwt_of(b'{"alg":"HS256"}', b'{"exp":5}'), "expired"),
        ("a.b.c", "cannot be read"),
        ("x" * 10_000, "three parts"),
        ("é.é.é", "cannot be read"),
    ],
)
def test_refusals(jwt: str, text: str) -> None:
    with pytest.raises(Refused, match=text):
        kubeedge_token.verify(jwt, KEY, now=EXPIRES - timedelta(hours=1))


@given(st.text(max_size=60))
def test_garbage_is_only_refused(jwt: str) -> None:
    with contextlib.suppress(Refused):
        kubeedge_token.verify(jwt, KEY, now=EXPIRES)
        pytest.fail("garbage was accepted")
