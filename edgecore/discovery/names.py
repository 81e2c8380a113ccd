"""The keys of Home Assistant's MQTT discovery that are used here, with their short forms.  Pure.

Source: Home Assistant's documentation of MQTT, "Supported abbreviations in MQTT discovery messages"."""

from collections.abc import Mapping
from typing import Any

SHORT = {
    "act_t": "action_topic",
    "act_tpl": "action_template",
    "avty": "availability",
    "avty_mode": "availability_mode",
    "avty_t": "availability_topic",
    "avty_tpl": "availability_template",
    "bri_cmd_t": "brightness_command_topic",
    "bri_cmd_tpl": "brightness_command_template",
    "bri_scl": "brightness_scale",
    "bri_stat_t": "brightness_state_topic",
    "bri_val_tpl": "brightness_value_template",
    "clr_temp_cmd_t": "color_temp_command_topic",
    "clr_temp_cmd_tpl": "color_temp_command_template",
    "clr_temp_stat_t": "color_temp_state_topic",
    "clr_temp_val_tpl": "color_temp_value_template",
    "cmd_t": "command_topic",
    "cmd_tpl": "command_template",
    "cmps": "components",
    "curr_temp_t": "current_temperature_topic",
    "curr_temp_tpl": "current_temperature_template",
    "dev": "device",
    "dev_cla": "device_class",
    "exp_aft": "expire_after",
    "fx_cmd_t": "effect_command_topic",
    "fx_stat_t": "effect_state_topic",
    "fx_val_tpl": "effect_value_template",
    "max_mirs": "max_mireds",
    "min_mirs": "min_mireds",
    "mode_cmd_t": "mode_command_topic",
    "mode_cmd_tpl": "mode_command_template",
    "mode_stat_t": "mode_state_topic",
    "mode_stat_tpl": "mode_state_template",
    "o": "origin",
    "obj_id": "object_id",
    "ops": "options",
    "p": "platform",
    "pct_cmd_t": "percentage_command_topic",
    "pct_cmd_tpl": "percentage_command_template",
    "pct_stat_t": "percentage_state_topic",
    "pct_val_tpl": "percentage_value_template",
    "pl_avail": "payload_available",
    "pl_cls": "payload_close",
    "pl_lock": "payload_lock",
    "pl_not_avail": "payload_not_available",
    "pl_off": "payload_off",
    "pl_on": "payload_on",
    "pl_open": "payload_open",
    "pl_prs": "payload_press",
    "pl_stop": "payload_stop",
    "pl_unlk": "payload_unlock",
    "pos_t": "position_topic",
    "pos_tpl": "position_template",
    "pr_mode_cmd_t": "preset_mode_command_topic",
    "pr_mode_cmd_tpl": "preset_mode_command_template",
    "pr_mode_stat_t": "preset_mode_state_topic",
    "pr_mode_val_tpl": "preset_mode_value_template",
    "ret": "retain",
    "set_pos_t": "set_position_topic",
    "set_pos_tpl": "set_position_template",
    "stat_cla": "state_class",
    "stat_locked": "state_locked",
    "stat_off": "state_off",
    "stat_on": "state_on",
    "stat_t": "state_topic",
    "stat_tpl": "state_template",
    "stat_unlocked": "state_unlocked",
    "stat_val_tpl": "state_value_template",
    "sug_dsp_prc": "suggested_display_precision",
    "sup_clrm": "supported_color_modes",
    "t": "topic",
    "temp_cmd_t": "temperature_command_topic",
    "temp_cmd_tpl": "temperature_command_template",
    "temp_stat_t": "temperature_state_topic",
    "temp_stat_tpl": "temperature_state_template",
    "temp_unit": "temperature_unit",
    "uniq_id": "unique_id",
    "unit_of_meas": "unit_of_measurement",
    "hum_cmd_t": "target_humidity_command_topic",
    "hum_cmd_tpl": "target_humidity_command_template",
    "hum_stat_t": "target_humidity_state_topic",
    "hum_state_tpl": "target_humidity_state_template",
    "val_tpl": "value_template",
}
OF_DEVICES = {
    "cns": "connections",
    "ids": "identifiers",
    "mdl": "model",
    "mdl_id": "model_id",
    "mf": "manufacturer",
    "sn": "serial_number",
    "sw": "sw_version",
}
_SW = {"sw": "sw_version"}
"""Also of the program that speaks for a device."""


def written_out(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message, or one of its components, with its keys in full and `~` in its topics replaced.  A key in full goes before
    its short form."""
    found = _full(message, SHORT)
    for key, more in (("device", OF_DEVICES), ("origin", _SW)):
        if isinstance(found.get(key), Mapping):
            found[key] = _full(found[key], more)
    base = found.pop("~", None)
    listed = found.get("availability")
    if isinstance(listed, Mapping):
        listed = [listed]
    if isinstance(listed, list):
        found["availability"] = [_full(each, SHORT) for each in listed if isinstance(each, Mapping)]
    if isinstance(base, str):
        found = {key: _based(key, value, base) for key, value in found.items()}
        for each in found.get("availability") or []:
            each["topic"] = _based("topic", each.get("topic"), base)
    return found


def _full(message: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in message.items():
        name = names.get(key, key)
        if name == key or name not in message:
            found[name] = value
    return found


def _based(key: str, value: Any, base: str) -> Any:
    """`~` stands for the base at the beginning or at the end of a topic."""
    if not isinstance(value, str) or not (key == "topic" or key.endswith("_topic")):
        return value
    if value.startswith("~"):
        return base + value[1:]
    return value[:-1] + base if value.endswith("~") else value
