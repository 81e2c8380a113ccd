import pytest

from mappers.framework.driver import Driver, Property, Settings, Value, find_driver
from mappers.framework.errors import DriverError


class Good(Driver):
    protocol = "p"

    async def read(self, prop: Property) -> Value:
        return 1


class Better(Good):
    protocol = "q"


class Nameless(Driver):
    async def read(self, prop: Property) -> Value:
        return 1


class Deaf(Driver):
    protocol = "p"


def test_the_one_driver_of_a_file_is_found_and_the_leaf_is_meant() -> None:
    assert find_driver({"Driver": Driver, "Good": Good}, __name__) is Good
    assert find_driver({"Good": Good, "Better": Better}, __name__) is Better


@pytest.mark.parametrize(
    ("namespace", "text"),
    [
        ({}, "found: none"),
        ({"a": Good, "b": Deaf}, "one subclass"),
        ({"a": Nameless}, "protocol"),
        ({"a": Deaf}, "read"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(namespace: dict[str, object], text: str) -> None:
    with pytest.raises(DriverError, match=text):
        find_driver(namespace, __name__)


def test_settings_match_without_case_and_convert() -> None:
    settings = Settings({"slaveID": "0x11", "Scale": "0.5", "on": "True", "name": 5})
    assert settings.integer("slaveid") == 17
    assert settings.number("SCALE") == 0.5
    assert settings.flag("ON")
    assert settings.text("Name") == "5"
    assert settings.integer("port", 502) == 502
    assert settings.get("missing") is None
    assert "secret" not in repr(Settings({"password": "secret"}))


def test_a_bad_setting_is_named() -> None:
    settings = Settings({"port": "x", "half": 1.5, "yes": True, "odd": "maybe", "big": float("inf")})
    for call in (
        lambda: settings.integer("port"),
        lambda: settings.integer("half"),
        lambda: settings.integer("big"),
        lambda: settings.number("yes"),
        lambda: settings.number("missing"),
        lambda: settings.flag("odd"),
        lambda: settings.text("missing"),
    ):
        with pytest.raises(DriverError, match="setting"):
            call()
