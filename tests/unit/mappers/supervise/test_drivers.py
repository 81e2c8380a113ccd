"""Which driver a protocol needs, without running anybody's file."""

from __future__ import annotations

import os
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


def test_a_file_that_is_no_python_for_a_while_counts_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drivers = Drivers(tmp_path)
    path = tmp_path / "mine.py"
    good = 'class Mine:\n    protocol = "mine"\n'
    path.write_text(good)
    before = drivers.find("mine")
    assert before is not None
    path.write_text(good + "def broken(:\n")
    os.utime(path, ns=(1, 1))
    for _ in range(3):
        assert drivers.find("mine") == before
    assert caplog.text.count("line 3: ") == 1
    assert "what runs goes on" in caplog.text
    path.write_text(good + "# mended\n")
    os.utime(path, ns=(2, 2))
    after = drivers.find("mine")
    assert after is not None
    assert after.stamp == 2
    path.write_text("x = = 1")
    os.utime(path, ns=(3, 3))
    assert Drivers(tmp_path).find("mine") is None  # of one that never was right nothing is known


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ('class A(Driver):\n    protocol = "knx"\n    def (\n', "a.py is not used: line 3: invalid syntax"),
        ('protocol = "knx"\n', "a.py is not used: it has no class with a protocol"),
        ("x = 1\n", "not used there: a.py (it has no class with a protocol)"),
        ('class A:\n    protocol = "modbus"\n', "there is no driver for knx: put one into"),
    ],
)
def test_why_there_is_no_driver_names_the_file_that_is_meant(tmp_path: Path, source: str, why: str) -> None:
    drivers = Drivers(tmp_path)
    file = tmp_path / "a.py"
    file.write_text(source)
    assert drivers.find("knx") is None
    assert why in drivers.explain("knx")
    file.unlink()
    assert drivers.find("knx") is None
    assert drivers.explain("knx") == f"there is no driver for knx: put one into {tmp_path}"


def test_a_file_that_is_no_text_is_told_once_and_what_runs_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drivers = Drivers(tmp_path)
    file = tmp_path / "a.py"
    file.write_bytes(b"# \xe9\n")
    assert drivers.find("knx") is None
    assert drivers.find("knx") is None
    assert "a.py (it is not UTF-8" in drivers.explain("knx")
    assert len(caplog.records) == 1
    file.write_text('class A(Driver):\n    protocol = "knx"\n')
    found = drivers.find("knx")
    assert found is not None
    file.write_bytes(b"# \xe9\n")
    os.utime(file, ns=(1, 1))
    assert drivers.find("knx") == found


def test_a_file_that_cannot_be_read_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    drivers = Drivers(tmp_path)
    (tmp_path / "a.py").mkdir()
    (tmp_path / "b.py").symlink_to(tmp_path / "nowhere")
    assert drivers.find("knx") is None
    assert drivers.find("knx") is None
    assert len(caplog.records) == 2
