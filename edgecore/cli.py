"""The `edgecore` command.

Exit codes: 0 done, 1 it could not be done (one sentence on stderr says why), 2 wrong arguments, 3 a check failed.
Of `exec`: the program's; 127 when there is none of that name, 126 when it cannot be run.

The daemon shares this entry point, so nothing that only a command needs is imported before that command runs."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from beehive import logs
from beehive.errors import ConfigError, NotFound, SkerryError, Unavailable
from edgecore.version import VERSION

if TYPE_CHECKING:
    from edgecore.config import EdgeConfig

FAILED, CHECK_FAILED = 1, 3
MAX_EXEC_S = 3600.0
SWITCHED = 101

T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    chosen = parse(sys.argv[1:] if arguments is None else arguments)
    logs.configure(chosen.log_level.upper(), "%(asctime)s %(levelname)s %(name)s: %(message)s")
    # its DEBUG would print every frame's payload, secrets included
    logging.getLogger("websockets").setLevel(logging.WARNING)
    code = 0
    try:
        code = chosen.command(chosen)
        sys.stdout.flush()
    except ConfigError as error:
        for fault in error.faults:
            print(f"edgecore: {fault}", file=sys.stderr)
        return FAILED
    except SkerryError as error:
        print(f"edgecore: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # `| head` has had enough; what is left must not be written at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """What is asked for.  Ends the process with code 2 where it makes no sense."""
    parser = _parser()
    if arguments[:1] != ["exec"] or "--" not in arguments:
        return parser.parse_args(arguments)
    # what follows is the program's: argparse would take a second `--` out of it
    at = arguments.index("--")
    program = list(arguments[at + 1 :])
    chosen = parser.parse_args([*arguments[:at], "program"])
    if not program or chosen.program != ["program"]:
        parser.error("exec: give one pod, then -- and the program")
    chosen.program = program
    return chosen


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgecore",
        description="The edge half of Skerry: keeps pods and devices of this machine going, with or without its cloud.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong arguments, 3 a check failed.",
    )
    parser.add_argument("--version", action="version", version=f"edgecore {VERSION}")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    def verb(name: str, command: Any, text: str) -> argparse.ArgumentParser:
        found = verbs.add_parser(name, help=text, description=text)
        found.set_defaults(command=command)
        found.add_argument(
            "--config", type=Path, metavar="FILE", help="edgecore.yaml (default: /etc/kubeedge/config)"
        )
        found.add_argument(
            "--log-level", default="info", choices=("debug", "info", "warning", "error"), help="what to log"
        )
        return found

    verb("run", _run, "Run the daemon in the foreground.")
    join = verb("join", _join, "Make this machine a node, with a token from the cloud.")
    join.add_argument(
        "--cloud", metavar="HOST:PORT[,…]", help="where the hub is (default: from the configuration)"
    )
    join.add_argument("--token", required=True, help="the join token; - reads it from standard input")
    join.add_argument(
        "--node-name", metavar="NAME", help="the node's name (default: configuration, then host name)"
    )
    join.add_argument("--force", action="store_true", help="even if this machine has a valid certificate")
    get = verb("get", _get, "Show what this node holds, also without the cloud and without the daemon.")
    get.add_argument("kind", choices=("pods", "nodes", "devices", "configmaps"))
    get.add_argument("-n", "--namespace", help="of this namespace only")
    get.add_argument("-o", "--output", choices=("table", "json"), default="table")
    describe = verb("describe", _describe, "Show all of one object that this node holds.")
    describe.add_argument("kind", choices=("pods", "nodes", "devices", "configmaps", *_SINGULAR))
    describe.add_argument("name")
    describe.add_argument("-n", "--namespace", default="default", help="its namespace (default: default)")
    logs = verb(
        "logs", _logs, "Print what a pod's container wrote, also without the cloud and without the daemon."
    )
    _pod_arguments(logs)
    logs.add_argument("-f", "--follow", action="store_true", help="go on until interrupted")
    logs.add_argument("-p", "--previous", action="store_true", help="of the run before this one")
    logs.add_argument("--tail", type=int, metavar="N", help="only the last N lines")
    logs.add_argument("--timestamps", action="store_true", help="with the time of each line")
    restart = verb("restart", _restart, "Stop a pod's containers; the daemon starts them again.")
    _pod_arguments(restart)
    execute = verb("exec", _exec, "Run a program in a pod's container; its exit code is this one's.")
    _pod_arguments(execute)
    execute.add_argument("-i", "--stdin", action="store_true", help="with what is piped in")
    execute.add_argument("-t", "--tty", action="store_true", help="with this terminal, and -i")
    execute.add_argument(
        "--timeout", type=float, default=60.0, metavar="S", help="end it after S seconds, without -i and -t"
    )
    execute.add_argument("program", nargs="+", metavar="-- PROGRAM", help="what to run, after --")
    unhold = verb("unhold", _unhold, "Let a pod start that was sent on hold (edge.kubeedge.io/hold-upgrade).")
    unhold.add_argument("pod", metavar="POD")
    unhold.add_argument("-n", "--namespace", default="default", help="the pod's namespace (default: default)")
    reset = verb(
        "reset", _reset, "Make this machine no node any more: end its pods, remove what is kept here."
    )
    reset.add_argument("--yes", action="store_true", help="do it: the pods end, and their data goes")
    devices = verb("devices", _devices, "Show what the daemon remembers of a device, or call a method of it.")
    devices.add_argument("what", choices=("history", "call"), help="its last readings; do a method")
    devices.add_argument("device", metavar="[NAMESPACE/]NAME")
    devices.add_argument("method", nargs="?", default="", metavar="METHOD", help="to call")
    devices.add_argument("values", nargs="*", metavar="PROPERTY=VALUE", help="for the method")
    devices.add_argument("--property", default="", metavar="P", help="of this property only")
    devices.add_argument("-o", "--output", choices=("table", "json"), default="table")
    status = verb("status", _status, "Show how the daemon and its link are.")
    status.add_argument("-o", "--output", choices=("table", "json"), default="table")
    config = verb("config", _config, "Check the configuration, or print all keys with their defaults.")
    config.add_argument(
        "--defaults", action="store_true", help="print every key, its default and what it is for"
    )
    verb("check", _check, "Find out whether the daemon could run here.")
    return parser


_SINGULAR = {"pod": "pods", "node": "nodes", "device": "devices", "configmap": "configmaps"}


def _pod_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("pod", metavar="POD")
    verb.add_argument("-n", "--namespace", default="default", help="the pod's namespace (default: default)")
    verb.add_argument("-c", "--container", default="", metavar="NAME", help="one container of it")


def _load(chosen: argparse.Namespace) -> EdgeConfig:
    from edgecore import config
    from edgecore.version import KUBELET_VERSION

    path: Path | None = chosen.config
    if path is None and not config.DEFAULT_CONFIG.exists():
        return config.parse(None, version=KUBELET_VERSION)
    return config.load(path or config.DEFAULT_CONFIG, version=KUBELET_VERSION)


def _run(chosen: argparse.Namespace) -> int:
    config = _load(chosen)
    if config.edged is not None and os.geteuid() != 0:
        raise ConfigError("running pods needs root: start edgecore as root")
    os.umask(0o077)
    # nothing of what is loaded now can be collected, and looking for it takes a tenth of the start; main looks later
    gc.disable()
    from edgecore.main import run

    run(config)
    return 0


def _join(chosen: argparse.Namespace) -> int:
    import asyncio
    from datetime import UTC, datetime

    from beehive import clock, resource
    from beehive.errors import NotFound
    from edgecore import config as configs
    from edgecore.edgehub import certificate, kubeedge

    config = _load(chosen)
    text = sys.stdin.readline(kubeedge.MAX_TOKEN + 1) if chosen.token == "-" else chosen.token
    stock = kubeedge.parse_token(text)
    token = None if stock else certificate.parse_token(text)
    faults: list[str] = []
    clouds = configs.addresses(chosen.cloud or "", "--cloud", faults) or config.clouds
    node = chosen.node_name or config.node or configs.default_node_name()
    if not resource.is_name(node):
        faults.append(f"--node-name: {node!r} is not a node name: lower-case letters, digits, - and .")
    elif config.node and node != config.node:
        faults.append(f"--node-name: the configuration calls this node {config.node}")
    if not clouds and not faults:
        faults.append("--cloud: say where the hub is, as HOST:PORT")
    if faults:
        raise ConfigError(faults)
    files = certificate.Files(config.pki)
    try:
        held = files.identity()
    except NotFound:
        held = None
    if held is not None and held.not_after > clock.wall().timestamp() and not chosen.force:
        until = datetime.fromtimestamp(held.not_after, UTC)
        raise ConfigError(
            f"this machine is node {held.node} already, with a certificate valid until {until:%Y-%m-%d}: "
            "use --force to join again"
        )
    if stock is not None:
        where = kubeedge.https_address(clouds[0], config.https_server)
        joining = certificate.join_kubeedge(
            files, node=node, https_address=where, token=stock, remember=clouds
        )
    else:
        assert token is not None, "a token that is neither form was accepted"
        joining = certificate.join(files, node=node, addresses=clouds, token=token, remember=clouds)
    identity = asyncio.run(joining)
    print(f"joined as node {identity.node}")
    return 0


def _held(config: EdgeConfig, kind: str) -> dict[str, Any]:
    """The daemon's answer about a kind, or without a daemon what the store has.  Raises: SkerryError."""
    import msgspec

    from edgecore import local, questions, tables
    from edgecore.metamanager import offline

    try:
        answer: dict[str, Any] = local.ask(config.socket, "get", kind=kind)
    except Unavailable as error:
        values = offline.objects(config.database, questions.KINDS[kind])
        print(f"edgecore: {error}; this is what the store holds", file=sys.stderr)
        answer = {"items": [msgspec.json.decode(value) for value in values]}
        if kind == "pods":
            answer["running"] = tables.reported(answer["items"], _last_statuses(config.database))
    return answer


