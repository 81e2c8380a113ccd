"""Where the key of the store comes from, and that no fault of it is fatal."""

import stat
from pathlib import Path

import pytest

from edgecore.metamanager import keyfile

KEY = b"0123456789abcdef" * 2


def test_a_key_of_our_own_is_made_once_in_its_own_folder_for_root_only(tmp_path: Path) -> None:
    database = tmp_path / "edge" / "edgecore.db"
    first = keyfile.find(database, environ={})
    again = keyfile.find(database, environ={})
    assert first == again
    assert first.fault == ""
    path = keyfile.default_path(database)
    assert first.source == str(path)
    assert path.parent != database.parent
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert len(path.read_bytes()) == keyfile.MIN_BYTES
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_what_the_operator_names_comes_before_a_credential_before_our_own(tmp_path: Path) -> None:
    named, credentials = tmp_path / "named", tmp_path / "credentials"
    credentials.mkdir()
    (credentials / keyfile.CREDENTIAL).write_bytes(KEY + b"credential")
    named.write_bytes(KEY + b"named")
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)}
    database = tmp_path / "edgecore.db"
    assert keyfile.find(database, named, environ).secret == KEY + b"named"
    assert keyfile.find(database, None, environ).secret == KEY + b"credential"
    assert not keyfile.default_path(database).exists()
    (credentials / keyfile.CREDENTIAL).unlink()
    assert keyfile.find(database, None, environ).source == str(keyfile.default_path(database))


@pytest.mark.parametrize("content", [None, b"", b"short", b"x" * 5000])
def test_a_named_key_that_is_missing_or_no_key_is_not_made_here(
    tmp_path: Path, content: bytes | None
) -> None:
    named = tmp_path / "named"
    if content is not None:
        named.write_bytes(content)
    found = keyfile.find(tmp_path / "edgecore.db", named, {})
    assert found.source == "memory"
    assert str(named) in found.fault
    assert len(found.secret) == keyfile.MIN_BYTES
    assert found.secret != keyfile.find(tmp_path / "edgecore.db", named, {}).secret
    assert (named.read_bytes() if named.exists() else None) == content
    assert not keyfile.default_path(tmp_path / "edgecore.db").exists()


def test_our_own_key_that_is_no_key_is_put_away(tmp_path: Path) -> None:
    database = tmp_path / "edgecore.db"
    path = keyfile.default_path(database)
    path.parent.mkdir()
    path.write_bytes(b"")
    found = keyfile.find(database, environ={})
    assert found.source == str(path)
    assert path.read_bytes() == found.secret
    assert path.with_name("store.key.unusable").exists()


def test_a_folder_that_cannot_be_made_leaves_a_key_in_memory(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file where the folder should be")
    found = keyfile.find(tmp_path / "edgecore.db", environ={})
    assert found.source == "memory"
    assert "store.key" in found.fault


def test_a_device_is_no_key(tmp_path: Path) -> None:
    assert keyfile.find(tmp_path / "edgecore.db", Path("/dev/zero"), {}).source == "memory"
