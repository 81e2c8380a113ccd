"""The decisions in bringing a trial up."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from deploy import trial
from deploy.errors import TrialError
from deploy.home import Home, Ports
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
