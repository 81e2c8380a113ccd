from hypothesis import given
from hypothesis import strategies as st

from devicetwin.assign import Candidate, Need, assign

A = Candidate(name="a", protocol="modbus")
B = Candidate(name="b", protocol="modbus")
GONE = Candidate(name="a", protocol="modbus", alive=False)


def test_the_first_of_a_protocol_has_it_and_keeps_it() -> None:
    needs = {"x": Need(protocol="modbus")}
    assert assign(needs, [A, B], {}) == {"x": "a"}
    assert assign(needs, [A, B], {"x": "b"}) == {"x": "b"}


def test_another_takes_over_from_one_that_is_gone() -> None:
    needs = {"x": Need(protocol="modbus")}
    assert assign(needs, [GONE, B], {"x": "a"}) == {"x": "b"}
    assert assign(needs, [GONE], {"x": "a"}) == {"x": "a"}
    assert assign(needs, [GONE], {}) == {"x": "a"}


def test_a_named_mapper_is_the_only_one() -> None:
    needs = {"x": Need(protocol="modbus", mapper="b"), "y": Need(protocol="opcua", mapper="b")}
    assert assign(needs, [A, B], {"x": "a"}) == {"x": "b"}


def test_one_that_wants_no_calls_gets_no_devices() -> None:
    quiet = Candidate(name="q", protocol="modbus", callbacks=False)
    assert assign({"x": Need(protocol="modbus")}, [quiet], {}) == {}
    assert assign({"x": Need(protocol="")}, [A], {}) == {}


CANDIDATES = st.lists(
    st.builds(Candidate, name=st.sampled_from("abc"), protocol=st.sampled_from("pq"), alive=st.booleans()),
    unique_by=lambda c: c.name,
    max_size=3,
)
NEEDS = st.dictionaries(
    st.sampled_from("xyz"), st.builds(Need, protocol=st.sampled_from("pq"), mapper=st.sampled_from(["", "a"]))
)


@given(NEEDS, CANDIDATES, st.dictionaries(st.sampled_from("xyz"), st.sampled_from("abc")))
def test_it_is_stable_and_never_crosses_protocols(
    needs: dict[str, Need], mappers: list[Candidate], current: dict[str, str]
) -> None:
    once = assign(needs, mappers, current)
    assert assign(needs, mappers, once) == once
    protocols = {m.name: m.protocol for m in mappers}
    assert all(protocols[m] == needs[d].protocol for d, m in once.items())
