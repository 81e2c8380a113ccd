"""Where the key that the store is sealed with comes from.

In this order: the file that the configuration names (a TPM may have unsealed it there), the systemd credential
`skerry-store-key`, and a file of our own in a folder of its own beside the store, made at the first start.  Whoever copies the
store alone cannot read its secrets.  A card that is stolen has our own file on it, too: only the first two help then.

A key that is named and not there is never made here, since it may come back: edgecore says so, seals with a key that it
forgets when it ends, and asks the cloud for what it cannot open.  No fault of a key ends the daemon."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)

CREDENTIAL = "skerry-store-key"
MIN_BYTES, MAX_BYTES = 32, 4096


class StoreKey(msgspec.Struct, frozen=True, kw_only=True):
    """secret: what to make a key of.   source: where it is from, for people.   fault: why it is not the one that was wanted."""

    secret: bytes
    source: str
    fault: str = ""


def default_path(database: Path) -> Path:
    return database.parent / "keys" / "store.key"


def named(key_file: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The key that somebody else keeps for us, or None: it is ours to keep."""
    if key_file is not None:
        return key_file
    credentials = environ.get("CREDENTIALS_DIRECTORY", "")
    path = Path(credentials, CREDENTIAL)
    return path if credentials and path.exists() else None


def find(database: Path, key_file: Path | None = None, environ: Mapping[str, str] | None = None) -> StoreKey:
    """The key to seal with.  Blocks on the disk.  Raises: nothing."""
    given = named(key_file, os.environ if environ is None else environ)
    path = given or default_path(database)
    try:
        return StoreKey(secret=read(path), source=str(path))
    except FileNotFoundError:
        fault = f"there is no {path}"
        ours = given is None
    except ValueError as error:
        fault = f"cannot use {path}: {error}"
        ours = given is None and _put_away(path)  # what it sealed is lost either way
    except OSError as error:
        fault = f"cannot read {path}: {error.strerror}"
        ours = False  # it may come back
    if ours:
        try:
            return StoreKey(secret=_make(path), source=str(path))
        except OSError as error:
            fault = f"cannot make {path}: {error.strerror}"
    log.error(
        "Secrets are kept with a key that is forgotten when this process ends, and asked for again then: %s",
        fault,
    )
    return StoreKey(secret=os.urandom(MIN_BYTES), source="memory", fault=fault)


def _put_away(path: Path) -> bool:
    try:
        path.replace(path.with_name(path.name + ".unusable"))
    except OSError as error:
        log.debug("! cannot put %s away: %s", path, error)
        return False
    return True


def read(path: Path) -> bytes:
    """Raises: OSError; ValueError (not a key)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("not a file")
        if stat.S_IMODE(found.st_mode) & 0o077:
            log.warning("Others may read the key of the store: chmod 600 %s", path)
        secret = file.read(MAX_BYTES + 1)
    if not MIN_BYTES <= len(secret) <= MAX_BYTES:
        raise ValueError(f"a key has {MIN_BYTES} to {MAX_BYTES} bytes")
    return secret


def _make(path: Path) -> bytes:
    """A new key, durable before it seals anything.  Raises: OSError."""
    secret = os.urandom(MIN_BYTES)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    waiting = path.with_name(path.name + ".new")
    waiting.unlink(missing_ok=True)
    descriptor = os.open(waiting, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(descriptor)
    waiting.replace(path)
    for folder in (path.parent, path.parent.parent):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    log.info("Made the key that secrets are kept with: %s", path)
    return secret
