"""Bodies without an end, and lengths that nothing stands behind, at everything that listens: M01, M06, D03."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import h2.config
import h2.connection
import pytest
import yaml

from tests.e2e.broker import Bus
from tests.e2e.skerry import eventually
from tests.faults.stage import Stage
from tests.faults.test_hostile import GROWTH_KIB, MIB, memory_kib
from tests.faults.test_pods import tls_of
from tests.faults.test_reach import listeners

MOST = 64 * MIB
"""So much is offered at once; beyond that slowly, to see whether it ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Something that listens.   paths: what is asked for; none where it is not HTTP."""

    name: str
    part: str
    open: Callable[[], socket.socket]
    paths: tuple[str, ...] = ()


def doors(stage: Stage) -> list[Door]:
    blind = ssl._create_unverified_context()
    config = yaml.safe_load((stage.skerry.home / "kubeconfig").read_text())
    admin = tls_of(config["clusters"][0]["cluster"], config["users"][0]["user"])

    def tcp(host: str, port: int, tls: ssl.SSLContext) -> Callable[[], socket.socket]:
        return lambda: tls.wrap_socket(
            socket.create_connection((host, port), 30), server_hostname="127.0.0.1"
        )

    def unix(name: str) -> Callable[[], socket.socket]:
        def connect() -> socket.socket:
            line = socket.socket(socket.AF_UNIX)
            line.settimeout(30)
            line.connect(str(stage.edge / name))
            return line

        return connect

    (local,) = [where for where, part in listeners(stage).items() if part == "edgecore"]
    found = "/api/v1/namespaces/default/configmaps"
    base = stage.skerry.port_base
    return [
        Door(name="API", part="cloudcore", open=tcp("127.0.0.1", base, admin), paths=(found, "/healthz")),
        Door(name="API, a stranger", part="cloudcore", open=tcp("127.0.0.1", base, blind), paths=(found,)),
        Door(
            name="hub",
            part="cloudcore",
            open=tcp("127.0.0.1", stage.skerry.hub_port, blind),
            paths=(
                "/join",
                "/ca.crt",
                "/edge.crt",
                "/e632aba927ea4ac2b575ec1603d56f10/edge-1/events",
                "/streams",
            ),
        ),
        Door(name="local API", part="edgecore", open=tcp(*local, blind), paths=(found, "/nowhere")),
        Door(
            name="local API, socket", part="edgecore", open=unix("metaserver.sock"), paths=(found, "/nowhere")
        ),
        Door(name="questions", part="edgecore", open=unix("edgecore.sock")),
    ]


@contextlib.contextmanager
def bounded(stage: Stage, part: str, what: str) -> Iterator[None]:
    """The daemon takes no memory for it, now or later, and lives."""
    pid = stage.pid(part)
    first = memory_kib(pid)
    yield
    assert stage.pid(part) == pid
    assert memory_kib(pid) - first < GROWTH_KIB, what


def pour(line: socket.socket, head: bytes, chunk: bytes) -> bool:
    """Whether the other end has had enough within a minute.  Who has answered may throw away what comes for a moment more."""
    sent, end = 0, time.monotonic() + 60
    try:
        line.sendall(head)
        while time.monotonic() < end:
            line.sendall(chunk)
            sent += len(chunk)
            if sent > MOST:
                time.sleep(0.05)
    except OSError:
        return True
    return False


def test_m01_a_body_without_an_end(stage: Stage) -> None:
    data = b" " * 65536
    for door in doors(stage):
        for path in door.paths or ("",):
            head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            chunk = b"%x\r\n%s\r\n" % (len(data), data)
            with bounded(stage, door.part, f"{door.name} {path}"), door.open() as line:
                line.settimeout(20)
                ended = pour(line, head.encode() if path else b'{"', chunk if path else data)
                assert ended, f"{door.name} takes a body without an end at {path}"
    assert stage.is_linked()
    assert stage.api_is_ready()


@pytest.mark.quick
def test_m06_a_length_that_nothing_stands_behind(stage: Stage) -> None:
    """Ten bytes of the four gigabytes that were announced."""
    for door in doors(stage):
        for path in door.paths:
            head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {2**32}\r\n\r\n"
            with (
                bounded(stage, door.part, f"{door.name} {path}"),
                door.open() as line,
                contextlib.suppress(OSError),
            ):
                line.sendall(head.encode() + b"0123456789")
                line.settimeout(0.3)
                line.recv(4096)


@pytest.mark.quick
def test_m06_a_call_of_a_mapper_that_claims_four_gib(stage: Stage) -> None:
    with bounded(stage, "edgecore", "a call"), socket.socket(socket.AF_UNIX) as line:
        line.settimeout(30)
        line.connect(str(stage.edge / "dmi.sock"))
        http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        http.initiate_connection()
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/v1beta1.DeviceManagerService/MapperRegister"),
            (":authority", "a"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
        http.send_headers(1, headers)
        http.send_data(1, struct.pack("!BI", 0, 2**32 - 1) + b"0123456789")
        line.sendall(http.data_to_send())
        line.settimeout(2)
        with contextlib.suppress(OSError):
            while line.recv(65536):
                pass


# -- D03: packets of MQTT that no library sends


def text(value: bytes) -> bytes:
    return struct.pack("!H", len(value)) + value


def packet(kind: int, body: bytes) -> bytes:
    length, out = len(body), b""
    while True:
        length, low = divmod(length, 128)
        out += bytes([low | (128 if length else 0)])
        if not length:
            return bytes([kind]) + out + body


def connect(password: bytes) -> bytes:
    """CONNECT of MQTT 5 with the account of local programs."""
    body = text(b"MQTT") + bytes([5, 0b11000010]) + struct.pack("!H", 60) + b"\0"
    return packet(0x10, body + text(b"odd") + text(b"local") + text(password))


TOPIC = b"$hw/events/device/default/thermostat/twin/get"


def publish(
    topic: bytes, *, qos: int = 0, number: int = 1, properties: bytes = b"", payload: bytes = b"x"
) -> bytes:
    length, out = len(properties), b""
    while True:
        length, low = divmod(length, 128)
        out += bytes([low | (128 if length else 0)])
        if not length:
            break
    ident = struct.pack("!H", number) if qos else b""
    return packet(0x30 | qos << 1, text(topic) + ident + out + properties + payload)


ODD = {
    "256 MB": [b"\x30\xff\xff\xff\x7f", *[bytes(MIB)] * 8],
    "no topic": [publish(b"")],
    "the longest topic": [publish(b"t" * 65535)],
    "the deepest topic": [publish(b"/" * 65535)],
    "a topic that is no text": [publish(b"$hw/events/device/\xff\xfe/twin/update")],
    "a topic with a NUL": [publish(b"$hw/events/device/a\0b/twin/update")],
    "ten thousand properties": [
        publish(TOPIC, properties=b"".join(b"\x26" + text(b"k") + text(b"v") for _ in range(10_000)))
    ],
    "QoS 2 that never ends": [publish(TOPIC, qos=2, number=n + 1) for n in range(5000)],
    "wildcards where none may be": [publish(b"$hw/events/device/+/twin/update"), publish(b"#")],
    "an alias that is none": [publish(b"", properties=b"\x23\xff\xff")],
}


@pytest.mark.parametrize("how", ODD)
def test_d03_packets_that_no_library_sends(stage: Stage, how: str) -> None:
    password = (stage.skerry.home / "mosquitto" / "local.password").read_text().strip().encode()
    broker = stage.pid("mosquitto")
    first = memory_kib(broker)
    with bounded(stage, "edgecore", how):
        with socket.create_connection(("127.0.0.1", stage.skerry.mqtt_port), 30) as line:
            line.settimeout(10)
            line.sendall(connect(password))
            assert line.recv(4)[:1] == b"\x20"
            with contextlib.suppress(OSError):
                for one in ODD[how]:
                    line.sendall(one)
                line.settimeout(1)
                while line.recv(65536):
                    pass
        assert stage.pid("mosquitto") == broker
        assert memory_kib(broker) - first < GROWTH_KIB

        def answers() -> bool:
            with Bus(stage.skerry.mqtt_port, stage.skerry.home) as bus:
                return bool(bus.actual("default/thermostat"))

        eventually(answers, "the twin", 60)
    assert stage.is_linked()
    assert os.path.exists(f"/proc/{broker}")
    time.sleep(0.1)
