"""The serial driver over a pty: a device that answers, and one that talks."""

import os
import select
import threading
import tty
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("serial")

from mappers.framework.driver import DeviceError, DriverError, Settings
from mappers.framework.errors import ValueRefused
from mappers.serial import codec
from mappers.serial.driver import Serial, line_of
from mappers.serial.port import MAX_LINE
from tests.integration.mappers.support import prop


class Supply:
    """A device at the other end of a cable: greets, echoes, measures 12.5 volts."""

    def __init__(self) -> None:
        self.master, port = os.openpty()
        tty.setraw(port)
        self.name = os.ttyname(port)
        self.port = port
        self.volts = "0"
        self.heard: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def say(self, text: str | bytes) -> None:
        os.write(self.master, text.encode() if isinstance(text, str) else text)

    def _run(self) -> None:
        rest = b""
        while not self._stop.is_set():
            if not select.select([self.master], [], [], 0.02)[0]:
                continue
            rest += os.read(self.master, 1024)
            while b"\n" in rest:
                line, _, rest = rest.partition(b"\n")
                self._answer(line.decode())

    def _answer(self, line: str) -> None:
        self.heard.append(line)
        self.say(line + "\r\n")
        match line.split():
            case ["MEAS?"]:
                self.say("# busy\r\n+1.25E1 V\r\n")
            case ["VOLT?"]:
                self.say(f"{self.volts}\r\n")
            case ["VOLT", self.volts] | ["VOLT", "99"]:
                self.say("ERR\r\n")
            case ["VOLT", volts]:
                self.volts = volts
                self.say("OK\r\n")

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        os.close(self.master)
        os.close(self.port)


@pytest.fixture
def supply() -> Iterator[Supply]:
    device = Supply()
    yield device
    device.close()


@pytest.fixture
def make(supply: Supply) -> Iterator[Callable[..., Serial]]:
    made: list[Serial] = []

    def one(**settings: Any) -> Serial:
        device = Serial()
        device.settings = Settings({"serialPort": supply.name, "timeout": 0.5, **settings})
        device.properties = {}
        device.open()
        made.append(device)
        return device

    yield one
    for device in made:
        device.close()


NUMBER = "^([-+.0-9E]+)"


def test_questions_and_commands(supply: Supply, make: Callable[..., Serial]) -> None:
    device = make()
    assert device.read(prop("volts", "FLOAT", request="MEAS?", pattern=NUMBER)) == "+1.25E1"
    limit = prop(
        "limit", "FLOAT", request="VOLT?", pattern=NUMBER, Command="VOLT ${value}", commandAnswer="^OK"
    )
    supply.say("99999\r\n")  # noise from before is not the answer
    device.write(limit, 12.0)
    assert device.read(limit) == "12.0"
    with pytest.raises(DeviceError, match="ERR"):
        device.write(limit, 99)
    with pytest.raises(DeviceError, match="no answer"):
        device.read(prop("x", "STRING", request="WHO?", pattern="^I am"))
    with pytest.raises(ValueRefused):
        device.write(prop("name", "STRING", command="NAME ${value}"), "a\nVOLT 30")
    with pytest.raises(DriverError):
        device.read(prop("x", "STRING"))
    assert "VOLT 30" not in supply.heard


def test_a_device_that_talks_by_itself(supply: Supply, make: Callable[..., Serial]) -> None:
    device = make(lineEnd=r"\r\n")
    rows = [prop("t", "FLOAT", pattern=r"T=(\S+)"), prop("h", "FLOAT", pattern=r"H=(\S+)")]
    device.properties = {p.name: p for p in rows}
    supply.say("garb\xffage T=\r\nT=20 H=40\r\nT=21\r\nT=2")
    assert device.read(rows[0]) == "21"
    assert device.read(rows[1]) == "40"
    supply.say("2\r\n")
    assert device.read(rows[0]) == "22"
    with pytest.raises(DeviceError, match="sends nothing"):
        device.read(rows[0])
    supply.say(b"x" * (MAX_LINE + 2000))
    with pytest.raises(DeviceError, match="longer"):
        device.read(rows[0])


def test_a_port_is_held_alone_and_a_missing_one_said(supply: Supply, make: Callable[..., Serial]) -> None:
    make()
    with pytest.raises(DeviceError):
        make()
    with pytest.raises(DeviceError):
        make(serialPort="/dev/does-not-exist")
    for bad in ({"parity": "x"}, {"encoding": "klingon"}, {"lineEnd": ""}, {"baudRate": "fast"}):
        with pytest.raises(DriverError):
            line_of(Settings({"serialPort": "a", **bad}))


def test_escapes_and_patterns() -> None:
    assert codec.unescape(r"a\r\n\x41\e") == "a\r\nA\x1b"
    with pytest.raises(DriverError):
        codec.dialog_of(prop("x", "STRING", pattern="("))
    assert codec.value_in("a1", codec.dialog_of(prop("x", "STRING", pattern=r"\d"))) == "1"
