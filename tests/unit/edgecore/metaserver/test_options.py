"""Numbers in a query."""

from __future__ import annotations

import pytest

from edgecore.metaserver.options import read_integer, read_version
from edgecore.metaserver.status import ApiError


def test_numbers() -> None:
    assert [read_integer({"limit": text}, "limit") for text in ("", "0", "-3", "500")] == [None, 0, -3, 500]
    assert [read_version({"resourceVersion": text}) for text in ("", "0", "7")] == [None, None, 7]


@pytest.mark.parametrize("text", ["x", "--5", "²", "9" * 5000, "1_0", "-", "1.5"])
def test_what_is_none_is_the_clients_fault(text: str) -> None:
    for read in (
        lambda: read_integer({"limit": text}, "limit"),
        lambda: read_version({"resourceVersion": text}),
    ):
        with pytest.raises(ApiError) as caught:
            read()
        assert caught.value.code == 400
