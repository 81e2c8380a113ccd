"""Ask a daemon of this machine on its own socket: one JSON line each way.  For command lines, and for processes beside it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import msgspec

from beehive.errors import ConfigError, SkerryError, Unavailable
from beehive.message import UNREADABLE

CALL_S = 10.0
MAX_ANSWER_BYTES = 16 * 1024 * 1024


def ask(path: Path, verb: str, **arguments: Any) -> Any:
    """Ask edgecore, blocking.  Raises: Unavailable (no daemon), SkerryError (its answer)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as caller:
        caller.settimeout(CALL_S)
        try:
            caller.connect(str(path))
            caller.sendall(msgspec.json.encode({"verb": verb, **arguments}) + b"\n")
            with caller.makefile("rb") as file:
                line = file.readline(MAX_ANSWER_BYTES)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise Unavailable("edgecore does not run") from error
        except PermissionError as error:
            raise ConfigError(f"cannot use {path}: run this as root") from error
        except OSError as error:
            raise Unavailable(f"cannot ask edgecore: {error}") from error
    try:
        answer = msgspec.json.decode(line, type=dict[str, Any])
    except UNREADABLE as error:
        raise Unavailable("edgecore stopped while it was asked") from error
    if "error" in answer:
        raise SkerryError(str(answer["error"]))
    return answer["answer"]
