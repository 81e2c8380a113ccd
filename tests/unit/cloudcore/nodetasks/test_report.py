"""Reports of node tasks and what becomes of a job's status: cloudcore.nodetasks.report."""

from __future__ import annotations

import json
from typing import Any

import pytest

from beehive.errors import ProtocolError
from beehive.message import Message, Source, new
from cloudcore.errors import Forbidden
from cloudcore.nodetasks import report
from cloudcore.nodetasks.report import Report

WHERE = "operations.kubeedge.io/v1alpha2/nodeupgradejob/up-1/node/a"


def message(path: str = WHERE, content: Any = None) -> Message:
    said = {"action": "Check", "succ": True, "finishTime": "2026-08-07T07:00:21Z", "reason": "", "extend": ""}
    return new(
        source=Source.WEBSOCKET,
        group="hub",
        operation="UpdateNodeActionStatus",
        resource=path,
        content=said if content is None else content,
    )


def after(*reports: Report, others: list[Any] | None = None) -> dict[str, Any]:
    """Node a's row after these."""
    rows: Any = [*(others or []), {"nodeName": "a", "phase": "InProgress"}]
    for one in reports:
        rows = report.rows("a", {"nodeStatus": rows}, one) or rows
    found: dict[str, Any] = next(row for row in rows if row["nodeName"] == "a")
    return found


def test_a_report_names_its_job_and_the_node_itself() -> None:
    kind, name = report.target("a", message())
    assert (kind.kind, name) == ("NodeUpgradeJob", "up-1")
    with pytest.raises(Forbidden):
        report.target("b", message())
    for path in (
        "operations.kubeedge.io/v1/nodeupgradejob/x/node/a",
        "operations.kubeedge.io/v1alpha2/secret/x/node/a",
        "operations.kubeedge.io/v1alpha2/nodeupgradejob/../node/a",
        "task/x/node/a",
        "",
    ):
        with pytest.raises(ProtocolError):
            report.target("a", message(path))


@pytest.mark.parametrize("content", [{}, {"action": ""}, {"action": "a b"}, {"action": "x" * 99}, [], 7])
def test_what_is_no_report_is_refused(content: Any) -> None:
    with pytest.raises(ProtocolError):
        report.read(message(content=content))


def test_a_node_that_the_job_does_not_name_has_no_part_in_it() -> None:
    for status in ({}, {"nodeStatus": None}, {"nodeStatus": ["a", {"nodeName": "b"}]}):
        with pytest.raises(Forbidden):
            report.rows("a", status, Report(action="Check", succ=True))


def test_steps_are_kept_in_order_and_once() -> None:
    check, upgrade = (
        Report(action="Check", succ=True),
        Report(action="Upgrade", succ=True, extend="v1,v2"),
    )
    row = after(check, check, upgrade, upgrade)
    assert [step["action"] for step in row["actionFlow"]] == ["Check", "Upgrade"]
    assert (row["phase"], row["historicVersion"], row["currentVersion"]) == ("Successful", "v1", "v2")
    assert report.rows("a", {"nodeStatus": [row]}, upgrade) is None


@pytest.mark.parametrize(
    ("reports", "phase"),
    [
        ([Report(action="Check", succ=True)], "InProgress"),
        ([Report(action="Check", succ=False, reason="disk")], "Failure"),
        ([Report(action="Upgrade", succ=False, reason="x")], "InProgress"),
        ([Report(action="Upgrade", succ=False), Report(action="RollBack", succ=True)], "Failure"),
        ([Report(action="Update", succ=True)], "Successful"),
    ],
)
def test_the_phase_follows_the_last_step(reports: list[Report], phase: str) -> None:
    assert after(*reports)["phase"] == phase


def test_images_are_told_one_by_one_and_nonsense_about_them_is_refused() -> None:
    images = [{"image": "a:1", "status": "False", "reason": "no such image"}]
    row = after(Report(action="Pull", succ=False, extend=json.dumps(images)))
    assert row["imageStatus"] == images
    with pytest.raises(ProtocolError):
        after(Report(action="Pull", succ=True, extend="{"))


def test_a_nodes_report_leaves_others_alone_and_stays_bounded() -> None:
    other = {"nodeName": "b", "phase": "Pending"}
    steps = [Report(action="Check", succ=True, finishTime=str(n), reason="x" * 9000) for n in range(100)]
    row = after(*steps, others=[other])
    assert len(row["actionFlow"]) == report.MAX_STEPS
    assert len(row["reason"]) == report.MAX_REASON
    rows = report.rows("a", {"nodeStatus": [other, {"nodeName": "a"}]}, steps[0])
    assert rows is not None
    assert rows[0] == other
