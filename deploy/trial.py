"""Bring a whole Skerry up on one machine, look at it, and take it down again.

A trial is six processes (containerd, mosquitto, cloudcore, edgecore, a supervisor of drivers, a mapper) and one folder.  `up`
is a list of steps, each of which looks first and does only what is missing, so that running it again repairs and otherwise
changes nothing.  `down` undoes everything outside of the folder.  Both hold the trial's lock."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import yaml

from deploy import config, machine, preflight, runtime, settings, view
from deploy.broker import Broker
from deploy.errors import PartFailed, PreflightError, TrialError
from deploy.home import DEFAULT_NODE_NAME, Home, Ports, choose_pod_subnet
from deploy.kubectl import Kubectl
from deploy.mosquitto import EDGECORE
from deploy.processes import Daemon
from deploy.progress import Progress
from deploy.settings import Settings

T = TypeVar("T")

PARTS = ("containerd", "mosquitto", "cloudcore", "edgecore", "supervisor", "mapper")
_USES = {
    "cloudcore": ("the API", "the hub", "joining of stock edges", "the tunnels of stock edges"),
    "mosquitto": ("mosquitto",),
}

LOCAL_ACCOUNT = "local"
"""For applications on this machine; its password is in local.password beside the broker's configuration."""

_PACKAGE = Path(__file__).resolve().parent
_CRDS = _PACKAGE / "crds"
_SAMPLES = _PACKAGE / "samples"
_DRIVER = _PACKAGE.parent / "mappers" / "virtual" / "thermostat.py"

