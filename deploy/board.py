"""Make a real board a node, and no node again.

edgecore does the joining and the leaving; here are the look before, the configuration file and the systemd unit.  Where
systemd does not run, what to run instead is said."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from deploy import machine, mosquitto, preflight
from deploy.broker import Broker
from deploy.containerd import render_network
from deploy.errors import PreflightError, TrialError
from deploy.home import DEFAULT_HOME, Home, choose_pod_subnet

DEFAULT_CONFIG = Path("/etc/kubeedge/config/edgecore.yaml")
UNIT = "edgecore.service"
BROKER_UNIT = "skerry-broker.service"
"""The node's own MQTT broker."""
_THEIR_BROKER_UNIT = "mosquitto.service"
"""The distribution's."""
BROKER = Path("/etc/skerry/mqtt")
_BROKER_PORT = 1883
DRIVERS_UNIT = "skerry-supervisor.service"
"""Runs the drivers that the devices need."""
UNITS = Path("/etc/systemd/system")
NETWORKS = Path("/etc/cni/net.d")
"""Where container runtimes look for the pods' network."""
NETWORK = NETWORKS / "10-skerry.conflist"
_UNIT_SOURCE = Path(__file__).parent / "systemd" / UNIT
_RUNTIME = "unix:///run/containerd/containerd.sock"
_BROKER = "tcp://127.0.0.1:1883"
_HEADER = "# Written by `skerry join`; yours to change.  `edgecore config --defaults` prints all keys.\n"
_INSTALLED = "# Installed by `skerry join`.\n"


def token(home: Home, *words: str) -> str:
    """What `cloudcore token` says."""
    verb, *others = words
    return cloudcore(home, "token", verb, *others)


def cloudcore(home: Home, group: str, verb: str, *words: str) -> str:
    """What a command of `cloudcore` says: of this machine's trial, else of the cloud that its own configuration names."""
    config = home.cloud / "cloudcore.yaml"
    told: list[str | Path] = ["--config", config] if config.is_file() else []
    return machine.run([machine.own("cloudcore"), group, verb, *told, *words]).strip()


def join(config: Path, *, cloud: str, token: str, node_name: str, force: bool) -> Iterator[str]:
    """What was done, as it is done.  Nothing is written before the look says that it can work.  Raises TrialError."""
    settings = _read(config)
    if told := (preflight.check_root(os.geteuid()) or check(settings, cloud)):
        raise PreflightError(told)
    yield from (f"note: {text}" for text in notes(settings))
    own_broker = not config.exists() and needs_broker()
    made: list[Path] = []
    if not config.exists():
        password = broker().password(mosquitto.EDGECORE) if own_broker else ""
        _write(config, render(node_name, password), 0o600)
        made.append(config)
    if _runs_pods(settings) and not has_network() and preflight.find_cni_plugins() is not None:
        subnet = choose_pod_subnet(Home(DEFAULT_HOME), machine.routed_networks())
        _write(NETWORK, render_network(Home(DEFAULT_HOME), subnet), 0o644)
        made.append(NETWORK)
    words: list[str | Path] = ["join", "--config", config, "--cloud", cloud, "--token", "-"]
    words += ["--node-name", node_name] if node_name else []
    words += ["--force"] if force else []
    command = [machine.own("edgecore"), *words]
    try:
        told = machine.run(command, stdin=token.encode() + b"\n", timeout_s=60.0).strip()
    except TrialError:
        # the next attempt may be for another name
        for file in made:
            file.unlink(missing_ok=True)
        raise
    for file in made:
        yield f"wrote {file}" + (f": pods get addresses of {subnet}" if file == NETWORK else "")
    yield told
    if own_broker:
        text = _UNIT_SOURCE.with_name(BROKER_UNIT).read_text()
        _write(UNITS / BROKER_UNIT, unit(text, broker().command()), 0o644)
        machine.run(["systemctl", "daemon-reload"])
        machine.run(["systemctl", "enable", "--quiet", "--now", BROKER_UNIT])
        yield f"{BROKER_UNIT} is enabled and runs; devices and applications get accounts:  skerry mqtt add NAME --device NAME"
    if not systemd_runs():
        yield f"systemd does not run here; this runs the node:  {machine.own('edgecore')} run --config {config}"
        drivers = " ".join(str(word) for word in drivers_command(_read(config)))
        yield f"and this the drivers that its devices need:  {drivers}"
        return
    _write(
        UNITS / UNIT,
        unit(_UNIT_SOURCE.read_text(), [machine.own("edgecore"), "run", "--config", config]),
        0o644,
    )
    source = _UNIT_SOURCE.with_name(DRIVERS_UNIT).read_text()
    _write(UNITS / DRIVERS_UNIT, unit(source, drivers_command(_read(config))), 0o644)
    machine.run(["systemctl", "daemon-reload"])
    for name in (UNIT, DRIVERS_UNIT):
        machine.run(["systemctl", "enable", "--quiet", name])
        machine.run(["systemctl", "restart", name], timeout_s=960.0)  # until it says that it is ready
    yield f"{UNIT} is enabled and runs:  systemctl status edgecore"
    yield f"{DRIVERS_UNIT} starts the drivers that devices need; your own go into /etc/skerry/drivers"


