"""cloudcore's configuration file: KubeEdge's shape, every fault reported at once, nothing unknown let through.

KubeEdge's keys that mean nothing here (buffer and worker counts, QUIC) are accepted, so that its files work; a key that is
neither KubeEdge's nor ours is an error that names it.  `SCHEMA` is the one table of keys: defaults, checks and
`cloudcore config --defaults` come from it.  Pure but for `load`."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from beehive.errors import ConfigError
from cloudcore import reschedule

API_VERSIONS = ("cloudcore.config.kubeedge.io/v1alpha1", "cloudcore.config.kubeedge.io/v1alpha2")
KIND = "CloudCore"
DEFAULT_PATH = Path("/etc/kubeedge/config/cloudcore.yaml")
MAX_FILE_BYTES = 1024 * 1024

Check = Callable[[Any], str | None]


def _integer(low: int, high: int) -> Check:
    def check(value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            return f"must be a whole number from {low} to {high}"
        return None

    return check


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) else "must be text"


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _texts(value: Any) -> str | None:
    if value is None or (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        return None
    return "must be a list of texts"


def _addresses(value: Any) -> str | None:
    wrong = _texts(value)
    if wrong:
        return wrong
    for item in value or ():
        try:
            ipaddress.ip_address(item)
        except ValueError:
            return f"holds {item!r}, which is no IP address; names go to dnsNames"
    return None


def _address(value: Any) -> str | None:
    if value == "":
        return None
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return "must be an IP address, or empty for all"
    return None


def _wait(value: Any) -> str | None:
    try:
        reschedule.read(value if isinstance(value, str) else "")
    except ValueError:
        return "must be never, or a time such as 300s, 10m or 12h"
    return None


_PORT = _integer(0, 65535)


def _endpoint(value: Any) -> str | None:
    if value == "":
        return None
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if _address(host.strip("[]")) is None and port.isdecimal() and int(port) < 65536:
        return None
    return "must be <IP address>:<port>, or empty for nowhere"


@dataclass(frozen=True, slots=True)
class Key:
    """One key: what it is when absent, what may stand there, what it is for."""

    default: Any
    check: Check
    help: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """A key of KubeEdge's that has no meaning here; whatever stands below it is accepted."""


IGNORED = Ignored()
Schema = Mapping[str, Any]

