"""What a client asks of a pod's log, exec, attach and portforward, as the request to the node's kubelet.  Pure.

Source: kube-apiserver, pkg/registry/core/pod/strategy.go and rest/subresources.go: which container is meant, which parameters
go on, and the texts of refusals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

LOG_OPTIONS = (
    "follow",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "tailLines",
    "limitBytes",
    "stream",
)
_SURROGATE = re.compile("[\ud800-\udfff]")
"""What a byte that is no UTF-8 has become on its way here."""
VERBS = {"log": "logs", "exec": "exec", "attach": "attach", "portforward": "portForward"}


class BadRequest(Exception):
    """The request cannot be passed on; the text is for the client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRequest:
    """node: empty for a pod that has none yet.   path: for its kubelet.   terminal: channels of exec and attach."""

    verb: str
    node: str
    container: str
    path: str
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    tty: bool = False


def pod_request(
    pod: Mapping[str, Any], subresource: str, query: Iterable[tuple[str, str]], *, upgrade: bool
) -> PodRequest:
    """Understand a request about `pod`.  Raises BadRequest."""
    given = list(query)
    if any(_SURROGATE.search(value) for _, value in given):
        raise BadRequest("the query is no UTF-8 text")
    metadata, spec = pod["metadata"], pod.get("spec") or {}
    namespace, name = metadata["namespace"], metadata["name"]
    node = spec.get("nodeName") or ""
    where = f"{quote(namespace, safe='')}/{quote(name, safe='')}"
    if subresource != "log" and not node:
        raise BadRequest(f"pod {name} does not have a host assigned")
    if subresource == "portforward":
        if not upgrade:
            raise BadRequest("Upgrade request required")
        ports = [("port", value) for key, value in given if key in ("ports", "port")]
        query_text = f"?{urlencode(ports)}" if ports else ""
        return PodRequest(
            verb="portForward", node=node, container="", path=f"/portForward/{where}{query_text}"
        )
    container = _container(name, spec, _first(given, "container"))
    if subresource == "log":
        options = [(key, value) for key, value in given if key in LOG_OPTIONS]
        query_text = f"?{urlencode(options)}" if options else ""
        return PodRequest(
            verb="logs",
            node=node,
            container=container,
            path=f"/containerLogs/{where}/{quote(container, safe='')}{query_text}",
        )
    return _terminal(subresource, node, where, container, given, pod, upgrade=upgrade)


def _terminal(
    subresource: str,
    node: str,
    where: str,
    container: str,
    given: list[tuple[str, str]],
    pod: Mapping[str, Any],
    *,
    upgrade: bool,
) -> PodRequest:
    phase = (pod.get("status") or {}).get("phase", "")
    if phase in ("Succeeded", "Failed"):
        action = "exec into" if subresource == "exec" else "attach to"
        raise BadRequest(f"cannot {action} a container in a completed pod; current phase is {phase}")
    if not upgrade:
        raise BadRequest("Upgrade request required")
    stdin, stdout, stderr, tty = (_truth(_first(given, key)) for key in ("stdin", "stdout", "stderr", "tty"))
    if not (stdin or stdout or stderr):
        # PodExecOptions and PodAttachOptions have stdout and stderr on where the client says nothing
        keys = {key for key, _ in given}
        stdout = "stdout" not in keys
        stderr = "stderr" not in keys and not tty
    options: list[tuple[str, str]] = []
    for wanted, key in ((stdin, "input"), (stdout, "output"), (stderr, "error"), (tty, "tty")):
        if wanted:
            options.append((key, "1"))
    if not options or options == [("tty", "1")]:
        raise BadRequest("you must specify at least 1 of stdin, stdout, stderr")
    if subresource == "exec":
        command = [("command", value) for key, value in given if key == "command"]
        if not command:
            raise BadRequest("you must specify at least one command for the container")
        options += command
    return PodRequest(
        verb=subresource,
        node=node,
        container=container,
        path=f"/{subresource}/{where}/{quote(container, safe='')}?{urlencode(options)}",
        stdin=stdin,
        stdout=stdout,
        stderr=stderr and not tty,
        tty=tty,
    )


def _container(pod: str, spec: Mapping[str, Any], wanted: str) -> str:
    names: dict[str, list[str]] = {
        kind: [c.get("name", "") for c in spec.get(kind) or ()]
        for kind in ("containers", "initContainers", "ephemeralContainers")
    }
    if wanted:
        if not any(wanted in row for row in names.values()):
            raise BadRequest(f"container {wanted[:253]} is not valid for pod {pod}")
        return wanted
    if len(names["containers"]) == 1:
        return names["containers"][0]
    if not names["containers"]:
        raise BadRequest(f"a container name must be specified for pod {pod}")
    text = (
        f"a container name must be specified for pod {pod}, choose one of: [{' '.join(names['containers'])}]"
    )
    for kind, words in (("initContainers", "init"), ("ephemeralContainers", "ephemeral")):
        if names[kind]:
            text += f" or one of the {words} containers: [{' '.join(names[kind])}]"
    raise BadRequest(text)


def _first(given: list[tuple[str, str]], key: str) -> str:
    return next((value for name, value in given if name == key), "")


def _truth(text: str) -> bool:
    return text.lower() in ("1", "t", "true")
