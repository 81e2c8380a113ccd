"""Reading what the kernel says."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from deploy import machine, runtime
from deploy.errors import TrialError
from deploy.home import Home

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:4015 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 0100007F:4015 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0
   2: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0
"""


def test_only_listening_sockets_of_the_port_count() -> None:
    assert machine.listening_inodes(TCP, 0x4015) == {"4711"}


def test_mounts_below_a_folder_come_deepest_last_made_first() -> None:
    mounts = "/dev/a /h ext4 rw 0 0\nx /h/s/a tmpfs rw 0 0\nx /h/s/a/b tmpfs rw 0 0\nx /home tmpfs rw 0 0\n"
    assert machine.mounts_below(mounts, Path("/h/s")) == ["/h/s/a/b", "/h/s/a"]
    assert machine.mounts_below("x /h\\040s/a tmpfs rw 0 0\n", Path("/h s")) == ["/h s/a"]


def test_mounts_are_looked_for_where_a_linked_home_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    asked: list[Path] = []

    def below(_: str, folder: Path) -> list[str]:
        asked.append(folder)
        return []

    monkeypatch.setattr(machine, "mounts_below", below)
    assert runtime._unmount(Home(tmp_path / "link" / "home")) == []
    assert asked == [tmp_path.resolve() / "real" / "home"]


def test_a_failed_program_is_told_by_its_last_words() -> None:
    with pytest.raises(TrialError, match=r"^sh failed: the reason$"):
        machine.run(["sh", "-c", "echo first >&2; echo the reason >&2; exit 3"])
    with pytest.raises(TrialError, match=r"^sh: its own words$"):
        machine.run(["sh", "-c", "echo 'sh: its own words' >&2; exit 3"])
    with pytest.raises(TrialError, match=r"^sh failed: exit code 3$"):
        machine.run(["sh", "-c", "exit 3"])
    with pytest.raises(TrialError, match="not installed"):
        machine.run(["/nonexistent/program"])


def test_a_program_of_ours_that_was_called_wrongly_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "cloudcore"
    program.write_text("#!/bin/sh\necho \"Error: Invalid value: 'x' is not a token id\" >&2; exit 2\n")
    program.chmod(0o755)
    with pytest.raises(TrialError, match=r"^cloudcore: 'x' is not a token id$"):
        machine.run([program])


def test_who_listens_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not machine.port_is_free(port)
        assert machine.port_answers(port)
        assert "(pid " in machine.listener_of(port)
    assert machine.port_is_free(port)
    assert not machine.port_answers(port)
