"""The answers of the local socket as columns for people.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_EMPTY = "-"


def in_namespace(answer: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    """The part of an answer that is of one namespace."""
    items = [item for item in answer["items"] if _dig(item, "metadata", "namespace") == namespace]
    running = [pod for pod in answer.get("running", ()) if pod["namespace"] == namespace]
    return {"items": items, "running": running} if "running" in answer else {"items": items}


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
    return [pod["namespace"], pod["name"], ready, pod["phase"], str(pod["restarts"]), pod["ip"] or _EMPTY]


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
    rows = [
        [
            str(_dig(item, "metadata", "namespace")),
            str(_dig(item, "metadata", "name")),
            str(_dig(item, "spec", "deviceModelRef", "name") or _EMPTY),
            str(_dig(item, "spec", "protocol", "protocolName") or _EMPTY),
        ]
        for item in answer["items"]
    ]
    return ("NAMESPACE", "NAME", "MODEL", "PROTOCOL"), rows


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
            lines += [columns([head, row]), ""]
    text: str = yaml.safe_dump(item, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return "\n".join([*lines, text.rstrip()])


def render_status(answer: Mapping[str, Any]) -> str:
    """The daemon's state, one fact a line."""
    cloud, outbox, store = answer["cloud"], answer["outbox"], answer["store"]
    if cloud["connected"]:
        link = f"connected to {cloud['address']}" + (" (KubeEdge)" if cloud["kubeedge"] else "")
    else:
        link = f"not connected: {cloud['lastError'] or 'no answer yet'}"
    dropped = ", ".join(f"{what} {count}" for what, count in outbox["dropped"].items()) or "nothing"
    rows = [
        ["node", answer["node"]],
        ["version", answer["version"]],
        ["up", f"{answer['upSeconds']} s"],
        ["cloud", link],
        ["pods", str(answer["pods"])],
        ["waiting to go up", f"{outbox['waiting']} ({outbox['bytes']} bytes)"],
        ["dropped", dropped],
        ["store", f"{store['objects']} objects" + ("" if store["complete"] else ", not yet complete")],
    ]
    if store["setAside"]:
        rows.append(["damaged store", store["setAside"]])
    return columns(rows)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned, two spaces apart."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _dig(item: Any, *path: str) -> Any:
    for name in path:
        item = item.get(name) if isinstance(item, dict) else None
    return item
