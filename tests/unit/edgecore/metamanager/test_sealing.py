"""What is sealed can be opened with its key, for its row, unchanged; else not at all."""

from hypothesis import given
from hypothesis import strategies as st

from edgecore.metamanager.sealing import MAGIC, Sealer, is_sealed

SEALER = Sealer(b"k" * 32)


@given(st.text(max_size=50), st.binary(max_size=2000))
def test_what_is_sealed_is_opened(what: str, value: bytes) -> None:
    sealed = SEALER.seal(what, value)
    assert is_sealed(sealed)
    assert SEALER.opens(sealed)
    assert SEALER.open(what, sealed) == value


@given(st.binary(max_size=200), st.data())
def test_a_changed_byte_is_found(value: bytes, data: st.DataObject) -> None:
    sealed = bytearray(SEALER.seal("row", value))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert SEALER.open("row", bytes(sealed)) is None


@given(st.binary(max_size=100))
def test_anything_else_is_not_opened(value: bytes) -> None:
    assert SEALER.open("row", value) is None
    assert SEALER.open("row", SEALER.prefix + value) is None


def test_another_row_and_another_key_do_not_open_it() -> None:
    sealed = SEALER.seal("default/secret/a", b"value")
    assert SEALER.open("default/secret/b", sealed) is None
    other = Sealer(b"j" * 32)
    assert not other.opens(sealed)
    assert other.open("default/secret/a", sealed) is None


def test_the_same_value_is_sealed_differently_each_time() -> None:
    assert SEALER.seal("a", b"value") != SEALER.seal("a", b"value")


def test_json_is_never_taken_for_sealed() -> None:
    assert not is_sealed(b"{}")
    assert MAGIC[0] == 0
