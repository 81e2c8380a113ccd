"""A board's configuration, unit and look before joining."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import board
from deploy.errors import TrialError

NO_PODS: dict[str, Any] = {"dataDir": "/elsewhere", "modules": {"edged": {"enable": False}}}


def test_the_unit_gets_this_installations_paths() -> None:
    source = "[Service]\nExecStart=/usr/local/bin/edgecore run\nRestart=always\n"
    text = board.unit(source, ["/opt/a b/50%/edgecore", "run", "--config", Path("/etc/x.yaml")])
    assert text.splitlines() == [
        "# Installed by `skerry join`.",
        "[Service]",
        'ExecStart="/opt/a b/50%%/edgecore" run --config /etc/x.yaml',
        "Restart=always",
    ]


def test_the_drivers_unit_follows_the_configuration() -> None:
    assert board.drivers_command({})[1:] == ["supervise"]
    assert board.drivers_command({"dataDir": "/data"})[2:] == [
        "--edgecore",
        Path("/data/edgecore.sock"),
        "--dmi-dir",
        "/data",
    ]
    apart = {"dataDir": "/data", "modules": {"deviceTwin": {"dmiSockPath": "/dmi"}}}
    assert board.drivers_command(apart)[-2:] == ["--dmi-dir", "/dmi"]


def test_a_configuration_says_no_more_than_it_must() -> None:
    assert yaml.safe_load(board.render("")) == {
        "apiVersion": "edgecore.config.kubeedge.io/v1alpha2",
        "kind": "EdgeCore",
        "modules": {
            "edged": {
                "rootDirectory": "/var/lib/kubelet",
                "tailoredKubeletConfig": {"podLogsDir": "/var/log/pods"},
            }
        },
    }
    named = yaml.safe_load(board.render("board-1"))
    assert named["modules"]["edged"]["hostnameOverride"] == "board-1"


@pytest.mark.parametrize("cloud", ["host:10000", "10.0.0.1:10000", "[::1]:10000", "a:1,b:2"])
def test_a_hub(cloud: str) -> None:
    assert board.check(NO_PODS, cloud) is None


@pytest.mark.parametrize("cloud", ["host", "", ":1", "::1:10000x", "http://host:10000/", "a b:1"])
def test_no_hub(cloud: str) -> None:
    told = board.check(NO_PODS, cloud)
    assert told is not None
    assert "HOST:PORT" in told


def test_no_runtime(tmp_path: Path) -> None:
    kubelet = {"containerRuntimeEndpoint": f"unix://{tmp_path}/none.sock"}
    settings = {"dataDir": "/elsewhere", "modules": {"edged": {"tailoredKubeletConfig": kubelet}}}
    told = board.check(settings, "host:1")
    assert told is not None
    assert f"no container runtime answers at unix://{tmp_path}/none.sock" in told


def test_nothing_is_written_when_it_cannot_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    config = tmp_path / "x" / "edgecore.yaml"
    with pytest.raises(TrialError, match="HOST:PORT"):
        list(board.join(config, cloud="nowhere", token="t", node_name="", force=False))
    assert list(tmp_path.iterdir()) == []


def test_nothing_stays_of_a_join_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one may be for another name, which the configuration would not have."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    for name, text in (("check", None), ("notes", ()), ("systemd_runs", False), ("has_network", True)):
        monkeypatch.setattr(board, name, lambda *_, text=text: text)
    config = tmp_path / "edgecore.yaml"

    def join(node: str) -> list[str]:
        return list(board.join(config, cloud="h:1", token="t", node_name=node, force=False))

    def fails(*_: object, **__: object) -> str:
        assert "hostnameOverride: a" in config.read_text()
        raise TrialError("edgecore: the token is used up")

    monkeypatch.setattr("deploy.machine.run", fails)
    with pytest.raises(TrialError, match="used up"):
        join("a")
    assert not config.exists()
    monkeypatch.setattr("deploy.machine.run", lambda *_, **__: "joined as node b\n")
    assert join("b")[:2] == [f"wrote {config}", "joined as node b"]
    assert "hostnameOverride: b" in config.read_text()


def test_leaving_takes_a_yes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    config = tmp_path / "edgecore.yaml"
    with pytest.raises(TrialError, match="this board is no node"):
        list(board.leave(config, yes=True))
    config.write_text(board.render(""))
    with pytest.raises(TrialError, match="say --yes"):
        list(board.leave(config, yes=False))
    assert config.exists()


def test_a_configuration_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    config = tmp_path / "edgecore.yaml"
    for text in ("[]", "a: [", "\x00"):
        config.write_text(text)
        with pytest.raises(TrialError, match="cannot read"):
            list(board.join(config, cloud="h:1", token="t", node_name="", force=False))


def test_a_network_for_pods(tmp_path: Path) -> None:
    assert not board.has_network(tmp_path / "none")
    (tmp_path / "README").touch()
    assert not board.has_network(tmp_path)
    (tmp_path / "10-a.conflist").touch()
    assert board.has_network(tmp_path)


@pytest.mark.parametrize(
    ("installed", "answers", "enabled", "own"),
    [
        ("/usr/sbin/mosquitto", False, "disabled\n", True),
        ("/usr/sbin/mosquitto", False, "", True),  # there is no such unit
        ("/usr/sbin/mosquitto", False, "masked\n", True),
        ("/usr/sbin/mosquitto", True, "enabled\n", False),
        ("/usr/sbin/mosquitto", False, "enabled\n", False),  # it would take the port at the next boot
        (None, False, "", False),
    ],
)
def test_a_broker_of_its_own_runs_where_there_is_none_and_will_be_none(
    monkeypatch: pytest.MonkeyPatch, installed: str | None, *, answers: bool, enabled: str, own: bool
) -> None:
    monkeypatch.setattr("deploy.board.systemd_runs", lambda: True)
    monkeypatch.setattr("deploy.machine.find", lambda program: installed)
    monkeypatch.setattr("deploy.machine.port_answers", lambda port: answers)
    monkeypatch.setattr("deploy.machine.run", lambda *_, **__: enabled)
    assert board.needs_broker() is own
