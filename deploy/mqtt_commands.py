"""`skerry mqtt`: who may log in to Skerry's own MQTT broker, of a trial or of this board."""

from __future__ import annotations

import os
from pathlib import Path

import click

from deploy import board, machine, preflight
from deploy.errors import PreflightError, TrialError
from deploy.grouping import Group
from deploy.trial import Trial

_BACK_S = 20.0
"""How long a broker may take to listen again."""


class Place:
    """The broker of this machine, and how it hears of changes."""

    def __init__(self, trial: Trial) -> None:
        if told := preflight.check_root(os.geteuid()):
            raise PreflightError(told)
        self.trial: Trial | None = None
        if trial.home.settings.is_file():
            self.trial = trial
            self.broker = trial.broker()
        elif (board.BROKER / "accounts.json").is_file():
            self.broker = board.broker()
        else:
            raise TrialError(
                "there is no broker of Skerry's on this machine: run `skerry up`, or `skerry join` where mosquitto is "
                "installed and no other broker runs"
            )

    def tell(self, *, restart: bool = False) -> None:
        """Have the broker take on what was changed.  Sessions of accounts that went end."""
        if self.trial is not None:
            self.trial.reload_broker(restart=restart)
        elif board.systemd_runs():
            machine.run(["systemctl", "restart" if restart else "reload", board.BROKER_UNIT])
            if restart and not machine.wait_for_port(self.broker.port, timeout_s=_BACK_S):
                raise TrialError(
                    f"the broker did not come back: see `journalctl -u {board.BROKER_UNIT.removesuffix('.service')}`"
                )


@click.group(cls=Group)
@click.pass_context
def mqtt(ctx: click.Context) -> None:
    """Accounts of devices and applications on this node's MQTT broker."""
    ctx.obj = Place(ctx.obj)


@mqtt.command("list")
@click.pass_obj
def list_(place: Place) -> None:
    """Show the accounts, and what each may do."""
    state = place.broker.state()
    for account in state.accounts:
        what = f"device {account.device}" if account.device else "application"
        topics = f", {' '.join(account.topics)}" if account.topics else ""
        click.echo(f"{account.name:<24} {'edgecore' if account.edgecore else what + topics}")
    if state.anonymous:
        click.echo(f"{'(nobody)':<24} application: whoever is on this machine")
    if state.lan is not None:
        click.echo(f"other machines: {state.lan[0]} port {state.lan[1]}, TLS, authority {place.broker.ca}")


@mqtt.command()
@click.argument("name")
@click.option("--device", default="", metavar="[NAMESPACE/]NAME", help="For this device only.")
@click.option("--topic", "topics", multiple=True, help="May also write and read this; wildcards are allowed.")
@click.pass_obj
def add(place: Place, name: str, device: str, topics: tuple[str, ...]) -> None:
    """Make an account and print its password, which cannot be shown again; of one that is there, a new password.

    Without --device it is an application's, which may use every device's topics.
    """
    where = device if "/" in device or not device else f"default/{device}"
    password = place.broker.add(name, device=where, topics=topics)
    place.tell()
    click.echo(password)


@mqtt.command()
@click.argument("name")
@click.pass_obj
def remove(place: Place, name: str) -> None:
    """Remove an account; what is connected with it is cut off."""
    place.broker.remove(name)
    place.tell()
    click.echo(f"{name} is removed")


@mqtt.command()
@click.argument("allowed", type=click.Choice(["allow", "deny"]))
@click.pass_obj
def anonymous(place: Place, allowed: str) -> None:
    """Let in whoever has no account, as an application, also from other machines; or nobody, which is the default."""
    place.broker.set_anonymous(allowed=allowed == "allow")
    place.tell(restart=True)
    click.echo(f"without an account: {'allowed' if allowed == 'allow' else 'denied'}")


@mqtt.command()
@click.argument("address")
@click.option("--port", type=click.IntRange(1, 65535), default=8883, show_default=True)
@click.pass_obj
def lan(place: Place, address: str, port: int) -> None:
    """Listen with TLS at ADDRESS of this machine, for devices elsewhere; `off` ends it.  Prints the authority's file."""
    place.broker.set_lan(address, 0 if address == "off" else port)
    place.tell(restart=True)
    ca: Path = place.broker.ca
    click.echo("no listener for other machines" if address == "off" else str(ca))
