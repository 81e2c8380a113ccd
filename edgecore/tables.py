"""The answers of the local socket as columns for people.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

_EMPTY = "-"


def in_namespace(answer: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    """The part of an answer that is of one namespace."""
    items = [item for item in answer["items"] if _dig(item, "metadata", "namespace") == namespace]
    running = [pod for pod in answer.get("running", ()) if pod["namespace"] == namespace]
    found: dict[str, Any] = {"items": items}
    if "running" in answer:
        found["running"] = running
    if "twins" in answer:
        found["twins"] = [t for t in answer["twins"] if t["id"].partition("/")[0] == namespace]
    return found


def render(kind: str, answer: Mapping[str, Any]) -> str:
    """The objects of a kind, one line each."""
    head, rows = _TABLES[kind](answer)
    if not rows:
        return f"no {kind}"
    return columns([head, *sorted(rows)])


def _pods(answer: Mapping[str, Any]) -> tuple[Sequence[str], list[list[str]]]:
    running = {pod["uid"]: pod for pod in answer.get("running", ())}
    rows = []
    for item in answer["items"]:
        pod = running.pop(str(_dig(item, "metadata", "uid")), None)
        rows.append(
            _pod(pod)
            if pod is not None
            else [
                str(_dig(item, "metadata", "namespace")),
                str(_dig(item, "metadata", "name")),
                *[_EMPTY] * 4,
            ]
        )
    # what still runs here though the cloud wants it no more
    rows += [_pod(pod) for pod in running.values()]
    return ("NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "IP"), rows


def _pod(pod: Mapping[str, Any]) -> list[str]:
    ready = "yes" if pod["ready"] else "no"
    state = pod_state(pod.get("status") or {}) or pod["phase"] or _EMPTY
    return [pod["namespace"], pod["name"], ready, state, str(pod["restarts"]), pod["ip"] or _EMPTY]


def reported(
    items: Sequence[Mapping[str, Any]], statuses: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """How pods ran when the daemon last wrote it down, as the daemon itself would tell it.   statuses: by UID."""
    found = []
    for item in items:
        status = statuses.get(str(_dig(item, "metadata", "uid")))
        if status is None:
            continue
        ready = any(
            c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ()
        )
        found.append(
            {
                "uid": _dig(item, "metadata", "uid"),
                "namespace": _dig(item, "metadata", "namespace"),
                "name": _dig(item, "metadata", "name"),
                "phase": status.get("phase") or "",
                "ip": status.get("podIP") or "",
                "ready": ready,
                "restarts": sum(c.get("restartCount") or 0 for c in status.get("containerStatuses") or ()),
                "status": status,
            }
        )
    return found


def pod_state(status: Mapping[str, Any]) -> str:
    """A pod's state in a word, as kubectl has it.   Source: kubernetes, pkg/printers/internalversion/printers.go."""
    for each in status.get("initContainerStatuses") or ():
        ended, waits = _dig(each, "state", "terminated"), _dig(each, "state", "waiting")
        if ended and ended.get("exitCode"):
            return f"Init:{ended.get('reason') or 'Error'}"
        if waits and waits.get("reason") not in (None, "", "PodInitializing"):
            return f"Init:{waits['reason']}"
    for each in status.get("containerStatuses") or ():
        for kind in ("waiting", "terminated"):
            reason = _dig(each, "state", kind, "reason")
            if reason and reason != "Completed":
                return str(reason)
    return str(status.get("reason") or status.get("phase") or "")


def _nodes(answer: Mapping[str, Any]) -> tuple[Sequence[str], list[list[str]]]:
    rows = []
    for item in answer["items"]:
        conditions = _dig(item, "status", "conditions") or []
        ready = next((c.get("status") for c in conditions if c.get("type") == "Ready"), "Unknown")
        rows.append(
            [
                str(_dig(item, "metadata", "name")),
                {"True": "Ready", "False": "NotReady"}.get(ready, "Unknown"),
                str(_dig(item, "status", "nodeInfo", "kubeletVersion") or _EMPTY),
            ]
        )
    return ("NAME", "STATUS-IN-CLOUD", "VERSION"), rows


