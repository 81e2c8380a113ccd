"""What the broker's runner reads, and what it becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import brokerd
from deploy.broker import Broker


def test_the_listener_for_others_is_read_as_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.machine.can_listen", lambda address, port: None)
    broker = Broker(tmp_path / "b", 1883)
    broker.write()
    broker.add("meter")
    accounts = broker.folder / "accounts.json"
    assert brokerd.lan_of(accounts.read_bytes()) is None
    broker.set_lan("192.0.2.10", 8883)
    assert brokerd.lan_of(accounts.read_bytes()) == ("192.0.2.10", 8883)
    assert "192.0.2.10" in (broker.folder / brokerd.EVERYWHERE).read_text()
    assert "192.0.2.10" not in (broker.folder / brokerd.HERE).read_text()
    assert (broker.folder / brokerd.HERE).read_text() in (broker.folder / brokerd.EVERYWHERE).read_text()
    broker.set_lan("", 0)
    assert brokerd.lan_of(accounts.read_bytes()) is None


@pytest.mark.parametrize(
    ("accounts", "config"),
    [
        (None, brokerd.HERE),
        (b"", brokerd.HERE),
        (b"[]", brokerd.HERE),
        (b'{"lan": 3}', brokerd.HERE),
        (b"{}", brokerd.EVERYWHERE),
        (b'{"lan": null}', brokerd.EVERYWHERE),
    ],
)
def test_it_becomes_mosquitto_where_there_is_no_listener_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accounts: bytes | None, config: str
) -> None:
    class Became(Exception):
        pass

    def become(program: str, words: list[str]) -> None:
        raise Became(program, words)

    monkeypatch.setattr("os.execv", become)
    if accounts is not None:
        (tmp_path / "accounts.json").write_bytes(accounts)
    with pytest.raises(Became) as caught:
        brokerd.main(["/sbin/mosquitto", str(tmp_path)])
    assert caught.value.args == (
        "/sbin/mosquitto",
        ["/sbin/mosquitto", "-c", str(tmp_path / config)],
    )