def _last_statuses(database: Path) -> dict[str, Any]:
    """How each pod ran when the daemon last wrote it down, by UID.  Raises: SkerryError."""
    import msgspec

    from edgecore.edged import record
    from edgecore.metamanager import offline

    prefix = "edged/" + record.key("")
    found = offline.notes(database, prefix)
    return {
        key.removeprefix(prefix): msgspec.json.decode(msgspec.json.encode(record.decode(value).status))
        for key, value in found.items()
    }


def _get(chosen: argparse.Namespace) -> int:
    from edgecore import questions, tables

    answer = _held(_load(chosen), chosen.kind)
    if chosen.namespace:
        answer = tables.in_namespace(answer, chosen.namespace)
    if chosen.output == "json":
        print(questions.as_json({"apiVersion": "v1", "kind": "List", **answer}))
    else:
        print(tables.render(chosen.kind, answer))
    return 0


def _devices(chosen: argparse.Namespace) -> int:
    if chosen.what == "history":
        if chosen.method:
            raise ConfigError("a history takes no more than the device and --property")
        return _history(chosen)
    from edgecore import local, questions

    if not chosen.method:
        raise ConfigError("which method?  edgecore devices call NAME METHOD [PROPERTY=VALUE ...]")
    values = {}
    for text in chosen.values:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{text!r} is not PROPERTY=VALUE")
        values[name] = value
    id_ = chosen.device if "/" in chosen.device else f"default/{chosen.device}"
    answer = local.ask(_load(chosen).socket, "call", device=id_, method=chosen.method, values=values)
    print(questions.as_json(answer) if chosen.output == "json" else answer["result"] or "done")
    return 0


