"""What of the command line is whose."""

import pytest

from edgecore.cli import main, parse


def test_what_follows_two_dashes_is_the_programs() -> None:
    chosen = parse(["exec", "-i", "web", "--", "sh", "-c", "x", "a", "--", "-b"])
    assert (chosen.pod, chosen.stdin, chosen.tty) == ("web", True, False)
    assert chosen.program == ["sh", "-c", "x", "a", "--", "-b"]
    assert parse(["exec", "web", "ls"]).program == ["ls"]
    assert parse(["exec", "-it", "web", "--", "sh"]).tty


@pytest.mark.parametrize(
    "words", [["exec", "web", "--"], ["exec", "web", "more", "--", "ls"], ["exec", "--", "ls"]]
)
def test_a_program_needs_a_pod_and_a_pod_a_program(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(words)
    assert ended.value.code == 2
    assert "exec" in capsys.readouterr().err


def test_closed_streams_are_told_instead_of_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert main(["exec", "-i", "web", "--", "sh"]) == 1
    assert "</dev/null" in capsys.readouterr().err
    assert main(["exec", "-it", "web", "--", "sh"]) == 1
    assert "needs a terminal" in capsys.readouterr().err
