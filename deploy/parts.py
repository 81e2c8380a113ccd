"""The processes of a trial: how each is started, and how it is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from deploy import machine, settings
from deploy.broker import Broker
from deploy.errors import PartFailed, TrialError
from deploy.home import Home
from deploy.processes import Daemon
from deploy.progress import Progress
from deploy.settings import Settings

T = TypeVar("T")

PARTS = ("containerd", "mosquitto", "cloudcore", "edgecore", "supervisor", "mapper")
_DRIVER = Path(__file__).resolve().parent.parent / "mappers" / "virtual" / "thermostat.py"

# How long a part may take until it is called failed.  Far more than it takes: a small board is slow, too.
START_TIMEOUT_S = 60.0
_POLL_S = 0.1


def broker(home: Home, chosen: Settings | None = None) -> Broker:
    """The broker's folder.  chosen: what is to be, where it is not kept yet."""
    ports = (chosen or settings.load(home.settings) or Settings()).ports
    return Broker(home.mosquitto, ports.mqtt)


class Parts:
    """Those of one trial."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.daemons = {
            part: Daemon(part, pid_file=home.run / f"{part}.pid", log=home.log(part)) for part in PARTS
        }

    def pid(self, part: str) -> int | None:
        """None while it does not run."""
        return self.daemons[part].pid()

    def command(self, part: str) -> list[str]:
        """How a part is started."""
        home = self._home
        commands: dict[str, list[str | Path]] = {
            "containerd": [
                machine.find("containerd") or "containerd",
                "--config",
                home.containerd / "config.toml",
            ],
            "mosquitto": [*broker(home).command()],
            "cloudcore": [
                machine.own("cloudcore"),
                "run",
                "--config",
                home.cloud / "cloudcore.yaml",
                "--standalone",
            ],
            "edgecore": [machine.own("edgecore"), "run", "--config", home.edge / "edgecore.yaml"],
            "supervisor": [
                machine.own("mapper"),
                "supervise",
                "--edgecore",
                home.edge / "edgecore.sock",
                "--dmi-dir",
                home.edge,
                "--buffer-dir",
                home.mappers,
                "--drivers",
                home.drivers,
            ],
            "mapper": [
                machine.own("mapper"),
                "run",
                _DRIVER,
                "--dmi-dir",
                home.edge,
                "--buffer-dir",
                home.mappers,
            ],
        }
        return [str(word) for word in commands[part]]

    def start(
        self,
        part: str,
        step: Progress,
        ready: Callable[[], bool],
        what: str,
    ) -> None:
        """Start it if it does not run, and wait until it is `ready`.  Raises PartFailed."""
        daemon = self.daemons[part]
        was_running = daemon.pid() is not None
        if not was_running:
            daemon.start(self.command(part))
        self.wait(part, ready, step, what, START_TIMEOUT_S, lambda: "")
        step.result = step.result or ("running" if was_running else "started")

    def wait(
        self,
        part: str,
        ready: Callable[[], bool],
        step: Progress,
        what: str,
        timeout_s: float,
        why: Callable[[], str],
    ) -> None:
        """Until `ready`, while the part lives.  An API that is away in between is waited for, too.  Raises PartFailed."""
        daemon = self.daemons[part]
        deadline = time.monotonic() + timeout_s
        reason = ""
        while True:
            daemon.check()
            if daemon.pid() is None:
                raise PartFailed(part, "it ended", log=daemon.log)
            try:
                if ready():
                    return
                reason = ""
            except TrialError as error:
                reason = str(error)
            if time.monotonic() > deadline:
                try:
                    reason = reason or why()
                except TrialError as error:
                    reason = str(error)
                told = f"not seen within {timeout_s:g} s: {what}" + (f" ({reason})" if reason else "")
                raise PartFailed(part, told, log=daemon.log)
            step.tick(f"waiting until {what}")
            time.sleep(_POLL_S)

    def as_part(self, part: str, action: Callable[[], T]) -> T:
        """Do something whose failure is that part's.  Raises PartFailed."""
        try:
            return action()
        except TrialError as error:
            raise PartFailed(part, str(error), log=self._home.log(part)) from error