def _devices(answer: Mapping[str, Any]) -> tuple[Sequence[str], list[list[str]]]:
    twins = {device["id"]: device for device in answer.get("twins", ())}
    rows = []
    for item in answer["items"]:
        namespace, name = str(_dig(item, "metadata", "namespace")), str(_dig(item, "metadata", "name"))
        rows.append(
            [
                namespace,
                name,
                str(_dig(item, "spec", "deviceModelRef", "name") or _EMPTY),
                str(_dig(item, "spec", "protocol", "protocolName") or _EMPTY),
                *_twin(twins.pop(f"{namespace}/{name}", {})),
            ]
        )
    # devices over MQTT alone, without an object in the store
    rows += [
        [*_split(id_), _EMPTY, device["protocol"] or _EMPTY, *_twin(device)] for id_, device in twins.items()
    ]
    return ("NAMESPACE", "NAME", "MODEL", "PROTOCOL", "STATE", "MAPPER", "READINGS"), rows


def _split(id_: str) -> tuple[str, str]:
    namespace, _, name = id_.rpartition("/")
    return namespace or _EMPTY, name


def _twin(device: Mapping[str, Any]) -> list[str]:
    """State, mapper and readings; a wish that is not fulfilled stands behind its reading."""
    readings = []
    for name, twin in (device.get("twins") or {}).items():
        reported = twin["reported"] if twin["reported"] is not None else "?"
        wish = twin["desired"]
        text = f"{name}={reported[:32]}"
        readings.append(f"{text} (wanted {wish[:32]})" if wish and wish != twin["reported"] else text)
    return [
        device.get("state") or _EMPTY,
        device.get("mapper") or _EMPTY,
        ", ".join(readings).replace("\n", " ")[:120] or _EMPTY,
    ]


