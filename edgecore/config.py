"""edgecore.yaml: KubeEdge's file shape, read once, checked whole, then frozen.  Pure but for `load`.

`KEYS` is the list of everything that may be written, with type, default and reason; `edgecore config --defaults` prints it.
KubeEdge's keys that mean nothing here are accepted, so that its files can be used, as long as they ask for nothing that
would then not happen.  An unknown key is a fault, and all faults are told at once."""

from __future__ import annotations

import difflib
import ipaddress
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from beehive import resource, session
from beehive.errors import ConfigError
from edgecore.edged import quantity
from edgecore.edged.config import SHUTDOWN_CRITICAL_S, SHUTDOWN_S, EdgedConfig
from edgecore.edged.evict import Thresholds
from edgecore.edged.imagegc import Limits
from edgecore.edged.shutdown import Period, periods

API_VERSION = "edgecore.config.kubeedge.io/v1alpha2"
KIND = "EdgeCore"
DEFAULT_CONFIG = Path("/etc/kubeedge/config/edgecore.yaml")
DEFAULT_DATA_DIR = "/var/lib/skerry/edge"
DEFAULT_DMI_DIR = "/etc/kubeedge/"
HUB_PORT = 10000
MAX_CONFIG_BYTES = 1024 * 1024
MAX_SOCKET_PATH = 107

Text = str | int | float | bool | None


class Key(msgspec.Struct, frozen=True):
    """kind: str, int, bool, list (of strings), map (of strings), duration or any.   default: what an absent key means.
    why: one line for whoever reads the file.   ignored: KubeEdge's, without effect here.
    only: the values that can be honoured, if not all can."""

    path: str
    kind: str
    default: Any
    why: str = ""
    ignored: bool = False
    only: tuple[Any, ...] = ()


