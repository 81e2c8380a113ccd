"""Devices that speak lines of text over a serial port.   Settings: README.md beside this file."""

import codecs
import time

from mappers.framework.convert import Value
from mappers.framework.driver import DeviceError, Driver, DriverError, Property, Settings
from mappers.serial import codec
from mappers.serial.port import Line, Port

_PARITIES = {"n": "N", "none": "N", "e": "E", "even": "E", "o": "O", "odd": "O", "mark": "M", "space": "S"}


def line_of(settings: Settings) -> Line:
    """Raises: DriverError naming the setting."""
    parity = _PARITIES.get(settings.text("parity", "none").lower())
    if parity is None:
        raise DriverError("setting 'parity' is not none, even, odd, mark or space")
    encoding = settings.text("encoding", "utf-8")
    end = codec.unescape(settings.text("lineEnd", "\n")).encode()
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise DriverError(f"setting 'encoding' is unknown: {encoding[:64]!r}") from None
    if not end:
        raise DriverError("setting 'lineEnd' is empty")
    return Line(
        port=settings.text("serialPort"),
        baud_rate=settings.integer("baudRate", 9600),
        data_bits=settings.integer("dataBits", 8),
        stop_bits=settings.number("stopBits", 1),
        parity=parity,
        end=end,
        encoding=encoding,
    )


class Serial(Driver):
    """One device on one port.  Its methods are plain: they run in the device's own thread."""

    protocol = "serial"

    def open(self) -> None:  # type: ignore[override]
        self.timeout_s = self.settings.number("timeout", 2.0)
        self.port = Port(line_of(self.settings))
        self.heard: dict[str, str] = {}

    def close(self) -> None:  # type: ignore[override]
        self.port.close()

    def read(self, prop: Property) -> Value:  # type: ignore[override]
        dialog = codec.dialog_of(prop)
        if dialog.request:
            self.port.forget()
            self.port.send(dialog.request)
            return self._boolean(self._awaited(dialog, prop), prop)
        return self._boolean(self._overheard(dialog, prop), prop)

    def _awaited(self, dialog: codec.Dialog, prop: Property) -> str:
        """The first line that matches; echoes and greetings do not."""
        until = time.monotonic() + self.timeout_s
        while (line := self.port.line(until)) is not None:
            value = codec.value_in(line, dialog)
            if value is not None and line.strip() != dialog.request.strip():
                return value
        raise DeviceError(f"no answer to {dialog.request[:32]!r} ({prop.name})")

    def _overheard(self, dialog: codec.Dialog, prop: Property) -> str:
        """The newest line of what a device sends by itself; all properties hear every line."""
        dialogs = {
            p.name: codec.dialog_of(p) for p in self.properties.values() if not p.settings.get("request")
        }
        dialogs[prop.name] = dialog
        until = time.monotonic() + self.timeout_s
        while True:
            line = self.port.line(time.monotonic() if prop.name in self.heard else until)
            if line is None:
                break
            for name, one in dialogs.items():
                value = codec.value_in(line, one)
                if value is not None:
                    self.heard[name] = value
        if prop.name not in self.heard:
            raise DeviceError(f"the device sends nothing for {prop.name}")
        return self.heard.pop(prop.name)  # told once: when nothing more comes, the device is gone

    def write(self, prop: Property, value: Value) -> None:  # type: ignore[override]
        dialog = codec.dialog_of(prop)
        text = codec.command(dialog, value, prop)
        self.port.forget()
        self.port.send(text)
        if dialog.answer is None:
            return
        until = time.monotonic() + self.timeout_s
        last = None
        while (line := self.port.line(until)) is not None:
            if dialog.answer.search(line):
                return
            last = line
        raise DeviceError(f"no answer to {text[:32]!r}, last heard {last!r:.64}")

    def _boolean(self, text: str, prop: Property) -> Value:
        if prop.type == "BOOLEAN" and text.lower() in ("on", "off"):
            return text.lower() == "on"
        return text
