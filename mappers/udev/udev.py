"""The kernel's and udev's view of hardware.  pyudev stays in here.

The monitor is started before the devices are listed, so that nothing can come or go in between unseen; what is seen twice does
no harm.  Where a udevd runs, its events are used: they come after its rules have set the node's permissions.  Elsewhere the
kernel's own are."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyudev

from beehive.errors import Unavailable
from mappers.udev.found import ATTRIBUTES, EMPTY, Found, Node

log = logging.getLogger(__name__)

MAX_BURST = 256  # events read before others get their turn
BUFFER_BYTES = 4 * 1024 * 1024
CONTROL = Path("/run/udev/control")
_UNREADABLE = (OSError, UnicodeDecodeError, KeyError)

OnEvent = Callable[[str, Found], None]


def source() -> str:
    """`udev` if a udevd runs here, else `kernel`."""
    return "udev" if CONTROL.exists() else "kernel"


class Hardware:
    """A monitor with the listing that belongs to it.  Use it as a context manager."""

    def __init__(self, subsystems: frozenset[str], *, source: str) -> None:
        """subsystems: those of interest, the others are not sent; none means all.  Raises: Unavailable."""
        self._subsystems = subsystems
        try:
            self._context = pyudev.Context()
            self._monitor = pyudev.Monitor.from_netlink(self._context, source=source)
            for subsystem in sorted(subsystems):
                self._monitor.filter_by(subsystem)
            with contextlib.suppress(OSError):  # a bigger buffer is for bursts, and needs rights
                self._monitor.set_receive_buffer_size(BUFFER_BYTES)
            self._monitor.start()
        except (OSError, ImportError, pyudev.DeviceNotFoundError) as error:
            raise Unavailable(f"cannot watch hardware: {error}") from error

    @contextlib.contextmanager
    def watch(self, on_event: OnEvent, on_loss: Callable[[], None]) -> Iterator[None]:
        """Have `on_event` called with the action and the device, and `on_loss` when events were lost, in the event loop."""
        loop = asyncio.get_running_loop()
        number = self._monitor.fileno()
        loop.add_reader(number, self._drain, on_event, on_loss)
        try:
            yield
        finally:
            loop.remove_reader(number)

    def _drain(self, on_event: OnEvent, on_loss: Callable[[], None]) -> None:
        for _ in range(MAX_BURST):
            try:
                device = self._monitor.poll(timeout=0)
            except OSError as error:  # the kernel's buffer ran over
                log.warning("Hardware events were lost: %s", error)
                on_loss()
                return
            if device is None:
                return
            on_event(str(device.action or "change"), _found(device))

    def list(self) -> list[Found]:
        """What is there now."""
        wanted = self._context.list_devices()
        for subsystem in self._subsystems:
            wanted.match_subsystem(subsystem)  # matches of one kind are alternatives
        found = []
        for device in wanted:
            with contextlib.suppress(pyudev.DeviceNotFoundError):  # gone meanwhile
                found.append(_found(device))
        return found


def _found(device: Any) -> Found:
    above = []
    with contextlib.suppress(pyudev.DeviceNotFoundError):  # after a removal there is nothing above
        above = [_node(parent) for parent in device.ancestors]
    return Found(
        path=str(device.device_path),
        node=_node(device),
        above=tuple(above),
        dev_node=str(device.device_node or ""),
        properties=dict(device.properties.items()) or EMPTY,
    )


def _node(device: Any) -> Node:
    attributes = {}
    for key in ATTRIBUTES:
        try:
            value = device.attributes.get(key)
        except _UNREADABLE:
            continue
        if isinstance(value, bytes) and value:
            attributes[key] = value[:256].decode("utf-8", "replace").strip("\0\n ")
    return Node(
        name=str(device.sys_name),
        subsystem=str(device.subsystem or ""),
        devtype=str(device.device_type or ""),
        driver=str(device.driver or ""),
        attributes=attributes,
    )
