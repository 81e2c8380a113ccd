"""What the kernel says about a piece of hardware, and what it is called.  Pure.

A device is known by an identity that stays when it is unplugged and plugged in again: what it says about itself (vendor,
product, serial number) if it has a serial number, else the socket it sits in.  A serial number that whole series share
(`0001`, all zeros) is none: by it two adapters would be one.  The kernel's own names (`ttyUSB0`, the number of a USB bus)
change and are no part of it; what is soldered on (pins, cameras at CSI, sound) is known by what it hangs on, since the kernel
counts those as their drivers come up.  All of it comes from sysfs, with udev's properties preferred where a udevd runs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from beehive.apis.hardware import ATTRIBUTES

__all__ = ["ATTRIBUTES", "EMPTY", "Facts", "Found", "Node", "facts", "identity"]

EMPTY: Mapping[str, str] = MappingProxyType({})
_USB_INTERFACE = re.compile(r".*:\d+\.(\d+)")
_USB_DEVICE = re.compile(r"\d+-(\d+(\.\d+)*)")
# What cheap things have in place of a serial number: CP210x 0001, RTL-SDR 00000001, FTDI's copies 00000000, LTE modems
# 0123456789ABCDEF.
_NO_SERIAL = re.compile(
    r"0*[01]?|(.)\1*|0?123456(7(8(90?|9abcdef)?)?)?|0?123456789a?|(0?1234567890?|0123456789)abcdef|deadbeef|none|n/?a|serial|"
    r"default|unknown|not[_ -]?(set|specified|available)",
    re.IGNORECASE,
)
_COUNTED = frozenset({"gpio", "video4linux", "media", "sound", "drm"})
"""Subsystems whose devices the kernel numbers as they come up."""
_NUMBERED_BUS = re.compile(r"i2c-\d+|\d+-[0-9a-f]{4}|spi\d+(\.\d+)?|.*\.auto")
"""What may be on the way to one and is numbered, too: an I2C bus and a thing on it, SPI, a device that asked for any number."""
_PCM = re.compile(r"(pcm|midi|hw|control)C\d+(.*)")
_CONNECTOR = re.compile(r"card\d+-(.+)")
_PCI = re.compile(r"0x([0-9a-f]{4})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One device of the kernel's tree.  name: its last part, e.g. `ttyUSB0` or `1-1.4`.  attributes: those of sysfs that
    identify hardware, see `ATTRIBUTES`."""

    name: str
    subsystem: str = ""
    devtype: str = ""
    driver: str = ""
    attributes: Mapping[str, str] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A device with those above it, nearest first.  path: DEVPATH.  properties: of the uevent and of udev's database."""

    path: str
    node: Node
    above: tuple[Node, ...] = ()
    dev_node: str = ""
    properties: Mapping[str, str] = field(default_factory=lambda: EMPTY)

    @property
    def chain(self) -> tuple[Node, ...]:
        return (self.node, *self.above)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What rules look at and templates use.  vendor, product: 4 hex digits, "" if it has none.  port: the socket."""

    vendor: str
    product: str
    serial: str
    model: str
    driver: str
    port: str
    interface: str


def facts(found: Found) -> Facts:
    """Vendor and so on are those of the device itself or of the nearest one above it that has them."""
    said = found.properties
    usb = next((n for n in found.chain if n.subsystem == "usb" and "idVendor" in n.attributes), None)
    own = usb.attributes if usb is not None else EMPTY
    vendor = said.get("ID_VENDOR_ID") or own.get("idVendor") or _pci(found, "vendor")
    product = said.get("ID_MODEL_ID") or own.get("idProduct") or _pci(found, "device")
    serial = said.get("ID_SERIAL_SHORT") or own.get("serial") or ""
    if is_no_serial(serial):
        serial = ""
    if usb is None and not serial and found.node.subsystem == "net":
        serial = _mac(found.node)
    return Facts(
        vendor=vendor.lower(),
        product=product.lower(),
        serial=_clean(serial),
        model=_clean(said.get("ID_MODEL") or own.get("product") or found.node.attributes.get("name", "")),
        driver=next((n.driver for n in found.chain if n.driver), ""),
        port=said.get("ID_PATH") or _port(found),
        interface=_interface(found),
    )


def is_no_serial(text: str) -> bool:
    """Whether a text that stands for a serial number tells no two devices apart."""
    return _NO_SERIAL.fullmatch(text.strip()) is not None


def former(found: Found, *, by: str = "serial") -> str:
    """What `identity` was before it left the kernel's numbers out; empty if that is the same."""
    was = identity(found, by=by, numbered=True)
    return was if was != identity(found, by=by) else ""


