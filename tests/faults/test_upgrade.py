"""An upgrade that is cut off, or that brings something that does not run: F-E10."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import deploy

REPLACE = Path(deploy.__file__).parent / "replace.sh"

INSTALL = """
set -eu
sh {replace} begin {folder}
mkdir -p {folder}.new/bin {folder}.new/lib
ln -sf {python} {folder}.new/bin/python
for number in 1 2 3 4 5; do
    rm -f {folder}.new/lib/$number {folder}.new/bin/edgecore
    sleep 0.02
    printf '{version}' >{folder}.new/lib/$number
done
printf '#!{folder}.new/bin/python\\n{code}\\n' >{folder}.new/bin/edgecore
chmod +x {folder}.new/bin/edgecore
sh {replace} end {folder} edgecore
"""

# says what it is made of: one version of all its parts
CODE = (
    "import glob, os, sys; folder = os.path.dirname(os.path.dirname(os.path.abspath(sys.argv[0]))); "
    'print(*sorted({open(one).read() for one in glob.glob(folder + "/lib/*")}))'
)
BROKEN = "raise SystemExit(1)"


def installing(folder: Path, version: str, code: str = CODE) -> subprocess.Popen[bytes]:
    script = INSTALL.format(replace=REPLACE, folder=folder, python=sys.executable, version=version, code=code)
    return subprocess.Popen(["sh", "-c", script], start_new_session=True, stderr=subprocess.PIPE)


def version(folder: Path) -> str:
    words = [str(folder / "bin" / "edgecore")]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@pytest.mark.quick
def test_f_e10_an_upgrade_is_killed_halfway(tmp_path: Path) -> None:
    folder, rng = tmp_path / "skerry", random.Random(6)
    first = installing(folder, "1")
    first.communicate(timeout=60)
    assert (first.returncode, version(folder)) == (0, "1")
    began = time.monotonic()
    whole = installing(folder, "2")
    whole.communicate(timeout=60)
    took = time.monotonic() - began
    assert version(folder) == "2"
    for number in range(3, 9):
        before = version(folder)
        upgrade = installing(folder, str(number))
        time.sleep(rng.random() * took * 1.2)
        os.killpg(upgrade.pid, signal.SIGKILL) if upgrade.poll() is None else None
        upgrade.communicate(timeout=60)
        assert version(folder) in (before, str(number))
    last = installing(folder, "20")
    last.communicate(timeout=60)
    assert version(folder) == "20"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["skerry", "skerry.old"]


@pytest.mark.quick
def test_f_e10_what_does_not_run_is_not_put_in_place_and_what_was_before_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "skerry"
    for number in ("1", "2"):
        installing(folder, number).communicate(timeout=60)
    bad = installing(folder, "3", BROKEN)
    _, told = bad.communicate(timeout=60)
    assert bad.returncode == 1
    assert b"does not run" in told
    assert version(folder) == "2"
    subprocess.run(["sh", str(REPLACE), "back", str(folder)], check=True, timeout=60)
    assert version(folder) == "1"
    subprocess.run(["sh", str(REPLACE), "back", str(folder)], check=True, timeout=60)
    assert version(folder) == "2"
