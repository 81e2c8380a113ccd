"""Readings of a disk and of downloads."""

from __future__ import annotations

from pathlib import Path

from edgecore.edged.imagedisk import ImageDisk, downloaded


def test_a_real_file_system(tmp_path: Path) -> None:
    disk = ImageDisk()
    assert disk.disk() is None
    disk.path = str(tmp_path)
    found = disk.disk()
    assert found is not None
    assert 0 < found.bytes_free <= found.bytes_total
    disk.path = str(tmp_path / "gone")
    assert disk.disk() is None


def test_downloads_are_told_from_none_and_from_not_known(tmp_path: Path) -> None:
    assert downloaded("") is None
    assert downloaded(str(tmp_path)) is None
    ingest = tmp_path / "io.containerd.content.v1.content" / "ingest"
    ingest.mkdir(parents=True)
    assert downloaded(str(tmp_path)) == 0
    (ingest / "a").mkdir()
    (ingest / "a" / "data").write_bytes(b"x" * 5)
    (ingest / "b").mkdir()
    assert downloaded(str(tmp_path)) == 6
