"""Which driver a protocol needs, without running anybody's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from mappers.supervise.drivers import Drivers, Found, protocol_of


@pytest.mark.parametrize(
    ("source", "protocol"),
    [
        ('class A(Driver):\n    protocol = "knx"\n', "knx"),
        ('class A(Driver):\n    protocol: ClassVar[str] = "knx"\n', "knx"),
        ('class Base(Driver):\n    protocol = "base"\nclass A(Base):\n    protocol = "knx"\n', "knx"),
        ("class A(Driver):\n    protocol = PROTOCOL\n", ""),
        ('protocol = "outside"\n', ""),
        ("class A(:\n", ""),
        ("\0", ""),
        ("", ""),
        ("(" * 100_000, ""),
    ],
)
def test_a_protocol_is_read_from_the_text(source: str, protocol: str) -> None:
    assert protocol_of(source) == protocol


def test_the_operators_own_come_first_and_changes_are_seen(tmp_path: Path) -> None:
    drivers = Drivers(tmp_path)
    assert drivers.find("modbus") == Found(name="modbus")
    assert drivers.find("knx") is None
    assert drivers.find("../../etc/passwd") is None
    assert drivers.find("framework") is None
    own = tmp_path / "mine.py"
    own.write_text('raise SystemExit\nclass A:\n    protocol = "modbus"\n')
    (tmp_path / "broken.py").write_bytes(b"\xff\xfe")
    (tmp_path / "folder.py").mkdir()
    first = drivers.find("modbus")
    assert first is not None
    assert first.name == str(own)
    own.write_text('class A:\n    protocol = "knx"\n')
    import os

    os.utime(own, ns=(1, 1))
    assert drivers.find("modbus") == Found(name="modbus")
    assert drivers.find("knx") == Found(name=str(own), stamp=1)
    own.unlink()
    assert drivers.find("knx") is None
    assert Drivers(tmp_path / "none").find("modbus") == Found(name="modbus")
