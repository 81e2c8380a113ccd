"""The configuration file: what is accepted, what is refused, what comes out."""

from pathlib import Path

import pytest
import yaml

from beehive.errors import ConfigError
from edgecore import config


def test_an_empty_file_is_all_defaults() -> None:
    found = config.parse(None)
    assert found.data_dir == Path("/var/lib/skerry/edge")
    assert found.database == Path("/var/lib/skerry/edge/edgecore.db")
    assert found.dmi_dir == Path("/etc/kubeedge/")
    assert found.edged is not None
    assert found.edged.runtime_endpoint == "/run/containerd/containerd.sock"
    assert found.mqtt is not None
    assert found.mqtt.url == "tcp://127.0.0.1:1883"
    assert found.clouds == ()


def test_the_printed_defaults_are_the_defaults() -> None:
    printed = yaml.safe_load(config.render_defaults())
    assert config.parse(printed) == config.parse({"dataDir": config.DEFAULT_DATA_DIR})


def test_what_the_trial_writes_is_read() -> None:
    found = config.parse(
        {
            "apiVersion": config.API_VERSION,
            "kind": "EdgeCore",
            "dataDir": "/tmp/x/edge",
            "modules": {
                "edgeHub": {"websocket": {"server": "127.0.0.1:10000"}},
                "edged": {
                    "hostnameOverride": "edge-1",
                    "tailoredKubeletConfig": {"containerRuntimeEndpoint": "unix:///tmp/x/c.sock"},
                },
                "eventBus": {"mqttServerExternal": "tcp://127.0.0.1:11883"},
            },
        }
    )
    assert found.clouds == ("127.0.0.1:10000",)
    assert found.node == "edge-1"
    assert found.dmi_dir == Path("/tmp/x/edge")
    assert found.edged is not None
    assert found.edged.runtime_endpoint == "/tmp/x/c.sock"
    assert found.edged.root_dir == Path("/tmp/x/edge/pods")
    assert found.edged.plugin_dir is None
    assert found.edged.log_links is None