def _history(chosen: argparse.Namespace) -> int:
    from edgecore import local, questions, tables

    id_ = chosen.device if "/" in chosen.device else f"default/{chosen.device}"
    answer = local.ask(_load(chosen).socket, "history", device=id_)
    if chosen.output == "json":
        print(questions.as_json(answer))
    else:
        print(tables.history(answer, chosen.property))
    return 0


def _describe(chosen: argparse.Namespace) -> int:
    from edgecore import onsite, tables

    kind = _SINGULAR.get(chosen.kind, chosen.kind)
    answer = _held(_load(chosen), kind)
    found = onsite.find(answer["items"], chosen.namespace, chosen.name)
    if found is None:
        raise NotFound(f"there is no {kind.removesuffix('s')} {chosen.name} here")
    print(tables.describe(found, answer.get("running", ())))
    return 0


def _logs(chosen: argparse.Namespace) -> int:
    import asyncio

    from edgecore import onsite
    from edgecore.edgestream.crilog import Options

    config = _load(chosen)
    if config.edged is None:
        raise ConfigError("no pods run here: modules.edged.enable is false")
    if chosen.tail is not None and chosen.tail < 0:
        raise ConfigError("--tail: give a number of lines")
    held = onsite.find(_held(config, "pods")["items"], chosen.namespace, chosen.pod)
    uid = str(held["metadata"].get("uid", "")) if held is not None else ""
    pod = onsite.PodRef(namespace=chosen.namespace, name=chosen.pod, uid=uid)
    log = onsite.log_file(config.edged.log_dir, pod, chosen.container, previous=chosen.previous)
    options = Options(follow=chosen.follow, tail_lines=chosen.tail, timestamps=chosen.timestamps)
    try:
        asyncio.run(onsite.print_log(log, options, sys.stdout.fileno()))
    except BrokenPipeError:
        return 0  # `| head` has had enough
    return 0


