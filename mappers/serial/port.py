"""Serial ports, line by line.  Blocking.  pyserial stays in here."""

import time
from dataclasses import dataclass

import serial

from mappers.framework.driver import DeviceError, DriverError

MAX_LINE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """port: a path.  parity: N, E, O, M or S.  end: what ends a line."""

    port: str
    baud_rate: int = 9600
    data_bits: int = 8
    stop_bits: float = 1
    parity: str = "N"
    end: bytes = b"\n"
    encoding: str = "utf-8"


class Port:
    """An open port, held for this process alone."""

    def __init__(self, line: Line) -> None:
        """Raises: DeviceError if there is no such port, DriverError for settings that it cannot have."""
        self._line = line
        self._rest = b""
        try:
            self._port = serial.Serial(
                line.port,
                baudrate=line.baud_rate,
                bytesize=line.data_bits,
                stopbits=line.stop_bits,
                parity=line.parity,
                timeout=0.05,
                write_timeout=2,
                exclusive=True,
            )
        except ValueError as error:
            raise DriverError(f"cannot open {line.port}: {error}") from error
        except (serial.SerialException, OSError) as error:
            raise DeviceError(f"cannot open {line.port}: {error}") from error

    def close(self) -> None:
        self._port.close()

    def forget(self) -> None:
        """Drop what has come in: it is not the answer to what is asked next."""
        self._rest = b""
        try:
            self._port.reset_input_buffer()
        except (serial.SerialException, OSError) as error:
            raise DeviceError(f"{self._line.port}: {error}") from error

    def send(self, text: str) -> None:
        """One line.  Raises: DeviceError."""
        try:
            self._port.write(text.encode(self._line.encoding, "replace") + self._line.end)
            self._port.flush()
        except (serial.SerialException, OSError) as error:
            raise DeviceError(f"{self._line.port}: {error}") from error

    def line(self, until: float) -> str | None:
        """The next line without its end, None if there is none until then (on the monotonic clock).  Raises: DeviceError."""
        while self._line.end not in self._rest:
            if time.monotonic() > until:
                return None
            try:
                self._rest += self._port.read(max(1, min(self._port.in_waiting, MAX_LINE)))
            except (serial.SerialException, OSError, TypeError) as error:  # TypeError: closed meanwhile
                raise DeviceError(f"{self._line.port}: {error}") from error
            if len(self._rest) > MAX_LINE and self._line.end not in self._rest:
                self._rest = b""
                raise DeviceError(f"{self._line.port}: a line is longer than {MAX_LINE} bytes")
        found, _, self._rest = self._rest.partition(self._line.end)
        return found.decode(self._line.encoding, "replace").strip("\r\n\0")
