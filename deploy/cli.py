"""The `skerry` command.

Exit codes: 0 all is well; 1 something did not work, said in one sentence on standard error; 2 wrong usage."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import click
import msgspec

from deploy import authority_commands, board_commands, cluster_commands
from deploy.device_commands import device as device_group
from deploy.errors import PartFailed, TrialError
from deploy.grouping import Group
from deploy.home import DEFAULT_HOME, DEFAULT_NODE_NAME, Home, Ports
from deploy.mqtt_commands import mqtt as mqtt_group
from deploy.parts import PARTS
from deploy.processes import tail
from deploy.progress import Progress
from deploy.status import Status
from deploy.trial import Trial

_LOG_LINES = 12


class _Group(Group):
    """Turns expected errors into one sentence and exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except PartFailed as error:
            _fail(error)
            if error.log is not None and (lines := tail(error.log, _LOG_LINES)):
                click.echo(f"\nThe last lines of {error.log}:", err=True)
                for line in lines:
                    click.echo(f"  {line}", err=True)
            ctx.exit(1)
        except TrialError as error:
            _fail(error)
            ctx.exit(1)
        except BrokenPipeError:  # whoever reads has seen enough, as `head` has
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(141)
        except OSError as error:
            # a full disk, a file system that can no longer be written
            where = f"{error.filename}: " if error.filename else ""
            _fail(TrialError(f"{where}{error.strerror or error}"))
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("interrupted; what this command had started was stopped", err=True)
            ctx.exit(130)


def _fail(error: TrialError) -> None:
    click.echo(f"{click.style('error:', fg='red')} {error}", err=True)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="skerry")
@click.option(
    "--home",
    envvar="SKERRY_HOME",
    type=click.Path(path_type=Path),
    default=DEFAULT_HOME,
    show_default=True,
    show_envvar=True,
    help="The folder that holds everything of this trial.",
)
@click.pass_context
def main(ctx: click.Context, home: Path) -> None:
    """Skerry: a whole one on this machine to try (up, down, …), devices, clusters (init) and boards that join."""
    ctx.obj = Trial(Home.at(home))


@main.command()
@click.option("--node-name", help=f"Name of the edge node.  [default: {DEFAULT_NODE_NAME}]")
@click.option(
    "--port-base",
    type=int,
    help="Use this port and the next two for the API, the hub and mosquitto.  [default: 16443, 10000, 11883]",
)
@click.pass_obj
def up(trial: Trial, node_name: str | None, port_base: int | None) -> None:
    """Start everything, apply the samples, and wait until a pod runs and a device is read.

    Running it again starts what has died and changes nothing else.
    """
    began = time.monotonic()
    ports = Ports.from_base(port_base) if port_base is not None else None
    status = trial.up(Progress(sys.stdout), node_name=node_name, ports=ports)
    if not status.up:
        raise TrialError(f"it came up and went down again: {status.problem}; see `skerry status`")
    click.echo(f"\nSkerry is up ({time.monotonic() - began:.1f} s).\n")
    _show_objects(status)
    _show_next(trial, status)


@main.command()
@click.option("--purge", is_flag=True, help="Remove the state folder, too: objects, identities, logs.")
@click.pass_obj
def down(trial: Trial, *, purge: bool) -> None:
    """Stop everything and remove every process, mount, interface and rule that `up` made.

    The state folder stays, and the next `up` goes on from it.
    """
    began = time.monotonic()
    problems = trial.down(Progress(sys.stdout), purge=purge)
    if problems:
        raise TrialError(f"not everything could be removed: {'; '.join(problems)}")
    click.echo(f"Skerry is down ({time.monotonic() - began:.1f} s).")


@main.command()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How to print it.")
@click.pass_context
def status(ctx: click.Context, output: str) -> None:
    """Say what runs.  Exit code 1 when something that should run does not."""
    trial: Trial = ctx.obj
    seen = trial.status()
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(seen), indent=2))
    else:
        for part in seen.parts:
            uptime = f"{part.uptime_s:.0f} s" if part.uptime_s is not None else ""
            pid = f"pid {part.pid}" if part.pid else ""
            state = click.style("running", fg="green") if part.running else click.style("stopped", fg="red")
            click.echo(f"  {part.name:<12} {state}  {pid:<12} {uptime:<10} {part.log}")
        click.echo("")
        _show_objects(seen)
        if seen.problem:
            click.echo(seen.problem, err=True)
    if not seen.up:
        ctx.exit(1)