def _keys() -> Iterator[Key]:
    yield Key("apiVersion", "str", API_VERSION)
    yield Key("kind", "str", KIND, only=(KIND,))
    yield Key(
        "dataDir", "str", DEFAULT_DATA_DIR, "store, certificates, pods' volumes and sockets are below it"
    )
    yield Key("database.dataSource", "str", "", "the store's file; empty: <dataDir>/edgecore.db")
    yield Key(
        "database.keyFile",
        "str",
        "",
        "32 bytes or more that secrets in the store are sealed with; empty: the systemd credential skerry-store-key, "
        "else keys/store.key beside the store, made at the first start",
    )
    yield Key("database.driverName", "str", "sqlite3", only=("sqlite3",))
    yield Key("database.aliasName", "str", "default", ignored=True)
    hub = "modules.edgeHub"
    yield Key(f"{hub}.enable", "bool", True, "the link to the cloud; false: never look for one")
    yield Key(f"{hub}.websocket.enable", "bool", True, only=(True,))
    yield Key(
        f"{hub}.websocket.server",
        "str",
        "",
        "host:port of the hub, several separated by commas; empty: what `edgecore join` was given",
    )
    yield Key(f"{hub}.projectID", "str", session.PROJECT_ID, "only logged by a KubeEdge hub")
    yield Key(f"{hub}.token", "str", "", "not read from here: give it to `edgecore join`", only=("",))
    yield Key(f"{hub}.rotateCertificates", "bool", True, "renew the node's certificate over the link")
    for name in (
        "websocket.handshakeTimeout",
        "websocket.readDeadline",
        "websocket.writeDeadline",
        "heartbeat",
    ):
        yield Key(f"{hub}.{name}", "int", 30 if "handshake" in name else 15, ignored=True)
    yield Key(f"{hub}.messageQPS", "int", 30, ignored=True)
    yield Key(f"{hub}.messageBurst", "int", 60, ignored=True)
    for name in ("tlsCaFile", "tlsCertFile", "tlsPrivateKeyFile"):
        yield Key(f"{hub}.{name}", "str", "", ignored=True)
    yield Key(
        f"{hub}.httpServer",
        "str",
        "",
        "where a KubeEdge cloud gives certificates; empty: its host, port 10002",
    )
    yield Key(f"{hub}.quic.enable", "bool", False, only=(False,))
    for name in ("server", "handshakeTimeout", "readDeadline", "writeDeadline"):
        yield Key(f"{hub}.quic.{name}", "any", None, ignored=True)
    yield from _edged_keys()
    bus = "modules.eventBus"
    yield Key(f"{bus}.enable", "bool", True, "twins and device events on the node's MQTT broker")
    yield Key(f"{bus}.mqttMode", "int", 2, "2: an external broker, the only one here", only=(2,))
    yield Key(f"{bus}.mqttServerExternal", "str", "tcp://127.0.0.1:1883", "the broker")
    yield Key(f"{bus}.mqttServerInternal", "str", "tcp://127.0.0.1:1884", ignored=True)
    yield Key(f"{bus}.mqttQOS", "int", 0, ignored=True)
    yield Key(f"{bus}.mqttRetain", "bool", False, ignored=True)
    yield Key(f"{bus}.mqttSessionQueueSize", "int", 100, ignored=True)
    for name in ("mqttSubClientID", "mqttPubClientID"):
        yield Key(f"{bus}.{name}", "str", "", ignored=True)
    yield Key(f"{bus}.mqttUsername", "str", "", "as whom to log in to the broker")
    yield Key(f"{bus}.mqttPassword", "str", "", "the file is read by root only")
    yield Key(f"{bus}.eventBusTLS.enable", "bool", False, "TLS to the broker")
    yield Key(f"{bus}.eventBusTLS.tlsMqttCAFile", "str", "/etc/kubeedge/ca/rootCA.crt", "whom to trust")
    yield Key(f"{bus}.eventBusTLS.tlsMqttCertFile", "str", "/etc/kubeedge/certs/server.crt", "who we are")
    yield Key(f"{bus}.eventBusTLS.tlsMqttPrivateKeyFile", "str", "/etc/kubeedge/certs/server.key")
    meta = "modules.metaManager"
    yield Key(f"{meta}.enable", "bool", True, only=(True,))
    yield Key(f"{meta}.contextSendGroup", "str", "hub", ignored=True)
    yield Key(f"{meta}.contextSendModule", "str", "websocket", ignored=True)
    yield Key(f"{meta}.remoteQueryTimeout", "int", 60, "seconds that a question to the cloud may take")
    yield Key(f"{meta}.metaServer.enable", "bool", True, "the Kubernetes API for pods on this node")
    yield Key(f"{meta}.metaServer.server", "str", "127.0.0.1:10550", ignored=True)
    yield Key(
        f"{meta}.metaServer.dummyServer",
        "str",
        "169.254.30.10:10550",
        "where it listens, by TLS; a link-local address is put on the loopback device",
    )
    yield Key(
        f"{meta}.metaServer.offlineWrites",
        "list",
        [],
        "kinds (configmaps, devices.devices.kubeedge.io) that may be written without the cloud, and are sent when it is back",
    )
    for name in ("tlsCaFile", "tlsCertFile", "tlsPrivateKeyFile"):
        yield Key(f"{meta}.metaServer.{name}", "str", "", ignored=True)
    yield Key(
        f"{meta}.metaServer.serviceAccountIssuers",
        "list",
        ["https://kubernetes.default.svc.cluster.local"],
        ignored=True,
    )
    yield Key(f"{meta}.metaServer.apiAudiences", "list", [], "for whom tokens may be made beside the issuer")
    yield Key(f"{meta}.metaServer.serviceAccountKeyFiles", "list", [], ignored=True)
    twin = "modules.deviceTwin"
    yield Key(f"{twin}.enable", "bool", True, "devices and mappers")
    yield Key(
        f"{twin}.dmiSockPath",
        "str",
        "",
        f"folder of dmi.sock; empty: dataDir if that is given, else {DEFAULT_DMI_DIR}",
    )
    bus = "modules.serviceBus"
    yield Key(f"{bus}.enable", "bool", False, only=(False,))
    for name in ("server", "port", "timeout", "tlsCertFile", "tlsPrivateKeyFile"):
        yield Key(f"{bus}.{name}", "any", None, ignored=True)
    stream = "modules.edgeStream"
    yield Key(f"{stream}.enable", "bool", True, "logs, exec, attach, port-forward and metrics for kubectl")
    yield Key(f"{stream}.server", "str", "", "host:port of the tunnel; empty: the hub's")
    for name in ("tlsTunnelCAFile", "tlsTunnelCertFile", "tlsTunnelPrivateKeyFile"):
        yield Key(f"{stream}.{name}", "str", "", ignored=True)
    for name in ("handshakeTimeout", "readDeadline", "writeDeadline"):
        yield Key(f"{stream}.{name}", "any", None, ignored=True)
    yield Key("modules.taskManager.enable", "bool", False, only=(False,))
    yield Key("modules.dbTest.enable", "bool", False, ignored=True)
    yield Key("featureGates.requireAuthorization", "bool", False, ignored=True)  # always
    yield Key("featureGates.moduleRestart", "bool", False, ignored=True)
    yield Key("edgecoreVersion", "str", "", ignored=True)


