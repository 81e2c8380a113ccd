from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mappers.framework.errors import DriverError
from mappers.framework.http import check_url


@pytest.mark.parametrize(
    "url", ["http://device.local", "https://10.0.0.7:8443/state?x=1", "http://[::1]:80/"]
)
def test_addresses(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize(
    "url", ["", "device.local", "ftp://device", "http://", "http://d:99999/", "http://a b/", "http://[::1"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(DriverError, match="not an http address"):
        check_url(url)


@given(st.text(max_size=60))
@example("[")
def test_garbage_is_refused(text: str) -> None:
    try:
        check_url("http://" + text)
    except DriverError:
        return
