"""A mapper's configuration file, in the shape of KubeEdge's mapper framework.  Pure but for reading the file.

    grpc_server: {socket_path: /etc/kubeedge/virtual.sock}
    common: {name: virtual, version: v1, api_version: v1.0.0, protocol: virtual, edgecore_sock: /etc/kubeedge/dmi.sock}

Everything is optional; unknown keys are errors that name the key.  `address`, `http_port` and `dev_init` of KubeEdge's files
are accepted and not used."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beehive.errors import ConfigError

DEFAULT_DMI_DIR = Path("/etc/kubeedge")
DEFAULT_BUFFER_DIR = Path("/var/lib/skerry/mappers")
_KNOWN = {
    "grpc_server": {"socket_path"},
    "common": {"name", "version", "api_version", "protocol", "address", "edgecore_sock", "http_port"},
    "dev_init": {"mode"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MapperConfig:
    """name, protocol: "" means the driver's.  socket_path: None means `<name>.sock` beside edgecore's socket.
    buffer_dir: where readings wait that could not be pushed, in a folder per mapper."""

    name: str = ""
    protocol: str = ""
    version: str = "v1"
    edgecore_sock: Path = DEFAULT_DMI_DIR / "dmi.sock"
    socket_path: Path | None = None
    buffer_dir: Path = DEFAULT_BUFFER_DIR


def load(path: Path) -> MapperConfig:
    """Raises: ConfigError with every fault."""
    import yaml  # only a mapper with a file pays for it

    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return parse(document, str(path))


def parse(document: Any, where: str = "config") -> MapperConfig:
    """Check a parsed file.  Raises: ConfigError with every fault."""
    if document is None:
        return MapperConfig()
    if not isinstance(document, dict):
        raise ConfigError(f"{where}: is not a mapping")
    faults: list[str] = []
    values: dict[str, str] = {}
    for section, body in document.items():
        if section not in _KNOWN:
            faults.append(f"{where}: unknown key {section}")
        elif not isinstance(body, dict):
            faults.append(f"{where}: {section} is not a mapping")
        else:
            for key, value in body.items():
                if key not in _KNOWN[section]:
                    faults.append(f"{where}: unknown key {section}.{key}")
                elif not isinstance(value, str | int | float):
                    faults.append(f"{where}: {section}.{key} is not a text")
                else:
                    values[key] = str(value)
    if faults:
        raise ConfigError(faults)
    base = MapperConfig()
    return MapperConfig(
        name=values.get("name", ""),
        protocol=values.get("protocol", ""),
        version=values.get("version", base.version),
        edgecore_sock=Path(values.get("edgecore_sock", base.edgecore_sock)),
        socket_path=Path(values["socket_path"]) if "socket_path" in values else None,
    )
