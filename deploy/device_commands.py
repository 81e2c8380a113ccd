"""`skerry device`: look at devices and set them, with the stock kubectl, on a trial or any cluster."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click

from deploy import devices
from deploy.devices import Found, Verdict
from deploy.errors import TrialError
from deploy.grouping import Group
from deploy.kubectl import Kubectl
from deploy.trial import Trial

_POLL_S = 0.2
F = TypeVar("F", bound=Callable[..., Any])


def _namespace(command: F) -> F:
    option = click.option(
        "-n", "--namespace", default="default", show_default=True, help="The device's namespace."
    )
    return option(command)


@click.group(cls=Group)
@click.option(
    "--kubeconfig",
    envvar="KUBECONFIG",
    show_envvar=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Of the cluster.  [default: this machine's trial]",
)
@click.pass_context
def device(ctx: click.Context, kubeconfig: Path | None) -> None:
    """Look at devices, and say what they should do."""
    trial: Trial = ctx.obj
    if kubeconfig is not None and kubeconfig != trial.home.kubeconfig:
        ctx.obj = Kubectl(kubeconfig)
        return
    try:
        trial.home.kubeconfig.open("rb").close()
    except FileNotFoundError as error:
        raise TrialError(
            f"there is no {trial.home.kubeconfig}: run `skerry up` first, or name a --kubeconfig"
        ) from error
    except OSError as error:
        raise TrialError(
            f"cannot read {trial.home.kubeconfig}: {error.strerror}; run it again as root or with sudo"
        ) from error
    ctx.obj = trial.kubectl


def _width() -> int | None:
    """Of the terminal; None where the output goes elsewhere, and nothing may be left out of it."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


@device.command("list")
@click.argument("pattern", default="")
@click.option("-n", "--namespace", default="", help="Of one namespace only.")
@click.option("--node", default="", help="Of one node only.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How to print it.")
@click.pass_obj
def list_(kubectl: Kubectl, pattern: str, namespace: str, node: str, output: str) -> None:
    """Show every property: what is read, what is wanted, and for how long it has read so.  PATTERN: of names, e.g. 'room-*'.

    On a narrow terminal columns are left out."""
    rows = Found.of(kubectl.items(devices.KINDS)).rows(namespace, pattern, node)
    if output == "json":
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=2, ensure_ascii=False))
        return
    if not rows:
        such = " of that name or place" if pattern or node or namespace else ""
        click.echo(f"there are no devices{such}", err=True)
        return
    spaces = {row.namespace for row in rows} != {"default"} and not namespace
    for line in devices.table(rows, time.time(), namespaces=spaces, width=_width()):
        click.echo(line)


@device.command()
@click.argument("name", default="")
@click.option("-n", "--namespace", default="", help="Of one namespace only.")
@click.pass_obj
def candidates(kubectl: Kubectl, name: str, namespace: str) -> None:
    """Show the hardware that was found by HardwareRules, and what became of it; of one, named or by its beginning, all."""
    if name:
        found = devices.candidate(kubectl.items(devices.CANDIDATES), namespace or "default", name)
        for line in devices.describe_candidate(found):
            click.echo(line)
        return
    items = [item for item in kubectl.items(devices.CANDIDATES) if namespace in ("", devices.key(item)[0])]
    if not items:
        click.echo("nothing was found: a HardwareRule says what is wanted", err=True)
        return
    for line in devices.candidates_table(items, _width()):
        click.echo(line)


@device.command()
@click.argument("name")
@_namespace
@click.option("--no", is_flag=True, help="Have no Device made of it, whatever its rule says.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, 86400),
    default=30.0,
    show_default=True,
    help="Seconds to wait until the Device is there; 0: do not wait.",
)
@click.pass_obj
def accept(kubectl: Kubectl, name: str, namespace: str, *, no: bool, timeout: float) -> None:
    """Make a Device of hardware that was found.  NAME is a candidate's, or its beginning."""
    found = devices.candidate(kubectl.items(devices.CANDIDATES), namespace, name)
    name = found["metadata"]["name"]
    change = json.dumps({"spec": {"accepted": not no}})
    where = ("devicecandidate", name, f"--namespace={namespace}")
    kubectl.run("patch", *where, "--type=merge", f"--patch={change}")
    if no or timeout == 0:
        click.echo(f"{name} is {'not ' if no else ''}accepted")
        return
    began = time.monotonic()
    while True:
        now = devices.candidate(kubectl.items(devices.CANDIDATES), namespace, name)
        status = now.get("status") or {}
        if status.get("device"):
            click.echo(f"{name} is device {status['device']}: skerry device describe {status['device']}")
            return
        if status.get("message"):
            raise TrialError(f"{name} is accepted, and there is no device: {status['message']}")
        if time.monotonic() - began >= timeout:
            away = "; it is not plugged in" if status.get("phase") == "Absent" else ""
            raise TrialError(f"{name} is accepted, and there is no device within {timeout:g} s{away}")
        time.sleep(_POLL_S)