def _edged_keys() -> Iterator[Key]:
    edged = "modules.edged"
    yield Key(f"{edged}.enable", "bool", True, "run pods")
    yield Key(f"{edged}.hostnameOverride", "str", "", "the node's name; empty: the host's")
    yield Key(f"{edged}.nodeIP", "str", "", "address of the node; empty: found by the default route")
    yield Key(
        f"{edged}.pluginDirectory",
        "str",
        "",
        "where plugins look for a kubelet, /var/lib/kubelet; empty: rootDirectory, if that is set",
    )
    yield Key(f"{edged}.rootDirectory", "str", "", "volumes of pods are in <this>/pods; empty: dataDir")
    yield Key(f"{edged}.nodeLabels", "map", {}, "labels that the node registers with")
    yield Key(f"{edged}.reportEvent", "bool", True, "send events of pods and of the node to the cloud")
    ignored: dict[str, Any] = {
        "minimumGCAge": "0s",
        "maxPerPodContainerCount": 1,
        "maxContainerCount": -1,
        "registerSchedulable": True,
        "runtimeCgroups": "",
        "podSandboxImage": "",
        "customInterfaceName": "",
        "registerNodeNamespace": "default",
        "windowsService": False,
        "windowsPriorityClass": "",
        "experimentalMounterPath": "",
        "experimentalNodeAllocatableIgnoreEvictionThreshold": False,
        "seccompDefault": False,
    }
    for name, default in ignored.items():
        yield Key(f"{edged}.{name}", "any", default, ignored=True)
    kubelet = f"{edged}.tailoredKubeletConfig"
    yield Key(f"{kubelet}.apiVersion", "str", "kubelet.config.k8s.io/v1beta1", ignored=True)
    yield Key(f"{kubelet}.kind", "str", "KubeletConfiguration", ignored=True)
    yield Key(
        f"{kubelet}.containerRuntimeEndpoint",
        "str",
        "unix:///run/containerd/containerd.sock",
        "the container runtime's socket",
    )
    yield Key(f"{kubelet}.imageServiceEndpoint", "str", "", "the image service's, if it is another")
    yield Key(f"{kubelet}.cgroupDriver", "str", "cgroupfs", "as the runtime's", only=("cgroupfs", "systemd"))
    yield Key(f"{kubelet}.cgroupRoot", "str", "kubepods", "the control group that all pods are below")
    yield Key(f"{kubelet}.clusterDNS", "list", [], "name servers for pods of dnsPolicy ClusterFirst")
    yield Key(f"{kubelet}.clusterDomain", "str", "cluster.local", "what they search in")
    yield Key(f"{kubelet}.resolvConf", "str", "/etc/resolv.conf", "what dnsPolicy Default gives to pods")
    yield Key(
        f"{kubelet}.syncFrequency", "duration", "1m", "each pod is looked at so often though nothing changed"
    )
    yield Key(f"{kubelet}.maxPods", "int", 110, "the node's capacity")
    yield Key(f"{kubelet}.staticPodPath", "str", "", "folder of pods that run without any cloud; empty: none")
    yield Key(f"{kubelet}.podPidsLimit", "int", 4096, "processes and threads of one pod; -1: not limited")
    yield Key(
        f"{kubelet}.podLogsDir",
        "str",
        "",
        "logs; /var/log/pods is where collectors look; empty: <dataDir>/logs/pods",
    )
    yield Key(
        f"{kubelet}.containerLogMaxSize", "str", "10Mi", "a container's log is rotated above it; 0: never"
    )
    yield Key(f"{kubelet}.containerLogMaxFiles", "int", 5, "so many log files of a container are kept")
    yield Key(
        f"{kubelet}.imageGCHighThresholdPercent", "int", 85, "unneeded images go when their disk is so full"
    )
    yield Key(f"{kubelet}.imageGCLowThresholdPercent", "int", 80, "... until it is not fuller than this")
    yield Key(f"{kubelet}.systemReserved", "map", {}, "cpu, memory and ephemeral-storage kept back from pods")
    yield Key(f"{kubelet}.kubeReserved", "map", {}, "the same, added to systemReserved")
    yield Key(
        f"{kubelet}.evictionHard",
        "map",
        {},
        "what must stay free: memory.available, nodefs.available, nodefs.inodesFree, imagefs.available, pid.available",
    )
    yield Key(
        f"{kubelet}.shutdownGracePeriod",
        "duration",
        f"{SHUTDOWN_S}s",
        "how long pods may take to end when the machine goes down; 0s: they end with the machine",
    )
    yield Key(
        f"{kubelet}.shutdownGracePeriodCriticalPods",
        "duration",
        f"{SHUTDOWN_CRITICAL_S}s",
        "how much of that is for critical pods, which end last",
    )
    yield Key(
        f"{kubelet}.shutdownGracePeriodByPodPriority",
        "any",
        None,
        "instead of both, a list of priority and shutdownGracePeriodSeconds",
    )
    yield Key(
        f"{edged}.policyFile", "str", "", "what this machine's owner forbids pods (JSON); empty: nothing"
    )
    yield Key(
        f"{kubelet}.nodeStatusReportFrequency", "duration", "5m", "an unchanged status is sent so often"
    )
    for name in _KUBELET_IGNORED.split():
        yield Key(f"{kubelet}.{name}", "any", None, ignored=True)


