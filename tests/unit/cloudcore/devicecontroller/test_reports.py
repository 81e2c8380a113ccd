from __future__ import annotations

import msgspec

from beehive.apis.devices import DeviceStatusStatus, Problem, decode_device, decode_model
from beehive.apis.twins import StateUpdate, TwinProblem, TwinUpdate
from cloudcore.devicecontroller.reports import StatusChange, apply, from_state, from_twins, patch

DEVICE = decode_device(b'{"metadata":{"name":"room"},"spec":{"properties":[{"name":"t"},{"name":"s"}]}}')
MODEL = decode_model(b'{"spec":{"properties":[{"name":"t","type":"FLOAT"},{"name":"s","type":"INT"}]}}')


def update(**values: str) -> TwinUpdate:
    twin = {
        name: {
            "actual": {"value": value, "metadata": {"timestamp": 5}},
            "expected": {"value": "", "metadata": {"timestamp": 5}},
            "metadata": {"type": "string"},
        }
        for name, value in values.items()
    }
    return msgspec.convert({"twin": twin}, TwinUpdate)


def test_a_reading_of_the_wrong_type_does_not_replace_the_last_good_one() -> None:
    good = apply(DeviceStatusStatus(), from_twins(update(t="1.5"), DEVICE, MODEL), DEVICE, "then")
    after = apply(good, from_twins(update(t="warm", s="3"), DEVICE, MODEL), DEVICE, "now")
    assert [(t.property_name, t.reported.value if t.reported else None) for t in after.twins] == [
        ("t", "1.5"),
        ("s", "3"),
    ]
    condition = after.conditions[0]
    assert (condition.type, condition.status, condition.last_transition_time) == (
        "ReadingsAccepted",
        "False",
        "now",
    )
    assert "t: the reading" in condition.message


def test_unknown_properties_are_left_out_and_types_are_the_models() -> None:
    change = from_twins(update(t="1", ghost="1"), DEVICE, MODEL)
    assert list(change.twins) == ["t"]
    reported = change.twins["t"].reported
    assert reported is not None
    assert reported.metadata == {"timestamp": "5", "type": "float"}


def test_twins_of_properties_that_went_are_dropped_and_the_order_is_the_devices() -> None:
    both = apply(DeviceStatusStatus(), from_twins(update(s="1", t="2"), DEVICE, MODEL), DEVICE, "")
    assert [twin.property_name for twin in both.twins] == ["t", "s"]
    smaller = decode_device(b'{"spec":{"properties":[{"name":"s"}]}}')
    assert [twin.property_name for twin in apply(both, StatusChange(), smaller, "").twins] == ["s"]


def test_an_offline_device_keeps_its_last_time() -> None:
    def state(text: str, at: str) -> StatusChange:
        return from_state(msgspec.convert({"device": {"state": text, "lastOnlineTime": at}}, StateUpdate))

    status = apply(DeviceStatusStatus(), state("online", "2026"), DEVICE, "")
    status = apply(status, state("offline", ""), DEVICE, "")
    assert (status.state, status.last_online_time) == ("offline", "2026")


def test_changes_add_up_to_the_newest() -> None:
    first = from_twins(update(t="1", s="1"), DEVICE, MODEL).then(StatusChange(state="online"))
    merged = first.then(from_twins(update(t="2"), DEVICE, MODEL))
    values = {name: twin.reported.value for name, twin in merged.twins.items() if twin.reported}
    assert (values, merged.state) == ({"t": "2", "s": "1"}, "online")


def test_a_condition_turns_once() -> None:
    problem = Problem(path="$.x", reason="Bad", message="is bad")
    status = DeviceStatusStatus()
    for now, problems in (("1", (problem,)), ("2", (problem,)), ("3", ()), ("4", ())):
        status = apply(status, StatusChange(problems=problems), DEVICE, now)
    assert [(c.status, c.last_transition_time) for c in status.conditions] == [("True", "3")]


def test_a_patch_has_only_what_differs() -> None:
    before = DeviceStatusStatus(state="online")
    assert patch(before, before) is None
    after = apply(before, StatusChange(state="offline"), DEVICE, "")
    assert patch(before, after) == b'{"status":{"state":"offline"}}'


def test_anomalies_are_a_condition_of_their_own() -> None:
    wrong = [TwinProblem(property="t", reason="Range", message="99 is above 40")]
    change = from_twins(
        TwinUpdate(twin={}, anomalies=[*wrong, TwinProblem(property="other", reason="x", message="y")]),
        DEVICE,
        MODEL,
    )
    status = apply(DeviceStatusStatus(), change, DEVICE, "now")
    found = {condition.type: condition for condition in status.conditions}
    assert (found["ReadingsNormal"].status, found["ReadingsNormal"].reason) == ("False", "Range")
    assert found["ReadingsNormal"].message == "t: 99 is above 40"
    assert found["ReadingsAccepted"].status == "True"
    over = apply(status, from_twins(TwinUpdate(twin={}, anomalies=[]), DEVICE, MODEL), DEVICE, "now")
    assert {c.type: c.status for c in over.conditions}["ReadingsNormal"] == "True"
    odd = [TwinProblem(property="t", reason="no word\n", message="m" * 5000)]
    told = apply(status, from_twins(TwinUpdate(twin={}, anomalies=odd), DEVICE, MODEL), DEVICE, "now")
    condition = next(c for c in told.conditions if c.type == "ReadingsNormal")
    assert (condition.reason, len(condition.message)) == ("Anomaly", 1024)
    without = apply(DeviceStatusStatus(), from_twins(TwinUpdate(twin={}), DEVICE, MODEL), DEVICE, "now")
    assert "ReadingsNormal" not in {c.type for c in without.conditions}


def test_a_device_that_nothing_serves_says_why() -> None:
    problem = TwinProblem(
        property="", reason="NotServed", message="no mapper runs it: line 3: invalid syntax"
    )
    change = from_twins(TwinUpdate(twin={}, problems=[problem]), DEVICE, MODEL)
    assert change.faults == (problem,)
    (condition,) = apply(DeviceStatusStatus(), change, DEVICE, "now").conditions
    assert (condition.status, condition.reason, condition.message) == ("False", "NotServed", problem.message)
    over = from_twins(TwinUpdate(twin={}), DEVICE, MODEL)
    assert change.then(over).faults == ()


def test_what_a_node_says_is_wrong_is_bounded_before_it_is_remembered() -> None:
    name = DEVICE.spec.properties[0].name
    long = "x" * 100_000
    change = from_twins(
        TwinUpdate(
            twin={},
            problems=[TwinProblem(property="", reason=long, message=f"{n}{long}") for n in range(50)],
            anomalies=[TwinProblem(property=name, reason=f"{n}{long}", message=long) for n in range(50)],
        ),
        DEVICE,
        MODEL,
    )
    assert change.faults is not None
    assert change.anomalies is not None
    assert len(change.faults) == 8
    assert len(change.anomalies) == 1  # the last word on it
    assert change.anomalies[0].reason.startswith("49")
    for each in (*change.faults, *change.anomalies):
        assert len(each.reason) <= 64
        assert len(each.message) <= 1024
