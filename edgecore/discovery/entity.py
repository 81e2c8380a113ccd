"""What one component of a discovery message can be read and set by: properties of a Device, with settings of the MQTT driver.

Pure.  A component has aspects: a switch has one, a light its state, its brightness and so on; `ASPECTS` says by which keys each
is read and set.  Templates are Jinja, which is a language of its own: those that only pick a value out of a JSON message are
understood, and what has another is left out by name.   Source: Home Assistant's documentation of each MQTT integration."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from msgspec import structs

from beehive.apis.hardware import OfferedProperty

MAX_TOPIC = 1024
MAX_TEMPLATE = 512
_VALUE = re.compile(r"\{\{-?\s*value\s*(\|.*?)?-?\}\}", re.DOTALL)
_PICK = re.compile(
    r"\{\{-?\s*value_json((?:\.[A-Za-z_]\w*|\[\s*(?:'[^'\]]*'|\"[^\"\]]*\"|\d{1,5})\s*\])+)\s*(\|.*?)?-?\}\}",
    re.DOTALL,
)
_STEP = re.compile(r"\.([A-Za-z_]\w*)|\[\s*(?:'([^']*)'|\"([^\"]*)\"|(\d+))\s*\]")
_FILTER = re.compile(
    r"\|\s*(?:float|int|round|default|is_defined|string|trim|abs)\s*(?:\([^(){}|]{0,64}\))?\s*"
)
_COMMAND = re.compile(
    r"(\"?)\{\{-?\s*value\s*(?:\|\s*(?:int|float|round|tojson|to_json)\s*(?:\([^(){}|]{0,16}\))?\s*)*-?\}\}(\"?)"
)


class NotUnderstood(ValueError):
    """A part of a message that nothing can be made of.  The text says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aspect:
    """suffix: of the property's name.   state, template, command, command_template: keys, empty for none.   kind: BOOLEAN, INT,
    STRING, DOUBLE, or `sensor` and `number`, whose type follows from the rest.   low, high: keys of the range, or numbers.
    on, off: keys and defaults of what is sent for true and false; state_on, state_off: of what comes.   press: keys and
    defaults of what may be sent, of one that is only ever told to do something."""

    suffix: str = ""
    state: str = ""
    template: str = ""
    command: str = ""
    command_template: str = ""
    kind: str = "STRING"
    unit: str = ""
    low: str = ""
    high: str = ""
    on: tuple[str, str] = ("payload_on", "ON")
    off: tuple[str, str] = ("payload_off", "OFF")
    state_on: str = "state_on"
    state_off: str = "state_off"
    press: tuple[tuple[str, str], ...] = ()


def _aspect(suffix: str, stem: str, kind: str, **more: Any) -> Aspect:
    """The usual keys of an aspect that is named by a stem."""
    keys = {
        "state": f"{stem}_state_topic",
        "template": f"{stem}_value_template",
        "command": f"{stem}_command_topic",
        "command_template": f"{stem}_command_template",
    }
    return Aspect(**{"suffix": suffix, "kind": kind, **keys, **more})


_STATE: dict[str, Any] = {"state": "state_topic", "command": "command_topic"}
_VALUED: dict[str, Any] = {**_STATE, "template": "value_template", "command_template": "command_template"}
_ON_OFF = Aspect(
    **_STATE, template="state_value_template", command_template="command_template", kind="BOOLEAN"
)
_POSITION = Aspect(
    suffix="position",
    state="position_topic",
    template="position_template",
    command="set_position_topic",
    command_template="set_position_template",
    kind="INT",
    unit="percent",
    low="0",
    high="100",
)
_OPENING = Aspect(
    suffix="command",
    command="command_topic",
    press=(("payload_open", "OPEN"), ("payload_close", "CLOSE"), ("payload_stop", "STOP")),
)

