"""The `mapper` command: run a driver file, start a new one, check one.

Exit codes: 0 done, 1 the driver or the check failed, 2 wrong usage."""

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beehive import logs
from beehive.errors import ConfigError, SkerryError
from mappers.framework import config

if TYPE_CHECKING:
    from mappers.framework.driver import Driver

MAX_FAULT_BYTES = 1024
"""A pipe takes so much without anybody who reads."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    arguments = _parser().parse_args(argv)
    level = logging.DEBUG if arguments.verbose else logging.INFO
    logs.configure(level, "%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("hpack").setLevel(logging.INFO)
    try:
        code: int = arguments.do(arguments)
    except SkerryError as error:
        sys.stderr.write(f"mapper: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return code


class _Version(argparse.Action):
    """Reads the package's metadata, which costs memory, only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *unused: object) -> None:
        from importlib.metadata import version

        print(f"mapper {version('skerry')}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mapper", description="Drivers for devices on an edge.")
    parser.add_argument("-v", "--verbose", action="store_true", help="log every call")
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run", help="run a driver file, an importable module, or a driver that is here (modbus, …)"
    )
    run.add_argument("file", metavar="FILE")
    run.add_argument(
        "--dmi-dir", type=Path, metavar="DIR", help="folder of edgecore's dmi.sock (default /etc/kubeedge)"
    )
    run.add_argument(
        "--config", type=Path, metavar="F", help="configuration file, as KubeEdge's mappers have it"
    )
    run.add_argument("--name", help="name to register under, when several mappers share a protocol")
    run.add_argument(
        "--buffer-dir", type=Path, metavar="DIR", help="where readings wait that cannot be pushed yet"
    )
    run.add_argument("--protocol", help="protocol to register for (default: the driver's)")
    run.add_argument(
        "--while-input",
        action="store_true",
        help="end when standard input is closed: with the process that started this one",
    )
    run.add_argument(
        "--fault-fd", type=int, metavar="N", help="say on this descriptor, too, why it cannot run"
    )
    run.add_argument(
        "--simulate", action="store_true", help="run without an edgecore and print what would be reported"
    )
    run.add_argument(
        "--device", type=Path, metavar="YAML", help="with --simulate: DeviceModel and Device to run"
    )
    run.set_defaults(do=_run)
    new = commands.add_parser("new", help="write a driver file to start from")
    new.add_argument("name", metavar="NAME")
    new.set_defaults(do=_new)
    test = commands.add_parser("test", help="check a driver against what the framework expects")
    test.add_argument("file", metavar="FILE")
    test.add_argument(
        "--device", type=Path, metavar="YAML", help="DeviceModel and Device to use, else the driver's example"
    )
    test.set_defaults(do=_test)
    look = commands.add_parser("discover", help="show the devices around that a driver can find")
    look.add_argument("file", metavar="FILE")
    look.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="for the driver, e.g. seconds=10")
    look.add_argument("--output", choices=("table", "json"), default="table")
    look.set_defaults(do=_discover)
    show = commands.add_parser("manifests", help="print a driver's example as manifests for kubectl")
    show.add_argument("file", metavar="FILE")
    show.add_argument(
        "--node", default="edge-1", metavar="NAME", help="where the device is (default: edge-1)"
    )
    show.set_defaults(do=_manifests)
    package = commands.add_parser(
        "package", help="make a wheel of a driver file, to install on boards with pip"
    )
    package.add_argument("file", type=Path, metavar="FILE")
    package.add_argument("--version", default="0.1.0", metavar="V", help="(default: 0.1.0)")
    package.set_defaults(do=_package)
    bring = commands.add_parser("convert", help="bring manifests of devices v1alpha2 to v1beta1")
    bring.add_argument("file", type=Path, metavar="YAML")
    bring.set_defaults(do=_convert)
    _supervise_parser(commands)
    udev = commands.add_parser("udev", help="tell of hardware that is plugged in, by rules")
    udev.add_argument("--rules", type=Path, metavar="YAML", help="HardwareRules (default: the API server's)")
    udev.add_argument("--node", metavar="NAME", help="name of this node (default: the host's)")
    udev.add_argument("--api", metavar="URL", help="API server to report to, e.g. the node's own metaserver")
    udev.add_argument("--token-file", type=Path, metavar="F", help="bearer token for it")
    udev.add_argument("--ca", metavar="F", help="authority of the API server")
    udev.add_argument("--settle", type=float, default=0.5, metavar="S", help="quiet time before it is told")
    udev.add_argument(
        "--grace", type=float, default=5.0, metavar="S", help="time away before it counts as unplugged"
    )
    udev.add_argument(
        "--source", choices=("udev", "kernel"), default="", help="whose events (default: udev if it runs)"
    )
    udev.set_defaults(do=_udev)
    return parser


def _discover(arguments: argparse.Namespace) -> int:
    from mappers.framework.desk import discover
    from mappers.framework.runner import load_driver

    pairs = [text.partition("=") for text in arguments.settings]
    if any(not equals for _, equals, _ in pairs):
        raise ConfigError("settings are given as KEY=VALUE")
    settings = {key: value for key, _, value in pairs}
    asyncio.run(discover(load_driver(arguments.file), settings, as_json=arguments.output == "json"))
    return 0


def _manifests(arguments: argparse.Namespace) -> int:
    import yaml

    from mappers.framework.desk import manifests
    from mappers.framework.runner import load_driver

    documents = manifests(load_driver(arguments.file), arguments.node)
    print(yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True), end="")
    return 0


