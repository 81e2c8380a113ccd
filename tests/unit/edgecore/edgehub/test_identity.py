"""Who a node is, as its file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from beehive.errors import ConfigError, NotFound
from edgecore.edgehub.identity import Identity, IdentityFiles

ME = Identity(node="edge-1", clouds=("a:1", "b:2"), not_before=10, not_after=20, https="c:3")


def test_what_was_written_is_read_and_is_for_root_only(tmp_path: Path) -> None:
    files = IdentityFiles(tmp_path / "pki")
    with pytest.raises(NotFound, match="edgecore join"):
        files.identity()
    files.write(ME, key="-----BEGIN KEY", certificate="-----BEGIN CERT", ca="-----BEGIN CA")
    assert files.identity() == ME
    assert {path.name: path.stat().st_mode & 0o777 for path in files.folder.iterdir()} == {
        "ca.pem": 0o600,
        "node.pem": 0o600,
    }
    # what stands after the notes says nothing
    files.node.write_text(files.node.read_text() + "node: other\n")
    assert files.identity() == ME


@pytest.mark.parametrize("text", ["", "node: a\n-----BEGIN", "node: a\nnot-before: x\nnot-after: 1\n"])
def test_a_file_of_somebody_else_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "node.pem").write_text(text)
    with pytest.raises(ConfigError, match="was not written by"):
        IdentityFiles(tmp_path).identity()
