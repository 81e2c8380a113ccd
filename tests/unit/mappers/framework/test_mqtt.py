from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mappers.framework.errors import DriverError
from mappers.framework.mqtt import Broker, broker_of


def test_brokers() -> None:
    assert broker_of("broker.local") == Broker(host="broker.local", port=1883, tls=False)
    assert broker_of("tcp://[::1]:1884") == Broker(host="::1", port=1884, tls=False)
    assert broker_of("ssl://broker.local") == Broker(host="broker.local", port=8883, tls=True)


@pytest.mark.parametrize("url", ["", "http://broker.local", "tcp://", "tcp://b:99999", "tcp://[::1"])
def test_what_is_no_broker(url: str) -> None:
    with pytest.raises(DriverError, match="not a broker's address"):
        broker_of(url)


@given(st.text(max_size=60))
@example("[")
def test_garbage_is_refused(text: str) -> None:
    try:
        broker_of("tcp://" + text)
    except DriverError:
        return
