"""What this machine says about itself, and running its programs.

No decisions about a trial are taken here."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy import listening
from deploy.errors import TrialError

# A user's PATH often lacks the sbin folders, where Debian puts runc, mosquitto and iptables.
SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"))

OWN = ("cloudcore", "edgecore", "mapper")

_TIMEOUT_S = 30.0


def find(program: str) -> str | None:
    """The program's path, looking into the sbin folders too."""
    return shutil.which(program, path=SEARCH_PATH)


def own(program: str) -> str:
    """A program of ours: beside the interpreter that runs this one."""
    beside = Path(sys.executable).parent / program
    return str(beside) if beside.is_file() else program


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment with the sbin folders in PATH, for programs that look for others (containerd for its shim)."""
    return {**os.environ, "PATH": SEARCH_PATH, **(extra or {})}


def drop_address(address: str) -> list[str]:
    """Take an address off the loopback device, where a killed edgecore left it; what could not be done, as sentences."""
    shown = run(["ip", "-o", "addr", "show", "dev", "lo"])
    if f" {address}/" not in shown:
        return []
    reason = succeeds(["ip", "addr", "del", f"{address}/32", "dev", "lo"])
    return [reason] if reason else []


def run(
    argv: Sequence[str | Path], *, timeout_s: float = _TIMEOUT_S, stdin: bytes = b"", check: bool = True
) -> str:
    """Run a program to its end and return what it printed.

    Raises: TrialError with the last line of its error output when it fails and `check`, or takes too long."""
    words = [str(word) for word in argv]
    name = Path(words[0]).name
    try:
        done = subprocess.run(
            words, input=stdin, capture_output=True, timeout=timeout_s, check=False, env=environment()
        )
    except FileNotFoundError as error:
        raise TrialError(f"cannot run {name}: it is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise TrialError(f"cannot run {name}: no answer within {timeout_s:g} s") from error
    if check and done.returncode != 0:
        text = (done.stderr or done.stdout).decode(errors="replace").strip()
        last = text.splitlines()[-1] if text else f"exit code {done.returncode}"
        # our own programs begin with their name, or are told by their library that they were called wrongly
        if name in OWN and last.startswith("Error: "):
            last = f"{name}: {last.removeprefix('Error: ').removeprefix('Invalid value: ')}"
        raise TrialError(last if last.startswith(f"{name}: ") else f"{name} failed: {last}")
    return done.stdout.decode(errors="replace")


def succeeds(argv: Sequence[str | Path], *, timeout_s: float = _TIMEOUT_S) -> str | None:
    """None when the program succeeds, else the reason it gave."""
    try:
        run(argv, timeout_s=timeout_s)
    except TrialError as error:
        return str(error)
    return None


def boot_id() -> str:
    """Changes with every boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def routed_networks() -> list[ipaddress.IPv4Network]:
    """Networks that this machine has a route to, but for the default route."""
    networks = []
    for route in json.loads(run(["ip", "-j", "-4", "route"]) or "[]"):
        if route["dst"] != "default":
            networks.append(ipaddress.IPv4Network(route["dst"], strict=False))
    return networks


def interface_exists(name: str) -> bool:
    return Path("/sys/class/net", name).exists()


def port_is_free(port: int) -> bool:
    """Whether 127.0.0.1:port can be listened on now."""
    return listening.refusal("127.0.0.1", port) is None


def can_listen(address: str, port: int) -> str | None:
    """None when a port of that address can be listened on now, else why not.   address: of IPv4 or IPv6."""
    error = listening.refusal(address, port)
    if error is None:
        return None
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use by {listener_of(port)}"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    return os.strerror(error.errno) if error.errno else str(error)


def port_answers(port: int, *, host: str = "127.0.0.1") -> bool:
    """Whether somebody accepts connections there."""
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def wait_for_port(port: int, *, timeout_s: float) -> bool:
    """Whether somebody accepts connections there before the time is over."""
    deadline = time.monotonic() + timeout_s
    while not (answers := port_answers(port)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return answers


def socket_answers(path: Path) -> bool:
    """Whether somebody accepts connections at the unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(str(path)) == 0


def listener_of(port: int) -> str:
    """Who listens on the TCP port: `name (pid N)`, or `another program` when that cannot be seen."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            inodes |= listening_inodes(Path(table).read_text(), port)
        except OSError:
            continue
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if any(os.readlink(fd) in wanted for fd in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:  # it ended, or is not ours to look at
            continue
    return "another program"


def listening_inodes(table: str, port: int) -> set[str]:
    """Inodes of the listening sockets of a port in /proc/net/tcp's form.  Pure."""
    found = set()
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) > 9 and words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
            found.add(words[9])
    return found


def mounts_below(mounts: str, folder: Path) -> list[str]:
    """Mount points at or below a folder in /proc/mounts' form, in the order to unmount them.  Pure."""
    found = []
    for line in mounts.splitlines():
        point = line.split()[1].encode().decode("unicode_escape")
        if point == str(folder) or point.startswith(f"{folder}/"):
            found.append(point)
    return found[::-1]
