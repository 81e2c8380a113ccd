"""Workloads and what scales and guards them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from beehive.printing import printed

NOW = datetime(2030, 1, 1, tzinfo=UTC)
BORN = "2029-12-31T23:59:00Z"
META: dict[str, Any] = {"metadata": {"name": "x", "creationTimestamp": BORN}}


TEMPLATE = {"spec": {"containers": [{"name": "c", "image": "i"}]}}


@pytest.mark.parametrize(
    ("key", "found", "cells"),
    [
        (
            ("apps", "deployments"),
            {"spec": {"replicas": 2, "template": TEMPLATE, "selector": {"matchLabels": {"a": "b"}}},
             "status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1}},
            ["x", "1/2", 2, 1, "60s", "c", "i", "a=b"],
        ),
        (
            ("batch", "jobs"),
            {"spec": {"completions": 1, "template": TEMPLATE},
             "status": {"succeeded": 1, "startTime": BORN, "completionTime": "2029-12-31T23:59:05Z",
                        "conditions": [{"type": "Complete", "status": "True"}]}},
            ["x", "Complete", "1/1", "5s", "60s", "c", "i", "<none>"],
        ),
        (
            ("batch", "cronjobs"),
            {"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": TEMPLATE}}}},
            ["x", "* * * * *", "<none>", "False", 0, "<none>", "60s", "c", "i"],
        ),
        (
            ("apps", "daemonsets"),
            {"spec": {"template": TEMPLATE}, "status": {"desiredNumberScheduled": 1, "numberReady": 1}},
            ["x", 1, 0, 1, 0, 0, "<none>", "60s", "c", "i", "<none>"],
        ),
    ],
)  # fmt: skip
def test_rows(key: tuple[str, str], found: dict[str, Any], cells: list[Any]) -> None:
    assert printed.cells(key, META | found, NOW) == cells
