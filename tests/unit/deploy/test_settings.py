"""What a trial remembers."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import settings
from deploy.errors import TrialError
from deploy.home import Ports
from deploy.settings import Before, Settings, dump, parse

SETTINGS = Settings(
    node_name="edge-7",
    ports=Ports.from_base(21000),
    before=Before(
        boot_id="b", ip_forward="0", chains=("nat/DOCKER",), tables=("ip nat",), folders=("/run/containerd",)
    ),
)


def test_what_was_written_is_read() -> None:
    assert parse(dump(SETTINGS)) == SETTINGS


@pytest.mark.parametrize("text", [b"", b"null", b"{", b'{"ports": 1}', b'{"pod_subnet": "x"}'])
def test_a_damaged_file_is_refused(text: bytes) -> None:
    with pytest.raises(TrialError, match="damaged"):
        parse(text)


def test_a_newer_file_is_refused() -> None:
    with pytest.raises(TrialError, match="newer version"):
        parse(b'{"version": 99}')


def test_they_are_kept_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "trial.json"
    assert settings.load(file) is None
    chosen = Settings(node_name="a", ports=Ports.from_base(21000))
    settings.save(file, chosen)
    assert settings.load(file) == chosen

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(TrialError, match="No space left"):
        settings.save(file, Settings())
    assert settings.load(file) == chosen
