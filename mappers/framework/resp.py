"""Redis' protocol (RESP 2), as far as it takes to add to sorted sets.  Blocking: call it from a thread.

Source: redis.io, Redis serialization protocol specification."""

import socket
from collections.abc import Sequence

from mappers.framework.errors import DeviceError

MAX_LINE = 4096
# What a server says while it cannot, or until somebody sets a password right: trying again can help.
_LATER = (
    "LOADING",
    "BUSY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "NOAUTH",
    "WRONGPASS",
    "OOM",
    "READONLY",
    "MISCONF",
)


def command(*words: str) -> bytes:
    """One command as an array of bulk strings."""
    parts = [word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def run(address: str, password: str, commands: Sequence[bytes], timeout_s: float) -> list[str]:
    """Do commands that answer with a number or a status, in one go.   address: `host:port/database`.

    Returns for each what is wrong with it, empty if nothing.  Raises: DeviceError when the server is away or says later."""
    where, _, database = address.rpartition("/")
    host, _, port = where.rpartition(":")
    before = [command("AUTH", password)] if password else []
    if database != "0":
        before.append(command("SELECT", database))
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s) as sock:
            sock.sendall(b"".join([*before, *commands]))
            with sock.makefile("rb") as answers:
                for _ in before:
                    if wrong := _answer(answers.readline(MAX_LINE)):
                        raise DeviceError(f"redis at {where}: {wrong}")
                return [_answer(answers.readline(MAX_LINE)) for _ in commands]
    except OSError as error:
        raise DeviceError(f"redis at {where}: {str(error) or type(error).__name__}") from error


def _answer(line: bytes) -> str:
    if not line.endswith(b"\r\n"):
        raise DeviceError("redis ended the connection")
    if line[:1] in b":+":
        return ""
    text = line[1:].decode("utf-8", "replace").strip()
    if line[:1] != b"-" or text.partition(" ")[0] in _LATER:
        raise DeviceError(f"redis says {text[:128]!r}")
    return text[:256]
