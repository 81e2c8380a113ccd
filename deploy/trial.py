"""Bring a whole Skerry up on one machine, look at it, and take it down again.

A trial is six processes (containerd, mosquitto, cloudcore, edgecore, a supervisor of drivers, a mapper) and one folder.  `up`
is a list of steps, each of which looks first and does only what is missing, so that running it again repairs and otherwise
changes nothing.  `down` undoes everything outside of the folder.  Both hold the trial's lock."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from deploy import config, machine, preflight, runtime, settings
from deploy.broker import Broker
from deploy.errors import PreflightError, TrialError
from deploy.home import DEFAULT_NODE_NAME, Home, Ports, choose_pod_subnet
from deploy.kubectl import Kubectl
from deploy.mosquitto import EDGECORE
from deploy.parts import PARTS, START_TIMEOUT_S, Parts, broker
from deploy.progress import Progress
from deploy.settings import Settings
from deploy.status import Status, look
from deploy.steps import Steps

_USES = {
    "cloudcore": ("the API", "the hub", "joining of stock edges", "the tunnels of stock edges"),
    "mosquitto": ("mosquitto",),
}

LOCAL_ACCOUNT = "local"
"""For applications on this machine; its password is in local.password beside the broker's configuration."""


class Trial:
    """One trial, known by its folder."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.parts = Parts(home)
        self.daemons = self.parts.daemons
        self.kubectl = Kubectl(home.kubeconfig, home.root / "kubectl-cache")
        self._settings = Settings()

    # -- up ----------------------------------------------------------------------------------------------------

    def up(self, progress: Progress, *, node_name: str | None = None, ports: Ports | None = None) -> Status:
        """Start what does not run and wait until all of it works; what then is there.

        node_name, ports: None for what was chosen before, or the default.
        Raises TrialError, after stopping what this call started; PreflightError before anything was touched."""
        if told := preflight.check_root(os.geteuid()) or preflight.check_folder(self.home.root):
            raise PreflightError(told)
        stored = settings.load(self.home.settings)
        chosen = _choose(stored, node_name, ports)
        running = [part for part in PARTS if self.daemons[part].pid() is not None]
        cni_bin_dir = self._check(chosen, running)
        with self._locked():
            self._settings = self._prepare(chosen, is_new=stored is None, cni_bin_dir=cni_bin_dir)
            steps = Steps(self.home, self.parts, self.kubectl, self._settings)
            try:
                for step in steps.all():
                    step(progress)
            except BaseException:
                self._settings = steps.settings
                self._undo(running)
                raise
        return self.status()

    def _check(self, chosen: Settings, running: Sequence[str]) -> str:
        """Whether this machine can; the folder of the CNI plugins.  Raises PreflightError."""
        ours = [use for part in running for use in _USES.get(part, ())]
        cni_bin_dir = preflight.find_cni_plugins()
        told = (
            preflight.check_programs()
            or preflight.check_cni_plugins(cni_bin_dir)
            or preflight.check_ports(chosen.ports, ours)
        )
        if not told and "containerd" not in running:
            told = (
                preflight.check_cgroups(
                    Path("/proc/filesystems").read_text(), Path("/proc/mounts").read_text()
                )
                or preflight.check_networking()
            )
        if told or cni_bin_dir is None:
            raise PreflightError(told or "")
        return cni_bin_dir

    def _prepare(self, chosen: Settings, *, is_new: bool, cni_bin_dir: str) -> Settings:
        """Make the folders and remember how the machine looks before it is changed."""
        home = self.home
        home.root.mkdir(parents=True, exist_ok=True)
        for folder in (
            home.cloud,
            home.edge,
            home.containerd,
            home.mosquitto,
            home.mappers,
            home.drivers,
            home.logs,
            home.run,
        ):
            folder.mkdir(mode=0o700, exist_ok=True)
        if is_new:
            subnet = choose_pod_subnet(home, machine.routed_networks())
            snapshotter = preflight.choose_snapshotter(home.root)
            chosen = replace(chosen, pod_subnet=str(subnet), snapshotter=snapshotter)
        if chosen.before is None or chosen.before.boot_id != machine.boot_id():
            chosen = replace(chosen, before=runtime.look())
        settings.save(home.settings, chosen)
        runtime.write_files(home, chosen.subnet, cni_bin_dir=cni_bin_dir, snapshotter=chosen.snapshotter)
        own = broker(home, chosen)
        own.write()
        own.password(LOCAL_ACCOUNT)
        (home.cloud / "cloudcore.yaml").write_text(config.render_cloudcore(home, chosen))
        (home.edge / "edgecore.yaml").write_text(config.render_edgecore(home, chosen, own.password(EDGECORE)))
        return chosen

    # -- down --------------------------------------------------------------------------------------------------

    def down(self, progress: Progress, *, purge: bool = False) -> list[str]:
        """Stop everything and put the machine back; what could not be, as sentences.

        The folder stays, so that the next `up` goes on from it, unless `purge`."""
        if told := preflight.check_root(os.geteuid()):
            raise PreflightError(told)
        if not self.home.root.is_dir():
            return []
        problems: list[str] = []
        with self._locked():
            try:
                stored = settings.load(self.home.settings)
            except TrialError as error:
                stored = None
                if not purge:
                    problems.append(str(error))
            self._settings = stored or Settings()
            for part in ("mapper", "supervisor", "edgecore"):
                self._stop(part, progress)
            problems += self._empty_containerd(progress)
            self._stop("containerd", progress)
            with progress.step("network, mounts"):
                problems += runtime.clean_up(self.home, self._settings.before)
                problems += machine.drop_address(config.local_api(self._settings.ports))
            for part in ("mosquitto", "cloudcore"):
                self._stop(part, progress)
            if purge and not problems:
                with progress.step("state folder") as step:
                    shutil.rmtree(self.home.root)
                    step.result = "removed"
            elif stored is not None and not problems:
                try:
                    settings.save(self.home.settings, replace(self._settings, before=None))
                except TrialError as error:  # a full disk
                    problems.append(str(error))
        return problems

    def _stop(self, part: str, progress: Progress) -> None:
        if self.daemons[part].pid() is None:
            self.daemons[part].stop()
            return
        with progress.step(part) as step:
            self.daemons[part].stop()
            step.result = "stopped"

    def _empty_containerd(self, progress: Progress) -> list[str]:
        """Remove the pods in order, for which containerd must run; what could not be removed."""
        if not runtime.has_leftovers(self.home):
            return []
        with progress.step("pods") as step:
            try:
                if self.daemons["containerd"].pid() is None:
                    self.parts.start(
                        "containerd", step, lambda: runtime.answers(self.home), "its socket answers"
                    )
                step.result = f"{runtime.remove_pods(self.home)} removed"
            except TrialError as error:
                step.result = "not removed in order"
                return [f"{error}; their processes were killed"]
        return []

    def _undo(self, running_before: Sequence[str]) -> None:
        """After a failed up: stop what it started."""
        started = [part for part in reversed(PARTS) if part not in running_before]
        for part in started:
            if part == "containerd" and self.daemons[part].pid() is not None:
                with suppress(TrialError):  # clean_up kills what is left
                    runtime.remove_pods(self.home)
            self.daemons[part].stop(timeout_s=10.0)
        if "containerd" in started:
            runtime.clean_up(self.home, self._settings.before)
            with suppress(TrialError):  # on a full disk; `down` looks again
                settings.save(self.home.settings, replace(self._settings, before=None))

    # -- one part ----------------------------------------------------------------------------------------------

    def start_part(self, part: str) -> bool:
        """Start one part again, without waiting for what it needs; whether it had been stopped.

        Raises TrialError when there is no trial."""
        self._must_exist()
        with self._locked():
            if self.daemons[part].pid() is not None:
                return False
            self.daemons[part].start(self.parts.command(part))
            return True

    def await_part(self, part: str, progress: Progress) -> None:
        """Wait until a part that was started answers on this machine.  Raises PartFailed."""
        home, ports = self.home, (settings.load(self.home.settings) or Settings()).ports
        answers: dict[str, tuple[Callable[[], bool], str]] = {
            "containerd": (lambda: runtime.answers(home), "its socket answers"),
            "mosquitto": (lambda: machine.port_answers(ports.mqtt), f"port {ports.mqtt} answers"),
            # the way to the hub may be cut on purpose, as where a fault is tried
            "cloudcore": (lambda: self.kubectl.is_ready() is None, "the API is ready"),
            "edgecore": (lambda: machine.socket_answers(home.edge / "edgecore.sock"), "its socket answers"),
        }
        if part in answers:
            self.parts.wait(part, answers[part][0], progress, answers[part][1], START_TIMEOUT_S, lambda: "")

    def stop_part(self, part: str, *, kill: bool = False) -> bool:
        """Stop one part, as a fault would; whether it ran.  Pods run on whatever is stopped."""
        self._must_exist()
        with self._locked():
            return self.daemons[part].stop(kill=kill)

    def broker(self) -> Broker:
        """The broker's folder."""
        return broker(self.home)

    def reload_broker(self, *, restart: bool = False) -> None:
        """Have mosquitto read its accounts again, or everything.  Raises TrialError."""
        with self._locked():
            daemon = self.daemons["mosquitto"]
            pid = daemon.pid()
            if pid is None:
                return
            if restart:
                daemon.stop()
                daemon.start(self.parts.command("mosquitto"))
                self.await_part("mosquitto", Progress(io.StringIO()))
            else:
                os.kill(pid, signal.SIGHUP)

    def backup(self, file: Path) -> str:
        """Save the control plane to `file`, also while it runs; what there is to say.  Raises TrialError."""
        self._must_exist()
        return machine.run(
            [machine.own("cloudcore"), "backup", *self._cloud_config(), file.absolute()]
        ).strip()

    def restore(self, file: Path) -> str:
        """Put the control plane back to what `file` holds; it is stopped for it, and started if it ran.

        Pods run on meanwhile.  What there is to say.  Raises TrialError."""
        self._must_exist()
        with self._locked():
            ran = self.daemons["cloudcore"].stop()
            try:
                return machine.run(
                    [machine.own("cloudcore"), "restore", *self._cloud_config(), file.absolute()]
                ).strip()
            finally:
                if ran:
                    self.daemons["cloudcore"].start(self.parts.command("cloudcore"))

    def export(self, folder: Path | None) -> str:
        """What people made, as manifests in `folder`, or as text.  Raises TrialError."""
        self._must_exist()
        where: list[str | Path] = ["-o", folder.absolute()] if folder is not None else []
        return machine.run([machine.own("cloudcore"), "export", *self._cloud_config(), *where])

    def _cloud_config(self) -> list[str | Path]:
        return ["--config", self.home.cloud / "cloudcore.yaml"]

    def _must_exist(self) -> None:
        if told := preflight.check_root(os.geteuid()):
            raise PreflightError(told)
        if settings.load(self.home.settings) is None:
            raise TrialError(f"there is nothing in {self.home.root}: run `skerry up` first")

    def status(self) -> Status:
        """What there is now.  Changes nothing and needs no lock.  Raises TrialError for who may not look."""
        return look(self.home, self.parts, self.kubectl)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One `up` or `down` at a time.  Raises TrialError when another is at work."""
        self.home.root.mkdir(parents=True, exist_ok=True)
        with self.home.lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise TrialError(
                    f"another `skerry up` or `skerry down` works in {self.home.root}: wait until it is done"
                ) from error
            yield


def _choose(stored: Settings | None, node_name: str | None, ports: Ports | None) -> Settings:
    """What was chosen before wins; asking for something else then is an error.  Raises TrialError."""
    base = stored or Settings(node_name=node_name or DEFAULT_NODE_NAME, ports=ports or Ports())
    for name, asked, kept in (
        ("node name", node_name, base.node_name),
        ("ports", ports, base.ports),
    ):
        if asked is not None and asked != kept:
            raise TrialError(f"this trial was started with other {name}: `skerry down --purge` first")
    return base
