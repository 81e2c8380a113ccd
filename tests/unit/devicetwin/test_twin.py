import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive.apis.devices import Device, DeviceProperty, DeviceSpec, ModelProperty, TwinProperty
from beehive.apis.twins import MsgTwin, TwinValue, TwinVersion, TypeMetadata
from devicetwin import twin
from devicetwin.errors import TwinError
from devicetwin.twin import Change, Reading, Side, Twin, Twins, cloud_update, delta, desire, report, request

ROWS = {
    "temp": ModelProperty(name="temp", type="FLOAT", access_mode="ReadOnly"),
    "setpoint": ModelProperty(name="setpoint", type="INT", minimum="10", maximum="90"),
    "on": ModelProperty(name="on", type="BOOLEAN"),
}


def spec(**wishes: str) -> Device:
    properties = [
        DeviceProperty(name=n, desired=TwinProperty(value=v) if v else None) for n, v in wishes.items()
    ]
    return Device(spec=DeviceSpec(properties=properties))


def actual(value: str, type_: str = "") -> MsgTwin:
    return MsgTwin(actual=TwinValue(value=value), metadata=TypeMetadata(type=type_) if type_ else None)


def expected(value: str) -> MsgTwin:
    return MsgTwin(expected=TwinValue(value=value))


class TestRequest:
    def test_a_new_twin_starts_at_edge_version_1(self) -> None:
        change = request({}, {"x": actual("33", "int")}, {}, 1000)
        assert change.twins["x"] == Twin(type="int", actual=Side(value="33", at=1000, edge=1))
        assert change.changed == {"x": None}

    def test_an_unchanged_value_only_becomes_fresher(self) -> None:
        twins = request({}, {"x": actual("33", "int")}, {}, 1000).twins
        change = request(twins, {"x": actual("33")}, {}, 2000)
        assert change.changed == {}
        assert change.twins["x"].actual == Side(value="33", at=2000, edge=1)
        assert change.touched["x"] is not None

    def test_the_stored_type_stands_against_the_requests(self) -> None:
        twins = request({}, {"x": actual("33", "int")}, {}, 0).twins
        with pytest.raises(TwinError) as error:
            request(twins, {"x": actual("warm", "string")}, {}, 0)
        assert error.value.code == 400

    @pytest.mark.parametrize(
        "asked",
        [
            {"a b": actual("1")},
            {"": actual("1")},
            {"x" * 129: actual("1")},
            {"x": actual("1", "Updated")},
            {"x": actual("\x00")},
            {"temp": expected("5")},
            {"setpoint": expected("91")},
            {"setpoint": expected("warm")},
            {"setpoint": actual("warm")},
        ],
    )
    def test_one_bad_twin_refuses_the_whole_request(self, asked: dict[str, MsgTwin]) -> None:
        with pytest.raises(TwinError):
            request({}, {"good": actual("1"), **asked}, ROWS, 0)

    def test_null_removes_an_optional_twin_and_leaves_others(self) -> None:
        twins: Twins = {"a": Twin(), "b": Twin(optional=False)}
        change = request(twins, {"a": None, "b": None, "c": None}, {}, 0)
        assert set(change.twins) == {"b"}
        assert change.touched == {"a": None}

    def test_an_empty_side_says_nothing(self) -> None:
        """KubeEdge's worker dies of it."""
        change = request({}, {"x": MsgTwin(expected=TwinValue(), actual=TwinValue())}, {}, 0)
        assert change.twins["x"] == Twin()

    def test_a_wish_of_the_edge_is_desired(self) -> None:
        change = request({}, {"setpoint": expected("50")}, ROWS, 0)
        assert change.desired == {"setpoint"}
        assert request(change.twins, {"setpoint": expected("50")}, ROWS, 1).desired == frozenset()

    def test_values_that_kubeedge_loses_are_kept(self) -> None:
        text = '{"a": "50 % + ü"}'
        assert request({}, {"x": actual(text)}, {}, 0).twins["x"].actual == Side(value=text, edge=1)

    def test_there_is_a_limit_of_twins(self) -> None:
        with pytest.raises(TwinError):
            request({}, {str(i): actual("1") for i in range(1025)}, {}, 0)


