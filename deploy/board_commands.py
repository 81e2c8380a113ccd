"""`skerry token`, `skerry join`, `skerry leave`: real boards.

The cloud's half of it shells out to `cloudcore token`, the board's half to `edgecore`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from deploy import board
from deploy.grouping import Group
from deploy.trial import Trial

F = TypeVar("F", bound=Callable[..., Any])


@click.group(cls=Group)
def token() -> None:
    """Join tokens: each lets one board, or a counted number, become nodes."""


@token.command()
@click.option("--ttl", default="24h", show_default=True, help="How long it may be used: 90s, 30m, 24h, 7d.")
@click.option("--uses", type=click.IntRange(min=1), default=1, show_default=True, help="By how many boards.")
@click.option("--node", default="", help="The only node name it is for; may take the place of that node.")
@click.pass_obj
def create(trial: Trial, ttl: str, uses: int, node: str) -> None:
    """Make a token and print it; it cannot be shown again."""
    words = ["--ttl", ttl, "--uses", str(uses), *(["--node", node] if node else [])]
    click.echo(board.token(trial.home, "create", *words))


@token.command("list")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_obj
def list_(trial: Trial, output: str) -> None:
    """Show what tokens there are, without their secrets."""
    click.echo(board.token(trial.home, "list", "--output", output))


@token.command()
@click.argument("token_id")
@click.pass_obj
def revoke(trial: Trial, token_id: str) -> None:
    """Make a token useless.  TOKEN_ID is the six characters that `list` shows."""
    click.echo(board.token(trial.home, "revoke", "--", token_id))


def _config(command: F) -> F:
    option = click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        default=board.DEFAULT_CONFIG,
        show_default=True,
        help="edgecore's configuration; written if it is not there.",
    )
    return option(command)


@click.command()
@click.option(
    "--cloud", required=True, metavar="HOST:PORT", help="Where the hub is, as this board reaches it."
)
@click.option(
    "--token",
    "token_",
    required=True,
    metavar="TOKEN",
    help="From `skerry token create`; - reads it.",
)
@click.option("--node-name", default="", help="The node's name.  [default: the host's]")
@click.option("--force", is_flag=True, help="Even if this board is a node already.")
@_config
def join(*, cloud: str, token_: str, node_name: str, force: bool, config: Path) -> None:
    """Make this board a node: look whether it can be one, join, and let systemd keep edgecore running."""
    text = sys.stdin.readline().strip() if token_ == "-" else token_
    for line in board.join(config, cloud=cloud, token=text, node_name=node_name, force=force):
        click.echo(line)


@click.command()
@click.option("--yes", is_flag=True, help="Do it: the pods of this board end, and their data goes.")
@_config
def leave(*, yes: bool, config: Path) -> None:
    """Make this board no node any more: end its pods, remove its identity, its configuration and its service."""
    for line in board.leave(config, yes=yes):
        click.echo(line)