def identity(found: Found, *, by: str = "serial", numbered: bool = False) -> str:
    """The name of a device that outlives its presence.  by: `serial` (its own, the socket if it has none) or `port`."""
    known = facts(found)
    # one piece of hardware can be several devices: ports of an adapter, nodes of a camera
    parts = [known.interface] if known.interface else []
    index = found.node.attributes.get("index", "")
    if found.node.subsystem == "video4linux" and index:
        parts.append(f"index{index}")
    if by == "serial" and known.serial:
        return "-".join([f"{known.vendor or found.node.subsystem}:{known.product}:{known.serial}", *parts])
    return "-".join([known.port if numbered else _place(found) or known.port, *parts])


def _pci(found: Found, key: str) -> str:
    for node in found.chain:
        if node.subsystem == "pci":
            match = _PCI.fullmatch(node.attributes.get(key, ""))
            if match is not None:
                return match[1]
    return ""


def _mac(node: Node) -> str:
    address = node.attributes.get("address", "")
    return "" if address in ("", "00:00:00:00:00:00") else address


def _clean(text: str) -> str:
    """Serial numbers come with padding, and from cheap chips with rubbish."""
    return "".join(char if char.isalnum() or char in "-_.:" else "_" for char in text.strip())[:128]


def _interface(found: Found) -> str:
    for node in found.chain:
        match = _USB_INTERFACE.fullmatch(node.name)
        if node.subsystem == "usb" and match is not None:
            return f"if{int(match[1]):02d}"
    return ""


def _place(found: Found) -> str:
    """Where a thing is that the kernel numbers, without the number; empty for all else, and where udev or USB says it.

    That is the nearest device above it that is no such thing, by its path or, where that has numbers as well, by its place in
    the device tree.  Several of one kind there are told apart by `index` (nodes of a camera) or by whoever tracks them."""
    if found.properties.get("ID_PATH") or any(node.subsystem == "usb" for node in found.chain):
        return ""
    own: list[str] = []
    for node in found.chain:
        if node.subsystem in _COUNTED:
            own.insert(0, _unnumbered(node, found.path))
            continue
        if not own:
            return ""
        parts = found.path.removeprefix("/devices/").strip("/").split("/")
        if node.name not in parts:
            return ""
        base = parts[: parts.index(node.name) + 1]
        tree = found.properties.get("OF_FULLNAME", "")
        if tree and any(_NUMBERED_BUS.fullmatch(part) for part in base):
            base = ["of", *tree.strip("/").split("/")]
        return "/".join([*base, *own])
    return ""


def _unnumbered(node: Node, path: str) -> str:
    for pattern, text in ((_PCM, r"\1\2"), (_CONNECTOR, r"\1")):
        if pattern.fullmatch(node.name):
            return pattern.sub(text, node.name)
    name = node.name.rstrip("0123456789")
    # the same chip is shown twice, for programs and for shell scripts
    return f"{name}-sysfs" if node.subsystem == "gpio" and f"/gpio/{node.name}" in path else name


def _port(found: Found) -> str:
    """The socket: for USB the controller and the way through the hubs, without the bus number, which depends on the order in
    which controllers were found; otherwise the place in the kernel's tree."""
    for at, node in enumerate(found.chain):
        match = _USB_DEVICE.fullmatch(node.name)
        if node.subsystem == "usb" and match is not None:
            rest = found.chain[at + 1 :]
            controller = next((n.name for n in rest if n.subsystem not in ("usb", "")), "")
            return f"{controller or 'usb'}-usb-{match[1]}"
    return found.path.removeprefix("/devices/").lstrip("/")
