"""What `up` does to the samples."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from deploy import steps
from deploy.steps import place_on_node

ROOT = Path(steps.__file__).parent


def test_devices_are_placed_on_the_node_and_nothing_else_is_changed() -> None:
    for file in (ROOT / "samples").glob("*.yaml"):
        before = list(yaml.safe_load_all(file.read_text()))
        after = list(yaml.safe_load_all(place_on_node(file.read_text(), "other")))
        for old, new in zip(before, after, strict=True):
            if old["kind"] == "Device":
                assert new["spec"].pop("nodeName") == "other"
                old["spec"].pop("nodeName")
            assert new == old


def test_models_come_before_what_is_made_of_them() -> None:
    files = sorted((ROOT / "samples").glob("*.yaml"), key=steps._models_first)
    kinds = [
        document["kind"] for file in files for document in yaml.safe_load_all(file.read_text()) if document
    ]
    models = [at for at, kind in enumerate(kinds) if kind == "DeviceModel"]
    assert models
    assert max(models) < min(at for at, kind in enumerate(kinds) if kind == "Device")


def test_a_kubeconfig_is_copied_for_its_owner_only(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    for text in ("one", "two"):
        source.write_text(text)
        steps._copy_private(source, target)
        assert target.read_text() == text
        assert target.stat().st_mode & 0o777 == 0o600
    inode = target.stat().st_ino
    steps._copy_private(source, target)
    assert target.stat().st_ino == inode, "what is right is left alone"
    source.unlink()
    with pytest.raises(FileNotFoundError):
        steps._copy_private(source, target)
