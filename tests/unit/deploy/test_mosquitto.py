"""What the broker is told: nobody without an account, and no account beyond what it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.broker import Broker
from deploy.errors import TrialError
from deploy.mosquitto import Account, Lan, check_account, password_hash, render_acl, render_config

FOLDER = Path("/x/mosquitto")


def test_it_listens_on_loopback_lets_nobody_in_and_writes_no_file() -> None:
    lines = render_config(21883, FOLDER).splitlines()
    assert "listener 21883 127.0.0.1" in lines
    assert "allow_anonymous false" in lines
    assert "persistence false" in lines
    assert not [line for line in lines if line.startswith(("pid_file", "log_dest file", "persistence_loc"))]
    assert [line for line in lines if line.startswith("listener")] == ["listener 21883 127.0.0.1"]


def test_other_machines_come_by_tls_only() -> None:
    lan = Lan(address="192.0.2.7", port=8883, certificate=FOLDER / "lan.crt", key=FOLDER / "lan.key")
    text = render_config(21883, FOLDER, lan=lan)
    _, _, listener = text.partition("listener 8883 192.0.2.7")
    assert "certfile /x/mosquitto/lan.crt" in listener
    assert "keyfile /x/mosquitto/lan.key" in listener


def test_a_password_is_kept_as_mosquitto_keeps_it() -> None:
    told = password_hash("secret", bytes(range(12)))
    assert told.startswith("$7$101$AAECAwQFBgcICQoL$")
    assert len(told) == len("$7$101$AAECAwQFBgcICQoL$") + 88
    assert told != password_hash("secret", bytes(12))


def test_each_account_has_what_it_is_for() -> None:
    device = Account(name="meter", hash="h", device="default/meter", topics=("meters/1/#",))
    acl = render_acl(
        [device, Account(name="edgecore", hash="h", edgecore=True), Account(name="app", hash="h")]
    )
    sections = {part.splitlines()[0]: part.splitlines()[1:] for part in acl.split("user ")[1:]}
    assert [line for line in sections["meter"] if line] == [
        "topic write $hw/events/device/default/meter/twin/update",
        "topic write $hw/events/device/default/meter/twin/get",
        "topic write $hw/events/device/default/meter/state/update",
        "topic read $hw/events/device/default/meter/#",
        "topic readwrite meters/1/#",
    ]
    assert "topic readwrite $hw/#" in sections["edgecore"]
    assert not [line for line in sections["app"] if "cloud_updated" in line or line.endswith("$hw/#")]
    # without a name in front a rule counts for nobody
    assert "topic" not in acl.split("user ")[0]
    assert "topic read $hw/events/#" in render_acl([], anonymous=True)


@pytest.mark.parametrize(
    ("name", "device", "topics"),
    [
        ("", "", ()),
        ("a b", "", ()),
        ("a\nuser root", "", ()),
        ("a:b", "", ()),
        ("a", "b", ()),
        ("a", "a/b\ntopic #", ()),
        ("a", "a/+", ()),
        ("a", "", ("#",)),
        ("a", "", ("$SYS/#",)),
        ("a", "", ("x\ny",)),
        ("a", "", ("",)),
    ],
)
def test_what_would_break_out_is_refused(name: str, device: str, topics: tuple[str, ...]) -> None:
    with pytest.raises(TrialError):
        check_account(name, device, topics)


def test_accounts_are_kept_as_hashes_and_taken_back(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "b", 1883)
    own = broker.password("edgecore")
    assert broker.password("edgecore") == own
    first = broker.add("meter", device="default/meter")
    second = broker.add("meter", device="default/meter")
    assert first != second
    for file in (tmp_path / "b").iterdir():
        assert file.stat().st_mode & 0o077 == 0
        if file.suffix != ".password":
            assert second not in file.read_text()
    assert [account.name for account in broker.state().accounts] == ["edgecore", "meter"]
    broker.remove("meter")
    assert "meter" not in (tmp_path / "b" / "passwords").read_text()
    for name in ("meter", "edgecore"):
        with pytest.raises(TrialError):
            broker.remove(name)
    with pytest.raises(TrialError):
        broker.set_lan("not-an-address", 8883)
    (tmp_path / "b" / "accounts.json").write_text("{")
    with pytest.raises(TrialError, match=r"accounts\.json"):
        broker.state()