class TestReport:
    def test_types_come_from_the_model(self) -> None:
        change = report({}, [Reading(name="temp", reported="1.5", observed="")], ROWS, 5)
        assert change.twins["temp"].type == "float"

    @pytest.mark.parametrize("bad", ["NaN", "inf", "1e400", "", "warm", "9" * 5000])
    def test_an_ill_typed_value_is_refused_and_the_last_good_one_stays(self, bad: str) -> None:
        twins = report({}, [Reading(name="temp", reported="1.5")], ROWS, 5).twins
        change = report(
            twins, [Reading(name="temp", reported=bad), Reading(name="on", reported="true")], ROWS, 6
        )
        assert list(change.refused) == ["temp"]
        assert change.twins["temp"] == twins["temp"]
        assert "on" in change.changed

    def test_a_property_that_the_model_does_not_have_is_refused(self) -> None:
        assert report({}, [Reading(name="x", reported="1")], ROWS, 0).refused == {
            "x": "is not a property of the device's model"
        }

    def test_a_reading_out_of_range_is_news(self) -> None:
        assert report({}, [Reading(name="setpoint", reported="500")], ROWS, 0).refused == {}

    def test_spellings_of_a_boolean_are_no_change(self) -> None:
        twins = report({}, [Reading(name="on", reported="True")], ROWS, 0).twins
        assert report(twins, [Reading(name="on", reported="1")], ROWS, 1).changed == {}

    def test_a_late_echo_does_not_undo_a_newer_wish(self) -> None:
        twins = desire({}, spec(setpoint="70"), ROWS, 0).twins
        twins = desire(twins, spec(setpoint="80"), ROWS, 1).twins
        change = report(twins, [Reading(name="setpoint", reported="70", observed="70")], ROWS, 2)
        assert change.desired == frozenset()
        assert change.twins["setpoint"].expected == Side(value="80", at=1, cloud=2)
        assert twin.upward(change.twins["setpoint"]).expected == TwinValue(
            value="70",
            metadata=twin.message(Twin(expected=Side(at=2))).expected.metadata,  # type: ignore[union-attr]
        )


class TestDesire:
    def test_the_spec_rules_when_it_changes_and_the_edge_between(self) -> None:
        twins = desire({}, spec(setpoint="70"), ROWS, 0).twins
        twins = request(twins, {"setpoint": expected("60")}, ROWS, 1).twins
        assert desire(twins, spec(setpoint="70"), ROWS, 2).changed == {}
        change = desire(twins, spec(setpoint="75"), ROWS, 3)
        assert change.twins["setpoint"].expected == Side(value="75", at=3, cloud=2, edge=1)
        assert change.desired == {"setpoint"}

    def test_a_bad_wish_leaves_the_last_good_one(self) -> None:
        twins = desire({}, spec(setpoint="70"), ROWS, 0).twins
        assert desire(twins, spec(setpoint=""), ROWS, 1, keep={"setpoint"}).changed == {}

    def test_a_wish_withdrawn_is_no_wish(self) -> None:
        twins = desire({}, spec(setpoint="70"), ROWS, 0).twins
        change = desire(twins, spec(setpoint=""), ROWS, 1)
        assert change.desired == {"setpoint"}
        assert delta(change.twins) == {}

    def test_a_property_that_left_the_spec_goes_and_a_local_twin_stays(self) -> None:
        twins = desire({}, spec(setpoint="70"), ROWS, 0).twins
        twins = request(twins, {"local": actual("1")}, ROWS, 0).twins
        assert set(desire(twins, spec(temp=""), ROWS, 1).twins) == {"local"}

    def test_a_new_model_type_forgets_what_does_not_fit(self) -> None:
        twins = request({}, {"on": actual("maybe")}, {}, 0).twins
        change = desire(twins, spec(on=""), ROWS, 1)
        assert change.twins["on"] == Twin(type="boolean")

    @given(st.lists(st.sampled_from(["", "10", "20", "30"]), min_size=1, max_size=6))
    def test_doing_it_again_changes_nothing(self, wishes: list[str]) -> None:
        twins: Twins = {}
        for at, wish in enumerate(wishes):
            twins = desire(twins, spec(setpoint=wish), ROWS, at).twins
            assert desire(twins, spec(setpoint=wish), ROWS, 99).changed == {}
        assert delta(twins) == ({"setpoint": wishes[-1]} if wishes[-1] else {})


