"""How quick logs, exec and port-forward are, beside the same streams made directly to containerd:
`python -m tests.bench.streams`.  Prints; asserts nothing.

It brings a trial up: cloudcore, edgecore and containerd are processes as users have them, with TLS between them and towards the
client.  The client counts bytes as they come from its socket and understands as little as it can: it costs both alike."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import ssl
import statistics
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import yaml

from beehive.spdy import Client
from deploy.home import Home
from deploy.trial import Trial
from edgecore.edged.cri import Cri
from tests.bench.__main__ import cpu_s, rollup, show
from tests.e2e.skerry import Skerry, eventually, missing
from tests.support.badline import BadLine

STARTS = 30
BULK = 256 * 1024 * 1024
FOLLOWERS = 50
PARALLEL = 20
"""With a hundred at once in one container containerd 1.6 may start none of them, nor end that container."""
ROUNDS = 3
NARROW = 125_000
"""1 Mbit/s in bytes."""
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "bench"},
    "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [
            {
                "name": "c",
                "image": "skerry.local/busybox:1",
                # one that talks, and one that gives zeros to whoever connects
                "command": [
                    "sh",
                    "-c",
                    "nc -ll -p 9000 -e cat /dev/zero & while true; do echo tick; sleep 0.2; done",
                ],
            }
        ],
    },
}
SPDY = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
V4 = {"X-Stream-Protocol-Version": "v4.channel.k8s.io"}
FORWARD = {"X-Stream-Protocol-Version": "portforward.k8s.io"}


def websocket(protocol: str) -> dict[str, str]:
    return {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Protocol": protocol,
    }


class Api:
    """Connections to the API that a kubeconfig names, as raw sockets."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        where = urlsplit(cluster["server"])
        self._host, self._port = where.hostname or "", where.port or 443
        self._tls = ssl.create_default_context(
            cadata=base64.b64decode(cluster["certificate-authority-data"]).decode()
        )
        pair = kubeconfig.with_name("bench.pem")
        pair.write_bytes(
            base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"])
        )
        self._tls.load_cert_chain(pair)
        pair.unlink()

    def ask(self, method: str, path: str, headers: dict[str, str]) -> tuple[socket.socket, bytes]:
        raw = socket.create_connection((self._host, self._port), timeout=60)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return request(self._tls.wrap_socket(raw, server_hostname=self._host), method, path, headers)

    def pod(self, subresource: str, headers: dict[str, str], **query: Any) -> tuple[socket.socket, bytes]:
        path = f"/api/v1/namespaces/default/pods/bench/{subresource}?{urlencode(query, doseq=True)}"
        plain = subresource == "log" or headers.get("Upgrade") == "websocket"
        return self.ask("GET" if plain else "POST", path, headers)


def request(
    connection: socket.socket, method: str, path: str, headers: dict[str, str]
) -> tuple[socket.socket, bytes]:
    """Ask, and read the answer's head.  Gives what came behind it."""
    lines = [f"{method} {path} HTTP/1.1", "Host: bench", *(f"{k}: {v}" for k, v in headers.items())]
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    got = b""
    while b"\r\n\r\n" not in got:
        data = connection.recv(65536)
        assert data, got
        got += data
    head, _, rest = got.partition(b"\r\n\r\n")
    assert head.split(b" ", 2)[1] in (b"101", b"200"), got
    return connection, rest


class Direct:
    """The same streams from containerd's own streaming server."""

    def __init__(self, trial: Skerry) -> None:
        self._endpoint = str(trial.socket)
        container = next(c for c in trial.containers() if c.pod == "bench")
        self._container = container.id
        self._uid = container.pod_uid

    def _url(self, make: Callable[[Cri], Any]) -> str:
        async def go() -> str:
            cri = Cri(self._endpoint)
            try:
                url: str = await make(cri)
                return url
            finally:
                cri.close()

        return asyncio.run(go())

    def _dial(self, url: str, headers: dict[str, str]) -> tuple[socket.socket, bytes]:
        where = urlsplit(url)
        raw = socket.create_connection((where.hostname, where.port), timeout=60)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return request(raw, "POST", where.path, headers)

    def exec_url(self, command: list[str], *, stdin: bool = False) -> str:
        return self._url(
            lambda cri: cri.exec_url(
                self._container, command, tty=False, stdin=stdin, stdout=True, stderr=False
            )
        )

    def exec(self, url: str) -> tuple[socket.socket, bytes]:
        return self._dial(url, SPDY | V4)

    def forward(self) -> tuple[socket.socket, bytes]:
        async def make(cri: Cri) -> str:
            boxes = await cri.list_sandboxes()
            box = next(b for b in boxes if b.uid == self._uid)
            return await cri.port_forward_url(box.id, [])

        return self._dial(self._url(make), SPDY | FORWARD)


