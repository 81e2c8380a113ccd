import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive.errors import ConfigError
from edgecore.eventbus.topics import Destination, can_publish, destination, filters, parse_url


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("$hw/events/device/ns/name/twin/update", Destination.TWIN),
        ("$hw/events/device/ns/name/twin/get", Destination.TWIN),
        ("$hw/events/device/ns/name/state/update", Destination.TWIN),
        ("$hw/events/node/n/membership/get", Destination.TWIN),
        ("$hw/events/device/ns/name/twin/update/result", Destination.NOBODY),
        ("$hw/events/device/ns/name/twin/delta", Destination.NOBODY),
        ("$hw/events/upload/x", Destination.UPLOAD),
        ("SYS/dis/upload_records", Destination.UPLOAD),
        ("a/user/b", Destination.UPLOAD),
        ("$hw/events/devices/x", Destination.UPLOAD),
    ],
)
def test_destination(topic: str, expected: Destination) -> None:
    assert destination(topic) is expected


def test_uploads_are_subscribed_only_if_somebody_takes_them() -> None:
    assert filters(["default/x"], upload=False) == [
        "$hw/events/device/+/+/state/update",
        "$hw/events/device/+/+/twin/+",
        "$hw/events/node/+/membership/get",
    ]
    assert filters(["default/x", "+/user/#"], upload=True)[3:] == [
        "$hw/events/upload/#",
        "SYS/dis/upload_records",
        "+/user/#",
        "default/x",
    ]


@pytest.mark.parametrize(
    ("topic", "good"), [("a/b", True), ("", False), ("a/+", False), ("#", False), ("a\0", False)]
)
def test_can_publish(topic: str, good: bool) -> None:
    assert can_publish(topic) is good


def test_a_topic_has_65535_bytes_at_most() -> None:
    assert can_publish("x" * 65_535)
    assert not can_publish("ü" * 40_000)
    assert not can_publish("\ud800")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("tcp://127.0.0.1:11883", ("127.0.0.1", 11883, False)),
        ("mqtt://broker", ("broker", 1883, False)),
        ("mqtts://broker/", ("broker", 8883, True)),
        ("ssl://[::1]:99", ("::1", 99, True)),
        ("tcp://[::1]", ("::1", 1883, False)),
    ],
)
def test_url(url: str, expected: tuple[str, int, bool]) -> None:
    assert parse_url(url) == expected


@pytest.mark.parametrize(
    "url", ["", "broker", "http://x", "tcp://", "tcp://x:0", "tcp://x:99999", "tcp://:1883"]
)
def test_a_bad_url_is_named(url: str) -> None:
    with pytest.raises(ConfigError, match="mqtt url"):
        parse_url(url)


@given(st.text())
def test_any_text_has_a_destination(topic: str) -> None:
    destination(topic)
    can_publish(topic)