_KUBELET_IGNORED = """
    address readOnlyPort cgroupsPerQOS fileCheckFrequency httpCheckFrequency
    nodeStatusUpdateFrequency nodeLeaseDurationSeconds registryPullQPS registryBurst eventRecordQPS eventBurst
    enableDebuggingHandlers enableContentionProfiling healthzPort healthzBindAddress oomScoreAdj
    streamingConnectionIdleTimeout imageMinimumGCAge imageMaximumGCAge
    volumeStatsAggPeriod kubeletCgroups systemCgroups cpuManagerPolicy
    cpuManagerPolicyOptions cpuManagerReconcilePeriod memoryManagerPolicy topologyManagerPolicy topologyManagerScope
    qosReserved runtimeRequestTimeout hairpinMode podCIDR cpuCFSQuota cpuCFSQuotaPeriod
    nodeStatusMaxImages maxOpenFiles contentType kubeAPIQPS kubeAPIBurst serializeImagePulls maxParallelImagePulls
    evictionSoft evictionSoftGracePeriod evictionPressureTransitionPeriod evictionMaxPodGracePeriod
    evictionMinimumReclaim podsPerCore enableControllerAttachDetach protectKernelDefaults makeIPTablesUtilChains
    iptablesMasqueradeBit iptablesDropBit featureGates failSwapOn memorySwap
    containerLogMaxWorkers containerLogMonitorInterval
    configMapAndSecretChangeDetectionStrategy reservedSystemCPUs
    systemReservedCgroup kubeReservedCgroup enforceNodeAllocatable allowedUnsafeSysctls volumePluginDir
    providerID kernelMemcgNotification logging enableSystemLogHandler enableSystemLogQuery
    reservedMemory enableProfilingHandler
    enableDebugFlagsHandler seccompDefault memoryThrottlingFactor registerWithTaints registerNode tracing
    localStorageCapacityIsolation showHiddenMetricsForVersion
"""

KEYS = {key.path: key for key in _keys()}
_OPEN = {path for path, key in KEYS.items() if key.kind in ("map", "any")}
_GROUPS = {path.rsplit(".", n)[0] for path in KEYS for n in range(1, path.count(".") + 1)}


class MqttConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The node's broker.  `tls`: CA, certificate and key files, by the names that eventbus gives them."""

    url: str
    username: str = ""
    password: str = ""
    tls: dict[str, Path] | None = None


class MetaServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The local Kubernetes API.  host: an IP address.   audiences: for whom tokens may be made beside the issuer.
    offline_writes: kinds that may be written while the cloud is away."""

    host: str
    port: int
    audiences: frozenset[str]
    offline_writes: frozenset[str]


class EdgeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything edgecore is told.  A part that is None is switched off.

    clouds: `host:port` each, in the order in which to try them; empty: what join noted.
    report_s: how often an unchanged node status is sent."""

    data_dir: Path
    database: Path
    key_file: Path | None
    node: str
    clouds: tuple[str, ...]
    link: bool
    https_server: str
    project: str
    rotate: bool
    query_s: float
    report_s: float
    report_events: bool
    edged: EdgedConfig | None
    mqtt: MqttConfig | None
    dmi_dir: Path | None
    metaserver: MetaServerConfig | None
    stream: bool
    stream_server: str

    @property
    def pki(self) -> Path:
        return self.data_dir / "pki"

    @property
    def socket(self) -> Path:
        return self.data_dir / "edgecore.sock"


def load(path: Path, *, version: str = "") -> EdgeConfig:
    """Read and check a file.  Raises: ConfigError, with every fault."""
    import yaml

    try:
        with path.open("rb") as file:
            text = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if len(text) > MAX_CONFIG_BYTES:
        raise ConfigError(f"cannot read {path}: more than {MAX_CONFIG_BYTES} bytes")
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        where = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or error
        line = f" line {where.line + 1}" if where else ""
        raise ConfigError(f"cannot read {path}{line}: {what}") from error
    if found is not None and not isinstance(found, dict):
        raise ConfigError(f"cannot read {path}: it is not a map of keys")
    return parse(found, version=version)


def parse(found: object, *, version: str = "") -> EdgeConfig:
    """Check a parsed file.  Raises: ConfigError, with every fault."""
    faults: list[str] = []
    if found is None:
        found = {}
    if not isinstance(found, dict):
        raise ConfigError("the file is not a map of keys")
    given = dict(_flatten(found, "", faults))
    values: dict[str, Any] = {path: key.default for path, key in KEYS.items()}
    for path, value in given.items():
        fault = _check(KEYS[path], value)
        if fault:
            faults.append(fault)
        elif value is not None:
            values[path] = value
    if not str(values["apiVersion"]).startswith("edgecore.config.kubeedge.io/"):
        faults.append(f"apiVersion: {values['apiVersion']!r} is not {API_VERSION!r}")
    config = _build(values, given, faults, version)
    if faults or config is None:
        raise ConfigError(faults)
    return config


def _flatten(found: Mapping[Any, Any], prefix: str, faults: list[str]) -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        path = f"{prefix}{name}"
        if path in KEYS:
            yield path, value
        elif path in _GROUPS:
            if isinstance(value, dict):
                yield from _flatten(value, f"{path}.", faults)
            elif value is not None:
                faults.append(f"{path}: is a group of keys, not {value!r}")
        else:
            near = difflib.get_close_matches(path, [*KEYS, *_GROUPS], n=1, cutoff=0.8)
            faults.append(f"{path}: unknown key" + (f", did you mean {near[0]}?" if near else ""))


_TYPES: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "bool": bool, "list": list, "map": dict}
_KIND = re.compile(r"[a-z][a-z0-9]*(\.[a-z0-9]([-a-z0-9.]*[a-z0-9])?)?")
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")


def _check(key: Key, value: Any) -> str:
    """What is wrong with a value, or an empty string.  null is as good as absent."""
    if value is None or key.ignored or key.kind == "any":
        return ""
    if key.kind == "duration":
        return (
            ""
            if duration_s(value) is not None
            else f"{key.path}: {value!r} is not a duration such as 10s or 1m"
        )
    fits = isinstance(value, _TYPES[key.kind]) and not (key.kind == "int" and isinstance(value, bool))
    if not fits:
        return f"{key.path}: {value!r} is not a {key.kind}"
    if key.kind == "list" and not all(isinstance(item, str) for item in value):
        return f"{key.path}: holds something that is not text"
    if key.kind == "map" and not all(isinstance(k, str) and isinstance(v, str) for k, v in value.items()):
        return f"{key.path}: holds something that is not text"
    if key.only and value not in key.only:
        if key.path.endswith(".token"):
            return f"{key.path}: give the token to `edgecore join` and take it out of the file"
        return f"{key.path}: {value!r} is not possible here, only {' or '.join(repr(v) for v in key.only)}"
    return ""