def history(answer: Mapping[str, Any], only: str = "") -> str:
    """The readings of a device, one a line, in the order they came."""
    rows = sorted(
        (at, name, value)
        for name, line in answer["properties"].items()
        if only in ("", name)
        for at, value in line
    )
    if not rows:
        return "no readings since the daemon started"
    told = [
        (datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z", name, value)
        for at, name, value in rows
    ]
    return columns([("TIME", "PROPERTY", "VALUE"), *told])


def _plain(answer: Mapping[str, Any]) -> tuple[Sequence[str], list[list[str]]]:
    rows = [
        [
            str(_dig(item, "metadata", "namespace")),
            str(_dig(item, "metadata", "name")),
            str(len(_dig(item, "data") or {})),
        ]
        for item in answer["items"]
    ]
    return ("NAMESPACE", "NAME", "DATA"), rows


_TABLES = {"pods": _pods, "nodes": _nodes, "devices": _devices, "configmaps": _plain}


def describe(item: Mapping[str, Any], running: Sequence[Mapping[str, Any]]) -> str:
    """All of one object as YAML, and before it how it runs here, if it is a pod."""
    import yaml

    lines = []
    uid = _dig(item, "metadata", "uid")
    for pod in running:
        if pod["uid"] == uid:
            head, row = ("READY", "STATUS", "RESTARTS", "IP"), _pod(pod)[2:]
            lines += [columns([head, row]), "", *_how(pod.get("status") or {})]
    text: str = yaml.safe_dump(
        _without_noise(item), sort_keys=False, allow_unicode=True, default_flow_style=False
    )
    return "\n".join([*lines, text.rstrip()])


def _how(status: Mapping[str, Any]) -> list[str]:
    """The containers of a pod, and what is wrong with it."""
    rows, wrong = [], []
    for kind in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        for each in status.get(kind) or ():
            state, text = _container(each)
            rows.append(
                [
                    str(each.get("name")),
                    "yes" if each.get("ready") else "no",
                    state,
                    str(each.get("restartCount") or 0),
                    str(each.get("image") or _EMPTY),
                ]
            )
            if text:
                wrong.append(f"{each.get('name')}: {text}")
    for each in status.get("conditions") or ():
        if each.get("status") != "True" and each.get("message"):
            wrong.append(f"{each.get('type')} is {each.get('status')}: {each['message']}")
    if status.get("message"):
        wrong.append(str(status["message"]))
    lines = [columns([("CONTAINER", "READY", "STATE", "RESTARTS", "IMAGE"), *rows]), ""] if rows else []
    return [*lines, *wrong, ""] if wrong else lines


def _container(each: Mapping[str, Any]) -> tuple[str, str]:
    """A container's state in a word, and what there is to say of it."""
    waits, ended = _dig(each, "state", "waiting"), _dig(each, "state", "terminated")
    before = _dig(each, "lastState", "terminated")
    texts = []
    if waits and waits.get("message"):
        texts.append(str(waits["message"]))
    for what, one in (("ended", ended), ("ended before", before)):
        if one:
            reason = one.get("reason") or ""
            text = f"{what} with exit code {one.get('exitCode')} {f'({reason}) ' if reason else ''}at {one.get('finishedAt')}"
            texts.append(text + (f": {one['message'].strip()}" if one.get("message") else ""))
    if waits:
        state = str(waits.get("reason") or "Waiting")
    elif ended:
        state = str(ended.get("reason") or "Terminated")
    else:
        state = "Running" if _dig(each, "state", "running") is not None else _EMPTY
    return state, "; ".join(texts)


def _without_noise(item: Mapping[str, Any]) -> dict[str, Any]:
    """The object without what tools keep in it for themselves."""
    metadata = dict(item.get("metadata") or {})
    metadata.pop("managedFields", None)
    annotations = dict(metadata.get("annotations") or {})
    annotations.pop("kubectl.kubernetes.io/last-applied-configuration", None)
    metadata.pop("annotations", None)
    if annotations:
        metadata["annotations"] = annotations
    return {**item, "metadata": metadata}


def render_rest(node: str, error: str, found: Mapping[str, Any]) -> str:
    """What is known while no daemon runs, one fact a line.   found: as `store.AtRest`."""
    return columns(
        [
            ["node", node or "this machine has not joined: edgecore join --cloud HOST:PORT --token ..."],
            ["daemon", error],
            ["", "start it: systemctl start edgecore;  its log: journalctl -u edgecore"],
            ["pods", f"{found['pods']} are wanted here; those that run go on without the daemon"],
            ["waiting to go up", f"{found['waiting']} ({found['bytes']} bytes)"],
            ["store", f"{found['objects']} objects" + ("" if found["complete"] else ", not yet complete")],
        ]
    )


def _clock(ahead_s: int) -> list[list[str]]:
    if not ahead_s:
        return []
    return [["clock", f"{ahead_s // 86400} days ahead of the cloud's, whose time counts instead: set it"]]


def render_status(answer: Mapping[str, Any]) -> str:
    """The daemon's state, one fact a line."""
    cloud, outbox, store = answer["cloud"], answer["outbox"], answer["store"]
    since = f"for {cloud['forSeconds']} s"
    if cloud["connected"]:
        link = f"connected to {cloud['address']}{' (KubeEdge)' if cloud['kubeedge'] else ''} {since}"
    else:
        link = f"not connected {since}, on its own: {cloud['lastError'] or 'no answer yet'}"
    dropped = ", ".join(f"{what} {count}" for what, count in outbox["dropped"].items()) or "nothing"
    rows = [
        ["node", answer["node"]],
        ["version", answer["version"]],
        ["up", f"{answer['upSeconds']} s"],
        ["cloud", link],
        *_clock(answer.get("clockAheadSeconds", 0)),
        ["pods", str(answer["pods"])],
        ["waiting to go up", f"{outbox['waiting']} ({outbox['bytes']} bytes)"],
        ["dropped", dropped],
        ["store", f"{store['objects']} objects" + ("" if store["complete"] else ", not yet complete")],
    ]
    if answer.get("lastEnd"):
        rows.append(["before that", answer["lastEnd"]])
    rows += _offline_writes(answer.get("offlineWrites"))
    if store["keyFault"]:
        rows.append(["key of secrets", store["keyFault"]])
    if store["lockedRows"]:
        rows.append(
            ["cannot be opened", f"{store['lockedRows']} secrets and tokens, asked of the cloud again"]
        )
    if store["setAside"]:
        rows.append(["damaged store", store["setAside"]])
    return columns(rows)


def _offline_writes(found: Mapping[str, Any] | None) -> list[list[str]]:
    if not found or not (found["waiting"] or found["dropped"]):
        return []
    rows = []
    if found["waiting"]:
        rows.append(["offline writes", f"{found['waiting']} wait, the oldest for {found['oldestSeconds']} s"])
    if found["dropped"]:
        text = ", ".join(f"{what} {count}" for what, count in found["dropped"].items())
        rows.append(["dropped by the cloud", text])
    return rows + [["", line] for line in found["lastDropped"][-3:]]


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned, two spaces apart."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _dig(item: Any, *path: str) -> Any:
    for name in path:
        item = item.get(name) if isinstance(item, dict) else None
    return item