# -- what is measured


def opened(names: list[str]) -> bytes:
    client = Client()
    return b"".join(client.open({"streamtype": name})[1] for name in names)


def forwarded() -> bytes:
    client = Client()
    return b"".join(
        client.open({"streamtype": name, "port": "9000", "requestid": "0"})[1] for name in ("error", "data")
    )


def masked(payload: bytes) -> bytes:
    """A websocket's binary message; the mask is zero, which any peer takes."""
    head = (
        bytes([0x82, 0x80 | len(payload)])
        if len(payload) < 126
        else struct.pack("!BBH", 0x82, 0x80 | 126, len(payload))
    )
    return head + b"\0\0\0\0" + payload


def until(connection: socket.socket, got: bytes, wanted: bytes) -> None:
    while wanted not in got:
        data = connection.recv(65536)
        assert data, got
        got += data


def counted(connection: socket.socket, size: int) -> float:
    """Seconds until so many bytes have come, once the first has."""
    buffer = bytearray(1024 * 1024)
    connection.recv_into(buffer, 1)
    began = time.monotonic()
    left = size
    while left > 0:
        n = connection.recv_into(buffer)
        assert n, f"{left} bytes are missing"
        left -= n
    return time.monotonic() - began


def starts(api: Api, direct: Direct) -> None:
    command = ["echo", "hi"]

    def containerd() -> None:
        connection, rest = direct.exec(direct.exec_url(command))
        with connection:
            connection.sendall(opened(["error", "stdout"]))
            until(connection, rest, b"hi\n")

    def spdy() -> None:
        connection, rest = api.pod("exec", SPDY | V4, command=command, stdout="true")
        with connection:
            connection.sendall(opened(["error", "stdout"]))
            until(connection, rest, b"hi\n")

    def channels() -> None:
        connection, rest = api.pod("exec", websocket("v5.channel.k8s.io"), command=command, stdout="true")
        with connection:
            until(connection, rest, b"hi\n")

    def log() -> None:
        connection, rest = api.pod("log", {}, follow="true", tailLines=1)
        with connection:
            until(connection, rest, b"tick\n")

    names = {"containerd itself": containerd, "by SPDY": spdy, "by websocket": channels}
    took: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(STARTS):
        for name, run in names.items():
            began = time.monotonic()
            run()
            took[name].append(time.monotonic() - began)
    base = statistics.median(took["containerd itself"])
    for name, seconds in took.items():
        median = statistics.median(seconds)
        show(f"exec, first byte, {name}, median", median * 1000, f"ms  ({median / base:.2f}x)")
    lines = []
    for _ in range(STARTS):
        began = time.monotonic()
        log()
        lines.append(time.monotonic() - began)
    show("log, first line, median", statistics.median(lines) * 1000, "ms")
    show("log, first line, worst", max(lines) * 1000, "ms")