def duration_s(text: object) -> float | None:
    """Seconds of a Go duration of hours, minutes and seconds."""
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if not found or not text:
        return None
    hours, minutes, seconds = found.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds or 0)


def _build(
    values: dict[str, Any], given: Mapping[str, Any], faults: list[str], version: str
) -> EdgeConfig | None:
    data_dir = Path(values["dataDir"])
    if not data_dir.is_absolute():
        faults.append(f"dataDir: {values['dataDir']!r} is not an absolute path")
    elif len(str(data_dir / "edgecore.sock")) > MAX_SOCKET_PATH:
        faults.append(f"dataDir: a socket's path below it would be longer than {MAX_SOCKET_PATH} bytes")
    node = values["modules.edged.hostnameOverride"]
    if node and not resource.is_name(node):
        faults.append(
            f"modules.edged.hostnameOverride: {node!r} is not a node name: lower-case letters, digits, - and ."
        )
    clouds = addresses(values["modules.edgeHub.websocket.server"], "modules.edgeHub.websocket.server", faults)
    edged = _edged(values, data_dir, faults, version)
    mqtt = _mqtt(values, faults)
    dmi = values["modules.deviceTwin.dmiSockPath"] or (
        str(data_dir) if "dataDir" in given else DEFAULT_DMI_DIR
    )
    if dmi.endswith(".sock"):
        dmi = str(Path(dmi).parent)  # as KubeEdge's does; the name is always dmi.sock
    if faults:
        return None
    report_s = duration_s(values["modules.edged.tailoredKubeletConfig.nodeStatusReportFrequency"])
    return EdgeConfig(
        data_dir=data_dir,
        database=Path(values["database.dataSource"] or data_dir / "edgecore.db"),
        key_file=Path(values["database.keyFile"]) if values["database.keyFile"] else None,
        node=node,
        clouds=clouds,
        link=values["modules.edgeHub.enable"],
        https_server=values["modules.edgeHub.httpServer"],
        project=values["modules.edgeHub.projectID"],
        rotate=values["modules.edgeHub.rotateCertificates"],
        query_s=float(max(1, values["modules.metaManager.remoteQueryTimeout"])),
        report_s=report_s or 300.0,
        report_events=values["modules.edged.reportEvent"],
        edged=edged,
        mqtt=mqtt,
        dmi_dir=Path(dmi) if values["modules.deviceTwin.enable"] else None,
        metaserver=_metaserver(values, faults),
        stream=values["modules.edgeStream.enable"],
        stream_server=values["modules.edgeStream.server"],
    )