@main.command()
@click.pass_obj
def kubeconfig(trial: Trial) -> None:
    """Print the path of the kubeconfig: `kubectl --kubeconfig "$(skerry kubeconfig)" get nodes`."""
    if not trial.home.kubeconfig.is_file():
        raise TrialError(f"there is no {trial.home.kubeconfig}: run `skerry up` first")
    click.echo(str(trial.home.kubeconfig))


@main.command()
@click.argument("part", type=click.Choice(PARTS))
@click.option("--kill", is_flag=True, help="With SIGKILL, as a crash.")
@click.pass_obj
def stop(trial: Trial, part: str, *, kill: bool) -> None:
    """Stop one part to see what the others do without it.  `skerry up` or `skerry start` brings it back."""
    click.echo(f"{part} {'stopped' if trial.stop_part(part, kill=kill) else 'was not running'}")


@main.command()
@click.argument("part", type=click.Choice(PARTS))
@click.pass_obj
def start(trial: Trial, part: str) -> None:
    """Start one part again, and wait until it answers, but not for the others as `skerry up` does."""
    with Progress(sys.stdout).step(part) as step:
        step.result = "started" if trial.start_part(part) else "was running"
        trial.await_part(part, step)


@main.command()
@click.argument("part", type=click.Choice(PARTS))
@click.option("-n", "--lines", type=click.IntRange(1, 1000), default=40, show_default=True)
@click.pass_obj
def logs(trial: Trial, part: str, lines: int) -> None:
    """Print the last lines that a part wrote."""
    log = trial.home.log(part)
    try:
        log.open("rb").close()
    except FileNotFoundError as error:
        raise TrialError(f"there is no {log}: {part} was never started here") from error
    except PermissionError as error:
        raise TrialError(f"{log} cannot be read: run it again as root or with sudo") from error
    for line in tail(log, lines):
        click.echo(line)


@main.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
def backup(trial: Trial, file: Path) -> None:
    """Save the cloud's objects and keys to FILE, also while it runs.  Whoever has FILE can be anybody: keep it safe."""
    click.echo(trial.backup(file))


@main.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.pass_obj
def restore(trial: Trial, file: Path) -> None:
    """Put the cloud back to what FILE holds.  It is away for a moment; pods run on."""
    click.echo(trial.restore(file))


@main.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder for the files.  [default: print them]",
)
@click.pass_obj
def export(trial: Trial, output: Path | None) -> None:
    """Write what you made as manifests that `kubectl apply` takes on any Kubernetes cluster."""
    click.echo(trial.export(output), nl=False)


main.add_command(device_group)
main.add_command(mqtt_group)
main.add_command(cluster_commands.init)
main.add_command(board_commands.token)
main.add_command(authority_commands.authority)
main.add_command(board_commands.join)
main.add_command(board_commands.leave)


def _show_objects(status: Status) -> None:
    for node in status.nodes:
        click.echo(f"  node     {node.name:<28} {'Ready' if node.ready else f'NotReady  {node.reason}'}")
    for pod in status.pods:
        state = pod.phase if pod.ready else f"{pod.phase}, not ready  {pod.reason}"
        click.echo(f"  pod      {pod.name:<28} {state}  {pod.ip}")
    for device in status.devices:
        readings = ", ".join(f"{name} {value}" for name, value in device.readings.items())
        click.echo(f"  device   {device.name:<28} {readings or 'no reading yet'}")


def _show_next(trial: Trial, status: Status) -> None:
    command = "skerry" if shutil.which("skerry") else str(Path(sys.argv[0]).absolute())
    if not trial.home.is_default:
        command = f"SKERRY_HOME={trial.home.root} {command}"
    pod_ips = [pod.ip for pod in status.pods if pod.ip and pod.name.startswith("hello-")]
    click.echo(f"\n  kubeconfig  {trial.home.kubeconfig}\n  logs        {trial.home.logs}\n\nNext:")
    click.echo(f"  export KUBECONFIG={trial.home.kubeconfig}")
    click.echo("  kubectl get nodes,pods,devices,devicestatuses")
    if pod_ips:
        click.echo(f"  busybox wget -qO- http://{pod_ips[0]}:8080/")
    click.echo("  kubectl logs deploy/hello")
    click.echo(f"  {command} device set thermostat target 25")
    click.echo(f"  {command} device watch | status | down")
    if os.geteuid() == 0 and "SUDO_USER" in os.environ:
        click.echo("(The kubeconfig is root's: put sudo before kubectl.)")
