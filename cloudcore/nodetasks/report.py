"""What an edge reports about its step of a node task, and the job's status with it.  Pure.

A node may speak of itself in a job that names it: the job's status must have a row of that node, which whoever runs the job
made.  What the steps are is theirs, too; here a report is kept where it belongs.

Source: KubeEdge, cloud/pkg/taskmanager (v1alpha2).  Unlike there, a roll-back that worked does not make a failed upgrade
successful."""

from __future__ import annotations

from typing import Any

import msgspec

from beehive import resource
from beehive.errors import ProtocolError
from beehive.message import UNREADABLE, Message
from cloudcore.errors import Forbidden
from cloudcore.objects import Kind

GROUP, VERSION = "operations.kubeedge.io", "v1alpha2"
KINDS = {
    "nodeupgradejob": Kind("NodeUpgradeJob", "nodeupgradejobs", GROUP, VERSION, namespaced=False),
    "imageprepulljob": Kind("ImagePrePullJob", "imageprepulljobs", GROUP, VERSION, namespaced=False),
    "configupdatejob": Kind("ConfigUpdateJob", "configupdatejobs", GROUP, VERSION, namespaced=False),
}
LAST = frozenset({"Upgrade", "Pull", "Update"})
"""The steps that are what the job is for."""
UNDONE = frozenset({"Upgrade", "Update"})
"""The steps after whose failure the node rolls back."""
MAX_STEPS = 32
MAX_REASON = 1024
MAX_IMAGES = 256


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One executed step.  extend: `from,to` of an upgrade, or a JSON list of what became of images."""

    action: str
    succ: bool = False
    finishTime: str = ""
    reason: str = ""
    extend: str = ""


class _Image(msgspec.Struct, frozen=True, kw_only=True):
    image: str
    status: str = ""
    reason: str = ""


def target(node: str, message: Message) -> tuple[Kind, str]:
    """The job that `message` is about.  Raises ProtocolError, Forbidden (another node's part of it)."""
    parts = message.route.resource.split("/")
    if len(parts) != 6 or parts[:2] != [GROUP, VERSION] or parts[2] not in KINDS or parts[4] != "node":
        raise ProtocolError(f"{message.route.resource[:120]!r} is no node task")
    if parts[5] != node:
        raise Forbidden(f"node {node} may not report for node {parts[5][:64]!r}")
    if not resource.is_name(parts[3]):
        raise ProtocolError(f"{parts[3][:64]!r} is no name of a job")
    return KINDS[parts[2]], parts[3]


def read(message: Message) -> Report:
    """Raises ProtocolError."""
    report = message.decode(Report)
    if not report.action.isalpha() or len(report.action) > 32:
        raise ProtocolError(f"{report.action[:64]!r} is no step of a node task")
    return report


def rows(node: str, status: dict[str, Any], report: Report) -> list[dict[str, Any]] | None:
    """`status.nodeStatus` with the report in it; None when it is there already.  Raises Forbidden: it is not for `node`."""
    held = [row for row in status.get("nodeStatus") or [] if isinstance(row, dict)]
    for at, row in enumerate(held):
        if row.get("nodeName") == node:
            new = _row(row, report)
            return None if new == row else [*held[:at], new, *held[at + 1 :]]
    raise Forbidden(f"the job has no task for node {node}")


def _row(row: dict[str, Any], report: Report) -> dict[str, Any]:
    step = {"action": report.action, "status": str(report.succ), "time": report.finishTime[:64]}
    reason = report.reason[:MAX_REASON]
    if reason:
        step["reason"] = reason
    flow = [one for one in row.get("actionFlow") or [] if isinstance(one, dict)]
    if step in flow:
        return row  # it was sent twice
    new = {**row, "actionFlow": [*flow, step][-MAX_STEPS:], "phase": _phase(report), "reason": reason}
    if report.action == "RollBack" and report.succ:
        new["reason"] = reason or "rolled back"
    if report.action in ("Upgrade", "RollBack", "BackUp") and report.extend.count(",") == 1:
        new["historicVersion"], new["currentVersion"] = report.extend[:256].split(",", 1)
    if report.action == "Pull" and report.extend:
        new["imageStatus"] = _images(report.extend)
    return new


def _phase(report: Report) -> str:
    if report.action == "RollBack" or not report.succ:
        return "InProgress" if report.action in UNDONE else "Failure"
    return "Successful" if report.action in LAST else "InProgress"


def _images(text: str) -> list[dict[str, str]]:
    """Raises ProtocolError."""
    try:
        found = msgspec.json.decode(text, type=list[_Image])[:MAX_IMAGES]
    except UNREADABLE as error:
        raise ProtocolError(f"cannot read what became of the images: {error}") from error
    return [
        {"image": one.image[:512], "status": one.status[:16], "reason": one.reason[:MAX_REASON]}
        for one in found
    ]