ASPECTS: Mapping[str, tuple[Aspect, ...]] = {
    "sensor": (Aspect(state="state_topic", template="value_template", kind="sensor"),),
    "binary_sensor": (
        Aspect(
            state="state_topic",
            template="value_template",
            kind="BOOLEAN",
            state_on="payload_on",
            state_off="payload_off",
        ),
    ),
    "switch": (Aspect(**_VALUED, kind="BOOLEAN"),),
    "number": (Aspect(**_VALUED, kind="number", low="min", high="max"),),
    "select": (Aspect(**_VALUED),),
    "text": (Aspect(**_VALUED),),
    "button": (Aspect(command="command_topic", press=(("payload_press", "PRESS"),)),),
    "light": (
        _ON_OFF,
        _aspect("brightness", "brightness", "INT", low="0", high="brightness_scale"),
        _aspect("color-temp", "color_temp", "INT", low="min_mireds", high="max_mireds", unit="mired"),
        _aspect("effect", "effect", "STRING"),
    ),
    "fan": (
        _ON_OFF,
        _aspect("percentage", "percentage", "INT", low="0", high="100", unit="percent"),
        _aspect("preset-mode", "preset_mode", "STRING"),
    ),
    "cover": (Aspect(state="state_topic", template="value_template"), _OPENING, _POSITION),
    "valve": (Aspect(state="state_topic", template="value_template"), _OPENING),
    "lock": (
        Aspect(
            **_VALUED,
            kind="BOOLEAN",
            on=("payload_lock", "LOCK"),
            off=("payload_unlock", "UNLOCK"),
            state_on="state_locked",
            state_off="state_unlocked",
        ),
    ),
    "climate": (
        Aspect(
            suffix="current-temperature",
            state="current_temperature_topic",
            template="current_temperature_template",
            kind="DOUBLE",
        ),
        _aspect(
            "temperature",
            "temperature",
            "DOUBLE",
            template="temperature_state_template",
            low="min_temp",
            high="max_temp",
        ),
        _aspect("mode", "mode", "STRING", template="mode_state_template"),
        Aspect(suffix="action", state="action_topic", template="action_template"),
    ),
    "humidifier": (
        _ON_OFF,
        _aspect(
            "target-humidity",
            "target_humidity",
            "INT",
            template="target_humidity_state_template",
            unit="percent",
        ),
        _aspect("mode", "mode", "STRING", template="mode_state_template"),
    ),
}
SILENT = (
    "device_automation",
    "tag",
    "event",
    "scene",
    "notify",
    "image",
    "camera",
    "update",
    "device_tracker",
)
"""Components that are no readings; they are passed over and not told of."""
_DEFAULTS = {
    "state_locked": "LOCKED",
    "state_unlocked": "UNLOCKED",
    "brightness_scale": 255,
    "min": 1,
    "max": 100,
    "min_temp": 7,
    "max_temp": 35,
}
_TEXT_CLASSES = ("timestamp", "date", "enum")
_UNITS = {"°C": "celsius", "%": "percent", "°F": "fahrenheit"}


def properties(
    component: str, name: str, config: Mapping[str, Any]
) -> tuple[list[OfferedProperty], list[str]]:
    """What a component can be read and set by, and why not what cannot be.

    name: what its properties are called, or begin with.   config: its message with its keys in full.   Raises: NotUnderstood
    when nothing can be made of all of it."""
    aspects = ASPECTS.get(component)
    if aspects is None:
        raise NotUnderstood(f"{name}: a {component[:32]} is not understood")
    if component == "light" and config.get("schema") == "json":
        return _json_light(name, config)
    if config.get("schema") == "template":
        raise NotUnderstood(f"{name}: a light of schema template is not understood")
    found: list[OfferedProperty] = []
    left: list[str] = []
    for aspect in aspects:
        if not config.get(aspect.state) and not config.get(aspect.command):
            continue
        label = "-".join(part for part in (name, aspect.suffix) if part)
        try:
            found.append(_property(component, label, aspect, config))
        except NotUnderstood as error:
            left.append(f"{label}: {error}")
    if not found and not left:
        raise NotUnderstood(f"{name}: a {component} without topics")
    return found, left


