"""`skerry authority`: a new certificate authority of the hub in the place of the old one.

What it does is `cloudcore authority`, which this shells out to."""

from __future__ import annotations

import click

from deploy import board
from deploy.grouping import Group
from deploy.trial import Trial


@click.group(cls=Group)
def authority() -> None:
    """The hub's certificate authority: put a new one in its place while nodes are away and come back."""


@authority.command()
@click.option(
    "--window", default="30d", show_default=True, help="How long the old one counts beside it: 12h, 30d."
)
@click.pass_obj
def rotate(trial: Trial, window: str) -> None:
    """Make a new authority.  Nodes that are linked follow by themselves and renew their certificates, spread over time."""
    click.echo(board.cloudcore(trial.home, "authority", "rotate", "--window", window))


@authority.command("status")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_obj
def status_(trial: Trial, output: str) -> None:
    """Show which nodes trust the new authority and hold certificates of it, and which cannot follow."""
    click.echo(board.cloudcore(trial.home, "authority", "status", "--output", output))


@authority.command()
@click.argument("time")
@click.pass_obj
def extend(trial: Trial, time: str) -> None:
    """Let the window end TIME from now, sooner or later than before: 12h, 60d.  Nodes that are linked hear of it."""
    click.echo(board.cloudcore(trial.home, "authority", "extend", "--", time))


@authority.command()
@click.option(
    "--force", is_flag=True, help="Even if nodes have not followed: they need a new join token then."
)
@click.pass_obj
def finish(trial: Trial, *, force: bool) -> None:
    """End the window now: the old authority's certificates count no more, and its key is destroyed."""
    click.echo(board.cloudcore(trial.home, "authority", "finish", *(["--force"] if force else [])))


@authority.command()
@click.argument("node")
@click.option("--for", "time", default="7d", show_default=True, help="How long it may come: 12h, 7d.")
@click.pass_obj
def readmit(trial: Trial, node: str, time: str) -> None:
    """Let NODE in once more with a certificate of a replaced authority, so that it gets a new one without anybody going there.

    Not where the old authority's key may be in other hands: who has it can be NODE meanwhile."""
    click.echo(board.cloudcore(trial.home, "authority", "readmit", "--for", time, "--", node))