def bulk(trial: Skerry, api: Api, direct: Direct) -> None:
    zeros = ["cat", "/dev/zero"]

    def exec_direct() -> socket.socket:
        connection, _ = direct.exec(direct.exec_url(zeros))
        connection.sendall(opened(["error", "stdout"]))
        return connection

    def exec_spdy() -> socket.socket:
        connection, _ = api.pod("exec", SPDY | V4, command=zeros, stdout="true")
        connection.sendall(opened(["error", "stdout"]))
        return connection

    def exec_channels() -> socket.socket:
        return api.pod("exec", websocket("v5.channel.k8s.io"), command=zeros, stdout="true")[0]

    def forward_direct() -> socket.socket:
        connection, _ = direct.forward()
        connection.sendall(forwarded())
        return connection

    def forward_spdy() -> socket.socket:
        connection, _ = api.pod("portforward", SPDY | FORWARD)
        connection.sendall(forwarded())
        return connection

    def forward_websocket() -> socket.socket:
        connection, _ = api.pod("portforward", websocket("SPDY/3.1+portforward.k8s.io"))
        connection.sendall(masked(forwarded()))
        return connection

    pids = {part: pid for part, pid in trial.pids().items() if pid and part in ("cloudcore", "edgecore")}
    for what, ways in (
        (
            "exec",
            (("containerd itself", exec_direct), ("by SPDY", exec_spdy), ("by websocket", exec_channels)),
        ),
        (
            "port-forward",
            (
                ("containerd itself", forward_direct),
                ("by SPDY", forward_spdy),
                ("by websocket", forward_websocket),
            ),
        ),
    ):
        base = 0.0
        for name, dial in ways:
            rates, cpu = [], {part: cpu_s(pid) for part, pid in pids.items()}
            for _ in range(ROUNDS):
                with dial() as connection:
                    rates.append(BULK / 1e6 / counted(connection, BULK))
            rate = statistics.median(rates)
            base = base or rate
            spent = ", ".join(f"{part} {cpu_s(pid) - cpu[part]:.1f} s" for part, pid in pids.items())
            show(f"{what}, {name}, median of {ROUNDS}", rate, f"MB/s  ({rate / base:.2f}x; CPU: {spent})")
    upward(api, direct)


