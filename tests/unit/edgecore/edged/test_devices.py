from __future__ import annotations

import pytest

from edgecore.edged import devices
from edgecore.edged.devices import Book, Device
from edgecore.edged.errors import Held
from tests.unit.edgecore.edged.builders import c, make

NAME = "example.com/dongle"
GOOD, ILL = Device(healthy=True), Device(healthy=False)


def asks(name: str, count: int = 1, **fields: object) -> dict[str, object]:
    return c(name, resources={"limits": {NAME: str(count)}}, **fields)


def chosen(book: Book, pod: object, name: str) -> tuple[str, ...]:
    choice = book.choose(pod, pod.container(name), NAME, devices.wanted(pod.container(name))[NAME])  # type: ignore[attr-defined,arg-type]
    assert choice is not None
    ids = choice.by_order()
    book.take(pod.uid, name, NAME, ids)  # type: ignore[attr-defined]
    return ids


@pytest.mark.parametrize(
    ("name", "ok"),
    [
        ("example.com/dongle", True),
        ("nvidia.com/gpu", True),
        ("smarter-devices/ttyUSB0", True),
        ("cpu", False),
        ("hugepages-2Mi", False),
        ("kubernetes.io/x", False),
        ("sub.kubernetes.io/x", False),
        ("requests.example.com/x", False),
        ("example.com/", False),
        ("example.com/a/b", False),
        ("/x", False),
    ],
)
def test_names(name: str, ok: bool) -> None:
    assert devices.valid_name(name) is ok


def test_a_device_is_one_containers_until_its_pod_is_no_more() -> None:
    book = Book()
    book.learn(NAME, {"a": GOOD, "b": GOOD, "c": ILL})
    assert book.counts() == {NAME: (3, 2)}
    one, two = make(asks("c")), make(asks("c"), meta={"uid": "v"})
    three = make(asks("c"), meta={"uid": "w"})
    assert chosen(book, one, "c") == ("a",)
    assert chosen(book, two, "c") == ("b",)
    with pytest.raises(Held, match="Requested: 1, Available: 0"):
        chosen(book, three, "c")
    # the same again when it restarts
    assert chosen(book, one, "c") == ("a",)
    assert not book.keep_only({"u", "v"})
    assert book.keep_only({"v"})
    assert chosen(book, three, "c") == ("a",)


def test_what_an_init_container_had_goes_to_the_app() -> None:
    book = Book()
    book.learn(NAME, {"a": GOOD, "b": GOOD, "d": GOOD})
    pod = make(
        asks("c", 2),
        initContainers=[asks("i"), asks("j"), asks("s", restartPolicy="Always")],
    )
    assert chosen(book, pod, "i") == ("a",)
    assert chosen(book, pod, "j") == ("a",)
    # a sidecar keeps what it has
    assert chosen(book, pod, "s") == ("a",)
    assert chosen(book, pod, "c") == ("b", "d")


def test_a_restart_waits_for_a_device_that_is_ill_or_away() -> None:
    book = Book()
    book.learn(NAME, {"a": GOOD})
    pod = make(asks("c"))
    assert chosen(book, pod, "c") == ("a",)
    book.lost(NAME)
    assert book.counts() == {NAME: (1, 0)}
    with pytest.raises(Held, match="no healthy device"):
        chosen(book, pod, "c")
    book.forget(NAME)
    assert book.counts() == {NAME: (0, 0)}
    with pytest.raises(Held):
        chosen(book, pod, "c")
    book.learn(NAME, {"a": GOOD, "b": GOOD})
    assert chosen(book, pod, "c") == ("a",)


def test_a_resource_that_no_plugin_ever_named_is_no_device() -> None:
    pod = make(asks("c"))
    assert Book().choose(pod, pod.container("c"), NAME, 1) is None
    # but one that was named before a reboot is waited for
    book = Book()
    book.learn(NAME, {"a": GOOD})
    book.take("u", "c", NAME, ["a"])
    again = devices.decode(devices.encode(book))
    assert again.grants == book.grants
    assert again.counts() == {NAME: (0, 0)}
    with pytest.raises(Held):
        again.choose(make(asks("d")), make(asks("d")).container("d"), NAME, 1)
    assert devices.decode(b"{not json").grants == {}
