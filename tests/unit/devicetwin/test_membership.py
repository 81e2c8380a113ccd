from beehive.apis.devices import Device, DeviceSpec, StateReport
from beehive.apis.twins import MemberDevice
from devicetwin import membership
from devicetwin.membership import STATE_REFRESH_MS, Record

PUMP = MemberDevice(id="plant/pump", name="pump", description="east")


def test_adding_twice_is_adding_once() -> None:
    first = membership.update({}, (), added=[PUMP])
    assert set(first.added) == {"plant/pump"}
    again = membership.update(first.records, (), added=[PUMP])
    assert again.records == first.records
    assert again.added == {}


def test_a_device_stays_while_its_object_is_there() -> None:
    records = membership.object_stored({}, "plant/pump", "").records
    records = membership.update(records, ["plant/pump"], added=[PUMP]).records
    change = membership.update(records, ["plant/pump"], removed=[PUMP])
    assert change.removed == {}
    gone = membership.object_deleted(change.records, "plant/pump")
    assert set(gone.removed) == {"plant/pump"}
    assert gone.records == {}


def test_without_an_object_membership_alone_decides() -> None:
    records = membership.update({}, (), added=[PUMP]).records
    assert membership.update(records, (), removed=[PUMP]).records == {}
    assert membership.update({}, (), removed=[PUMP]).removed == {}


def test_detail_removes_what_is_not_listed_and_has_no_object() -> None:
    records = membership.update({}, (), added=[PUMP, MemberDevice(id="plant/fan")]).records
    records = membership.object_stored(records, "plant/lamp", "").records
    change = membership.detail(records, ["plant/lamp"], [MemberDevice(id="plant/new")])
    assert set(change.records) == {"plant/lamp", "plant/new"}
    assert set(change.removed) == {"plant/pump", "plant/fan"}


def test_ids_have_two_parts() -> None:
    bad = [MemberDevice(id=i) for i in ("", "pump", "/pump", "plant/", "a/b/c", "x/" + "y" * 600)]
    assert membership.update({}, (), added=bad).records == {}


def test_a_state_goes_up_when_it_changes_and_else_once_a_minute() -> None:
    record, tell = membership.set_state(Record(), "online", 1000, "t1")
    assert tell
    record, tell = membership.set_state(record, "online", 2000, "t2")
    assert not tell
    assert record.last_online == "t2"
    record, tell = membership.set_state(record, "online", 1000 + STATE_REFRESH_MS, "t3")
    assert tell
    record, tell = membership.set_state(record, "offline", 1001 + STATE_REFRESH_MS, "t4")
    assert tell
    assert record.last_online == "t3"


def test_readings_make_a_silent_device_online_and_bring_it_back() -> None:
    record, tell = membership.heard(Record(), 0, "t")
    assert (record.state, tell) == ("online", True)
    record, tell = membership.heard(record, 1, "t")
    assert not tell
    assert membership.heard(record, STATE_REFRESH_MS, "t")[1]
    assert membership.heard(membership.anew(record), STATE_REFRESH_MS, "t")[1]
    record, tell = membership.lost(record, 2)
    assert (record.state, tell) == ("unknown", True)
    assert membership.lost(record, 3)[1] is False
    record, tell = membership.heard(record, 4, "t")
    assert (record.state, tell) == ("online", True)


def test_a_reported_state_is_not_overruled_by_a_reading() -> None:
    record, _ = membership.set_state(Record(), "unhealthy", 0, "t")
    assert membership.heard(record, 1, "t") == (record, False)


def test_states_are_known_in_any_case() -> None:
    assert membership.is_state("Online")
    assert not membership.is_state("disconnected")


def test_after_a_mappers_restart_the_same_state_is_told_again() -> None:
    record, _ = membership.set_state(Record(), "online", 1_000_000, "t1")
    assert not membership.set_state(record, "online", 1_001_000, "t2")[1]
    assert membership.set_state(membership.anew(record), "online", 1_001_000, "t2")[1]


def test_a_clock_that_was_set_back_by_years_does_not_silence_a_device() -> None:
    years = 50 * 365 * 24 * 3_600_000
    record, tell = membership.heard(membership.Record(), years, "later")
    assert tell
    record, tell = membership.heard(record, 1_000, "now")
    assert tell
    record, tell = membership.set_state(record, "online", years, "later")
    record, tell = membership.set_state(record, "online", 1_000, "now")
    assert tell


def test_only_a_promised_state_makes_silence_news() -> None:
    assert membership.silence_s(Device()) is None
    report = StateReport(report_to_cloud=True, report_cycle=60_000)
    assert membership.silence_s(Device(spec=DeviceSpec(state_report=report))) == 180
    soon = StateReport(report_to_cloud=True)
    assert membership.silence_s(Device(spec=DeviceSpec(state_report=soon))) == membership.SILENT_MIN_S
    assert membership.silence_s(Device(spec=DeviceSpec(state_report=soon)), by_mapper=False) is None
    assert membership.silence_s(Device(spec=DeviceSpec(state_report=report)), by_mapper=False) == 180
    silent = StateReport(report_to_cloud=False, report_cycle=60_000)
    assert membership.silence_s(Device(spec=DeviceSpec(state_report=silent))) is None


def test_who_never_spoke_is_silent_only_after_a_look_at_it() -> None:
    report = StateReport(report_to_cloud=True, report_cycle=10_000)
    promised, free = Device(spec=DeviceSpec(state_report=report)), Device()
    devices = {"a/promised": promised, "a/free": free, "a/down": promised, "a/strange": promised}
    records = {
        "a/promised": Record(state="OK"),
        "a/free": Record(state="online"),
        "a/down": Record(state="offline"),
    }
    heard: dict[str, float] = {}
    assert membership.silent(devices, records, {}, heard, 1000.0) == []
    assert heard == {"a/promised": 1000.0}
    assert membership.silent(devices, records, {}, heard, 1030.0) == []
    assert membership.silent(devices, records, {}, heard, 1030.5) == ["a/promised"]
    heard["a/promised"] = 1030.5
    assert membership.silent(devices, records, {}, heard, 1031.0) == []
