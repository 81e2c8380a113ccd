"""How the processes of a trial are started and waited for."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from deploy import parts, settings
from deploy.errors import PartFailed, TrialError
from deploy.home import Home, Ports
from deploy.parts import PARTS, Parts
from deploy.progress import Progress
from deploy.settings import Settings


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home.at(tmp_path / "h")
    for folder in (made.run, made.logs):
        folder.mkdir(parents=True)
    return made


def test_each_part_has_a_command_with_its_own_folder(home: Home) -> None:
    for part in PARTS:
        command = Parts(home).command(part)
        assert Path(command[0]).name
        assert any(str(home.root) in word for word in command), part


def test_the_broker_is_the_one_that_was_chosen(home: Home) -> None:
    assert parts.broker(home).port == Ports().mqtt
    settings.save(home.settings, Settings(ports=Ports.from_base(21000)))
    assert parts.broker(home).port == Ports.from_base(21000).mqtt
    assert parts.broker(home, Settings(ports=Ports.from_base(22000))).port == Ports.from_base(22000).mqtt


def waiting(home: Home, ready: object, why: str = "") -> None:
    assert callable(ready)
    made = Parts(home)
    made.daemons["mapper"].start(["sleep", "60"])
    try:
        made.wait("mapper", ready, Progress(io.StringIO()), "it is ready", 0.0, lambda: why)
    finally:
        made.daemons["mapper"].stop()


def test_what_is_ready_is_not_waited_for(home: Home) -> None:
    waiting(home, lambda: True)


def test_what_is_not_ready_in_time_says_why(home: Home) -> None:
    with pytest.raises(PartFailed, match=r"not seen within 0 s: it is ready \(no pod\)"):
        waiting(home, lambda: False, "no pod")

    def away() -> bool:
        raise TrialError("the API is away")

    with pytest.raises(PartFailed, match=r"\(the API is away\)"):
        waiting(home, away, "no pod")


def test_a_part_that_ended_is_not_waited_for(home: Home) -> None:
    made = Parts(home)
    with pytest.raises(PartFailed, match="it ended"):
        made.wait("mapper", lambda: True, Progress(io.StringIO()), "it is ready", 60.0, lambda: "")
    made.daemons["mapper"].start(["false"])
    with pytest.raises(PartFailed, match="ended with exit code 1"):
        made.wait("mapper", lambda: False, Progress(io.StringIO()), "it is ready", 60.0, lambda: "")


def test_a_failure_is_told_as_the_parts(home: Home) -> None:
    def fails() -> None:
        raise TrialError("no")

    with pytest.raises(PartFailed, match="no") as caught:
        Parts(home).as_part("cloudcore", fails)
    assert isinstance(caught.value.__cause__, TrialError)