def leave(config: Path, *, yes: bool) -> Iterator[str]:
    """What was undone.  Raises TrialError."""
    if told := preflight.check_root(os.geteuid()):
        raise PreflightError(told)
    if not config.exists():
        raise TrialError(f"there is no {config}: this board is no node, or name its --config")
    if not yes:
        raise TrialError(
            "this ends all pods of this board and removes its identity: say --yes if you mean it"
        )
    ours = [
        file
        for name in (DRIVERS_UNIT, UNIT, BROKER_UNIT)
        if (file := UNITS / name).is_file() and file.read_text().startswith(_INSTALLED)
    ]
    if systemd_runs():
        for file in ours:
            machine.run(["systemctl", "disable", "--quiet", "--now", file.name], timeout_s=90.0)
    yield machine.run(
        [machine.own("edgecore"), "reset", "--config", config, "--yes"], timeout_s=180.0
    ).strip()
    if any(file.name == BROKER_UNIT for file in ours):
        shutil.rmtree(BROKER, ignore_errors=True)
        yield f"removed {BROKER}"
    for file in ours:
        file.unlink()
        yield f"removed {file}"
    if ours and systemd_runs():
        machine.run(["systemctl", "daemon-reload"])
    if config.read_text().startswith(_HEADER):
        config.unlink()
        yield f"removed {config}"
    if NETWORK.exists():
        NETWORK.unlink()
        bridge = Home(DEFAULT_HOME).bridge
        if machine.interface_exists(bridge):
            machine.run(["ip", "link", "delete", bridge])
        yield f"removed {NETWORK}"


def broker() -> Broker:
    """The broker of this board."""
    return Broker(BROKER, _BROKER_PORT, user="mosquitto")


def needs_broker() -> bool:
    """Whether to run one here: mosquitto is installed, and nothing listens where it would, nor will after the next boot."""
    if machine.find("mosquitto") is None or not systemd_runs() or machine.port_answers(_BROKER_PORT):
        return False
    state = machine.run(["systemctl", "is-enabled", _THEIR_BROKER_UNIT], check=False).strip()
    return not state.startswith("enabled")


def systemd_runs() -> bool:
    """As sd_booted(3) finds it out."""
    return Path("/run/systemd/system").is_dir()


def check(settings: Mapping[str, Any], cloud: str) -> str | None:
    """What makes it impossible to be a node here, in one sentence."""
    if re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:,\s]+):[0-9]{1,5}(,.+)?", cloud) is None:
        return f"{cloud!r} is not an address of a hub: write it as HOST:PORT, the port is 10000 as a rule"
    if "dataDir" not in settings and (DEFAULT_HOME / "trial.json").exists():
        return f"there is a trial in {DEFAULT_HOME}: take it down with `skerry down --purge` first"
    if _runs_pods(settings):
        edged = _at(settings, "modules", "edged")
        endpoint = _at(edged, "tailoredKubeletConfig").get("containerRuntimeEndpoint") or _RUNTIME
        if told := _no_answer(str(endpoint).removeprefix("unix://")):
            return (
                f"no container runtime answers at {endpoint} ({told}): start it (`systemctl start containerd`), "
                "or install it (`make install`)"
            )
        mounts, kinds = Path("/proc/mounts").read_text(), Path("/proc/filesystems").read_text()
        return preflight.check_cgroups(kinds, mounts)
    return None


def notes(settings: Mapping[str, Any]) -> Iterator[str]:
    """What keeps only some things from working."""
    if _runs_pods(settings) and not has_network() and preflight.find_cni_plugins() is None:
        yield (
            f"there is no network for pods in {NETWORKS}, and the node is not Ready without one: "
            "`apt-get install containernetworking-plugins` and join with --force"
        )
    bus = _at(settings, "modules", "eventBus")
    broker = str(bus.get("mqttServerExternal") or _BROKER)
    host, port = _host_and_port(broker)
    if not settings and needs_broker():
        return
    if bus.get("enable", True) and not machine.port_answers(port, host=host):
        yield f"no MQTT broker answers at {broker}: devices that use it wait for one{_how_to_get_one(host)}"