def _at_pod(chosen: argparse.Namespace, act: Callable[[Any, Any], Coroutine[Any, Any, T]]) -> T:
    """Let `act` do something to the pod that is meant, given the runtime and the pod.  Raises: SkerryError."""
    import asyncio

    from edgecore import onsite
    from edgecore.edged.cri import Cri

    config = _load(chosen)
    if config.edged is None:
        raise ConfigError("no pods run here: modules.edged.enable is false")
    endpoint = config.edged.runtime_endpoint
    held = onsite.find(_held(config, "pods")["items"], chosen.namespace, chosen.pod)
    if held is None:
        raise NotFound(f"there is no pod {chosen.namespace}/{chosen.pod} here")

    async def main() -> T:
        runtime = Cri(endpoint)
        try:
            return await act(runtime, held)
        finally:
            runtime.close()

    try:
        return asyncio.run(main())
    except ExceptionGroup as faults:
        raise SkerryError(str(faults.exceptions[0])) from faults


def _restart(chosen: argparse.Namespace) -> int:
    from edgecore import onsite

    stopped = _at_pod(chosen, lambda runtime, pod: onsite.restart(runtime, pod, chosen.container))
    print(f"stopped {', '.join(stopped)} of pod {chosen.namespace}/{chosen.pod}; the daemon starts it again")
    return 0


def _exec(chosen: argparse.Namespace) -> int:
    from edgecore import onsite

    if not 0 < chosen.timeout <= MAX_EXEC_S:
        raise ConfigError(f"--timeout: give seconds, {MAX_EXEC_S:.0f} at most")
    # a stream that was closed before the start is None
    if chosen.tty and not (sys.stdin and sys.stdin.isatty() and sys.stdout and sys.stdout.isatty()):
        raise ConfigError("-t needs a terminal: -i alone takes what is piped in")
    if chosen.stdin and not all((sys.stdin, sys.stdout, sys.stderr)):
        raise ConfigError("-i needs input and output that are open: give </dev/null for no input")
    how = _exec_terminal if chosen.tty else _exec_piped if chosen.stdin else _exec_alone
    try:
        return how(chosen)
    except SkerryError as error:
        code, text = onsite.not_started(str(error), chosen.program[0])
        if not code:
            raise
        print(f"edgecore: {text}", file=sys.stderr)
        return code


def _exec_alone(chosen: argparse.Namespace) -> int:
    from edgecore import onsite

    found = _at_pod(
        chosen,
        lambda runtime, pod: onsite.execute(runtime, pod, chosen.container, chosen.program, chosen.timeout),
    )
    sys.stdout.flush()
    os.write(sys.stdout.fileno(), found.stdout)
    os.write(sys.stderr.fileno(), found.stderr)
    return found.exit_code


