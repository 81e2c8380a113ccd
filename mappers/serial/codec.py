"""Questions and answers of devices that speak lines of text.  Pure."""

import re
from dataclasses import dataclass

from mappers.framework.convert import Value
from mappers.framework.driver import DriverError, Property
from mappers.framework.errors import ValueRefused

_ESCAPES = {r"\r": "\r", r"\n": "\n", r"\t": "\t", r"\0": "\0", r"\e": "\x1b"}


def unescape(text: str) -> str:
    """`\\r`, `\\n`, `\\t`, `\\e`, `\\0` and `\\x41` as manifests write them."""
    text = re.sub(r"\\x([0-9a-fA-F]{2})", lambda found: chr(int(found[1], 16)), text)
    for escape, char in _ESCAPES.items():
        text = text.replace(escape, char)
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialog:
    """How a property is read and set.  request: "" if the device sends by itself.  answer: None if a command has none."""

    request: str
    pattern: re.Pattern[str]
    command: str | None
    answer: re.Pattern[str] | None


def dialog_of(prop: Property) -> Dialog:
    """Raises: DriverError naming the setting."""
    settings = prop.settings
    if not any(key in settings for key in ("request", "pattern", "command")):
        raise DriverError(f"{prop.name} has neither 'request' nor 'pattern' nor 'command'")
    answer = settings.text("commandAnswer", "")
    return Dialog(
        request=unescape(settings.text("request", "")),
        pattern=_pattern(settings.text("pattern", "(.*)"), "pattern"),
        command=unescape(settings.text("command")) if "command" in settings else None,
        answer=_pattern(answer, "commandAnswer") if answer else None,
    )


def _pattern(text: str, key: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise DriverError(f"setting {key!r} is no regular expression: {error}") from error


def value_in(line: str, dialog: Dialog) -> str | None:
    """What the pattern's first group (or all of it, if there is none) finds in a line; None if it does not match."""
    found = dialog.pattern.search(line)
    if found is None:
        return None
    return str(found[1] if dialog.pattern.groups else found[0]).strip()


def command(dialog: Dialog, value: Value, prop: Property) -> str:
    """The line that sets a value: `${value}` becomes it, 1 and 0 for a BOOLEAN.  Raises: DriverError, ValueRefused."""
    if dialog.command is None:
        raise DriverError(f"{prop.name} has no 'command'")
    text = str(int(value)) if isinstance(value, bool) else str(value)
    if isinstance(value, bytes) or any(ord(char) < 32 for char in text):
        raise ValueRefused("control characters could end the line")
    return dialog.command.replace("${value}", text)
