from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from beehive.errors import ConfigError
from cloudcore import config


def test_what_is_printed_as_defaults_is_the_defaults() -> None:
    assert config.parse(config.defaults()) == config.parse("")


def test_every_fault_is_told_at_once_with_its_key() -> None:
    text = """
    apiVersion: v1
    kind: EdgeCore
    colour: red
    modules:
      cloudHub:
        nodeLimit: many
        advertiseAddress: [example.com]
        websocket: {port: 70000, enable: false, tls: yes}
      deviceController: 7
    """
    with pytest.raises(ConfigError) as failed:
        config.parse(text)
    named = {fault.split(":")[0] for fault in failed.value.faults}
    assert named == {
        "apiVersion",
        "kind",
        "colour",
        "modules.cloudHub.nodeLimit",
        "modules.cloudHub.advertiseAddress",
        "modules.cloudHub.websocket.port",
        "modules.cloudHub.websocket.enable",
        "modules.cloudHub.websocket.tls",
        "modules.deviceController",
    }


def test_a_kubeedge_file_is_accepted() -> None:
    text = """
    apiVersion: cloudcore.config.kubeedge.io/v1alpha2
    kind: CloudCore
    commonConfig: {tunnelPort: 10351, monitorServer: {bindAddress: 127.0.0.1:9091}}
    kubeAPIConfig: {kubeConfig: /root/.kube/config, master: "", qps: 100, burst: 200, contentType: x}
    modules:
      cloudHub:
        advertiseAddress: [10.0.0.1]
        dnsNames: [""]
        keepaliveInterval: 30
        nodeLimit: 1000
        tlsCAFile: /etc/kubeedge/ca/rootCA.crt
        unixsocket: {address: "unix:///var/lib/kubeedge/kubeedge.sock", enable: true}
        websocket: {address: 0.0.0.0, enable: true, port: 10000}
        https: {address: 0.0.0.0, enable: true, port: 10002}
        quic: {enable: false}
        authorization: {enable: false}
      deviceController: {enable: true, buffer: {deviceEvent: 1}}
      syncController: {enable: true}
      router: {enable: false}
    featureGates: {requireAuthorization: false}
    """
    read = config.parse(text)
    assert (read.hub.advertise, read.hub.dns_names, read.hub.port) == (("10.0.0.1",), (), 10000)
    assert read.kubeconfig == "/root/.kube/config"


@pytest.mark.parametrize("text", ["[]", "a: [", "7", "\x00", "&a [*a]"])
def test_what_is_no_file_of_ours_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        config.parse(text)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*: No such file or directory"):
        config.load(tmp_path / "absent.yaml")


def test_the_defaults_are_yaml_with_a_reason_for_each_key() -> None:
    lines = config.defaults().splitlines()
    assert yaml.safe_load(config.defaults())["kind"] == "CloudCore"
    assert all("#" in line or line.endswith(":") for line in lines[2:])
