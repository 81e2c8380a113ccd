"""The `cloudcore` command.  Exit codes: 0 it did what was asked, 1 it could not, 2 it was called or configured wrongly."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import sys
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click
import msgspec
import yaml

from beehive import clock, logs
from beehive.errors import ConfigError, SkerryError
from beehive.supervise import run_daemon
from beehive.watchdog import Watchdog
from cloudcore import config as configuration
from cloudcore import kube
from cloudcore import main as daemon
from cloudcore.config import Config
from cloudcore.identity import join, revocation
from cloudcore.identity.authority import ensure_authority
from cloudcore.kube import Kube
from cloudcore.objects import NODE

P = ParamSpec("P")
R = TypeVar("R")

_DURATION = re.compile(r"(\d{1,6})(s|m|h|d)")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _reported(command: Callable[P, R]) -> Callable[P, R]:
    """Turn our errors into one sentence (or one a fault of the configuration) and an exit code."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except ConfigError as error:
            for fault in error.faults:
                click.echo(f"cloudcore: {fault}", err=True)
            sys.exit(2)
        except SkerryError as error:
            click.echo(f"cloudcore: {error}", err=True)
            sys.exit(1)

    return wrapped


def _config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path, dir_okay=False),
        default=None,
        help=f"Configuration file; {configuration.DEFAULT_PATH} if that is there, else the defaults.",
    )(command)


def _load(path: Path | None) -> Config:
    if path is not None:
        return configuration.load(path)
    if configuration.DEFAULT_PATH.exists():
        return configuration.load(configuration.DEFAULT_PATH)
    return configuration.parse("")


def _duration(text: str) -> timedelta:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"{text!r} is not a time such as 90s, 30m, 24h or 7d")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def _new_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    make: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return make


def _run(work: Coroutine[Any, Any, R]) -> R:
    with asyncio.Runner(loop_factory=_new_loop()) as runner:
        return runner.run(work)


def _with_api(config: Config, work: Callable[[Kube], Coroutine[Any, Any, R]]) -> R:
    """Do something with the API that this configuration names, or with the control plane in the box if it runs here."""

    async def go() -> R:
        kubeconfig = config.kubeconfig
        if not kubeconfig and config.admin_kubeconfig.exists():
            kubeconfig = str(config.admin_kubeconfig)
        client = Kube(kube.load(kubeconfig, config.master), threads=2)
        try:
            return await work(client)
        finally:
            await client.close()

    return _run(go())


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="skerry")
def cli() -> None:
    """The cloud half of Skerry: between the Kubernetes API and the edge nodes."""


