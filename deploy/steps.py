"""The steps of `skerry up`, each of which looks first and does only what is missing."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml

from deploy import machine, runtime, settings, view
from deploy.errors import PartFailed, TrialError
from deploy.home import Home
from deploy.kubectl import Kubectl
from deploy.parts import Parts
from deploy.progress import Progress
from deploy.settings import Settings
from deploy.status import devices_of, nodes_of

_PACKAGE = Path(__file__).resolve().parent
_CRDS = _PACKAGE / "crds"
_SAMPLES = _PACKAGE / "samples"
_POD_TIMEOUT_S = 90.0


class Steps:
    """Of one `up`.   settings: what was chosen, and then also what has been done."""

    def __init__(self, home: Home, parts: Parts, kubectl: Kubectl, chosen: Settings) -> None:
        self._home = home
        self._parts = parts
        self._kubectl = kubectl
        self.settings = chosen
        self._mapper_began = 0

    def all(self) -> list[Callable[[Progress], None]]:
        """In their order."""
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
            self._parts.start("containerd", step, lambda: runtime.answers(self._home), "its socket answers")

    def _up_images(self, progress: Progress) -> None:
        with progress.step("images") as step:
            try:
                count = runtime.import_images(self._home, snapshotter=self.settings.snapshotter)
            except TrialError as error:
                raise PartFailed("containerd", str(error), log=self._home.log("containerd")) from error
            step.result = f"{count} imported" if count else "there"

    def _up_mosquitto(self, progress: Progress) -> None:
        port = self.settings.ports.mqtt
        with progress.step("mosquitto") as step:
            self._parts.start("mosquitto", step, lambda: machine.port_answers(port), f"port {port} answers")

    def _up_cloudcore(self, progress: Progress) -> None:
        hub = self.settings.ports.hub
        admin = self._home.cloud / "admin.kubeconfig"

        def ready() -> bool:
            if not admin.is_file():
                return False
            _copy_private(admin, self._home.kubeconfig)
            return self._kubectl.is_ready() is None and machine.port_answers(hub)

        with progress.step("cloudcore") as step:
            self._parts.start("cloudcore", step, ready, "the API is ready and the hub answers")

    def _up_definitions(self, progress: Progress) -> None:
        files = sorted(_CRDS.glob("*.yaml"))
        wanted = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        with progress.step("device definitions") as step:
            if self.settings.crds == wanted:
                step.result = "there"
                return
            self._parts.as_part("cloudcore", lambda: self._kubectl.apply(files))
            self._parts.as_part(
                "cloudcore",
                lambda: self._kubectl.run(
                    *("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"), timeout_s=40.0
                ),
            )
            self._save(replace(self.settings, crds=wanted))
            step.result = f"{len(files)} applied"

    def _up_join(self, progress: Progress) -> None:
        """Give the edge its identity, once, with a token that is used up by it."""
        with progress.step("join") as step:
            if self.settings.joined:
                step.result = "joined before"
                return
            name = self.settings.node_name
            cloud = ["--config", str(self._home.cloud / "cloudcore.yaml")]
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
            token = self._parts.as_part("cloudcore", lambda: machine.run(create))
            edge = ["--config", str(self._home.edge / "edgecore.yaml"), "--node-name", name, "--force"]
            hub = f"127.0.0.1:{self.settings.ports.hub}"
            join = [machine.own("edgecore"), "join", *edge, "--cloud", hub, "--token", "-"]
            self._parts.as_part("edgecore", lambda: machine.run(join, stdin=token.encode()))
            self._save(replace(self.settings, joined=True))
            step.result = f"as {self.settings.node_name}"

    def _up_edgecore(self, progress: Progress) -> None:
        name = self.settings.node_name
        began = 0.0 if self._parts.daemons["edgecore"].pid() is not None else time.time()

        def ready() -> bool:
            # What the API says of the node may be of before a restart; its lease is renewed only by a living edge.
            lease = self._kubectl.items("leases", "--namespace=kube-node-lease")
            fresh = any(item["metadata"]["name"] == name and view.renewed(item) >= began for item in lease)
            return fresh and any(node.name == name and node.ready for node in nodes_of(self._kubectl))

        with progress.step("edgecore") as step:
            self._parts.start("edgecore", step, ready, f"node {name} is Ready")
            step.result = f"node {name} Ready"

    def _up_supervisor(self, progress: Progress) -> None:
        with progress.step("supervisor of drivers") as step:
            self._parts.start(
                "supervisor", step, lambda: self._parts.daemons["supervisor"].pid() is not None, "it runs"
            )

    def _up_mapper(self, progress: Progress) -> None:
        with progress.step("thermostat mapper") as step:
            # lastOnlineTime has whole seconds.
            self._mapper_began = 0 if self._parts.daemons["mapper"].pid() is not None else int(time.time())
            self._parts.start(
                "mapper", step, lambda: self._parts.daemons["mapper"].pid() is not None, "it runs"
            )

    def _up_samples(self, progress: Progress) -> None:
        with progress.step("samples") as step:
            if self.settings.samples_applied:
                step.result = "applied before"
                return
            for file in sorted(_SAMPLES.glob("*.yaml"), key=_models_first):
                text = place_on_node(file.read_text(), self.settings.node_name)
                self._parts.as_part("cloudcore", partial(self._kubectl.apply_text, text))
            self._save(replace(self.settings, samples_applied=True))
            step.result = "applied"

    def _up_pods(self, progress: Progress) -> None:
        """Wait for the sample's pods, if the user has left them there."""
        with progress.step("pods") as step:
            wanted = sum(
                item["spec"].get("replicas", 1)
                for item in self._parts.as_part("cloudcore", lambda: self._kubectl.items("deployments"))
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

            self._parts.wait("edgecore", ready, step, "the sample's pod runs", _POD_TIMEOUT_S, why)
            step.result = f"{wanted} running" if wanted else "none wanted"

    def _up_devices(self, progress: Progress) -> None:
        """Wait for the sample device's first reading, if the user has left it there."""
        with progress.step("device") as step:
            devices = self._parts.as_part("cloudcore", lambda: self._kubectl.items("devices"))
            wanted = any(item["metadata"]["name"] == "thermostat" for item in devices)
            if not wanted:
                step.result = "none wanted"
                return

            def reading() -> str:
                """What the API remembers may be of before a restart: seen online since, it counts."""
                for device in devices_of(self._kubectl):
                    if device.name == "thermostat" and device.last_online >= self._mapper_began:
                        return device.readings.get("temperature", "")
                return ""

            def why() -> str:
                return f"device thermostat has no reading; {self._home.log('edgecore')} may tell, too"

            self._parts.wait(
                "mapper", lambda: bool(reading()), step, "thermostat reports", _POD_TIMEOUT_S, why
            )
            step.result = f"thermostat reads {reading()}"

    def _sample_pods(self) -> list[view.Pod]:
        listed = self._kubectl.items("pods", "--namespace=default", "--selector=app=hello")
        return [view.pod(item) for item in listed if not item["metadata"].get("deletionTimestamp")]

    def _save(self, new: Settings) -> None:
        self.settings = new
        settings.save(self._home.settings, new)


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
