"""Which requests are reviews of the caller; what they answer is in test_api."""

import pytest

from edgecore.metaserver import reviews
from edgecore.metaserver.request import Info


@pytest.mark.parametrize(
    ("verb", "group", "resource", "wanted"),
    [
        ("create", "authorization.k8s.io", "selfsubjectaccessreviews", True),
        ("create", "authorization.k8s.io", "selfsubjectrulesreviews", True),
        ("create", "authentication.k8s.io", "selfsubjectreviews", True),
        ("create", "authorization.k8s.io", "subjectaccessreviews", False),
        ("create", "authorization.k8s.io", "selfsubjectreviews", False),
        ("get", "authorization.k8s.io", "selfsubjectaccessreviews", False),
    ],
)
def test_which_are_the_callers_own(verb: str, group: str, resource: str, wanted: bool) -> None:
    assert reviews.is_one(Info(verb=verb, group=group, version="v1", resource=resource)) is wanted