@device.command()
@click.argument("name")
@_namespace
@click.pass_obj
def describe(kubectl: Kubectl, name: str, namespace: str) -> None:
    """Show all that is known of one device, and what is wrong with it."""
    found = Found.of(kubectl.items(devices.KINDS))
    for line in devices.describe(found, found.device(namespace, name), time.time()):
        click.echo(line)


@device.command()
@click.argument("name", default="")
@_namespace
@click.pass_obj
def watch(kubectl: Kubectl, name: str, namespace: str) -> None:
    """Print what changes, of one device or of all in the namespace, until interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that kubectl is ended then, too
    if name:
        Found.of(kubectl.items(devices.KINDS)).device(namespace, name)
    before: dict[tuple[str, str], devices.Object] = {}
    with suppress(KeyboardInterrupt):  # how a watch ends
        for status in kubectl.watch("devicestatuses", *([name] if name else ()), f"--namespace={namespace}"):
            at = devices.key(status)
            for change in devices.changes(before.get(at), status):
                click.echo(f"{devices.clock_time(time.time())}  {at[1]}  {change}")
            before[at] = status


@device.command(context_settings={"ignore_unknown_options": True})  # a value may begin with a minus
@click.argument("name")
@click.argument("method")
@click.argument("values", nargs=-1, metavar="[PROPERTY=VALUE]...")
@_namespace
@click.option(
    "--timeout",
    type=click.IntRange(1, 300),
    default=10,
    show_default=True,
    help="Seconds that the method may take.",
)
@click.pass_obj
def call(
    kubectl: Kubectl, name: str, method: str, values: tuple[str, ...], namespace: str, timeout: int
) -> None:
    """Have a method of a device done, once, and print what it returned."""
    found = Found.of(kubectl.items(devices.KINDS))
    wanted = found.device(namespace, name)
    given = devices.arguments(values)
    if wrong := devices.call_refusal(wanted, found.model_of(wanted), method, given):
        raise TrialError(f"cannot call {method} of {name}: {wrong}")
    made = devices.call_object(namespace, name, method, given, timeout)
    where = json.loads(kubectl.run("create", "-f", "-", "-o", "json", stdin=json.dumps(made).encode()))
    id_ = where["metadata"]["name"]
    began = time.monotonic()
    try:
        while True:
            listed = kubectl.items("devicecalls", f"--namespace={namespace}")
            now = next((item for item in listed if item["metadata"]["name"] == id_), None) or {}
            status = now.get("status") or {}
            if status.get("phase") == "Done":
                click.echo(devices.printable(status.get("result") or "done"))
                return
            if status.get("phase") == "Failed":
                raise TrialError(
                    f"{method} of {name} failed: {devices.printable(status.get('message') or '')}"
                )
            if time.monotonic() - began > timeout + 15:
                raise TrialError(
                    f"nobody answers for {method} of {name}: it may have been done; does cloudcore run?"
                )
            time.sleep(_POLL_S)
    finally:
        kubectl.run("delete", "devicecall", id_, f"--namespace={namespace}", "--wait=false")


@device.command("set", context_settings={"ignore_unknown_options": True})  # a value may begin with a minus
@click.argument("name")
@click.argument("property_", metavar="PROPERTY")
@click.argument("value")
@_namespace
@click.option(
    "--timeout",
    type=click.FloatRange(0, 86400),
    default=30.0,
    show_default=True,
    help="Seconds to wait until the device does it; 0: do not wait.",
)
@click.pass_obj
def set_(kubectl: Kubectl, name: str, property_: str, value: str, namespace: str, timeout: float) -> None:
    """Say what a property should be, and wait until the device reports it."""
    found = Found.of(kubectl.items(devices.KINDS))
    wanted = found.device(namespace, name)
    index = devices.index_of(wanted, property_)
    declared = devices.declaration(found.model_of(wanted), property_)
    if wrong := devices.refusal(declared, value):
        raise TrialError(f"cannot set {property_} of {name}: {wrong}")
    before = found.statuses.get((namespace, name))
    changes = json.dumps(devices.patch(wanted, property_, value))
    kubectl.run("patch", "device", name, f"--namespace={namespace}", "--type=json", f"--patch={changes}")
    if timeout == 0:
        click.echo(f"{name}: {property_} is to be {value}")
        return
    began = time.monotonic()
    while True:
        listed = kubectl.items("devicestatuses", f"--namespace={namespace}")
        now = next((item for item in listed if devices.key(item) == (namespace, name)), None)
        waited = time.monotonic() - began
        judged, why = devices.verdict(before, now, index, property_, value, waited)
        if judged is Verdict.REACHED:
            click.echo(f"{name}: {property_} is {value}, after {waited:.1f} s")
            return
        if judged is Verdict.REFUSED:
            raise TrialError(f"{name} refused {property_} {value}: {why}")
        if waited >= timeout:
            state = ((now or {}).get("status") or {}).get("state") or "unknown"
            reading = (devices.twin_of(now, property_).get("reported") or {}).get("value")
            wrong = "".join(f"\n  {text}" for text in devices.problems(now))
            raise TrialError(
                f"{name} has not reported {property_} {value} within {timeout:g} s: its state is {state} and it "
                f"reports {reading or 'nothing'}; the wish stays, and reaches it when it can{wrong}"
            )
        time.sleep(_POLL_S)
