"""What is said of a machine before edgecore runs on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecore import checks


def v1(root: Path, *controllers: str, beside: str = "") -> Path:
    for name in controllers:
        (root / name).mkdir()
    (root / "unified").mkdir()
    (root / "unified" / "cgroup.controllers").write_text(beside)
    return root


@pytest.mark.parametrize(
    ("beside", "crun", "words"),
    [
        ("", True, "cgroup v1"),
        ("hugetlb misc\n", False, "cgroup v1"),
        ("hugetlb misc\n", True, "crun starts no pod here"),
    ],
)
def test_crun_does_not_start_beside_a_second_hierarchy_that_has_controllers(
    tmp_path: Path, beside: str, crun: bool, words: str
) -> None:
    found = checks.cgroups(v1(tmp_path, "cpu", "memory", "pids", beside=beside), crun=crun)
    assert found.good
    assert words in found.text
    assert ("crun" in found.text) is (words != "cgroup v1")


def test_controllers_that_are_missing_are_named(tmp_path: Path) -> None:
    found = checks.cgroups(v1(tmp_path, "cpu"), crun=True)
    assert not found.good
    assert found.text == "cgroup v1 lacks memory, pids"
    (tmp_path / "cgroup.controllers").write_text("cpu pids\n")
    assert "cgroup v2 lacks memory" in checks.cgroups(tmp_path, crun=True).text
    (tmp_path / "cgroup.controllers").write_text("cpu pids memory\n")
    assert checks.cgroups(tmp_path, crun=True) == checks.Check(good=True, text="cgroup v2")
