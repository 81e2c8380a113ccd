"""Small files below a root: /proc and /sys on a board, a folder in a test.

A driver that reads such files takes `root` from its device's settings.  Names that come from a manifest cannot leave the
root."""

from pathlib import Path

from mappers.framework.driver import DeviceError, DriverError, Settings

MAX_BYTES = 64 * 1024


class Tree:
    """Files below one root."""

    def __init__(self, settings: Settings) -> None:
        self.root = Path(settings.text("root", "/"))

    def path(self, *parts: str) -> Path:
        """A path below the root.  Raises: DriverError for a part that leads elsewhere."""
        for part in parts:
            if ".." in part.split("/") or part.startswith("/") or "\0" in part:
                raise DriverError(f"not a path below {self.root}: {part[:64]!r}")
        return self.root.joinpath(*parts)

    def text(self, *parts: str) -> str:
        """What is in a file, without the white space around it.  Raises: DeviceError."""
        path = self.path(*parts)
        try:
            with path.open("rb") as file:
                return file.read(MAX_BYTES).decode("utf-8", "replace").strip()
        except OSError as error:
            raise DeviceError(f"cannot read {path}: {error.strerror}") from error

    def number(self, *parts: str) -> float:
        """A file that holds one number.  Raises: DeviceError."""
        text = self.text(*parts)
        try:
            return float(text)
        except ValueError:
            raise DeviceError(f"{self.path(*parts)} holds no number: {text[:64]!r}") from None

    def write(self, text: str, *parts: str) -> None:
        """Raises: DeviceError."""
        path = self.path(*parts)
        try:
            with path.open("w") as file:
                file.write(text)
        except OSError as error:
            raise DeviceError(f"cannot write {path}: {error.strerror}") from error

    def find(self, pattern: str) -> list[Path]:
        """Paths below the root that match, sorted."""
        return sorted(self.root.glob(pattern))
