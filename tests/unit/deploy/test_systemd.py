"""The systemd units: what must be in them, what must not, and that systemd understands them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import deploy
from beehive import watchdog

FOLDER = Path(deploy.__file__).parent / "systemd"
UNITS = (
    "cloudcore.service",
    "edgecore.service",
    "skerry-mapper@.service",
    "skerry-supervisor.service",
    "skerry-broker.service",
)
# systemd learned these in version 254, and passes over them before.
NEWER = re.compile(r"Unknown key (name )?'(RestartSteps|RestartMaxDelaySec)'")
# Each of these gives a service a mount namespace of its own (systemd.exec(5)).
PRIVATE_MOUNTS = re.compile(
    r"Protect\w+|Private(Tmp|Devices|Mounts|Network)|(ReadWrite|ReadOnly|Inaccessible|Bind\w*|NoExec|Exec)Paths|"
    r"(Root|State|Cache|Logs|Runtime|Configuration)Directory|MountFlags|TemporaryFileSystem|DynamicUser"
)


def entries(name: str) -> dict[str, dict[str, list[str]]]:
    """Section to key to values."""
    found: dict[str, dict[str, list[str]]] = {}
    for line in (FOLDER / name).read_text().splitlines():
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("name", UNITS)
def test_it_comes_back_for_ever_and_waits_for_no_network(name: str) -> None:
    found = entries(name)
    assert found["Service"]["Restart"] == ["always"]
    assert found["Unit"]["StartLimitIntervalSec"] == ["0"]
    assert float(found["Service"]["RestartSec"][0]) < float(found["Service"]["RestartMaxDelaySec"][0])
    assert not re.search(r"^[^#]*network", (FOLDER / name).read_text(), re.MULTILINE)
    assert "Requires" not in found["Unit"]
    assert found["Install"]["WantedBy"] == ["multi-user.target"]


def test_edgecore_ends_alone_and_shares_its_mounts() -> None:
    service = entries("edgecore.service")["Service"]
    assert service["KillMode"] == ["process"]
    assert int(service["OOMScoreAdjust"][0]) <= -900
    assert int(service["LimitNOFILE"][0]) >= 65536
    assert [key for key in service if PRIVATE_MOUNTS.fullmatch(key)] == []
    assert "RestrictSUIDSGID" not in service


@pytest.mark.parametrize("name", ["edgecore.service", "cloudcore.service"])
def test_a_daemon_that_cannot_even_end_itself_is_ended(name: str) -> None:
    service = entries(name)["Service"]
    assert service["Type"] == ["notify"]
    # later than the daemon itself, which says why
    assert int(service["WatchdogSec"][0]) > watchdog.LOOP_LIMIT_S + 60
    # upgrading a store may take 300 s (`metamanager.store`), and that twice
    assert int(service["TimeoutStartSec"][0]) > 600


@pytest.mark.parametrize("name", UNITS)
def test_the_command_is_one_of_ours(name: str) -> None:
    (command,) = entries(name)["Service"]["ExecStart"]
    program, verb = shlex.split(command)[:2]
    if name == "skerry-broker.service":
        assert (program, verb) == ("/usr/sbin/mosquitto", "-c")
        return
    assert Path(program).name in ("edgecore", "cloudcore", "mapper")
    assert verb == ("supervise" if "supervisor" in name else "run")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_understands_it(name: str, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = re.sub(r"/usr/(local/bin/\w+|sbin/mosquitto|bin/kill)", str(program), (FOLDER / name).read_text())
    unit = tmp_path / name.replace("@", "@one")
    unit.write_text(text)
    told = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=30, check=False
    )
    words = [line for line in told.stderr.splitlines() if str(tmp_path) in line and not NEWER.search(line)]
    assert words == []
    assert told.returncode == 0, told.stderr
