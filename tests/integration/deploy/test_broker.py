"""Skerry's broker with a real mosquitto: who gets in, and who hears what."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from deploy.broker import Broker
from deploy.errors import TrialError
from tests.support.ports import free_port

MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
pytestmark = pytest.mark.skipif(
    not os.access(MOSQUITTO, os.X_OK) or os.geteuid() != 0, reason="needs mosquitto and root"
)
WAIT_S = 30.0
METER = "$hw/events/device/default/meter"
OTHER = "$hw/events/device/default/other"


def until(what: Callable[[], Any], why: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.02)


@contextlib.contextmanager
def running(broker: Broker) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [MOSQUITTO, "-c", str(broker.config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:

        def listens() -> bool:
            assert process.poll() is None, "mosquitto does not take its configuration"
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", broker.port)) == 0

        until(listens, "it listens")
        yield process
    finally:
        process.terminate()
        process.wait()


class Client:
    """heard: (topic, payload).   refused: what the broker said to the login, if it was no."""

    def __init__(self, port: int, name: str, password: str, *, ca: Path | None = None) -> None:
        self.heard: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.said: queue.Queue[Any] = queue.Queue()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        if name:
            self.client.username_pw_set(name, password)
        if ca is not None:
            self.client.tls_set(str(ca), cert_reqs=ssl.CERT_REQUIRED)
        self.client.on_connect = lambda c, u, f, reason, p: self.said.put(reason)
        self.client.on_message = lambda c, u, m: self.heard.put((m.topic, m.payload))
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        self.reason = self.said.get(timeout=WAIT_S)

    @property
    def is_in(self) -> bool:
        return not self.reason.is_failure

    def hear(self, topic: str) -> None:
        done = queue.Queue[int]()
        self.client.on_subscribe = lambda c, u, mid, codes, p: done.put(mid)
        self.client.subscribe(topic, qos=1)
        done.get(timeout=WAIT_S)

    def say(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> None:
        self.client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(WAIT_S)

    def next(self) -> tuple[str, bytes]:
        return self.heard.get(timeout=WAIT_S)

    def end(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
        # one that was cut off may have been about to come back
        if (sock := self.client.socket()) is not None:
            sock.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="skb") as name:
        yield Path(name) / "mosquitto"


@pytest.fixture
def clients() -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def make(*arguments: Any, **options: Any) -> Client:
        made.append(Client(*arguments, **options))
        return made[-1]

    yield make
    for client in made:
        client.end()


def test_nobody_without_an_account_and_no_account_beyond_its_device(
    folder: Path, clients: Callable[..., Client]
) -> None:
    broker = Broker(folder, free_port())
    own = broker.password("edgecore")
    password = broker.add("meter", device="default/meter", topics=("meters/1/#",))
    app = broker.add("app")
    with running(broker) as process:
        assert not clients(broker.port, "", "").is_in
        assert not clients(broker.port, "meter", "wrong").is_in
        assert not clients(broker.port, "nobody", password).is_in
        edgecore, meter = clients(broker.port, "edgecore", own), clients(broker.port, "meter", password)
        assert edgecore.is_in
        assert meter.is_in
        edgecore.hear("$hw/events/#")
        edgecore.hear("meters/#")
        meter.hear("#")
        meter.hear("$hw/#")
        meter.hear("$SYS/#")
        # of all this only its own is heard
        meter.say(f"{OTHER}/twin/update", b"forged")
        meter.say(f"{METER}/twin/cloud_updated", b"forged")
        meter.say(f"{METER}/twin/update/result", b"forged")
        meter.say(f"{OTHER}/twin/update", b"forged", retain=True)
        meter.say("meters/2/x", b"forged")
        meter.say(f"{METER}/twin/update", b"true")
        meter.say("meters/1/x", b"true")
        assert [edgecore.next(), edgecore.next()] == [
            (f"{METER}/twin/update", b"true"),
            ("meters/1/x", b"true"),
        ]
        # what it hears
        edgecore.say(f"{OTHER}/twin/update/delta", b"not for it")
        edgecore.say("plain/topic", b"not for it")
        edgecore.say(f"{METER}/twin/update/delta", b"for it")
        heard = [meter.next() for _ in range(3)]
        assert sorted(heard) == sorted(
            [
                (f"{METER}/twin/update", b"true"),
                ("meters/1/x", b"true"),
                (f"{METER}/twin/update/delta", b"for it"),
            ]
        )
        # an application asks about every device, and does not speak as the cloud
        program = clients(broker.port, "app", app)
        program.say(f"{OTHER}/twin/cloud_updated", b"forged")
        program.say(f"{OTHER}/twin/get", b"asked")
        assert edgecore.next() == (f"{OTHER}/twin/update/delta", b"not for it")
        assert edgecore.next() == (f"{METER}/twin/update/delta", b"for it")
        assert edgecore.next() == (f"{OTHER}/twin/get", b"asked")
        # an account that is taken back is cut off, without a restart of the broker
        broker.remove("meter")
        process.send_signal(signal.SIGHUP)
        until(lambda: not clients(broker.port, "meter", password).is_in, "the account is gone")
        later = broker.add("late", device="default/late")
        process.send_signal(signal.SIGHUP)
        until(lambda: clients(broker.port, "late", later).is_in, "the new account")
        assert process.poll() is None


def test_what_is_too_large_ends_its_sender_only(folder: Path, clients: Callable[..., Client]) -> None:
    broker = Broker(folder, free_port())
    own, password = broker.password("edgecore"), broker.add("meter", device="default/meter")
    with running(broker) as process:
        edgecore, meter = clients(broker.port, "edgecore", own), clients(broker.port, "meter", password)
        edgecore.hear("$hw/events/#")
        gone: queue.Queue[Any] = queue.Queue()
        meter.client.on_disconnect = lambda *arguments: gone.put(arguments)
        meter.client.publish(f"{METER}/twin/update", bytes(2 * 1024 * 1024), qos=1)
        gone.get(timeout=WAIT_S)
        with socket.create_connection(("127.0.0.1", broker.port), timeout=WAIT_S) as raw:
            # a packet that says it is 256 MB long
            raw.sendall(bytes([0x10, 0xFF, 0xFF, 0xFF, 0x7F]) + b"\0\4MQTT")
            raw.settimeout(WAIT_S)
            with contextlib.suppress(ConnectionError):
                assert raw.recv(1) == b""
        again = clients(broker.port, "meter", password)
        again.say(f"{METER}/twin/get", b"here")
        assert edgecore.next() == (f"{METER}/twin/get", b"here")
        assert process.poll() is None


def test_other_machines_come_by_tls(folder: Path, clients: Callable[..., Client]) -> None:
    broker = Broker(folder, free_port())
    password, port = broker.add("meter", device="default/meter"), free_port()
    broker.set_lan("127.0.0.1", port)
    with running(broker):
        assert clients(port, "meter", password, ca=broker.ca).is_in
        assert not clients(port, "", "", ca=broker.ca).is_in
    broker.set_lan("", 0)
    assert str(port) not in broker.config.read_text()


def test_a_broker_that_gave_up_root_reads_its_accounts_again(clients: Callable[..., Client]) -> None:
    import pwd

    try:
        pwd.getpwnam("mosquitto")
    except KeyError:
        pytest.skip("there is no user mosquitto")
    with tempfile.TemporaryDirectory(prefix="skb") as name:
        Path(name).chmod(0o755)
        broker = Broker(Path(name) / "mqtt", free_port(), user="mosquitto")
        broker.password("edgecore")
        assert (broker.folder / "accounts.json").stat().st_mode & 0o077 == 0
        with running(broker) as process:
            password = broker.add("late", device="default/late")
            process.send_signal(signal.SIGHUP)
            until(lambda: clients(broker.port, "late", password).is_in, "the new account")


def test_a_listener_that_cannot_be_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    """With it, mosquitto would not start, and edgecore would have no broker either."""
    broker = Broker(tmp_path / "b", free_port())
    broker.add("meter", device="default/meter")
    before = {file.name: file.read_bytes() for file in broker.folder.iterdir()}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen(1)
        port = taken.getsockname()[1]
        for address, why in (
            ("192.0.2.1", "no such address"),
            ("0.0.0.0", "stands for many"),
            ("::", "stands for many"),
            ("here", "is no address"),
            ("127.0.0.1", f"port {port} is in use by "),
        ):
            with pytest.raises(TrialError, match=why):
                broker.set_lan(address, port)
    assert {file.name: file.read_bytes() for file in broker.folder.iterdir()} == before
    broker.set_lan("127.0.0.1", port)
    with running(broker):
        broker.set_lan("127.0.0.1", port)  # a new certificate: what holds the port is the broker
