from __future__ import annotations

import errno
import socket
import ssl

import pytest

from beehive.errors import system_words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 1)"), "Connection refused"),
        (
            OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1, 0, 0), [Errno 113] x"),
            "Connection refused",
        ),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (OSError("odd"), "odd"),
        (TimeoutError(), "no answer"),
    ],
)
def test_what_the_system_says(error: OSError, words: str) -> None:
    assert system_words(error) == words


def test_what_tls_says_is_no_number_of_the_system() -> None:
    error = ssl.SSLError(ssl.SSL_ERROR_SSL, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:992)")
    error.library, error.reason = "SSL", "WRONG_VERSION_NUMBER"
    assert system_words(error) == "wrong version number"
    ended = ssl.SSLZeroReturnError(ssl.SSL_ERROR_ZERO_RETURN, "TLS/SSL connection has been closed (EOF)")
    assert system_words(ended) == "tls/ssl connection has been closed (eof)"