def _property(component: str, label: str, aspect: Aspect, config: Mapping[str, Any]) -> OfferedProperty:
    settings: dict[str, Any] = {}
    state, command = config.get(aspect.state), config.get(aspect.command)
    if state:
        settings["topic"] = topic(state)
        path = json_path(config.get(aspect.template) if aspect.template else None)
        if path:
            settings["jsonPath"] = path
        age = config.get("expire_after")
        if isinstance(age, int | float) and not isinstance(age, bool) and 0 < age < 1e7:
            settings["maxAge"] = age
    if command:
        settings["commandTopic"] = topic(command)
        template = command_template(config.get(aspect.command_template) if aspect.command_template else None)
        if template:
            settings["template"] = template
        if config.get("retain") is True:
            settings["retain"] = True
        if (qos := config.get("qos")) in (0, 2) and not isinstance(qos, bool):
            settings["qos"] = qos
    kind = aspect.kind
    if kind == "BOOLEAN":
        settings |= _on_and_off(aspect, config, commands=bool(command))
    low, high = _bound(aspect.low, config), _bound(aspect.high, config)
    if kind in ("sensor", "number"):
        kind = _sensor_type(config) if kind == "sensor" else _number_type(config, low, high)
    unit = clean(config.get("unit_of_measurement"))
    if aspect.suffix:  # the unit is of a component as a whole
        unit = aspect.unit or ("celsius" if component == "climate" and kind == "DOUBLE" else "")
    return OfferedProperty(
        name=label,
        type=kind,
        writable=bool(command),
        unit=_UNITS.get(unit, unit),
        minimum=low if kind in ("INT", "DOUBLE") else "",
        maximum=high if kind in ("INT", "DOUBLE") else "",
        description=_description(aspect, config, settings),
        config=settings,
    )


def _json_light(name: str, config: Mapping[str, Any]) -> tuple[list[OfferedProperty], list[str]]:
    """All in one message each way."""
    parts_of = [("state", "", replace(_ON_OFF, command_template=""))]
    modes = config.get("supported_color_modes")
    modes = modes if isinstance(modes, list) else []
    if config.get("brightness") is True or any(mode not in ("onoff", "unknown") for mode in modes):
        parts_of.append(("brightness", "brightness", Aspect(kind="INT", low="0", high="brightness_scale")))
    if "color_temp" in modes:
        parts_of.append(
            (
                "color_temp",
                "color-temp",
                Aspect(kind="INT", low="min_mireds", high="max_mireds", unit="mired"),
            )
        )
    if config.get("effect") is True:
        parts_of.append(("effect", "effect", Aspect()))
    found = []
    for key, suffix, aspect in parts_of:
        whole = replace(
            aspect,
            suffix=suffix,
            state="state_topic",
            template="value_template",
            command="command_topic",
            command_template="",
        )
        label = "-".join(part for part in (name, suffix) if part)
        made = _property("light", label, whole, {**config, "value_template": f"{{{{ value_json.{key} }}}}"})
        settings = dict(made.config)
        if made.writable:
            settings["template"] = f'{{"{key}": ${{value}}}}'
        found.append(structs.replace(made, config=settings))
    return found, []


def _on_and_off(aspect: Aspect, config: Mapping[str, Any], *, commands: bool) -> dict[str, str]:
    on, off = (payload(config.get(key, default)) for key, default in (aspect.on, aspect.off))
    state_on = payload(config.get(aspect.state_on, _DEFAULTS.get(aspect.state_on, on)))
    state_off = payload(config.get(aspect.state_off, _DEFAULTS.get(aspect.state_off, off)))
    found = {"stateOn": state_on, "stateOff": state_off}
    return {**found, "payloadOn": on, "payloadOff": off} if commands else found


