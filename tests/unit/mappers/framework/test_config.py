from pathlib import Path

import pytest

from beehive.errors import ConfigError
from mappers.framework.config import load, parse

KUBEEDGE = """
grpc_server:
  socket_path: /etc/kubeedge/modbus.sock
common:
  name: modbus-mapper
  version: v1.13.0
  api_version: v1.0.0
  protocol: modbus
  address: 127.0.0.1
  edgecore_sock: /etc/kubeedge/dmi.sock
  http_port: "7777"
dev_init:
  mode: register
"""


def test_a_file_of_kubeedges_framework_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(KUBEEDGE)
    config = load(path)
    assert (config.name, config.protocol) == ("modbus-mapper", "modbus")
    assert config.socket_path == Path("/etc/kubeedge/modbus.sock")
    assert config.edgecore_sock == Path("/etc/kubeedge/dmi.sock")


def test_every_unknown_key_is_named() -> None:
    with pytest.raises(ConfigError) as error:
        parse({"common": {"nme": 1, "protocol": ["x"]}, "odd": {}, "grpc_server": 5})
    assert len(error.value.faults) == 4
    assert "common.nme" in str(error.value)


@pytest.mark.parametrize("text", ["[1]", "{", "a: b: c", "\x00"])
def test_no_config_is_an_error_of_ours(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load(path)


def test_nothing_given_is_all_defaults() -> None:
    assert parse(None).name == ""
    assert parse({}).edgecore_sock == Path("/etc/kubeedge/dmi.sock")