def _exec_piped(chosen: argparse.Namespace) -> int:
    from edgecore import execpipe, onsite
    from edgecore.edgestream.upgrade import upgrade

    async def act(runtime: Any, pod: Any) -> int:
        container = await onsite.running_container(runtime, pod, chosen.container)
        url = await runtime.exec_url(
            container, list(chosen.program), tty=False, stdin=True, stdout=True, stderr=True
        )
        made = await upgrade(url, "POST", execpipe.UPGRADE)
        with made.connection:
            if made.answer.status != SWITCHED:
                raise Unavailable(f"the runtime refuses: {made.early.decode('utf-8', 'replace')[:256]}")
            fds = (sys.stdin.fileno(), sys.stdout.fileno(), sys.stderr.fileno())
            return await execpipe.run(made.connection, made.early, *fds)

    sys.stdout.flush()
    return _at_pod(chosen, act)


def _exec_terminal(chosen: argparse.Namespace) -> int:
    """With this terminal."""
    from edgecore import onsite, terminal
    from edgecore.edgehub.websocket import dial_channels

    async def act(runtime: Any, pod: Any) -> int:
        container = await onsite.running_container(runtime, pod, chosen.container)
        url = await runtime.exec_url(
            container, list(chosen.program), tty=True, stdin=True, stdout=True, stderr=False
        )
        connection = await dial_channels(url, terminal.SUBPROTOCOL)
        try:
            return await terminal.run(connection, sys.stdin.fileno(), sys.stdout.fileno())
        finally:
            await connection.close()

    return _at_pod(chosen, act)


def _unhold(chosen: argparse.Namespace) -> int:
    from edgecore import local

    local.ask(_load(chosen).socket, "unhold", namespace=chosen.namespace, pod=chosen.pod)
    print(f"pod {chosen.namespace}/{chosen.pod} may start")
    return 0


def _node_name(config: EdgeConfig) -> str:
    """As whom this machine joined, if it still knows."""
    from edgecore.edgehub.certificate import Files

    try:
        return Files(config.pki).identity().node
    except SkerryError:
        return "NAME"


def _reset(chosen: argparse.Namespace) -> int:
    from edgecore import reset
    from edgecore.edged import loopback
    from edgecore.edged.cri import Cri

    config = _load(chosen)
    if not chosen.yes:
        raise ConfigError(
            f"this ends all pods of this node and removes its identity and all that is kept in {config.data_dir}: "
            "say --yes if you mean it"
        )
    endpoint = config.edged.runtime_endpoint if config.edged is not None else ""
    name = _node_name(config)
    open_firewall = partial(loopback.tidy, everything=True) if endpoint else (lambda: None)
    done = reset.reset(config, (lambda: Cri(endpoint)) if endpoint else None, open_firewall=open_firewall)
    print(f"{done.pods} pods ended")
    for path in done.removed:
        print(f"removed {path}")
    print("this machine is no node any more; in the cloud: kubectl delete node " + name)
    return 0


def _status(chosen: argparse.Namespace) -> int:
    from edgecore import local, questions, tables

    config = _load(chosen)
    try:
        answer = local.ask(config.socket, "status")
    except Unavailable as error:
        return _status_at_rest(chosen, config, str(error))
    print(questions.as_json(answer) if chosen.output == "json" else tables.render_status(answer))
    return 0


def _status_at_rest(chosen: argparse.Namespace, config: EdgeConfig, error: str) -> int:
    """What the files say while no daemon does.  Raises: SkerryError."""
    from msgspec.structs import asdict

    from edgecore import questions, tables
    from edgecore.edgehub.certificate import Files
    from edgecore.metamanager import offline

    try:
        node = Files(config.pki).identity().node
    except SkerryError:
        node = config.node or ""
    found = asdict(offline.look(config.database))
    if chosen.output == "json":
        print(questions.as_json({"node": node, "daemon": error, "store": found}))
    else:
        print(tables.render_rest(node, error, found))
    return FAILED


def _config(chosen: argparse.Namespace) -> int:
    from edgecore import config

    if chosen.defaults:
        print(config.render_defaults(), end="")
    else:
        _load(chosen)
        print("the configuration is good")
    return 0


def _check(chosen: argparse.Namespace) -> int:
    from edgecore import checks

    found = checks.run(_load(chosen))
    for check in found:
        print(f"{'ok    ' if check.good else 'failed'}  {check.text}")
    return 0 if all(check.good for check in found) else CHECK_FAILED


if __name__ == "__main__":
    sys.exit(main())
