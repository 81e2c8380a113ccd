"""The decisions in bringing a trial up."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from deploy import machine, runtime, trial
from deploy.errors import TrialError
from deploy.home import Home, Ports
from deploy.progress import Progress
from deploy.settings import Settings
from deploy.trial import Trial


def test_what_was_chosen_before_is_kept() -> None:
    stored = Settings(node_name="a", ports=Ports.from_base(21000))
    assert trial._choose(stored, None, None) == stored
    assert trial._choose(stored, "a", Ports.from_base(21000)) == stored
    with pytest.raises(TrialError, match="other node name"):
        trial._choose(stored, "b", None)
    with pytest.raises(TrialError, match="other ports"):
        trial._choose(stored, None, Ports())


def test_the_status_of_nothing(tmp_path: Path) -> None:
    status = Trial(Home.at(tmp_path / "h")).status()
    assert not status.up
    assert not any(part.running for part in status.parts)
    assert list(tmp_path.iterdir()) == []


def test_who_may_not_look_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pid files that cannot be read are no sign that nothing runs."""
    home = Home.at(tmp_path / "h")
    home.run.mkdir(parents=True)
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != home.run)
    with pytest.raises(TrialError, match="as root or with sudo"):
        Trial(home).status()


def test_a_damaged_trial_can_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(runtime, "clean_up", lambda home, before: [])
    monkeypatch.setattr(machine, "drop_address", lambda address: [])
    home = Home.at(tmp_path / "h")
    home.root.mkdir()
    home.settings.write_bytes(b"{")
    trial_ = Trial(home)
    assert "down --purge" in trial_.down(Progress(io.StringIO()))[0]
    assert trial_.down(Progress(io.StringIO()), purge=True) == []
    assert not home.root.exists()