# How long a part may take until it is called failed.  Far more than it takes: a small board is slow, too.
_START_TIMEOUT_S = 60.0
_POD_TIMEOUT_S = 90.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class PartStatus:
    name: str
    running: bool
    pid: int | None
    uptime_s: float | None
    log: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Everything that `skerry status` shows.  The lists are empty while the API does not answer."""

    home: str
    kubeconfig: str
    up: bool
    problem: str
    ports: Ports
    parts: list[PartStatus]
    nodes: list[view.Node]
    pods: list[view.Pod]
    devices: list[view.Device]


class Trial:
    """One trial, known by its folder."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.daemons = {
            part: Daemon(part, pid_file=home.run / f"{part}.pid", log=home.log(part)) for part in PARTS
        }
        self.kubectl = Kubectl(home.kubeconfig, home.root / "kubectl-cache")
        self._settings = Settings()
        self._mapper_began = 0

    # -- up ----------------------------------------------------------------------------------------------------

    def up(self, progress: Progress, *, node_name: str | None = None, ports: Ports | None = None) -> Status:
        """Start what does not run and wait until all of it works; what then is there.

        node_name, ports: None for what was chosen before, or the default.
        Raises TrialError, after stopping what this call started; PreflightError before anything was touched."""
        if told := preflight.check_root(os.geteuid()) or preflight.check_folder(self.home.root):
            raise PreflightError(told)
        stored = self._load()
        chosen = _choose(stored, node_name, ports)
        running = [part for part in PARTS if self.daemons[part].pid() is not None]
        cni_bin_dir = self._check(chosen, running)
        with self._locked():
            self._settings = self._prepare(chosen, is_new=stored is None, cni_bin_dir=cni_bin_dir)
            try:
                for step in self._steps():
                    step(progress)
            except BaseException:
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
        self._save(chosen)
        runtime.write_files(home, chosen.subnet, cni_bin_dir=cni_bin_dir, snapshotter=chosen.snapshotter)
        broker = self.broker(chosen)
        broker.write()
        broker.password(LOCAL_ACCOUNT)
        (home.cloud / "cloudcore.yaml").write_text(config.render_cloudcore(home, chosen))
        (home.edge / "edgecore.yaml").write_text(
            config.render_edgecore(home, chosen, broker.password(EDGECORE))
        )
        return chosen

    def _steps(self) -> list[Callable[[Progress], None]]:
        return [
            self._up_containerd,
            self._up_images,
            self._up_mosquitto,
            self._up_cloudcore,
            self._up_definitions,
            self._up_join,
            self._up_edgecore,
            self._up_supervisor,
            self._up_mapper,
            self._up_samples,
            self._up_pods,
            self._up_devices,
        ]

    def _up_containerd(self, progress: Progress) -> None:
        with progress.step("containerd") as step:
            self._start("containerd", step, lambda: runtime.answers(self.home), "its socket answers")

    def _up_images(self, progress: Progress) -> None:
        with progress.step("images") as step:
            try:
                count = runtime.import_images(self.home, snapshotter=self._settings.snapshotter)
            except TrialError as error:
                raise PartFailed("containerd", str(error), log=self.home.log("containerd")) from error
            step.result = f"{count} imported" if count else "there"

    def _up_mosquitto(self, progress: Progress) -> None:
        port = self._settings.ports.mqtt
        with progress.step("mosquitto") as step:
            self._start("mosquitto", step, lambda: machine.port_answers(port), f"port {port} answers")

    def _up_cloudcore(self, progress: Progress) -> None:
        hub = self._settings.ports.hub
        admin = self.home.cloud / "admin.kubeconfig"

        def ready() -> bool:
            if not admin.is_file():
                return False
            _copy_private(admin, self.home.kubeconfig)
            return self.kubectl.is_ready() is None and machine.port_answers(hub)

        with progress.step("cloudcore") as step:
            self._start("cloudcore", step, ready, "the API is ready and the hub answers")

    def _up_definitions(self, progress: Progress) -> None:
        files = sorted(_CRDS.glob("*.yaml"))
        wanted = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        with progress.step("device definitions") as step:
            if self._settings.crds == wanted:
                step.result = "there"
                return
            self._as_part("cloudcore", lambda: self.kubectl.apply(files))
            self._as_part(
                "cloudcore",
                lambda: self.kubectl.run(
                    *("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"), timeout_s=40.0
                ),
            )
            self._save(replace(self._settings, crds=wanted))
            step.result = f"{len(files)} applied"

    def _up_join(self, progress: Progress) -> None:
        """Give the edge its identity, once, with a token that is used up by it."""
        with progress.step("join") as step:
            if self._settings.joined:
                step.result = "joined before"
                return
            name = self._settings.node_name
            cloud = ["--config", str(self.home.cloud / "cloudcore.yaml")]
            # Named for this node, it also works when an earlier attempt got half-way.
            create = [
                machine.own("cloudcore"),
                "token",
                "create",
                *cloud,
                "--ttl",
                "10m",
                "--uses",
                "1",
                "--node",
                name,
            ]
            token = self._as_part("cloudcore", lambda: machine.run(create))
            edge = ["--config", str(self.home.edge / "edgecore.yaml"), "--node-name", name, "--force"]
            hub = f"127.0.0.1:{self._settings.ports.hub}"
            join = [machine.own("edgecore"), "join", *edge, "--cloud", hub, "--token", "-"]
            self._as_part("edgecore", lambda: machine.run(join, stdin=token.encode()))
            self._save(replace(self._settings, joined=True))
            step.result = f"as {self._settings.node_name}"

    def _up_edgecore(self, progress: Progress) -> None:
        name = self._settings.node_name
        began = 0.0 if self.daemons["edgecore"].pid() is not None else time.time()

        def ready() -> bool:
            # What the API says of the node may be of before a restart; its lease is renewed only by a living edge.
            lease = self.kubectl.items("leases", "--namespace=kube-node-lease")
            fresh = any(item["metadata"]["name"] == name and view.renewed(item) >= began for item in lease)
            return fresh and any(node.name == name and node.ready for node in self._nodes())

        with progress.step("edgecore") as step:
            self._start("edgecore", step, ready, f"node {name} is Ready")
            step.result = f"node {name} Ready"

    def _up_supervisor(self, progress: Progress) -> None:
        with progress.step("supervisor of drivers") as step:
            self._start("supervisor", step, lambda: self.daemons["supervisor"].pid() is not None, "it runs")

    def _up_mapper(self, progress: Progress) -> None:
        with progress.step("thermostat mapper") as step:
            # lastOnlineTime has whole seconds.
            self._mapper_began = 0 if self.daemons["mapper"].pid() is not None else int(time.time())
            self._start("mapper", step, lambda: self.daemons["mapper"].pid() is not None, "it runs")

    def _up_samples(self, progress: Progress) -> None:
        with progress.step("samples") as step:
            if self._settings.samples_applied:
                step.result = "applied before"
                return
            for file in sorted(_SAMPLES.glob("*.yaml"), key=_models_first):
                text = place_on_node(file.read_text(), self._settings.node_name)
                self._as_part("cloudcore", partial(self.kubectl.apply_text, text))
            self._save(replace(self._settings, samples_applied=True))
            step.result = "applied"

    def _up_pods(self, progress: Progress) -> None:
        """Wait for the sample's pods, if the user has left them there."""
        with progress.step("pods") as step:
            wanted = sum(
                item["spec"].get("replicas", 1)
                for item in self._as_part("cloudcore", lambda: self.kubectl.items("deployments"))
                if item["metadata"]["name"] == "hello"
            )

            def ready() -> bool:
                running = [
                    pod
                    for pod in self._sample_pods()
                    if pod.ready and machine.port_answers(8080, host=pod.ip)
                ]
                return len(running) >= int(wanted)

            def why() -> str:
                reasons = [
                    f"{pod.name} is {pod.phase}: {pod.reason}" for pod in self._sample_pods() if not pod.ready
                ]
                return "; ".join(reasons) or "there is no pod"

            self._wait("edgecore", ready, step, "the sample's pod runs", _POD_TIMEOUT_S, why)
            step.result = f"{wanted} running" if wanted else "none wanted"

    def _up_devices(self, progress: Progress) -> None:
        """Wait for the sample device's first reading, if the user has left it there."""
        with progress.step("device") as step:
            devices = self._as_part("cloudcore", lambda: self.kubectl.items("devices"))
            wanted = any(item["metadata"]["name"] == "thermostat" for item in devices)
            if not wanted:
                step.result = "none wanted"
                return

            def reading() -> str:
                """What the API remembers may be of before a restart: seen online since, it counts."""
                for device in self._devices():
                    if device.name == "thermostat" and device.last_online >= self._mapper_began:
                        return device.readings.get("temperature", "")
                return ""

            def why() -> str:
                return f"device thermostat has no reading; {self.home.log('edgecore')} may tell, too"

            self._wait("mapper", lambda: bool(reading()), step, "thermostat reports", _POD_TIMEOUT_S, why)
            step.result = f"thermostat reads {reading()}"

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
                stored = self._load()
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
                    self._save(replace(self._settings, before=None))
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
                    self._start("containerd", step, lambda: runtime.answers(self.home), "its socket answers")
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
                self._save(replace(self._settings, before=None))

    # -- one part ----------------------------------------------------------------------------------------------

    def command(self, part: str) -> list[str]:
        """How a part is started."""
        home = self.home
        commands: dict[str, list[str | Path]] = {
            "containerd": [
                machine.find("containerd") or "containerd",
                "--config",
                home.containerd / "config.toml",
            ],
            "mosquitto": [*self.broker().command()],
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

    def start_part(self, part: str) -> bool:
        """Start one part again, without waiting for what it needs; whether it had been stopped.

        Raises TrialError when there is no trial."""
        self._must_exist()
        with self._locked():
            if self.daemons[part].pid() is not None:
                return False
            self.daemons[part].start(self.command(part))
            return True

    def await_part(self, part: str, progress: Progress) -> None:
        """Wait until a part that was started answers on this machine.  Raises PartFailed."""
        home, ports = self.home, (self._load() or Settings()).ports
        answers: dict[str, tuple[Callable[[], bool], str]] = {
            "containerd": (lambda: runtime.answers(home), "its socket answers"),
            "mosquitto": (lambda: machine.port_answers(ports.mqtt), f"port {ports.mqtt} answers"),
            # the way to the hub may be cut on purpose, as where a fault is tried
            "cloudcore": (lambda: self.kubectl.is_ready() is None, "the API is ready"),
            "edgecore": (lambda: machine.socket_answers(home.edge / "edgecore.sock"), "its socket answers"),
        }
        if part in answers:
            self._wait(part, answers[part][0], progress, answers[part][1], _START_TIMEOUT_S, lambda: "")

    def stop_part(self, part: str, *, kill: bool = False) -> bool:
        """Stop one part, as a fault would; whether it ran.  Pods run on whatever is stopped."""
        self._must_exist()
        with self._locked():
            return self.daemons[part].stop(kill=kill)

    def broker(self, chosen: Settings | None = None) -> Broker:
        """The broker's folder."""
        settings = chosen or self._load() or Settings()
        return Broker(self.home.mosquitto, settings.ports.mqtt)

    def reload_broker(self, *, restart: bool = False) -> None:
        """Have mosquitto read its accounts again, or everything.  Raises TrialError."""
        with self._locked():
            daemon = self.daemons["mosquitto"]
            pid = daemon.pid()
            if pid is None:
                return
            if restart:
                daemon.stop()
                daemon.start(self.command("mosquitto"))
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
                    self.daemons["cloudcore"].start(self.command("cloudcore"))

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
        if self._load() is None:
            raise TrialError(f"there is nothing in {self.home.root}: run `skerry up` first")

    # -- looking -----------------------------------------------------------------------------------------------

    def status(self) -> Status:
        """What there is now.  Changes nothing and needs no lock.  Raises TrialError for who may not look."""
        if self.home.run.is_dir() and not os.access(self.home.run, os.R_OK | os.X_OK):
            raise TrialError(f"{self.home.run} cannot be read: run it again as root or with sudo")
        stored = self._load() or Settings()
        parts = [
            PartStatus(
                name=part,
                running=(pid := daemon.pid()) is not None,
                pid=pid,
                uptime_s=daemon.uptime_s(),
                log=str(daemon.log),
            )
            for part, daemon in self.daemons.items()
        ]
        stopped = [part.name for part in parts if not part.running]
        problem = f"not running: {', '.join(stopped)}" if stopped else ""
        nodes: list[view.Node] = []
        pods: list[view.Pod] = []
        devices: list[view.Device] = []
        if self.daemons["cloudcore"].pid() is not None:
            try:
                nodes, pods, devices = self._nodes(), self._pods(), self._devices()
            except TrialError as error:
                problem = problem or f"the API does not answer: {error}"
        unready = [node.name for node in nodes if not node.ready]
        if unready and not problem:
            problem = f"not ready: {', '.join(unready)}"
        return Status(
            home=str(self.home.root),
            kubeconfig=str(self.home.kubeconfig),
            up=not problem and bool(nodes),
            problem=problem,
            ports=stored.ports,
            parts=parts,
            nodes=nodes,
            pods=pods,
            devices=devices,
        )

    def _nodes(self) -> list[view.Node]:
        return [view.node(item) for item in self.kubectl.items("nodes")]

    def _pods(self) -> list[view.Pod]:
        return [view.pod(item) for item in self.kubectl.items("pods")]

    def _sample_pods(self) -> list[view.Pod]:
        listed = self.kubectl.items("pods", "--namespace=default", "--selector=app=hello")
        return [view.pod(item) for item in listed if not item["metadata"].get("deletionTimestamp")]

    def _devices(self) -> list[view.Device]:
        return [view.device(item) for item in self.kubectl.items("devicestatuses")]

    # -- helpers of the steps ----------------------------------------------------------------------------------

    def _start(
        self,
        part: str,
        step: Progress,
        ready: Callable[[], bool],
        what: str,
    ) -> None:
        daemon = self.daemons[part]
        was_running = daemon.pid() is not None
        if not was_running:
            daemon.start(self.command(part))
        self._wait(part, ready, step, what, _START_TIMEOUT_S, lambda: "")
        step.result = step.result or ("running" if was_running else "started")

    def _wait(
        self,
        part: str,
        ready: Callable[[], bool],
        step: Progress,
        what: str,
        timeout_s: float,
        why: Callable[[], str],
    ) -> None:
        """Until `ready`, while the part lives.  An API that does not answer in between is waited for, too."""
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

    def _as_part(self, part: str, action: Callable[[], T]) -> T:
        """Do something whose failure is that part's."""
        try:
            return action()
        except TrialError as error:
            raise PartFailed(part, str(error), log=self.home.log(part)) from error

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

    def _load(self) -> Settings | None:
        try:
            return settings.parse(self.home.settings.read_bytes())
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise TrialError(
                f"{self.home.settings} cannot be read: run it again as root or with sudo"
            ) from error

    def _save(self, new: Settings) -> None:
        self._settings = new
        unfinished = self.home.settings.with_suffix(".new")
        try:
            with unfinished.open("wb") as file:
                file.write(settings.dump(new))
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self.home.settings)
        except OSError as error:
            raise TrialError(f"cannot write {self.home.settings}: {error.strerror}") from error


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


def place_on_node(manifest: str, node_name: str) -> str:
    """The manifest with its devices on the given node.  Pure."""
    documents = [document for document in yaml.safe_load_all(manifest) if document]
    for document in documents:
        if document.get("kind") == "Device":
            document["spec"]["nodeName"] = node_name
    return yaml.safe_dump_all(documents, sort_keys=False)


def _models_first(file: Path) -> tuple[bool, str]:
    return (not file.stem.endswith("-model"), file.name)


def _copy_private(source: Path, target: Path) -> None:
    content = source.read_bytes()
    if target.is_file() and target.read_bytes() == content:
        return
    unfinished = target.with_suffix(".new")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    unfinished.replace(target)
