"""What is refused of what pods ask for."""

from __future__ import annotations

from typing import Any

import pytest

from cloudcore.standalone.validation import pods
from tests.unit.cloudcore.standalone.validation.test_pods import pod


@pytest.mark.parametrize(
    ("resources", "faults"),
    [
        ({"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}, []),
        (
            {"requests": {"cpu": "500m"}},
            [("spec.resources.requests[cpu]", "greater than or equal to aggregate container requests of 1")],
        ),
        (
            {"limits": {"memory": "1Ki"}},
            [("spec.resources.containers[0][memory].limits", "less than or equal to pod limits of 1Ki")],
        ),
        ({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}, [("spec.resources.requests", "cpu limit of 1")]),
        (
            {"limits": {"nvidia.com/gpu": "1"}},
            [("spec.resources.limits[nvidia.com/gpu]", "supported values")],
        ),
        ({"claims": [{"name": "x"}]}, [("spec.resources.claims", "claims may not be set")]),
    ],
)
def test_what_a_pod_asks_for_as_a_whole(resources: Any, faults: list[tuple[str, str]]) -> None:
    told = list(pods.pod_spec(pod(resources=None)["spec"] | {"resources": resources}, "spec"))
    assert [cause.field for cause in told] == [field for field, _ in faults]
    for cause, (_, words) in zip(told, faults, strict=True):
        assert words in cause.text
