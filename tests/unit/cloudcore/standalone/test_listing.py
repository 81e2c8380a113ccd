"""Versions that a client asks for."""

from __future__ import annotations

import pytest

from cloudcore.standalone.listing import revision_of
from cloudcore.standalone.status import ApiError


def test_a_version() -> None:
    assert [revision_of(text, watch=False) for text in ("", "0", "17")] == [None, 0, 17]


@pytest.mark.parametrize("text", ["x", "-1", "²", "9" * 5000, "1_0"])
def test_what_is_none_is_refused_as_the_api_server_does(text: str) -> None:
    for watch, code in ((False, 400), (True, 500)):
        with pytest.raises(ApiError) as caught:
            revision_of(text, watch=watch)
        assert caught.value.code == code