def payload(value: Any) -> str:
    """A payload as text; Home Assistant takes what JSON has for true as `true`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | str) and len(str(value)) <= 256:
        return str(value)
    raise NotUnderstood("its payloads are no texts")


def topic(value: Any) -> str:
    """One to publish on, and none that brokers or edges keep for themselves.  Raises: NotUnderstood."""
    if not isinstance(value, str) or not value or len(value.encode("utf-8", "replace")) > MAX_TOPIC:
        raise NotUnderstood("its topic is no text, or too long")
    if value.startswith("$") or any(char in "+#" or not char.isprintable() for char in value):
        raise NotUnderstood(f"its topic cannot be used: {value[:64]!r}")
    return value


def json_path(template: Any) -> str:
    """Where in a JSON message the value is; empty for all of the message.  Raises: NotUnderstood."""
    if template is None or template == "":
        return ""
    if not isinstance(template, str) or len(template) > MAX_TEMPLATE:
        raise NotUnderstood("its template is no text, or too long")
    text = template.strip()
    whole = _VALUE.fullmatch(text)
    if whole is not None and _filters(whole[1]):
        return ""
    picked = _PICK.fullmatch(text)
    if picked is None or not _filters(picked[2]):
        raise NotUnderstood(f"its template is not understood: {text[:128]!r}")
    path = "$"
    for name, single, double, index in _STEP.findall(picked[1]):
        key = name or single or double
        if index:
            path += f"[{index}]"
        elif "'" in key:
            raise NotUnderstood(f"its template is not understood: {text[:128]!r}")
        else:
            path += f".{key}" if key.isidentifier() else f"['{key}']"
    return path


def _filters(text: str | None) -> bool:
    """Whether only such filters are applied as make no other value for our types."""
    rest = (text or "").strip()
    while rest:
        found = _FILTER.match(rest)
        if found is None:
            return False
        rest = rest[found.end() :]
    return True


def command_template(template: Any) -> str:
    """The driver's `template`, in which `${value}` becomes the value as JSON; empty for the value alone.

    Raises: NotUnderstood."""
    if template is None or template == "":
        return ""
    if not isinstance(template, str) or len(template) > MAX_TEMPLATE:
        raise NotUnderstood("its template is no text, or too long")
    parts = _COMMAND.split(template.strip())
    if len(parts) != 4 or parts[1] != parts[2]:
        raise NotUnderstood(f"its command's template is not understood: {template[:128]!r}")
    before, after = parts[0], parts[3]
    if not before and not after and not parts[1]:
        return ""
    made = f"{before}${{value}}{after}"
    try:  # with a number in its place it must be JSON, or a text in quotes would become two
        json.loads(made.replace("${value}", "0"))
    except (ValueError, RecursionError):
        raise NotUnderstood(f"its command's template is not understood: {template[:128]!r}") from None
    return made


def _sensor_type(config: Mapping[str, Any]) -> str:
    """A number if it has a unit, is counted or averaged, or is of a class that has numbers; else a text."""
    kind = config.get("device_class")
    if kind in _TEXT_CLASSES or config.get("options"):
        return "STRING"
    numeric = config.get("unit_of_measurement") or config.get("state_class") or kind
    return "DOUBLE" if numeric or isinstance(config.get("suggested_display_precision"), int) else "STRING"


def _number_type(config: Mapping[str, Any], low: str, high: str) -> str:
    step = config.get("step", 1)
    whole = isinstance(step, int | float) and not isinstance(step, bool) and float(step).is_integer()
    return "INT" if whole and "." not in low + high else "DOUBLE"


def _bound(key: str, config: Mapping[str, Any]) -> str:
    """A limit as text; empty when there is none, or it is no number."""
    if not key or key.isdigit():
        return key
    value = config.get(key, _DEFAULTS.get(key))
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e15 < value < 1e15:
        return ""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _description(aspect: Aspect, config: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    options = config.get("options")
    if isinstance(options, list) and options and not aspect.suffix:
        return "one of " + ", ".join(clean(each, 40) for each in options[:10])
    if aspect.press:
        return "to be sent: " + ", ".join(
            clean(config.get(key, default), 40) for key, default in aspect.press
        )
    if "topic" not in settings:
        return "can only be set"
    return clean(config.get("name")) if isinstance(config.get("name"), str) else ""


def clean(value: Any, most: int = 128) -> str:
    """A text for people, without what would move a cursor."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return ""
    return "".join(char if char.isprintable() else "?" for char in str(value)[:most]).strip()