def _host_and_port(broker: str) -> tuple[str, int]:
    """Of a broker's URL; of one that is none, nobody's.  Pure."""
    try:
        found = urlsplit(broker if "//" in broker else f"//{broker}")
        return found.hostname or "", found.port or _BROKER_PORT
    except ValueError:
        return "", _BROKER_PORT


def _how_to_get_one(host: str) -> str:
    """An MQTT broker, on this machine."""
    if host not in ("127.0.0.1", "::1", "localhost"):
        return ""
    if machine.find("mosquitto") is None:
        return "; `apt-get install mosquitto`, and join with --force"
    return "; mosquitto is installed: start it" if not systemd_runs() else "; `systemctl start mosquitto`"


def has_network(folder: Path = NETWORKS) -> bool:
    """Whether the container runtime finds a network for pods."""
    return folder.is_dir() and any(
        file.suffix in (".conf", ".conflist", ".json") for file in folder.iterdir()
    )


def _runs_pods(settings: Mapping[str, Any]) -> bool:
    return bool(_at(settings, "modules", "edged").get("enable", True))


def render(node_name: str, mqtt_password: str = "") -> str:
    """The configuration of a board: defaults, since the hub's address is kept with the identity.  Pure.

    A board is one node: plugins find it, and the folders of its pods, where they look for a kubelet and its; log collectors
    find the logs.
    """
    edged: dict[str, Any] = {"hostnameOverride": node_name} if node_name else {}
    edged["rootDirectory"] = "/var/lib/kubelet"
    edged["tailoredKubeletConfig"] = {"podLogsDir": "/var/log/pods"}
    modules: dict[str, Any] = {"edged": edged}
    if mqtt_password:
        modules["eventBus"] = {"mqttUsername": mosquitto.EDGECORE, "mqttPassword": mqtt_password}
    document: dict[str, Any] = {
        "apiVersion": "edgecore.config.kubeedge.io/v1alpha2",
        "kind": "EdgeCore",
        "modules": modules,
    }
    return _HEADER + yaml.safe_dump(document, sort_keys=False)


def drivers_command(settings: Mapping[str, Any]) -> list[str | Path]:
    """What runs the drivers of a node with this configuration."""
    command: list[str | Path] = [machine.own("mapper"), "supervise"]
    data = settings.get("dataDir")
    dmi = _at(settings, "modules", "deviceTwin").get("dmiSockPath") or data
    if data:
        command += ["--edgecore", Path(str(data)) / "edgecore.sock"]
    return [*command, "--dmi-dir", str(dmi)] if dmi else command


def unit(source: str, words: Sequence[str | Path]) -> str:
    """The unit with this installation's command.  Pure."""
    command = f"ExecStart={' '.join(_word(str(word)) for word in words)}"
    lines = [command if line.startswith("ExecStart=") else line for line in source.splitlines()]
    return _INSTALLED + "\n".join(lines) + "\n"


def _word(text: str) -> str:
    """One word of a unit's command line: systemd expands % and $, and splits at spaces.  Pure."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{quoted}"' if quoted != text or re.search(r"[\s';]", text) else text


def _read(config: Path) -> Mapping[str, Any]:
    """Raises TrialError when there is a file that is no mapping."""
    try:
        found = yaml.safe_load(config.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, yaml.YAMLError) as error:
        raise TrialError(f"cannot read {config}: {str(error).splitlines()[0]}") from error
    if not isinstance(found, dict):
        raise TrialError(f"cannot read {config}: it is not a mapping")
    return found


def _at(settings: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """A section; empty when it is not there.  edgecore itself says what is wrong with one that is no mapping."""
    for name in path:
        found = settings.get(name)
        settings = found if isinstance(found, dict) else {}
    return settings


def _no_answer(path: str) -> str | None:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(3.0)
        try:
            probe.connect(path)
        except OSError as error:
            return error.strerror or str(error)
    return None


def _write(path: Path, text: str, mode: int) -> None:
    """Raises TrialError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.new")
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
            file.write(text)
        unfinished.replace(path)
    except OSError as error:
        raise TrialError(f"cannot write {path}: {error.strerror}") from error
