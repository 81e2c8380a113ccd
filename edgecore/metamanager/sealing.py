"""Encryption of what must not be readable in the store's file: values of Secrets, tokens, objects asked for by applications.

XChaCha20-Poly1305 of libsodium (PyNaCl: 1 MB in the daemon, 5 µs a secret; `cryptography` would be 8 MB, and the kernel's own
ciphers are not in every board's kernel).  Its nonces are long enough to be random.  What a value belongs to is authenticated
with it, so that one row's value cannot be put into another row.  Pure but for the randomness of nonces.

    sealed value = MAGIC, id of the key (8 bytes), nonce (24 bytes), ciphertext with its tag

The id tells a lost key from damage.  A value that does not begin with MAGIC is not sealed: JSON never begins so."""

from __future__ import annotations

import hashlib
import os

from nacl import bindings
from nacl.exceptions import CryptoError

MAGIC = b"\x00skr1"
KEY_BYTES = bindings.crypto_aead_xchacha20poly1305_ietf_KEYBYTES
NONCE_BYTES = bindings.crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
TAG_BYTES = bindings.crypto_aead_xchacha20poly1305_ietf_ABYTES
ID_BYTES = 8

SEALED_TYPES = frozenset({"secret"})
"""Kinds of objects that are sealed."""
SEALED_NOTES = ("token/", "metaserver/")
"""Notes that are sealed: bound tokens; what applications asked for, Secrets perhaps, and what they wrote offline."""


def is_sealed(value: bytes) -> bool:
    return value.startswith(MAGIC)


class Sealer:
    """secret: at least 32 bytes of which nobody else knows anything; a file's content, of any length."""

    def __init__(self, secret: bytes) -> None:
        self._key = hashlib.blake2b(secret, digest_size=KEY_BYTES, person=b"skerry-store").digest()
        key_id = hashlib.blake2b(self._key, digest_size=ID_BYTES, person=b"skerry-key-id").digest()
        self.prefix = MAGIC + key_id
        """What each value begins with that this key opens."""

    def seal(self, what: str, value: bytes) -> bytes:
        """what: the row that the value is of."""
        nonce = os.urandom(NONCE_BYTES)
        return (
            self.prefix
            + nonce
            + bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(value, what.encode(), nonce, self._key)
        )

    def opens(self, value: bytes) -> bool:
        """Whether it was sealed with this key, as far as it says so itself."""
        return value.startswith(self.prefix)

    def open(self, what: str, value: bytes) -> bytes | None:
        """The value as it was, or None: sealed with another key, for another row, or changed since."""
        if not self.opens(value):
            return None
        start = len(self.prefix) + NONCE_BYTES
        if len(value) < start + TAG_BYTES:
            return None
        try:
            return bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
                value[start:], what.encode(), value[len(self.prefix) : start], self._key
            )
        except CryptoError:
            return None
