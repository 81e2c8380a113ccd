from __future__ import annotations

import os
from pathlib import Path

from edgecore.edged import loglinks
from tests.unit.edgecore.edged.builders import make


def test_a_collector_finds_a_log_until_it_is_gone(tmp_path: Path) -> None:
    links, logs = tmp_path / "containers", tmp_path / "pods"
    log = logs / "ns_p_u" / "c" / "0.log"
    log.parent.mkdir(parents=True)
    log.write_text("x")
    for _ in range(2):
        loglinks.make(links, make(), "c", "0123abcd", str(log))
    assert os.listdir(links) == ["p_ns_c-0123abcd.log"]
    assert (links / "p_ns_c-0123abcd.log").read_text() == "x"
    # what others put there is theirs
    (links / "other.log").symlink_to(tmp_path / "nowhere")
    (links / "file.log").write_text("")
    assert loglinks.sweep(links, logs) == 0
    log.unlink()
    assert loglinks.sweep(links, logs) == 1
    assert sorted(os.listdir(links)) == ["file.log", "other.log"]
    assert loglinks.sweep(tmp_path / "none", logs) == 0