def _package(arguments: argparse.Namespace) -> int:
    from mappers.framework import package
    from mappers.framework.runner import load_driver

    driver = load_driver(str(arguments.file))
    name, content = package.wheel(
        arguments.file.stem, arguments.file.read_text(encoding="utf-8"), driver.protocol, arguments.version
    )
    Path(name).write_bytes(content)
    print(f"wrote {name}; on a board: pip install {name}, beside Skerry")
    return 0


def _supervise_parser(commands: Any) -> None:
    keep = commands.add_parser(
        "supervise",
        help="run the drivers that this node's devices need, and tell of hardware that is plugged in",
    )
    keep.add_argument(
        "--edgecore",
        type=Path,
        default=Path("/var/lib/skerry/edge/edgecore.sock"),
        metavar="SOCKET",
        help="edgecore's own socket (default %(default)s)",
    )
    keep.add_argument("--dmi-dir", type=Path, default=config.DEFAULT_DMI_DIR, metavar="DIR")
    keep.add_argument("--buffer-dir", type=Path, default=config.DEFAULT_BUFFER_DIR, metavar="DIR")
    keep.add_argument(
        "--drivers",
        type=Path,
        default=Path("/etc/skerry/drivers"),
        metavar="DIR",
        help="folder with driver files of your own (default %(default)s)",
    )
    keep.add_argument("--settle", type=float, default=0.5, metavar="S", help="quiet time before it is told")
    keep.add_argument(
        "--grace", type=float, default=5.0, metavar="S", help="time away before it counts as unplugged"
    )
    keep.add_argument("--source", choices=("udev", "kernel"), default="", help="whose events")
    keep.set_defaults(do=_supervise)


def _convert(arguments: argparse.Namespace) -> int:
    import yaml

    from beehive.apis import devices_v1alpha2

    try:
        documents = list(yaml.safe_load_all(arguments.file.read_text()))
    except OSError as error:
        raise ConfigError(f"cannot read {arguments.file}: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {arguments.file}: {error}") from error
    if not any(isinstance(document, dict) and "kind" in document for document in documents):
        raise ConfigError(f"cannot read {arguments.file}: there are no manifests in it")
    print(
        yaml.safe_dump_all(devices_v1alpha2.convert(documents), sort_keys=False, allow_unicode=True), end=""
    )
    return 0


def _udev(arguments: argparse.Namespace) -> int:
    import socket

    from mappers.udev import app
    from mappers.udev.report import Api

    api = None
    if arguments.api:
        try:
            token = arguments.token_file.read_text().strip() if arguments.token_file else ""
        except OSError as error:
            raise ConfigError(f"cannot read {arguments.token_file}: {error.strerror}") from error
        api = Api(url=arguments.api, token=token, ca=arguments.ca)
    options = app.Options(
        node=arguments.node or socket.gethostname().lower(),
        rules=arguments.rules,
        api=api,
        settle_s=max(arguments.settle, 0.0),
        grace_s=max(arguments.grace, 0.0),
        events_from=arguments.source,
    )
    asyncio.run(app.run(options))
    return 0


def _run(arguments: argparse.Namespace) -> int:
    try:
        return _run_driver(arguments)
    except Exception as error:
        if arguments.fault_fd is not None:
            text = str(error) if isinstance(error, SkerryError) else f"{type(error).__name__}: {error}"
            with contextlib.suppress(OSError):  # who asked for it has gone
                os.write(arguments.fault_fd, text.encode()[:MAX_FAULT_BYTES])
        raise


def _run_driver(arguments: argparse.Namespace) -> int:
    from beehive.supervise import run_daemon
    from mappers.framework.runner import load_driver

    driver = load_driver(arguments.file)
    if arguments.simulate:
        from mappers.framework.desk import simulate

        asyncio.run(simulate(driver, arguments.device))
        return 0
    settings = config.load(arguments.config) if arguments.config is not None else config.MapperConfig()
    if arguments.dmi_dir is not None:
        settings = replace(settings, edgecore_sock=arguments.dmi_dir / "dmi.sock")
    if arguments.buffer_dir is not None:
        settings = replace(settings, buffer_dir=arguments.buffer_dir)
    if arguments.name:
        settings = replace(settings, name=arguments.name)
    if arguments.protocol:
        settings = replace(settings, protocol=arguments.protocol)
    run_daemon(_run_until(driver, settings, while_input=arguments.while_input))
    return 0


async def _run_until(driver: "type[Driver]", settings: config.MapperConfig, *, while_input: bool) -> None:
    """Until a signal comes, or the one who holds our standard input goes."""
    stop = asyncio.Event()
    if while_input:

        def look() -> None:
            if not os.read(0, 4096):
                asyncio.get_running_loop().remove_reader(0)
                stop.set()

        asyncio.get_running_loop().add_reader(0, look)
    from mappers.framework.runner import run_mapper

    await run_mapper(driver, settings, stop=stop)


def _supervise(arguments: argparse.Namespace) -> int:
    from mappers.supervise import app

    options = app.Options(
        edgecore=arguments.edgecore,
        dmi_dir=arguments.dmi_dir,
        buffer_dir=arguments.buffer_dir,
        drivers=arguments.drivers,
        settle_s=max(arguments.settle, 0.0),
        grace_s=max(arguments.grace, 0.0),
        events_from=arguments.source,
    )
    asyncio.run(app.run(options))
    return 0


def _new(arguments: argparse.Namespace) -> int:
    from mappers.framework.desk import write_template

    path = write_template(arguments.name)
    print(f"wrote {path}; try it with: mapper run {path} --simulate")
    return 0


def _test(arguments: argparse.Namespace) -> int:
    from mappers.framework.desk import check_driver
    from mappers.framework.runner import load_driver

    good = asyncio.run(check_driver(load_driver(arguments.file), arguments.device))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
