"""Runs mosquitto with a listener for other machines as soon as its address is there.

mosquitto does not start at all where one of its addresses is missing, which at boot, before DHCP, is the rule.  So it is
started at once for this machine alone, and once more, with both listeners, when the kernel tells that the address has
come.  A listener outlives its address (Linux keeps the socket), so nothing is done when that goes, and it is heard again
when it is back.  Where no other machine may come, this becomes mosquitto and costs nothing.

    python -m deploy.brokerd PROGRAM FOLDER      signals: HUP is passed on, TERM and INT end both

It stays in memory on small boards: the standard library only, and of that little."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy import listening

HERE, EVERYWHERE = "local.conf", "mosquitto.conf"
"""The configurations in the folder: for this machine only, and with the listener for others if there is one."""
AGAIN_S = 30.0
"""Beside the kernel's word: a port that somebody else holds comes free without one."""
BLIND_S = 5.0
"""Where the kernel may not be asked."""
STOP_S = 15.0
_GROUPS = 0x10 | 0x100
"""RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR."""
_DIES_WITH_PARENT = 1
"""PR_SET_PDEATHSIG."""


def command(program: str, folder: Path) -> list[str]:
    """How this is started."""
    return [sys.executable, "-P", "-m", "deploy.brokerd", program, str(folder)]


def lan_of(text: bytes) -> tuple[str, int] | None:
    """Address and port for other machines, as accounts.json has them; None for none.  Raises ValueError.  Pure."""
    found = json.loads(text).get("lan")
    return (str(found[0]), int(found[1])) if found else None


def why_not(address: str, port: int) -> str:
    """Why this cannot be listened on now; empty if it can."""
    error = listening.refusal(address, port)
    if error is None:
        return ""
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address yet"
    return os.strerror(error.errno) if error.errno else str(error)


class Runner:
    """One mosquitto, for this machine or for others, too."""

    def __init__(self, program: str, folder: Path, lan: tuple[str, int]) -> None:
        self._program = program
        self._folder = folder
        self._lan = lan
        self._told = ""
        self._everywhere = False
        self._child: subprocess.Popen[bytes] | None = None
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._signals: set[int] = set()

    def run(self) -> int:
        """Until it is told to end, or mosquitto ended by itself; the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda got, _: self._signals.add(got))
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        kernel = _listen()
        self._start(everywhere=self._can())
        while True:
            # with both listeners there is nothing to wait for, and each pod would wake this
            watched = [] if self._everywhere or kernel is None else [kernel.fileno()]
            pause = None if self._everywhere else AGAIN_S if watched else BLIND_S
            for ready in select.select([self._wake_reader, *watched], [], [], pause)[0]:
                _drain(ready)
            got, self._signals = self._signals, set()
            if got & {signal.SIGTERM, signal.SIGINT}:
                self._stop()
                return 0
            if signal.SIGHUP in got and self._child is not None:
                self._child.send_signal(signal.SIGHUP)
            assert self._child is not None, "started above"
            code = self._child.poll()
            if code is not None:
                if not self._everywhere or self._can():
                    return code if code >= 0 else 128 - code
                self._start(everywhere=False)  # the address went while mosquitto started
            elif not self._everywhere and self._can():
                self._stop()
                self._start(everywhere=True)

    def _can(self) -> bool:
        why = why_not(*self._lan)
        if why and why != self._told:
            _say(f"cannot listen for other machines on {self._lan[0]} port {self._lan[1]} yet: {why}")
        self._told = why
        return not why

    def _start(self, *, everywhere: bool) -> None:
        if everywhere:
            _say(f"listening for other machines on {self._lan[0]} port {self._lan[1]}")
        self._everywhere = everywhere
        config = self._folder / (EVERYWHERE if everywhere else HERE)
        self._child = subprocess.Popen([self._program, "-c", config], preexec_fn=_die_with_parent)

    def _stop(self) -> None:
        assert self._child is not None, "only what runs is stopped"
        self._child.terminate()
        try:
            self._child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def _die_with_parent() -> None:
    """Nobody else would end mosquitto where this is killed outside of systemd."""
    import ctypes

    ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGTERM)


def _listen() -> socket.socket | None:
    """Where the kernel tells of addresses; None where it may not be asked."""
    try:
        found = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            socket.NETLINK_ROUTE,
        )
        found.bind((0, _GROUPS))
    except OSError:
        return None
    return found


def _drain(source: int) -> None:
    """Read away what woke us: it only says that there is something to look at."""
    try:
        while os.read(source, 65536):
            pass
    except BlockingIOError:
        return
    except OSError as error:
        if error.errno != errno.ENOBUFS:  # so much changed that some was lost: a look is due all the same
            raise


def _say(text: str) -> None:
    sys.stderr.write(f"skerry: {text}\n")
    sys.stderr.flush()


def main(words: Sequence[str]) -> int:
    program, folder = words[0], Path(words[1])
    try:
        lan = lan_of((folder / "accounts.json").read_bytes())
    except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
        _say(f"cannot read {folder / 'accounts.json'}, so there is no listener for other machines: {error}")
        os.execv(program, [program, "-c", str(folder / HERE)])
    if lan is None:
        os.execv(program, [program, "-c", str(folder / EVERYWHERE)])
    return Runner(program, folder, lan).run()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
