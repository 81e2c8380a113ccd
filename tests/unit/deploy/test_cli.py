"""The command line's words and exit codes."""

from __future__ import annotations

import errno
import io
import json
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner

from deploy.cli import main
from deploy.errors import PartFailed, PreflightError, TrialError
from deploy.home import Home
from deploy.progress import Progress
from deploy.trial import Trial


def run(home: Path, *arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["--home", str(home), *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_status_of_nothing(tmp_path: Path) -> None:
    code, out, _ = run(tmp_path / "h", "status", "-o", "json")
    assert code == 1
    status = json.loads(out)
    assert status["up"] is False
    assert [part["name"] for part in status["parts"]] == [
        "containerd",
        "mosquitto",
        "cloudcore",
        "edgecore",
        "supervisor",
        "mapper",
    ]


def test_no_kubeconfig_yet(tmp_path: Path) -> None:
    code, out, err = run(tmp_path / "h", "kubeconfig")
    assert (code, out) == (1, "")
    assert "run `skerry up` first" in err


def test_a_failed_part_is_named_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "edgecore.log"
    log.write_text("first\nlast words\n")

    def up(self: Trial, progress: object, **options: object) -> None:
        raise PartFailed("edgecore", "it ended with exit code 3", log=log)

    monkeypatch.setattr(Trial, "up", up)
    code, _, err = run(tmp_path / "h", "up")
    assert code == 1
    assert "edgecore failed: it ended with exit code 3" in err
    assert "last words" in err


def test_not_root_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for command in ("up", "down"):
        code, _, err = run(tmp_path / "h", command)
        assert code == 1
        assert "as root or with sudo" in err
        assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = run(Path("/"), "status")
    assert code == 1
    assert "SKERRY_HOME" in err
    assert PreflightError.reason == "Preflight"


def test_a_wrong_port_base(tmp_path: Path) -> None:
    code, _, err = run(tmp_path / "h", "up", "--port-base", "70000")
    assert code == 1
    assert "out of range" in err


def test_saving_needs_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    (tmp_path / "file").touch()
    for words in (["backup", "f"], ["restore", str(tmp_path / "file")], ["export"]):
        code, _, err = run(tmp_path / "h", *words)
        assert code == 1
        assert "run `skerry up` first" in err


def test_restoring_starts_the_cloud_again_whatever_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    trial = Trial(Home.at(tmp_path / "h"))
    done: list[str] = []

    class Cloud:
        def stop(self) -> bool:
            done.append("stop")
            return True

        def start(self, command: list[str]) -> None:
            done.append(f"start {command[1]}")

    def fails(argv: list[object]) -> str:
        done.append(str(argv[1]))
        raise TrialError("not one of our backups")

    monkeypatch.setattr(Trial, "_must_exist", lambda self: None)
    monkeypatch.setattr("deploy.machine.run", fails)
    trial.home.root.mkdir()
    trial.daemons["cloudcore"] = cast("Any", Cloud())
    with pytest.raises(TrialError, match="not one of our backups"):
        trial.restore(tmp_path / "file")
    assert done == ["stop", "restore", "start run"]


def test_start_waits_until_the_part_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(Home.at(tmp_path / "h"))
    looked: list[Path] = []

    class Edge:
        log = tmp_path / "log"

        def check(self) -> None: ...

        def pid(self) -> int | None:
            return 1 if len(looked) < 5 else None

    def answers(path: Path) -> bool:
        looked.append(path)
        return len(looked) == 3

    monkeypatch.setattr("deploy.machine.socket_answers", answers)
    monkeypatch.setattr("time.sleep", lambda _: None)
    trial.daemons["edgecore"] = cast("Any", Edge())
    trial.await_part("edgecore", Progress(io.StringIO()))
    assert looked == [tmp_path / "h" / "edge" / "edgecore.sock"] * 3
    trial.await_part("mapper", Progress(io.StringIO()))  # nothing of it can be asked
    with pytest.raises(PartFailed, match="it ended"):
        trial.await_part("edgecore", Progress(io.StringIO()))


@pytest.mark.parametrize("words", [(), ("device",), ("token",), ("authority",), ("mqtt",)])
def test_no_sentence_of_the_help_is_cut_off(tmp_path: Path, words: tuple[str, ...]) -> None:
    code, out, _ = run(tmp_path / "h", *words, "--help")
    assert code == 0
    assert "..." not in out.replace("[ARGS]...", "")


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def up(self: Trial, progress: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/var/lib/skerry/trial.new")

    monkeypatch.setattr(Trial, "up", up)
    code, _, err = run(tmp_path / "h", "up")
    assert (code, err) == (1, "error: /var/lib/skerry/trial.new: No space left on device\n")


def test_logs_that_are_not_there(tmp_path: Path) -> None:
    code, out, err = run(tmp_path / "h", "logs", "edgecore")
    assert (code, out) == (1, "")
    assert "edgecore was never started here" in err