def test_kubeedges_own_file_is_read() -> None:
    """What `edgecore --defaultconfig` of KubeEdge prints, shortened to keys of every kind."""
    text = """
    apiVersion: edgecore.config.kubeedge.io/v1alpha2
    kind: EdgeCore
    database: {aliasName: default, dataSource: /var/lib/kubeedge/edgecore.db, driverName: sqlite3}
    featureGates: {requireAuthorization: false}
    modules:
      dbTest: {enable: false}
      deviceTwin: {dmiSockPath: /etc/kubeedge/, enable: true}
      edgeHub:
        enable: true
        heartbeat: 15
        httpServer: https://10.0.0.1:10002
        messageBurst: 60
        messageQPS: 30
        projectID: e632aba927ea4ac2b575ec1603d56f10
        quic: {enable: false, handshakeTimeout: 30, readDeadline: 15, server: "10.0.0.1:10001", writeDeadline: 15}
        rotateCertificates: true
        tlsCaFile: /etc/kubeedge/ca/rootCA.crt
        tlsCertFile: /etc/kubeedge/certs/server.crt
        tlsPrivateKeyFile: /etc/kubeedge/certs/server.key
        token: ""
        websocket: {enable: true, handshakeTimeout: 30, readDeadline: 15, server: "10.0.0.1:10000", writeDeadline: 15}
      edged:
        enable: true
        hostnameOverride: board-7
        maxContainerCount: -1
        maxPerPodContainerCount: 1
        minimumGCAge: 0s
        podSandboxImage: kubeedge/pause:3.6
        registerNodeNamespace: default
        registerSchedulable: true
        reportEvent: false
        rootDirectory: /var/lib/kubelet
        tailoredKubeletConfig:
          address: 127.0.0.1
          cgroupDriver: systemd
          clusterDNS: [169.254.96.16]
          clusterDomain: cluster.local
          containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
          evictionHard: {memory.available: 100Mi}
          imageServiceEndpoint: unix:///run/containerd/containerd.sock
          syncFrequency: 1m0s
          staticPodPath: /etc/kubeedge/manifests
      edgeStream: {enable: false, handshakeTimeout: 30, server: "10.0.0.1:10004"}
      eventBus:
        enable: true
        eventBusTLS: {enable: false, tlsMqttCAFile: /a, tlsMqttCertFile: /b, tlsMqttPrivateKeyFile: /c}
        mqttMode: 2
        mqttServerExternal: tcp://127.0.0.1:1883
        mqttServerInternal: tcp://127.0.0.1:1884
        mqttSessionQueueSize: 100
      metaManager:
        contextSendGroup: hub
        contextSendModule: websocket
        enable: true
        metaServer: {enable: false, server: "127.0.0.1:10550"}
        remoteQueryTimeout: 60
      serviceBus: {enable: false, port: 9060, server: 127.0.0.1, timeout: 60}
      taskManager: {enable: false}
    """
    found = config.parse(yaml.safe_load(text))
    assert found.node == "board-7"
    assert found.edged is not None
    assert found.edged.cgroup_driver == "systemd"
    assert found.edged.plugin_dir == Path("/var/lib/kubelet")
    # beside it lie the plugins of others
    assert found.edged.root_dir == Path("/var/lib/kubelet/pods")
    assert found.edged.resync_s == 60
    assert not found.report_events


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"modules": {"edgeHub": {"websocket": {"sever": "x"}}}},
            "websocket.sever: unknown key, did you mean",
        ),
        ({"nonsense": 1}, "nonsense: unknown key"),
        ({"kind": "CloudCore"}, "kind: 'CloudCore' is not possible"),
        ({"apiVersion": "v1"}, "apiVersion"),
        ({"dataDir": "relative"}, "dataDir"),
        ({"dataDir": "/" + "x" * 200}, "dataDir: a socket"),
        ({"dataDir": 5}, "dataDir: 5 is not a str"),
        ({"modules": {"edged": {"hostnameOverride": "Bad_Name"}}}, "hostnameOverride"),
        ({"modules": {"edged": "x"}}, "modules.edged: is a group"),
        ({"modules": {"edged": {"tailoredKubeletConfig": {"maxPods": True}}}}, "maxPods: True is not a int"),
        ({"modules": {"edged": {"tailoredKubeletConfig": {"syncFrequency": "soon"}}}}, "syncFrequency"),
        (
            {"modules": {"edged": {"tailoredKubeletConfig": {"containerRuntimeEndpoint": "tcp://x"}}}},
            "unix socket",
        ),
        ({"modules": {"edgeHub": {"token": "secret-token"}}}, "edgecore join"),
        ({"modules": {"edgeHub": {"quic": {"enable": True}}}}, "quic.enable: True is not possible"),
        ({"modules": {"edgeHub": {"websocket": {"server": "http://x"}}}}, "is not host:port"),
        ({"modules": {"edgeHub": {"websocket": {"server": "x:99999"}}}}, "is not host:port"),
        ({"modules": {"eventBus": {"mqttServerExternal": "127.0.0.1"}}}, "is not a broker"),
        ({"modules": {"eventBus": {"mqttMode": 0}}}, "mqttMode"),
        ({"modules": {"serviceBus": {"enable": True}}}, "serviceBus.enable"),
        ([], "not a map"),
    ],
)
def test_a_fault_is_named_with_its_key(given: object, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(given)
    assert any(told in fault for fault in caught.value.faults), caught.value.faults
    assert "secret-token" not in str(caught.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse({"a": 1, "kind": "X", "dataDir": "x", "modules": {"edged": {"maxPods": 1}}})
    assert len(caught.value.faults) == 4


def test_several_clouds() -> None:
    found = config.parse(
        {"modules": {"edgeHub": {"websocket": {"server": "a.example, 10.0.0.2:1234,[::1]"}}}}
    )
    assert found.clouds == ("a.example:10000", "10.0.0.2:1234", "[::1]:10000")


@pytest.mark.parametrize("text", ["a: [", "\t", "a: \x00", "&a [*a]" * 3, "- " * 5000])
def test_a_file_that_is_no_yaml_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "edgecore.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        config.load(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        config.load(tmp_path / "none.yaml")


def kubelet(**keys: object) -> dict[str, object]:
    return {"modules": {"edged": {"tailoredKubeletConfig": keys}}}


def test_a_kubelets_limits_are_honoured() -> None:
    found = config.parse(
        kubelet(
            podPidsLimit=-1,
            containerLogMaxSize="1Mi",
            containerLogMaxFiles=3,
            systemReserved={"cpu": "250m", "memory": "100Mi", "ephemeral-storage": "1Gi"},
            kubeReserved={"cpu": "1", "ephemeral-storage": "1Gi"},
            evictionHard={"memory.available": "50Mi", "nodefs.available": "3%"},
        )
    ).edged
    assert found is not None
    assert found.pod_pids_limit == -1
    assert (found.log_max_bytes, found.log_max_files) == (2**20, 3)
    assert (found.system_reserved_cpu_milli, found.system_reserved_memory_bytes) == (1250, 100 * 2**20)
    assert found.system_reserved_disk_bytes == 2 * 2**30
    assert found.evict is not None
    assert (found.evict.memory_bytes, found.evict.disk_percent) == (50 * 2**20, 3.0)
    assert found.evict.inodes_percent == 5.0


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"containerLogMaxSize": "ten"}, "containerLogMaxSize: not a quantity"),
        ({"systemReserved": {"cpu": "x"}}, "systemReserved.cpu: not a quantity"),
        ({"evictionHard": {"nodefs.available": "1Gi"}}, "nodefs.available"),
        ({"evictionHard": {"moon.available": "1%"}}, "moon.available"),
    ],
)
def test_limits_that_cannot_be_used_are_told(keys: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config.parse(kubelet(**keys))


def test_the_socket_of_mappers_is_a_folder_or_a_file_in_it() -> None:
    for text in ("/run/dmi", "/run/dmi/", "/run/dmi/other.sock"):
        found = config.parse({"modules": {"deviceTwin": {"dmiSockPath": text}}})
        assert found.dmi_dir == Path("/run/dmi")


@pytest.mark.parametrize(
    ("keys", "periods"),
    [
        ({}, [(0, 15), (2_000_000_000, 5)]),
        ({"shutdownGracePeriod": "0s"}, []),
        (
            {"shutdownGracePeriod": "1m", "shutdownGracePeriodCriticalPods": "10s"},
            [(0, 50), (2_000_000_000, 10)],
        ),
        (
            {
                "shutdownGracePeriodByPodPriority": [
                    {"priority": 0, "shutdownGracePeriodSeconds": 30},
                    {"priority": 1000, "shutdownGracePeriodSeconds": 7},
                ]
            },
            [(0, 30), (1000, 7)],
        ),
    ],
)
def test_how_long_pods_have_when_the_machine_goes_down(
    keys: dict[str, object], periods: list[tuple[int, int]]
) -> None:
    edged = config.parse(kubelet(**keys)).edged
    assert edged is not None
    assert [(p.priority, p.seconds) for p in edged.shutdown] == periods


def test_periods_by_priority_that_cannot_be_read_are_told() -> None:
    for bad in ("x", [{"priority": 1}], [{"priority": 1, "shutdownGracePeriodSeconds": -1}]):
        with pytest.raises(ConfigError, match="shutdownGracePeriodByPodPriority"):
            config.parse(kubelet(shutdownGracePeriodByPodPriority=bad))
