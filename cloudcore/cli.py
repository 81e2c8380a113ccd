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

from beehive import clock, logs, resource
from beehive.errors import ConfigError, Conflict, SkerryError
from beehive.supervise import run_daemon
from beehive.watchdog import Watchdog
from cloudcore import config as configuration
from cloudcore import kube
from cloudcore import main as daemon
from cloudcore.config import Config
from cloudcore.identity import followers, join, pki, revocation, succession
from cloudcore.identity.authority import CA_LIFETIME, change_authority, ensure_authority
from cloudcore.identity.rotation import trusts
from cloudcore.identity.succession import Held
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
        found = await ensure_authority(client)
        made = await join.create_token(client, ttl=life, uses=uses, node=node)
        return f"{found.fingerprint}.{made.shown}"

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


@cli.group()
def authority() -> None:
    """The hub's certificate authority: put a new one in its place while nodes are away and come back."""


@authority.command()
@_config_option
@click.option(
    "--window", default="30d", show_default=True, help="How long the old one counts beside it: 12h, 30d."
)
@_reported
def rotate(*, config_path: Path | None, window: str) -> None:
    """Make a new authority.  Nodes that are linked follow by themselves and renew their certificates, spread over time."""
    config, length = _load(config_path), _duration(window)

    async def work(client: Kube) -> str:
        await ensure_authority(client)
        now = clock.wall()
        name = f"KubeEdge {now:%Y-%m-%d %H:%M:%S}"
        made = await asyncio.to_thread(pki.make_ca, name, lifetime=CA_LIFETIME, now=now)
        held = await change_authority(
            client,
            lambda found: succession.begin(
                succession.settle(found, now=now),
                made,
                now=now,
                window=length,
                certificate_life=config.hub.certificate_life,
            ),
        )
        return followers.text(held, await _followers(client, held))

    click.echo(_with_api(config, work))


@authority.command("status")
@_config_option
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@_reported
def status_(*, config_path: Path | None, output: str) -> None:
    """Show which nodes trust the new authority and hold certificates of it, and which cannot follow."""

    async def work(client: Kube) -> str:
        held = (await ensure_authority(client)).held
        found = await _followers(client, held)
        if output == "text":
            return followers.text(held, found)
        return msgspec.json.format(msgspec.json.encode(followers.report(held, found)), indent=2).decode()

    click.echo(_with_api(_load(config_path), work))


@authority.command()
@_config_option
@click.argument("time")
@_reported
def extend(*, config_path: Path | None, time: str) -> None:
    """Let the window end TIME from now, sooner or later than before: 12h, 60d.  Nodes that are linked hear of it."""
    length = _duration(time)

    async def work(client: Kube) -> str:
        until = clock.wall() + length
        held = await change_authority(client, lambda found: succession.extend(found, until=until))
        return followers.text(held, await _followers(client, held))

    click.echo(_with_api(_load(config_path), work))


@authority.command()
@_config_option
@click.option(
    "--force", is_flag=True, help="Even if nodes have not followed: they need a new join token then."
)
@_reported
def finish(*, config_path: Path | None, force: bool) -> None:
    """End the window now: the old authority's certificates count no more, and its key is destroyed."""

    async def work(client: Kube) -> str:
        now = clock.wall()
        held = (await ensure_authority(client)).held
        found = await _followers(client, held)
        if held.old is not None and not force and not all(one.follows for one in found):
            raise Conflict(
                f"not every node follows; --force shuts out those that do not.  {followers.summary(found)}"
            )
        after = await change_authority(client, lambda stored: succession.finish(stored, now=now))
        return followers.text(after, found)

    click.echo(_with_api(_load(config_path), work))


@authority.command()
@_config_option
@click.argument("node")
@click.option("--for", "time", default="7d", show_default=True, help="How long it may come: 12h, 7d.")
@_reported
def readmit(*, config_path: Path | None, node: str, time: str) -> None:
    """Let NODE in once more with a certificate of a replaced authority, so that it gets a new one without anybody going there.

    Not where the old authority's key may be in other hands: who has it can be NODE meanwhile."""
    length = _duration(time)
    if not resource.is_name(node):
        raise click.BadParameter(f"{node!r} is not a node name")

    async def work(client: Kube) -> str:
        until = clock.wall() + length
        await change_authority(client, lambda found: succession.readmit(found, node, until=until))
        return f"node {node} may come with a certificate of a replaced authority until {until:%Y-%m-%d %H:%M} UTC"

    click.echo(_with_api(_load(config_path), work))


async def _followers(client: Kube, held: Held) -> list[followers.Follower]:
    page = await client.list_all(NODE)
    by_name = {node.name: node for node in page.objects}
    said = sorted(trusts(page.objects), key=lambda one: one.name)
    return [followers.follower(held, one, by_name[one.name]) for one in said]


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
