import asyncio
import os
from pathlib import Path

import pytest

from mappers.cli import main
from mappers.framework.desk import simulate
from mappers.framework.runner import load_driver

THERMOSTAT = str(Path(__file__).parents[3] / "mappers" / "virtual" / "thermostat.py")


def test_a_new_driver_passes_its_own_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "my-led"]) == 0
    assert main(["new", "my-led"]) == 1
    assert main(["test", "my_led.py"]) == 0
    assert "FAILED" not in capsys.readouterr().out


def test_the_thermostat_passes_by_file_and_by_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", THERMOSTAT]) == 0
    assert main(["test", "mappers.virtual.thermostat"]) == 0
    assert capsys.readouterr().out.count("ok ") == 10


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import no_such_module_here", "no_such_module_here"),
        ("raise SystemExit(3)", "ends the process"),
        ("def (", "SyntaxError"),
        ("x = 1", "found: none"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    path = tmp_path / "bad_driver.py"
    path.write_text(text)
    assert main(["test", str(path)]) == 1
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error


def test_a_file_or_a_name_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "/no/such.py"]) == 1
    assert main(["new", "../x"]) == 1
    assert "no file" in capsys.readouterr().err
    assert main(["run", "nosuch"]) == 1
    error = capsys.readouterr().err
    assert "there is no driver nosuch" in error
    assert "modbus, mqtt" in error
    with pytest.raises(SystemExit) as error:
        main(["fly"])
    assert error.value.code == 2


def test_what_holds_no_manifests_is_not_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "passwd"
    file.write_text("root:x:0:0\nnobody:x:1:1\n")
    assert main(["convert", str(file)]) == 1
    assert "there are no manifests in it" in capsys.readouterr().err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("mapper 0.")


def test_a_driver_that_makes_up_values_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "liar.py"
    path.write_text(
        "from mappers.virtual.thermostat import Thermostat\n"
        "class Liar(Thermostat):\n"
        "    async def read(self, prop):\n"
        "        return 1\n"
    )
    assert main(["test", str(path)]) == 1
    out = capsys.readouterr().out
    assert "FAILED  raises for a property it does not have" in out
    assert "FAILED  takes each desired value" in out


def test_simulating_prints_readings(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(simulate(load_driver(THERMOSTAT), None, stop=stop))
            await asyncio.sleep(0.1)
            stop.set()

    asyncio.run(scenario())
    assert "target = 21.5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import no_such_module_here", "line 1: ModuleNotFoundError: No module named 'no_such_module_here'"),
        ("x = 1", "found: none"),
        (
            "from mappers.framework.driver import Driver\n"
            "class A(Driver):\n    protocol = 'x'\nclass B(Driver):\n    protocol = 'x'\n",
            "a driver file has one subclass of Driver; found: A, B",
        ),
        ("def (", "SyntaxError: invalid syntax"),
    ],
)
def test_why_a_driver_cannot_run_is_said_to_whoever_started_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    path = tmp_path / "bad_driver.py"
    path.write_text(text)
    read, write = os.pipe()
    try:
        assert main(["run", str(path), "--fault-fd", str(write)]) == 1
        assert says in os.read(read, 4096).decode()
    finally:
        os.close(read)
        os.close(write)
    assert says in capsys.readouterr().err
    # nobody reads any more
    assert main(["run", str(path), "--fault-fd", str(write)]) == 1