def _edged(values: dict[str, Any], data_dir: Path, faults: list[str], version: str) -> EdgedConfig | None:
    if not values["modules.edged.enable"]:
        return None
    kubelet = "modules.edged.tailoredKubeletConfig"
    reserved = [_reserved(values, f"{kubelet}.{name}", faults) for name in ("systemReserved", "kubeReserved")]
    policy_file: str = values["modules.edged.policyFile"]
    # a file of KubeEdge's names one folder for both
    plugin_dir: str = values["modules.edged.pluginDirectory"] or values["modules.edged.rootDirectory"]
    logs = Path(values[f"{kubelet}.podLogsDir"] or data_dir / "logs" / "pods")
    sockets = []
    for name in ("containerRuntimeEndpoint", "imageServiceEndpoint"):
        text: str = values[f"{kubelet}.{name}"]
        path = text.removeprefix("unix://")
        if path and not path.startswith("/"):
            faults.append(
                f"{kubelet}.{name}: {text!r} is not a unix socket such as unix:///run/containerd/containerd.sock"
            )
        sockets.append(path)
    labels = {"node-role.kubernetes.io/edge": "", **values["modules.edged.nodeLabels"]}
    return EdgedConfig(
        runtime_endpoint=sockets[0],
        image_endpoint=sockets[1],
        # as a kubelet lays it out; what else lies in its folder is not ours
        root_dir=Path(values["modules.edged.rootDirectory"] or data_dir) / "pods",
        log_dir=logs,
        # where collectors look, beside where a kubelet has its logs
        log_links=Path("/var/log/containers") if logs == Path("/var/log/pods") else None,
        seccomp_dir=data_dir / "seccomp",
        resolv_conf=Path(values[f"{kubelet}.resolvConf"]),
        resync_s=duration_s(values[f"{kubelet}.syncFrequency"]) or 60.0,
        cgroup_root=values[f"{kubelet}.cgroupRoot"].strip("/") or "kubepods",
        cgroup_driver=values[f"{kubelet}.cgroupDriver"],
        cluster_dns=tuple(values[f"{kubelet}.clusterDNS"]),
        cluster_domain=values[f"{kubelet}.clusterDomain"],
        node_ip=values["modules.edged.nodeIP"],
        max_pods=values[f"{kubelet}.maxPods"],
        system_reserved_cpu_milli=sum(r[0] for r in reserved),
        system_reserved_memory_bytes=sum(r[1] for r in reserved),
        system_reserved_disk_bytes=sum(r[2] for r in reserved),
        pod_pids_limit=values[f"{kubelet}.podPidsLimit"],
        log_max_bytes=_amount(
            f"{kubelet}.containerLogMaxSize", values[f"{kubelet}.containerLogMaxSize"], faults
        ),
        log_max_files=values[f"{kubelet}.containerLogMaxFiles"],
        image_gc=Limits(
            high_percent=values[f"{kubelet}.imageGCHighThresholdPercent"],
            low_percent=values[f"{kubelet}.imageGCLowThresholdPercent"],
        ),
        evict=_evict(values[f"{kubelet}.evictionHard"], f"{kubelet}.evictionHard", faults),
        static_dir=Path(values[f"{kubelet}.staticPodPath"]) if values[f"{kubelet}.staticPodPath"] else None,
        shutdown=_shutdown(values, kubelet, faults),
        policy_file=Path(policy_file) if policy_file else None,
        plugin_dir=Path(plugin_dir) if plugin_dir else None,
        node_labels=tuple(sorted(labels.items())),
        version=version,
    )


class _Period(msgspec.Struct, frozen=True, kw_only=True):
    """Of shutdownGracePeriodByPodPriority."""

    priority: int
    shutdownGracePeriodSeconds: Annotated[int, msgspec.Meta(ge=0, le=86400)]


def _shutdown(values: dict[str, Any], kubelet: str, faults: list[str]) -> tuple[Period, ...]:
    where = f"{kubelet}.shutdownGracePeriodByPodPriority"
    if values[where]:
        try:
            found = msgspec.convert(values[where], list[_Period])
        except msgspec.ValidationError as error:
            faults.append(f"{where}: {error}")
            return ()
        return tuple(Period(priority=p.priority, seconds=p.shutdownGracePeriodSeconds) for p in found)
    total, critical = (
        duration_s(values[f"{kubelet}.shutdownGracePeriod{suffix}"]) or 0.0 for suffix in ("", "CriticalPods")
    )
    return periods(round(total), round(critical))


def _amount(where: str, text: Any, faults: list[str]) -> int:
    """Whole units of a quantity."""
    try:
        return quantity.units(quantity.parse(str(text)))
    except ValueError as error:
        faults.append(f"{where}: {error}")
        return 0


def _reserved(values: dict[str, Any], where: str, faults: list[str]) -> tuple[int, int, int]:
    """Millicores, bytes of memory and bytes of the disk."""
    amounts = values[where] or {}
    try:
        cpu = quantity.milli(quantity.parse(str(amounts.get("cpu", "0"))))
    except ValueError as error:
        faults.append(f"{where}.cpu: {error}")
        cpu = 0
    memory, disk = (
        _amount(f"{where}.{name}", amounts.get(name, "0"), faults) for name in ("memory", "ephemeral-storage")
    )
    return cpu, memory, disk


def _evict(amounts: dict[str, str], where: str, faults: list[str]) -> Thresholds:
    """The kubelet's thresholds, changed by those that are written; all but memory are shares of the whole."""
    changed: dict[str, Any] = {}
    shares = {
        "nodefs.available": "disk_percent",
        "nodefs.inodesFree": "inodes_percent",
        "imagefs.available": "image_disk_percent",
        "pid.available": "pids_percent",
    }
    for name, text in (amounts or {}).items():
        if name == "memory.available" and not str(text).endswith("%"):
            changed["memory_bytes"] = _amount(f"{where}.{name}", text, faults)
        elif name in shares and re.fullmatch(r"\d{1,2}(\.\d+)?%", str(text)):
            changed[shares[name]] = float(str(text)[:-1])
        else:
            faults.append(
                f"{where}.{name}: {str(text)[:32]!r} cannot be used: memory.available takes an amount such as 100Mi, "
                f"{', '.join(shares)} take a share such as 10%"
            )
    return Thresholds(**changed)


