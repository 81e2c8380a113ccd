"""Identity, rules and debounce, without a kernel."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive.errors import ConfigError
from mappers.udev import rules
from mappers.udev.found import Found, Node, facts, former, identity, is_no_serial
from mappers.udev.rules import Candidate, Rule
from mappers.udev.tracker import Kind, Tracker
from tests.unit.mappers.udev.hardware import (
    CONBEE,
    CSI_CAMERA,
    GPIO,
    I2C,
    I2C_BUS,
    NIC,
    UART,
    ZBDONGLE,
    camera,
    ch340,
    cp2102,
    ftdi,
    modem,
    pl2303,
    rtl_sdr,
)

SERIAL_RULE = Rule(name="adapters", patterns={"subsystem": "tty", "driver": "ftdi_sio"})


def document(**spec: Any) -> dict[str, Any]:
    match = {"subsystem": "tty", "vendor": "0403"}
    return {
        "apiVersion": "skerry.dev/v1alpha1",
        "kind": "HardwareRule",
        "metadata": {"name": "meter", "namespace": "plant"},
        "spec": {"match": match, **spec},
    }


TEMPLATE = {
    "deviceModelRef": {"name": "meter"},
    "protocol": {"protocolName": "modbus", "configData": {"serialPort": "${devnode}", "slaveID": 1}},
    "properties": [{"name": "power", "visitors": {"configData": {"register": "InputRegister"}}}],
}


# --- identity


def test_an_adapter_is_the_same_in_another_socket_under_another_name() -> None:
    first = identity(ftdi(0))
    assert first == "0403:6001:A50285BI-if00"
    assert identity(ftdi(3, bus=2, port="1.2")) == first
    assert identity(ftdi(0, serial="OTHER")) != first
    assert identity(ftdi(0, interface=1)) != first


def test_without_a_serial_number_the_socket_counts() -> None:
    first = identity(ftdi(0, serial=""))
    assert first == "0000:01:00.0-usb-1.4-if00"
    assert identity(ftdi(5, bus=3, serial="")) == first  # the bus number is chance
    assert identity(ftdi(0, serial="", port="1.3")) != first
    assert identity(ftdi(0), by="port") == first


def test_udevs_own_words_are_preferred() -> None:
    said = replace(
        ftdi(0), properties={"ID_SERIAL_SHORT": "Z 9", "ID_VENDOR_ID": "0403", "ID_PATH": "platform-x"}
    )
    assert identity(said) == "0403:6001:Z_9-if00"
    assert identity(said, by="port") == "platform-x-if00"


def test_other_hardware() -> None:
    assert identity(camera(0, 0)) != identity(camera(1, 1))
    assert identity(GPIO) == "platform/soc/fe200000.gpio/gpiochip"
    assert facts(GPIO).driver == "pinctrl-bcm2835"
    assert (facts(I2C).driver, facts(I2C).model) == ("bmp280", "bme280")
    assert (facts(NIC).vendor, facts(NIC).product) == ("8086", "15be")
    assert identity(NIC) == "8086:15be:02:42:ac:11:00:02"


@pytest.mark.parametrize(
    "text",
    ["", "0", "0001", "1", "00000001", "00000000", "ffffffff", "123456", "12345678", "1234567890", "0123456789ABCDEF",
     "1234567890abcdef", "DEADBEEF", "none", "N/A", "XXXXXXXX", " 0001 "],
)  # fmt: skip
def test_what_whole_series_have_in_place_of_a_serial_number(text: str) -> None:
    assert is_no_serial(text)


@pytest.mark.parametrize(
    "text",
    ["A50285BI", "DE2132111", "0c9e31c2b5f0eb118f2d1a2e38a92db5", "0010", "10", "1001", "12345", "123457", "20230101",
     "0000:01:00.0", "5A47012345", "100000001", "1234567891"],
)  # fmt: skip
def test_serial_numbers(text: str) -> None:
    assert not is_no_serial(text)


def test_adapters_without_a_serial_number_of_their_own() -> None:
    for make in (ch340, cp2102, pl2303):
        first, second = make(0), make(1, port="1.4")
        assert identity(first).endswith("fd500000.pcie-usb-1.3-if00")
        assert identity(first) != identity(second)
        assert identity(make(7)) == identity(first)  # replugged
        assert facts(first).serial == ""
    assert identity(cp2102(serial="02A1B3C4")) == "10c4:ea60:02A1B3C4-if00"
    assert identity(rtl_sdr()) == identity(rtl_sdr(number=9)) == "fd500000.pcie-usb-1.2"
    assert len({identity(modem(n)) for n in range(3)}) == 3


def test_boards_and_sticks() -> None:
    assert identity(ZBDONGLE) == "10c4:ea60:0c9e31c2b5f0eb118f2d1a2e38a92db5-if00"
    assert identity(CONBEE) == "1cf1:0030:DE2132111-if00"
    assert facts(ZBDONGLE).model == "Sonoff_Zigbee_3.0_USB_Dongle_Plus"
    assert identity(CSI_CAMERA) == "platform/soc/fe801000.csi/video-index0"
    assert identity(UART) == "platform/soc/fe201000.serial/tty/ttyAMA0"
    assert facts(I2C_BUS).driver == "i2c-bcm2835"
    for patterns, found in (
        ({"subsystem": "tty", "driver": "cdc_acm", "vendor": "1cf1"}, CONBEE),
        ({"subsystem": "usb", "devtype": "usb_device", "vendor": "0bda", "product": "2838"}, rtl_sdr()),
        ({"subsystem": "video4linux", "driver": "unicam"}, CSI_CAMERA),
        ({"subsystem": "i2c-dev", "name": "i2c-1"}, I2C_BUS),
        ({"subsystem": "tty", "port": "platform/soc/fe201000.serial/*"}, UART),
    ):
        assert rules.matches(Rule(name="r", patterns=patterns), found)


# --- rules


@pytest.mark.parametrize(
    ("patterns", "found", "good"),
    [
        ({"subsystem": "tty", "vendor": "0403", "product": "6001"}, ftdi(), True),
        ({"subsystem": "tty", "name": "ttyusb*", "serial": "a5*"}, ftdi(), True),
        ({"subsystem": "tty", "driver": "xhci_hcd"}, ftdi(), True),
        ({"subsystem": "tty", "vendor": "2109"}, ftdi(), False),  # the hub's
        ({"subsystem": "tty", "serial": "*"}, ftdi(serial=""), False),
        ({"subsystem": "net"}, ftdi(), False),
        ({"subsystem": "gpio", "driver": "pinctrl-*"}, GPIO, True),
    ],
)
def test_patterns(patterns: dict[str, str], found: Found, good: bool) -> None:
    assert rules.matches(Rule(name="r", patterns=patterns), found) is good


def test_attributes_of_those_above_and_properties() -> None:
    rule = Rule(name="r", patterns={"subsystem": "gpio"}, attributes={"of_node/compatible": "brcm,*"})
    assert rules.matches(rule, GPIO)
    assert not rules.matches(replace(rule, attributes={"serial": "*"}), GPIO)
    assert rules.matches(Rule(name="r", patterns={"subsystem": "tty"}, properties={"MAJOR": "188"}), ftdi())
    assert not rules.matches(Rule(name="r", patterns={"subsystem": "tty"}, properties={"NO": "*"}), ftdi())


def test_a_rule_becomes_a_device() -> None:
    (rule,) = rules.parse([document(template=TEMPLATE, accept=True), {"kind": "Other"}, None])
    found = rules.candidate([rule], ftdi(2))
    assert found is not None
    told = rules.candidate_object("edge-1", found, present=True)
    assert told["spec"] | {"devNode": "/dev/ttyUSB2", "vendor": "0403", "accepted": True} == told["spec"]
    device = rules.device_object("edge-1", found)
    assert device is not None
    assert device["spec"]["nodeName"] == "edge-1"
    assert device["spec"]["protocol"]["configData"] == {"serialPort": "/dev/ttyUSB2", "slaveID": 1}
    assert device["metadata"]["name"] == told["metadata"]["name"]
    again = rules.candidate([rule], ftdi(7, bus=2))
    assert again is not None
    assert rules.object_name("edge-1", again) == told["metadata"]["name"]
    assert rules.object_name("edge-2", again) != told["metadata"]["name"]


@pytest.mark.parametrize(
    "spec",
    [
        {"match": {"vendor": "0403"}},
        {"match": {"subsystem": "tty", "colour": "red"}},
        {"match": {"subsystem": "tty", "attributes": {"uevent": "*"}}},
        {"identity": "name"},
        {"template": {"protocol": {"protocolName": "x"}}},
        {"template": {**TEMPLATE, "nodeName": "${hostname}"}},
    ],
)
def test_a_rule_that_cannot_be_meant_is_named(spec: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="meter"):
        rules.parse([document(**spec)])


# --- debounce


def told(tracker: Tracker, now: float) -> list[tuple[Kind, str]]:
    return [(c.kind, c.candidate.found.dev_node) for c in tracker.take(now)]


def test_a_burst_is_one_device_and_a_bounce_is_nothing() -> None:
    tracker = Tracker([SERIAL_RULE], settle_s=0.5, grace_s=5)
    for now in (0.0, 0.1, 0.3):
        tracker.see(ftdi(), now)
    assert told(tracker, 0.6) == []
    assert tracker.next_due() == 0.8
    assert told(tracker, 0.8) == [(Kind.PLUGGED, "/dev/ttyUSB0")]
    tracker.gone(ftdi().path, 10)
    tracker.see(ftdi(), 12)
    assert told(tracker, 99) == []
    assert len(tracker.here()) == 1


def test_unplugged_after_the_grace_and_back_as_the_same() -> None:
    tracker = Tracker([SERIAL_RULE], settle_s=0.5, grace_s=5)
    tracker.sync([ftdi(), GPIO], 0)
    (first,) = tracker.take(1)
    tracker.gone(ftdi().path, 10)
    assert told(tracker, 14) == []
    assert told(tracker, 15) == [(Kind.UNPLUGGED, "/dev/ttyUSB0")]
    tracker.see(ftdi(4, bus=2), 20)
    (again,) = tracker.take(21)
    assert (again.kind, again.candidate.id) == (Kind.PLUGGED, first.candidate.id)


def test_moved_within_the_grace_is_a_change() -> None:
    tracker = Tracker([SERIAL_RULE], settle_s=0.5, grace_s=5)
    tracker.sync([ftdi()], 0)
    tracker.take(1)
    tracker.gone(ftdi().path, 10)
    tracker.see(ftdi(1), 11)
    assert told(tracker, 12) == [(Kind.CHANGED, "/dev/ttyUSB1")]


def test_two_devices_of_one_identity_in_one_socket_are_one_until_both_are_gone() -> None:
    tracker = Tracker([Rule(name="r", patterns={"subsystem": "tty"})], settle_s=0, grace_s=0)
    twins = [ftdi(10), ftdi(9)]
    tracker.sync(twins, 0)
    assert told(tracker, 0) == [(Kind.PLUGGED, "/dev/ttyUSB9")]
    tracker.gone(twins[1].path, 1)
    assert told(tracker, 1) == [(Kind.CHANGED, "/dev/ttyUSB10")]
    tracker.gone(twins[0].path, 2)
    assert told(tracker, 2) == [(Kind.UNPLUGGED, "/dev/ttyUSB10")]


def test_two_adapters_that_say_the_same_of_themselves_stay_two(caplog: pytest.LogCaptureFixture) -> None:
    tracker = Tracker([SERIAL_RULE], settle_s=0, grace_s=5)
    one, other = ftdi(0, port="1.3"), ftdi(1, port="1.4")
    for now in (0, 1):
        tracker.sync([one, other], now)
    assert told(tracker, 1) == [(Kind.PLUGGED, "/dev/ttyUSB0"), (Kind.PLUGGED, "/dev/ttyUSB1")]
    names = [c.id for c in tracker.here()]
    assert names == ["0403:6001:A50285BI-if00", "0403:6001:A50285BI-if00@0000:01:00.0-usb-1.4"]
    assert caplog.text.count("identity: port") == 1
    tracker.gone(one.path, 10)
    tracker.sync([other], 11)
    assert told(tracker, 15) == [(Kind.UNPLUGGED, "/dev/ttyUSB0")]  # its twin does not become it
    tracker.sync([other], 20)
    assert told(tracker, 20) == []
    assert [c.id for c in tracker.here()] == names[1:]
    tracker.see(ftdi(2, port="1.3"), 30)
    assert [(c.kind, c.candidate.id) for c in tracker.take(30)] == [(Kind.PLUGGED, names[0])]


def test_a_device_that_no_longer_fits_is_gone() -> None:
    rule = Rule(name="r", patterns={"subsystem": "block"}, attributes={"loop/backing_file": "*.img"})
    empty = Found(path="/devices/virtual/block/loop0", node=Node(name="loop0", subsystem="block"))
    full = replace(empty, node=replace(empty.node, attributes={"loop/backing_file": "/disk.img"}))
    tracker = Tracker([rule], settle_s=0, grace_s=0)
    tracker.see(empty, 0)
    assert told(tracker, 0) == []
    tracker.see(full, 1)
    assert [kind for kind, _ in told(tracker, 1)] == [Kind.PLUGGED]
    tracker.see(empty, 2)
    assert [kind for kind, _ in told(tracker, 2)] == [Kind.UNPLUGGED]


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.floats(0, 3)), max_size=40))
def test_whatever_happens_what_is_told_is_what_is_there(events: list[tuple[int, bool, float]]) -> None:
    tracker = Tracker([SERIAL_RULE], settle_s=0.5, grace_s=2)
    present: set[int] = set()
    shown: dict[str, Candidate] = {}
    now = 0.0

    def apply(at: float) -> None:
        for change in tracker.take(at):
            name = change.candidate.id
            assert (name in shown) is (change.kind is not Kind.PLUGGED)
            if change.kind is Kind.UNPLUGGED:
                del shown[name]
            else:
                shown[name] = change.candidate

    for number, there, wait in events:
        found = ftdi(number, serial=f"S{number}")
        if there:
            present.add(number)
            tracker.see(found, now)
        else:
            present.discard(number)
            tracker.gone(found.path, now)
        now += wait
        apply(now)
    apply(now + 10)
    assert {c.found.node.name for c in shown.values()} == {f"ttyUSB{n}" for n in present}
    tracker.sync([ftdi(n, serial=f"S{n}") for n in present], now + 10)
    assert tracker.take(now + 99) == []


def renumbered(found: Found, name: str, **properties: str) -> Found:
    """The same thing, which the kernel calls otherwise this time."""
    return replace(
        found,
        path=found.path.removesuffix(found.node.name) + name,
        node=replace(found.node, name=name),
        properties={**found.properties, **properties},
    )


def test_what_is_soldered_on_is_the_same_whatever_the_kernel_counts() -> None:
    assert identity(renumbered(GPIO, "gpiochip4")) == identity(GPIO)
    assert identity(renumbered(CSI_CAMERA, "video7")) == identity(CSI_CAMERA)
    second = replace(CSI_CAMERA, node=replace(CSI_CAMERA.node, attributes={"index": "1"}))
    assert identity(second) != identity(CSI_CAMERA)
    # shown a second time for shell scripts, without a device node
    twice = replace(GPIO, path="/devices/platform/soc/fe200000.gpio/gpio/gpiochip512", dev_node="")
    twice = replace(twice, node=Node(name="gpiochip512", subsystem="gpio"))
    assert identity(twice) != identity(GPIO)


def test_a_numbered_bus_on_the_way_is_left_out_where_there_is_a_device_tree() -> None:
    def expander(bus: int, number: int, **properties: str) -> Found:
        name = f"gpiochip{number}"
        return Found(
            path=f"/devices/platform/soc/fe804000.i2c/i2c-{bus}/{bus}-0020/{name}",
            node=Node(name=name, subsystem="gpio"),
            above=(
                Node(name=f"{bus}-0020", subsystem="i2c", driver="pca953x"),
                Node(name=f"i2c-{bus}", subsystem="i2c"),
                Node(name="fe804000.i2c", subsystem="platform"),
            ),
            dev_node=f"/dev/{name}",
            properties=properties,
        )

    tree = {"OF_FULLNAME": "/soc/i2c@7e804000/gpio@20"}
    assert (
        identity(expander(1, 1, **tree))
        == identity(expander(3, 2, **tree))
        == "of/soc/i2c@7e804000/gpio@20/gpiochip"
    )
    # without one its bus is all that is known
    assert identity(expander(1, 1)) == identity(expander(1, 2)) != identity(expander(3, 2))


@pytest.mark.parametrize(
    ("subsystem", "name", "other", "plain"),
    [
        ("sound", "pcmC0D0p", "pcmC2D0p", "pcmD0p"),
        ("sound", "controlC0", "controlC2", "control"),
        ("drm", "card0-HDMI-A-1", "card1-HDMI-A-1", "HDMI-A-1"),
        ("drm", "renderD128", "renderD129", "renderD"),
        ("media", "media0", "media3", "media"),
    ],
)
def test_cards_are_known_without_their_number(subsystem: str, name: str, other: str, plain: str) -> None:
    def card(name: str) -> Found:
        above = (Node(name="fef00700.hdmi", subsystem="platform"),)
        path = f"/devices/platform/soc/fef00700.hdmi/{subsystem}/{name}"
        return Found(path=path, node=Node(name=name, subsystem=subsystem), above=above)

    assert identity(card(name)) == identity(card(other)) == f"platform/soc/fef00700.hdmi/{plain}"


def test_what_is_not_counted_or_known_otherwise_is_as_it_was() -> None:
    for found in (UART, NIC, I2C, I2C_BUS, ftdi(0), ftdi(0, serial=""), camera(0, 0), ZBDONGLE, rtl_sdr()):
        assert former(found) == ""
    assert former(GPIO) == "platform/soc/fe200000.gpio/gpiochip0"
    assert former(CSI_CAMERA) == "platform/soc/fe801000.csi/video4linux/video0-index0"
    said = replace(CSI_CAMERA, properties={"ID_PATH": "platform-fe801000.csi"})
    assert identity(said) == "platform-fe801000.csi-index0"
    assert former(said) == ""
    virtual = Found(
        path="/devices/virtual/video4linux/video9", node=Node(name="video9", subsystem="video4linux")
    )
    assert identity(virtual) == "virtual/video4linux/video9"  # its number is all that it has


def test_two_chips_in_one_place_are_told_apart_while_both_are_there() -> None:
    tracker = Tracker([Rule(name="pins", patterns={"subsystem": "gpio"})], settle_s=0, grace_s=0)
    tracker.sync([GPIO, renumbered(GPIO, "gpiochip1")], 0.0)
    tracker.take(0.0)
    assert len({one.id for one in tracker.here()}) == 2
    assert len({one.seen.former for one in tracker.here()}) == 2
