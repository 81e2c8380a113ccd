"""The decisions in bringing a trial up."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml

from deploy import machine, runtime, trial
from deploy.errors import TrialError
from deploy.home import Home, Ports
from deploy.progress import Progress
from deploy.settings import Settings, dump
from deploy.trial import Trial, place_on_node

ROOT = Path(trial.__file__).parent


def test_devices_are_placed_on_the_node_and_nothing_else_is_changed() -> None:
    for file in (ROOT / "samples").glob("*.yaml"):
        before = list(yaml.safe_load_all(file.read_text()))
        after = list(yaml.safe_load_all(place_on_node(file.read_text(), "other")))
        for old, new in zip(before, after, strict=True):
            if old["kind"] == "Device":
                assert new["spec"].pop("nodeName") == "other"
                old["spec"].pop("nodeName")
            assert new == old


def test_what_was_chosen_before_is_kept(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "h")
    home.root.mkdir()
    stored = Settings(node_name="a", ports=Ports.from_base(21000))
    home.settings.write_bytes(dump(stored))
    assert Trial(home)._load() == stored
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