def _mqtt(values: dict[str, Any], faults: list[str]) -> MqttConfig | None:
    bus = "modules.eventBus"
    if not values[f"{bus}.enable"]:
        return None
    url: str = values[f"{bus}.mqttServerExternal"]
    if not re.fullmatch(r"(?:tcp|ssl|tls|mqtts?)://([^/:]+|\[[0-9a-fA-F:]+\])(?::\d{1,5})?/?", url):
        faults.append(f"{bus}.mqttServerExternal: {url!r} is not a broker such as tcp://127.0.0.1:1883")
        return None
    tls = None
    if values[f"{bus}.eventBusTLS.enable"]:
        url = re.sub(r"^\w+", "ssl", url)
        tls = {
            "ca": Path(values[f"{bus}.eventBusTLS.tlsMqttCAFile"]),
            "cert": Path(values[f"{bus}.eventBusTLS.tlsMqttCertFile"]),
            "key": Path(values[f"{bus}.eventBusTLS.tlsMqttPrivateKeyFile"]),
        }
    return MqttConfig(
        url=url,
        username=values[f"{bus}.mqttUsername"],
        password=values[f"{bus}.mqttPassword"],
        tls=tls,
    )


def _metaserver(values: dict[str, Any], faults: list[str]) -> MetaServerConfig | None:
    server = "modules.metaManager.metaServer"
    if not values[f"{server}.enable"]:
        return None
    text: str = values[f"{server}.dummyServer"]
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    try:
        ipaddress.ip_address(host)
        number = int(port)
    except ValueError:
        number = 0
    if not 0 < number < 65536:
        faults.append(f"{server}.dummyServer: {text!r} is not an IP address with a port")
    named = frozenset(values[f"{server}.offlineWrites"])
    never: frozenset[str] = frozenset()
    if named:
        # few name any, and pods of a machine that was switched on wait for what is loaded here
        from edgecore.metaserver.writes import NEVER as never
    for kind in sorted(named):
        if not _KIND.fullmatch(kind):
            faults.append(
                f"{server}.offlineWrites: {kind!r} is not a kind such as configmaps or devices.devices.kubeedge.io"
            )
        elif kind in never:
            faults.append(f"{server}.offlineWrites: {kind} cannot be written without the cloud")
    return MetaServerConfig(
        host=host,
        port=number,
        audiences=frozenset(values[f"{server}.apiAudiences"]),
        offline_writes=named,
    )


def addresses(text: str, where: str, faults: list[str]) -> tuple[str, ...]:
    """`host[:port]` separated by commas, each with its port."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(?::(\d{1,5}))?", part)
        if not match or not 0 < int(match[2] or HUB_PORT) < 65536:
            faults.append(f"{where}: {part!r} is not host:port")
            continue
        found.append(f"{match[1]}:{match[2] or HUB_PORT}")
    return tuple(found)


def default_node_name() -> str:
    """The host's name as a node's name.  Raises: ConfigError."""
    name = socket.gethostname().lower()
    if not resource.is_name(name):
        raise ConfigError(f"the host's name {name!r} is not a node name: set modules.edged.hostnameOverride")
    return name


def render_defaults() -> str:
    """The whole file with its defaults, one comment per key that does something here."""
    lines: list[str] = []
    open_groups: list[str] = []
    for key in KEYS.values():
        if key.ignored:
            continue
        *groups, name = key.path.split(".")
        common = 0
        while common < min(len(groups), len(open_groups)) and groups[common] == open_groups[common]:
            common += 1
        lines += [f"{'  ' * depth}{groups[depth]}:" for depth in range(common, len(groups))]
        open_groups = groups
        comment = f"  # {key.why}" if key.why else ""
        lines.append(f"{'  ' * len(groups)}{name}: {_yaml_value(key.default)}{comment}")
    return "\n".join(lines) + "\n"


def _yaml_value(value: Any) -> str:
    import json

    return json.dumps(value)  # JSON is YAML