class TestCloudUpdate:
    def local(self) -> Twins:
        return {"setpoint": Twin(type="int", expected=Side(value="50", cloud=1, edge=2))}

    @pytest.mark.parametrize(
        ("version", "taken"),
        [((1, 2), True), ((2, 2), True), ((0, 2), False), ((2, 1), False), (None, False)],
    )
    def test_only_a_cloud_that_saw_the_edge_is_heard(
        self, version: tuple[int, int] | None, taken: bool
    ) -> None:
        asked = MsgTwin(
            expected=TwinValue(value="60"),
            expected_version=TwinVersion(cloud=version[0], edge=version[1]) if version else None,
        )
        change = cloud_update(self.local(), {"setpoint": asked}, ROWS, 9)
        assert bool(change.refused) is not taken
        got = change.twins["setpoint"].expected
        assert got is not None
        assert got.value == ("60" if taken else "50")

    def test_deletion_and_metadata_that_is_missing(self) -> None:
        gone = MsgTwin(metadata=TypeMetadata(type="deleted"))
        assert cloud_update(self.local(), {"setpoint": gone}, ROWS, 0).twins == {}
        assert cloud_update(self.local(), {"setpoint": MsgTwin(), "a b": MsgTwin()}, ROWS, 0).changed == {}


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("spec"), st.sampled_from(["", "20", "30", "5000"])),
        st.tuples(st.just("edge"), st.sampled_from(["", "40", "50", "warm"])),
        st.tuples(st.just("read"), st.sampled_from(["20", "30", "40", "NaN"])),
        st.tuples(st.just("null"), st.just("")),
    ),
    max_size=12,
)


def play(twins: Twins, events: list[tuple[str, str]]) -> Twins:
    for at, (kind, value) in enumerate(events):
        change: Change
        try:
            match kind:
                case "spec":
                    bad = {"setpoint"} if value == "5000" else set()
                    change = desire(twins, spec(setpoint="" if bad else value), ROWS, at, keep=bad)
                case "edge":
                    change = request(twins, {"setpoint": expected(value)}, ROWS, at)
                case "read":
                    change = report(
                        twins, [Reading(name="setpoint", reported=value, observed="20")], ROWS, at
                    )
                case _:
                    change = request(twins, {"setpoint": None}, ROWS, at)
        except TwinError:
            continue
        twins = change.twins
    return twins


class TestProperties:
    @given(EVENTS)
    def test_versions_never_go_back_and_values_are_always_good(self, events: list[tuple[str, str]]) -> None:
        last = Twin()
        for length in range(len(events)):
            now = play({}, events[: length + 1]).get("setpoint")
            if now is None:
                last = Twin()
                continue
            for before, after in ((last.expected, now.expected), (last.actual, now.actual)):
                if before is not None and after is not None:
                    assert (after.cloud, after.edge) >= (
                        before.cloud,
                        before.edge,
                    ) or after.cloud > before.cloud
                assert after is None or after.value in ("", "20", "30", "40", "50")
            last = now

    @given(EVENTS, st.sampled_from(["20", "30"]), st.sampled_from(["20", "30"]))
    def test_whatever_was_before_the_last_word_counts(
        self, events: list[tuple[str, str]], wish: str, read: str
    ) -> None:
        """Both orders of a cloud's wish and a mapper's reading end in the same values."""
        ends = set()
        for order in itertools.permutations([("spec", wish), ("read", read)]):
            got = play(play({}, [*events, ("spec", "5")]), list(order))["setpoint"]
            assert got.expected is not None
            assert got.actual is not None
            ends.add((got.expected.value, got.actual.value))
        assert ends == {(wish, read)}

    @given(
        st.dictionaries(
            st.text(max_size=6),
            st.none()
            | st.builds(
                MsgTwin, actual=st.none() | st.builds(TwinValue, value=st.none() | st.text(max_size=8))
            ),
        )
    )
    def test_any_request_is_done_or_refused(self, asked: dict[str, MsgTwin | None]) -> None:
        try:
            change = request({}, asked, ROWS, 0)
        except TwinError:
            return
        assert set(change.twins) == {n for n, t in asked.items() if t is not None}