def upward(api: Api, direct: Direct) -> None:
    """Into a container, as `kubectl cp` does."""
    size = BULK // 4
    command = ["sh", "-c", f"head -c {size} >/dev/null; echo done"]
    block = b"\0" * 32768

    def push(connection: socket.socket, rest: bytes, frame: bytes) -> float:
        with connection:
            began = time.monotonic()
            for _ in range(size // len(block)):
                connection.sendall(frame)
            until(connection, rest, b"done\n")
            return time.monotonic() - began

    def spdy(connection: socket.socket, rest: bytes) -> float:
        client = Client()
        opening = b"".join(client.open({"streamtype": name})[1] for name in ("error", "stdin", "stdout"))
        connection.sendall(opening)
        return push(connection, rest, client.data(3, block))

    def channels(connection: socket.socket, rest: bytes) -> float:
        return push(
            connection, rest, struct.pack("!BBH", 0x82, 0x80 | 126, len(block) + 1) + b"\0\0\0\0\0" + block
        )

    query = {"command": command, "stdin": "true", "stdout": "true"}
    ways: tuple[tuple[str, Callable[[], float]], ...] = (
        ("containerd itself", lambda: spdy(*direct.exec(direct.exec_url(command, stdin=True)))),
        ("by SPDY", lambda: spdy(*api.pod("exec", SPDY | V4, **query))),
        ("by websocket", lambda: channels(*api.pod("exec", websocket("v5.channel.k8s.io"), **query))),
    )
    base = 0.0
    for name, run in ways:
        rate = statistics.median(size / 1e6 / run() for _ in range(ROUNDS))
        base = base or rate
        show(f"exec's stdin, {name}, median of {ROUNDS}", rate, f"MB/s  ({rate / base:.2f}x)")


def many(trial: Skerry, api: Api, direct: Direct) -> None:
    pid = trial.pids()["edgecore"]
    assert pid is not None
    # what the first stream brings with it is not a follower's
    for _ in range(3):
        connection, rest = api.pod("log", {}, follow="true")
        with connection:
            until(connection, rest, b"tick\n")
    time.sleep(5)
    before = rollup(pid)["Pss"]
    with ExitStack() as stack:
        for _ in range(FOLLOWERS):
            connection, rest = api.pod("log", {}, follow="true", tailLines=1)
            until(stack.enter_context(connection), rest, b"tick\n")
        cpu, began = cpu_s(pid), time.monotonic()
        time.sleep(10)
        show(f"edgecore with {FOLLOWERS} followers, more PSS", (rollup(pid)["Pss"] - before) / 1024, "MiB")
        show("... CPU", 100 * (cpu_s(pid) - cpu) / (time.monotonic() - began), "% of a core")
    time.sleep(3)
    # containerd starts each exec with a process of its own, and has its own limits with so many of them
    for name, ask in (
        ("containerd itself", lambda command: started(*direct.exec(direct.exec_url(command)))),
        (
            "by websocket",
            lambda command: api.pod("exec", websocket("v5.channel.k8s.io"), command=command, stdout="true"),
        ),
    ):
        seconds, failed = at_once(ask)
        show(f"{PARALLEL} execs at once, all done, {name}", seconds, f"s  ({len(failed)} failed)")
        for text in failed[:3]:
            print(text)


def started(connection: socket.socket, rest: bytes) -> tuple[socket.socket, bytes]:
    connection.sendall(opened(["error", "stdout"]))
    return connection, rest


def at_once(ask: Callable[[list[str]], tuple[socket.socket, bytes]]) -> tuple[float, list[str]]:
    """Seconds until the last of many execs has answered, and what failed."""
    failed: list[str] = []

    def one(number: int) -> None:
        try:
            connection, rest = ask(["echo", f"number {number}"])
            with connection:
                until(connection, rest, f"number {number}\n".encode())
        except (OSError, AssertionError) as error:
            failed.append(repr(error)[:200])

    began = time.monotonic()
    threads = [threading.Thread(target=one, args=(n,)) for n in range(PARALLEL)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.monotonic() - began, failed


@contextmanager
def through(trial: Skerry, port: int) -> Iterator[None]:
    """edgecore with its hub behind another port."""
    parts = Trial(Home.at(trial.home))
    path = trial.home / "edge" / "edgecore.yaml"
    text = path.read_text()
    direct = f"127.0.0.1:{trial.hub_port}"
    assert direct in text
    parts.stop_part("edgecore")
    path.write_text(text.replace(direct, f"127.0.0.1:{port}"))
    parts.start_part("edgecore")
    try:
        yield
    finally:
        parts.stop_part("edgecore")
        path.write_text(text)


def narrow(trial: Skerry, api: Api) -> None:
    """Does bulk on a thin line cost the link its keepalives?  Link and tunnel share the line, as they share a modem."""
    with BadLine("127.0.0.1", trial.hub_port) as line, through(trial, line.port):
        eventually(
            lambda: trial.kubectl("exec", "bench", "--", "true", check=False).returncode == 0, "the tunnel"
        )
        sessions = session(trial)
        line.line.shared, line.line.rate = True, NARROW
        size = 5_000_000
        connection, _ = api.pod("exec", SPDY | V4, command=["cat", "/dev/zero"], stdout="true")
        with connection:
            connection.sendall(opened(["error", "stdout"]))
            seconds = counted(connection, size)
        line.good()
        show("bulk through a line of 1 Mbit/s", size * 8 / 1e6 / seconds, "Mbit/s")
        show("... sessions that the link lost meanwhile", session(trial) - sessions, "")


def session(trial: Skerry) -> int:
    return int(trial.get("node", trial.node_name)["metadata"]["annotations"]["skerry.dev/session"])


def main() -> int:
    if reason := missing():
        print(f"cannot measure here: {reason}", file=sys.stderr)
        return 1
    print(
        f"# {os.uname().machine}, {os.cpu_count()} cores, Linux {os.uname().release}, Python {sys.version.split()[0]}"
    )
    wanted = set(sys.argv[1:]) or {"starts", "bulk", "many", "narrow"}
    trial = Skerry()
    try:
        trial.up()
        trial.kubectl("apply", "-f", "-", stdin=json.dumps(POD))
        trial.kubectl("wait", "--for=condition=Ready", "pod/bench", "--timeout=60s")
        api, direct = Api(trial.home / "kubeconfig"), Direct(trial)
        if "many" in wanted:
            many(trial, api, direct)
        if "starts" in wanted:
            starts(api, direct)
        if "bulk" in wanted:
            bulk(trial, api, direct)
        if "narrow" in wanted:
            narrow(trial, api)
    finally:
        trial.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