@cli.command()
@_config_option
@click.option("--standalone", is_flag=True, help="Bring a small control plane along; no cluster is needed.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
@_reported
def run(*, config_path: Path | None, standalone: bool, log_level: str) -> None:
    """Run cloudcore until a signal ends it."""
    config = _load(config_path)
    logs.configure(log_level.upper(), "%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    # a line for each connection that is dropped from the pool tells nobody anything
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    watchdog = Watchdog()
    run_daemon(
        daemon.run(config, standalone=standalone, watchdog=watchdog), loop=_new_loop(), watchdog=watchdog
    )


@cli.group()
def token() -> None:
    """Join tokens: each lets one machine, or a counted number, become nodes."""


@token.command("create")
@_config_option
@click.option("--ttl", default="24h", show_default=True, help="How long it may be used: 90s, 30m, 24h, 7d.")
@click.option("--uses", default=1, show_default=True, help="How many nodes may join by it.")
@click.option(
    "--node", default="", help="The only node name it is for; may take the place of an existing node."
)
@_reported
def create(*, config_path: Path | None, ttl: str, uses: int, node: str) -> None:
    """Make a token and print it; it cannot be shown again."""
    life = _duration(ttl)

    async def work(client: Kube) -> str:
        authority = await ensure_authority(client)
        made = await join.create_token(client, ttl=life, uses=uses, node=node)
        return f"{authority.fingerprint}.{made.shown}"

    click.echo(_with_api(_load(config_path), work))


@token.command("list")
@_config_option
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@_reported
def list_(*, config_path: Path | None, output: str) -> None:
    """Show what tokens there are, without their secrets."""
    records = _with_api(_load(config_path), join.list_tokens)
    rows = [
        {
            "id": record.id,
            "left": 0 if record.expired(clock.wall()) else record.left,
            "uses": record.uses,
            "expires": record.expires,
            "node": record.node,
            "usedBy": [use.node for use in record.used],
        }
        for record in records
    ]
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
        return
    click.echo(f"{'ID':8}{'LEFT':>5}{'USES':>6}  {'EXPIRES':27}{'FOR':20}USED BY")
    for row in rows:
        by = ", ".join(row["usedBy"][:5]) if isinstance(row["usedBy"], list) else ""
        click.echo(
            f"{row['id']:8}{row['left']:>5}{row['uses']:>6}  {row['expires']:27}{row['node'] or 'any':20}{by}"
        )


@token.command("revoke")
@_config_option
@click.argument("token_id")
@_reported
def revoke(*, config_path: Path | None, token_id: str) -> None:
    """Make a token useless.  TOKEN_ID is the six characters that `list` shows."""
    if re.fullmatch(r"[a-z0-9]{6}", token_id) is None:
        raise click.BadParameter(f"{token_id!r} is not a token id: six letters or digits")
    if not _with_api(_load(config_path), lambda client: join.revoke_token(client, token_id)):
        raise SkerryError(f"there is no token {token_id}")
    click.echo(f"token {token_id} revoked")


@cli.group("node")
def node_() -> None:
    """Nodes: who may no longer be one."""


@node_.command("revoke")
@_config_option
@click.argument("name")
@click.option(
    "--serial", default="", help="Only the certificate with this number (hexadecimal); else all of the node."
)
@_reported
def revoke_node(*, config_path: Path | None, name: str, serial: str) -> None:
    """Make a node's certificates void: its link ends at once.  It can join again with a new token."""
    _with_api(_load(config_path), lambda client: revocation.revoke(client, name, serial=serial))
    click.echo(f"node {name}: {f'certificate {serial}' if serial else 'all certificates'} revoked")


@cli.command("config")
@click.option("--defaults", is_flag=True, required=True, help="Print the commented file with every default.")
def config_(*, defaults: bool) -> None:
    """Show what can be configured."""
    del defaults
    click.echo(configuration.defaults(), nl=False)


@cli.command()
@_config_option
@_reported
def check(*, config_path: Path | None) -> None:
    """Say whether the configuration is right and the API answers."""
    config = _load(config_path)
    click.echo("configuration: right")

    async def work(client: Kube) -> str:
        page = await client.list_all(NODE)
        return f"API: answers at {client.host}, {len(page.objects)} nodes"

    click.echo(_with_api(config, work))


@cli.command()
@_config_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_reported
def backup(*, config_path: Path | None, file: Path) -> None:
    """Save the control plane in the box to FILE, also while it runs.  FILE holds its keys: keep it safe."""
    from cloudcore.standalone.backup import save

    count = save(_load(config_path).standalone.state_dir, file)
    click.echo(f"{count} objects saved to {file}")


@cli.command()
@_config_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@_reported
def restore(*, config_path: Path | None, file: Path) -> None:
    """Put the control plane in the box back to what FILE holds.  It must not run meanwhile."""
    from cloudcore.standalone.backup import restore as put_back

    count = put_back(_load(config_path).standalone.state_dir, file)
    click.echo(f"{count} objects restored from {file}")


@cli.command()
@_config_option
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=None)
@_reported
def export(*, config_path: Path | None, output: Path | None) -> None:
    """Write what people made in the control plane in the box as manifests for another cluster.

    Without -o they go to standard output.  Definitions come before what they define; apply twice where it is new."""
    from cloudcore.standalone.credentials import write_private
    from cloudcore.standalone.server import manifests_of

    found = manifests_of(_load(config_path).standalone.state_dir)
    if output is None:
        click.echo(yaml.safe_dump_all([item.body for item in found], sort_keys=False), nl=False)
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
        for item in found:
            # among them are secrets
            write_private(output / item.file_name, yaml.safe_dump(item.body, sort_keys=False).encode())
    except OSError as error:
        raise SkerryError(f"cannot write to {output}: {error.strerror}") from error
    click.echo(f"{len(found)} manifests written to {output}")


def main() -> None:
    """The console script."""
    cli()


if __name__ == "__main__":
    main()