SCHEMA: Schema = {
    "dataDir": Key("/var/lib/skerry/cloud", _text, "folder for what is kept on this machine (standalone)"),
    "commonConfig": {
        "monitorServer": {
            "bindAddress": Key(
                "127.0.0.1:9091", _endpoint, "where the hub's numbers can be read; empty: nowhere"
            ),
            "enableProfiling": IGNORED,
        },
        "tunnelPort": IGNORED,
    },
    "compat": {
        "kubeedge": Key(False, _flag, "let stock KubeEdge edges join, and keep ObjectSyncs for them"),
    },
    "kubeAPIConfig": {
        "master": Key("", _text, "address of the API server; overrides the kubeconfig's"),
        "kubeConfig": Key("", _text, "kubeconfig file; empty: the pod's service account, or ~/.kube/config"),
        "contentType": IGNORED,
        "qps": IGNORED,
        "burst": IGNORED,
    },
    "modules": {
        "cloudHub": {
            "enable": Key(True, _flag, "must be true: it is what cloudcore is for"),
            "keepaliveInterval": IGNORED,
            "nodeLimit": Key(1000, _integer(1, 100_000), "nodes connected at one time"),
            "tlsCAFile": IGNORED,
            "tlsCAKeyFile": IGNORED,
            "tlsCertFile": IGNORED,
            "tlsPrivateKeyFile": IGNORED,
            "writeTimeout": IGNORED,
            "quic": IGNORED,
            "unixsocket": IGNORED,
            "https": {
                "enable": Key(False, _flag, "the same as compat.kubeedge: by this port stock edges join"),
                "address": Key("", _address, "where it listens; empty: everywhere"),
                "port": Key(10002, _PORT, "the port that a stock edge expects"),
            },
            "websocket": {
                "enable": Key(True, _flag, "must be true"),
                "address": Key("", _address, "where the hub listens; empty: everywhere"),
                "port": Key(10000, _PORT, "the one port that edges need"),
            },
            "advertiseAddress": Key(
                [], _addresses, "addresses of this machine as edges see it, besides its own"
            ),
            "dnsNames": Key([], _texts, "names of this machine as edges see it"),
            "edgeCertSigningDuration": Key(365, _integer(1, 3650), "days that a node's certificate lives"),
            "tokenRefreshDuration": Key(
                12,
                _integer(1, 8760),
                "hours until the stock edges' join token is made anew; it lives twice as long",
            ),
            "authorization": IGNORED,
        },
        "edgeController": {
            "enable": IGNORED,
            "nodeUpdateFrequency": IGNORED,
            "buffer": IGNORED,
            "load": IGNORED,
            "reschedule": {
                "enable": Key(
                    False,
                    _flag,
                    "beside a cluster: set how long pods on edge nodes tolerate that their node is silent, by the annotation "
                    "skerry.dev/reschedule-after of the node or its group",
                ),
                "after": Key(
                    reschedule.NEVER,
                    _wait,
                    "what counts without that annotation: never, or a time such as 10m",
                ),
            },
        },
        "deviceController": {
            "enable": Key(True, _flag, "carry devices, their models and what they report"),
            "buffer": IGNORED,
            "load": IGNORED,
            "statusIntervalMs": Key(
                1000,
                _integer(0, 3_600_000),
                "shortest time between two writes of one device's status; newest wins",
            ),
        },
        "taskManager": IGNORED,
        "syncController": IGNORED,
        "dynamicController": IGNORED,
        "cloudStream": {
            "enable": Key(True, _flag, "let kubectl see into the nodes: logs, exec, attach, port-forward"),
            "verbs": {
                verb: Key(True, _flag, f"let {verb} pass")
                for verb in ("logs", "exec", "attach", "portForward")
            },
            "endpointAddress": Key(
                "",
                _text,
                "where the API server reaches cloudcore for the nodes; empty: this machine's own address",
            ),
            "firstPort": Key(20350, _PORT, "first port of the nodes' endpoints, one each"),
            "lastPort": Key(22350, _PORT, "last port of the nodes' endpoints"),
            "tlsTunnelCAFile": IGNORED,
            "tlsTunnelCertFile": IGNORED,
            "tlsTunnelPrivateKeyFile": IGNORED,
            "tlsStreamCAFile": IGNORED,
            "tlsStreamCertFile": IGNORED,
            "tlsStreamPrivateKeyFile": IGNORED,
            "tunnelPort": Key(
                10004, _PORT, "where the tunnels of stock edges come, if they may join (compat.kubeedge)"
            ),
            "streamPort": IGNORED,
        },
        "router": IGNORED,
        "iptablesManager": IGNORED,
        "standalone": {
            "enable": Key(False, _flag, "bring a control plane along, for those without a cluster"),
            "address": Key("127.0.0.1", _address, "where its API listens"),
            "port": Key(16443, _PORT, "its API's port"),
            "stateDir": Key("", _text, "where it keeps its objects; empty: dataDir"),
            "manifests": Key([], _texts, "files applied when it starts"),
            "volumeDir": Key(
                "/var/lib/skerry/volumes",
                _text,
                "folder on nodes for volumes of class node-folder; empty: no such class",
            ),
        },
    },
    "featureGates": IGNORED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standalone:
    enable: bool
    address: str
    port: int
    state_dir: Path
    manifests: tuple[Path, ...]
    volume_dir: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudStream:
    """verbs: which are let through (logs, exec, attach, portForward).   address, ports: of the nodes' endpoints, for an API
    server that is not ours.   stock_port: where the tunnels of stock edges come."""

    enable: bool
    verbs: Mapping[str, bool]
    address: str
    first_port: int
    last_port: int
    stock_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Compat:
    """For stock KubeEdge edges.   address, port: where they get certificates."""

    enable: bool
    address: str
    port: int
    token_refresh: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudHub:
    address: str
    port: int
    node_limit: int
    advertise: tuple[str, ...]
    dns_names: tuple[str, ...]
    certificate_life: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole file, checked.  A part gets its own section."""

    data_dir: Path
    kubeconfig: str
    master: str
    hub: CloudHub
    devices: bool
    device_interval_s: float
    standalone: Standalone
    streams: CloudStream
    compat: Compat
    metrics: tuple[str, int] | None
    reschedule: bool = False
    reschedule_after_s: float | None = None
    """What pods on edge nodes are made to tolerate, None: for ever; only with `reschedule`."""

    @property
    def admin_kubeconfig(self) -> Path:
        """What the control plane in the box writes for its administrator."""
        return self.standalone.state_dir / "admin.kubeconfig"


def load(path: Path) -> Config:
    """Read and check a file.  Raises ConfigError with every fault."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"cannot read {path}: it is larger than {MAX_FILE_BYTES} bytes")
    try:
        return parse(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read {path}: it is no UTF-8 text") from error
    except ConfigError as error:
        raise ConfigError([f"{path}: {fault}" for fault in error.faults]) from error


def parse(text: str) -> Config:
    """Raises ConfigError with every fault, each naming its key."""
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"is not YAML: {str(error).splitlines()[0]}") from error
    document = {} if document is None else document
    if not isinstance(document, dict):
        raise ConfigError("must be a mapping")
    faults: list[str] = []
    document = dict(document)
    version = document.pop("apiVersion", API_VERSIONS[0])
    kind = document.pop("kind", KIND)
    if version not in API_VERSIONS:
        faults.append(f"apiVersion: must be {API_VERSIONS[0]}, not {version!r}")
    if kind != KIND:
        faults.append(f"kind: must be {KIND}, not {kind!r}")
    values: dict[str, Any] = {}
    _walk(SCHEMA, document, "", values, faults)
    for key in ("modules.cloudHub.enable", "modules.cloudHub.websocket.enable"):
        if values.get(key) is False:
            faults.append(f"{key}: must be true")
    if faults:
        raise ConfigError(faults)
    return _build(values)


def _walk(schema: Schema, given: Any, path: str, values: dict[str, Any], faults: list[str]) -> None:
    if given is None:
        given = {}
    if not isinstance(given, dict):
        faults.append(f"{path.rstrip('.')}: must be a mapping")
        given = {}
    for name in given:
        if name not in schema:
            faults.append(f"{path}{name}: unknown key")
    for name, rule in schema.items():
        where = path + name
        if isinstance(rule, Ignored):
            continue
        if isinstance(rule, Key):
            value = given.get(name, rule.default)
            value = rule.default if value is None else value
            wrong = rule.check(value)
            if wrong:
                faults.append(f"{where}: {wrong}")
            else:
                values[where] = value
        else:
            _walk(rule, given.get(name), where + ".", values, faults)


def _build(values: Mapping[str, Any]) -> Config:
    hub = "modules.cloudHub."
    alone = "modules.standalone."
    data_dir = Path(values["dataDir"])
    return Config(
        data_dir=data_dir,
        kubeconfig=values["kubeAPIConfig.kubeConfig"],
        master=values["kubeAPIConfig.master"],
        hub=CloudHub(
            address=values[hub + "websocket.address"],
            port=values[hub + "websocket.port"],
            node_limit=values[hub + "nodeLimit"],
            advertise=tuple(values[hub + "advertiseAddress"]),
            dns_names=tuple(name for name in values[hub + "dnsNames"] if name),
            certificate_life=timedelta(days=values[hub + "edgeCertSigningDuration"]),
        ),
        compat=Compat(
            enable=values["compat.kubeedge"] or values[hub + "https.enable"],
            address=values[hub + "https.address"],
            port=values[hub + "https.port"],
            token_refresh=timedelta(hours=values[hub + "tokenRefreshDuration"]),
        ),
        metrics=_host_port(values["commonConfig.monitorServer.bindAddress"]),
        reschedule=values["modules.edgeController.reschedule.enable"],
        reschedule_after_s=reschedule.read(values["modules.edgeController.reschedule.after"]),
        devices=values["modules.deviceController.enable"],
        device_interval_s=values["modules.deviceController.statusIntervalMs"] / 1000,
        standalone=Standalone(
            enable=values[alone + "enable"],
            address=values[alone + "address"],
            port=values[alone + "port"],
            state_dir=Path(values[alone + "stateDir"] or data_dir),
            manifests=tuple(Path(item) for item in values[alone + "manifests"]),
            volume_dir=values[alone + "volumeDir"],
        ),
        streams=CloudStream(
            enable=values["modules.cloudStream.enable"],
            verbs={
                verb: values[f"modules.cloudStream.verbs.{verb}"]
                for verb in ("logs", "exec", "attach", "portForward")
            },
            address=values["modules.cloudStream.endpointAddress"],
            first_port=values["modules.cloudStream.firstPort"],
            last_port=values["modules.cloudStream.lastPort"],
            stock_port=values["modules.cloudStream.tunnelPort"],
        ),
    )


def _host_port(endpoint: str) -> tuple[str, int] | None:
    host, _, port = endpoint.rpartition(":")
    return (host.strip("[]"), int(port)) if port else None


def defaults() -> str:
    """The commented file with every key's default."""
    lines = [f"apiVersion: {API_VERSIONS[0]}", f"kind: {KIND}", *_lines(SCHEMA, "")]
    return "\n".join(lines) + "\n"


def _lines(schema: Schema, indent: str) -> Iterator[str]:
    for name, rule in schema.items():
        if isinstance(rule, Ignored):
            continue
        if isinstance(rule, Key):
            value = yaml.safe_dump(rule.default, default_flow_style=True).splitlines()[0]
            yield f"{indent}{name}: {value}  # {rule.help}"
        else:
            yield f"{indent}{name}:"
            yield from _lines(rule, indent + "  ")
