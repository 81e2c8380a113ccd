import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicetwin import documents
from devicetwin.documents import Asked, Request, parse_topic
from devicetwin.errors import TwinError
from devicetwin.membership import Record
from devicetwin.twin import Side, Twin


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("$hw/events/device/ns/n/twin/update", Asked(request=Request.TWIN_UPDATE, subject="ns/n")),
        ("$hw/events/device/device/e/twin/get", Asked(request=Request.TWIN_GET, subject="device/e")),
        ("$hw/events/device/ns/n/state/update", Asked(request=Request.STATE_UPDATE, subject="ns/n")),
        (
            "$hw/events/device/ns/n/twin/cloud_updated",
            Asked(request=Request.TWIN_CLOUD_UPDATED, subject="ns/n"),
        ),
        ("$hw/events/node/node/membership/get", Asked(request=Request.MEMBERSHIP_GET, subject="node")),
        ("$hw/events/device/n/twin/update", None),
        ("$hw/events/device//n/twin/update", None),
        ("$hw/events/device/ns/n/twin/update/result", None),
        ("$hw/events/device/ns/n/membership/get", None),
        ("$hw/events/node//membership/get", None),
        ("", None),
    ],
)
def test_topics(topic: str, expected: Asked | None) -> None:
    assert parse_topic(topic) == expected


@given(st.text())
def test_any_topic_has_an_answer(topic: str) -> None:
    parse_topic(topic)
    parse_topic(documents.DEVICE + topic)


@given(st.binary(max_size=300))
def test_garbage_raises_only_our_error(payload: bytes) -> None:
    for read in (documents.read_update, documents.read_base, documents.read_state):
        with contextlib.suppress(TwinError):
            read(payload)


def test_an_update_without_twins_and_one_too_long_are_refused() -> None:
    for payload in (b"{}", b'{"twin": null}', b" " * (documents.MAX_PAYLOAD_BYTES + 1), b"[" * 100_000):
        with pytest.raises(TwinError):
            documents.read_update(payload)


def test_a_state_is_read_in_any_case_of_its_key() -> None:
    assert documents.read_state(b'{"State": "online"}').state == "online"


def test_a_record_survives_its_row() -> None:
    record = Record(
        name="x",
        member=True,
        state="online",
        delivered=("m", "d"),
        twins={"t": Twin(type="int", expected=Side(value="1", at=5, cloud=2), spec="1")},
    )
    assert documents.read_record(documents.write_record(record)) == record


def test_the_cloud_gets_all_twins_and_what_is_refused() -> None:
    text = documents.edge_updated("e", 1, {"t": Twin(actual=Side(value="1", at=5, edge=3))}, {"u": "is bad"})
    assert json.loads(text) == {
        "event_id": "e",
        "timestamp": 1,
        "twin": {
            "t": {
                "actual": {"value": "1", "metadata": {"timestamp": 5}},
                "optional": True,
                "metadata": {"type": "string"},
                "actual_version": {"cloud": 0, "edge": 3},
            }
        },
        "problems": [{"property": "u", "reason": "InvalidValue", "message": "is bad"}],
    }
    assert "problems" not in json.loads(documents.edge_updated("e", 1, {}, {}))
