"""Messages as programs announce devices with, made up in their manner."""

from __future__ import annotations

from typing import Any

_Z2M = {
    "availability": [
        {"topic": "zigbee2mqtt/bridge/state", "value_template": "{{ value_json.state }}"},
        {"topic": "zigbee2mqtt/Kitchen plug/availability", "value_template": "{{ value_json.state }}"},
    ],
    "availability_mode": "all",
    "device": {
        "identifiers": ["zigbee2mqtt_0x00158d0001a2b3c4"],
        "manufacturer": "IKEA",
        "model": "TRADFRI control outlet",
        "model_id": "E1603",
        "name": "Kitchen plug",
        "sw_version": "2.3.089",
        "via_device": "zigbee2mqtt_bridge_0x00124b0000000001",
    },
    "origin": {"name": "Zigbee2MQTT", "sw": "2.1.0", "url": "https://example.org"},
    "state_topic": "zigbee2mqtt/Kitchen plug",
}

ZIGBEE: dict[str, dict[str, Any]] = {
    "homeassistant/switch/0x00158d0001a2b3c4/switch/config": {
        **_Z2M,
        "command_topic": "zigbee2mqtt/Kitchen plug/set",
        "name": None,
        "payload_off": "OFF",
        "payload_on": "ON",
        "value_template": "{{ value_json.state }}",
        "unique_id": "0x00158d0001a2b3c4_switch_zigbee2mqtt",
    },
    "homeassistant/sensor/0x00158d0001a2b3c4/power/config": {
        **_Z2M,
        "device_class": "power",
        "state_class": "measurement",
        "unit_of_measurement": "W",
        "value_template": "{{ value_json.power }}",
        "unique_id": "0x00158d0001a2b3c4_power_zigbee2mqtt",
    },
    "homeassistant/binary_sensor/0x00158d0001a2b3c4/update_available/config": {
        **_Z2M,
        "device_class": "update",
        "payload_off": False,
        "payload_on": True,
        "value_template": "{{ value_json['update']['available'] }}",
    },
    "homeassistant/select/0x00158d0001a2b3c4/power_on_behavior/config": {
        **_Z2M,
        "command_topic": "zigbee2mqtt/Kitchen plug/set/power_on_behavior",
        "options": ["off", "previous", "on"],
        "value_template": "{{ value_json.power_on_behavior }}",
    },
    "homeassistant/number/0x00158d0001a2b3c4/countdown/config": {
        **_Z2M,
        "command_topic": "zigbee2mqtt/Kitchen plug/set/countdown",
        "max": 43200,
        "min": 0,
        "unit_of_measurement": "s",
        "value_template": "{{ value_json.countdown }}",
    },
    "homeassistant/sensor/0x00158d0001a2b3c4/last_seen/config": {
        **_Z2M,
        "device_class": "timestamp",
        "value_template": "{{ value_json.last_seen }}",
    },
    "homeassistant/sensor/0x00158d0001a2b3c4/odd/config": {
        **_Z2M,
        "value_template": "{% if value_json.x %}1{% else %}0{% endif %}",
    },
    "homeassistant/device_automation/0x00158d0001a2b3c4/action_on/config": {
        "automation_type": "trigger",
        "topic": "zigbee2mqtt/Kitchen plug/action",
        "device": _Z2M["device"],
    },
}

ZIGBEE_LIGHT = {
    "homeassistant/light/0x000b57fffe000001/light/config": {
        "brightness": True,
        "brightness_scale": 254,
        "command_topic": "zigbee2mqtt/Lamp/set",
        "max_mireds": 454,
        "min_mireds": 250,
        "name": None,
        "schema": "json",
        "state_topic": "zigbee2mqtt/Lamp",
        "supported_color_modes": ["color_temp"],
        "device": {"identifiers": ["zigbee2mqtt_0x000b57fffe000001"], "name": "Lamp"},
    }
}

TASMOTA: dict[str, dict[str, Any]] = {
    "homeassistant/switch/A1B2C3_RL_1/config": {
        "name": "Pump",
        "~": "tasmota/pump/",
        "cmd_t": "~cmnd/POWER",
        "stat_t": "~tele/STATE",
        "val_tpl": "{{value_json.POWER}}",
        "pl_off": "OFF",
        "pl_on": "ON",
        "avty_t": "~tele/LWT",
        "pl_avail": "Online",
        "pl_not_avail": "Offline",
        "uniq_id": "A1B2C3_RL_1",
        "dev": {
            "ids": ["A1B2C3"],
            "name": "Pump",
            "mdl": "Sonoff S31",
            "sw": "14.4.1(tasmota)",
            "mf": "Tasmota",
        },
    },
    "homeassistant/sensor/A1B2C3_ENERGY_Power/config": {
        "name": "Pump ENERGY Power",
        "stat_t": "tasmota/pump/tele/SENSOR",
        "avty_t": "tasmota/pump/tele/LWT",
        "pl_avail": "Online",
        "pl_not_avail": "Offline",
        "unit_of_meas": "W",
        "val_tpl": "{{value_json['ENERGY'].Power}}",
        "dev": {"ids": ["A1B2C3"]},
    },
}

ESPHOME: dict[str, dict[str, Any]] = {
    "homeassistant/sensor/kitchen/humidity/config": {
        "dev_cla": "humidity",
        "unit_of_meas": "%",
        "stat_cla": "measurement",
        "exp_aft": 600,
        "name": "Humidity",
        "stat_t": "kitchen/sensor/humidity/state",
        "avty_t": "kitchen/status",
        "uniq_id": "ESPsensorhumidity",
        "dev": {"ids": "84f3eb000001", "name": "kitchen", "mdl": "esp32dev", "mf": "espressif"},
    },
    "homeassistant/button/kitchen/restart/config": {
        "name": "Restart",
        "cmd_t": "kitchen/button/restart/command",
        "avty_t": "kitchen/status",
        "dev": {"ids": "84f3eb000001"},
    },
}

WHOLE = {
    "homeassistant/device/heatpump/config": {
        "dev": {"ids": "hp-1", "name": "Heat pump", "mf": "Acme", "sn": "0042"},
        "o": {"name": "bridge", "sw": "1.0"},
        "state_topic": "hp/state",
        "~": "hp",
        "availability_topic": "~/online",
        "cmps": {
            "outside": {
                "p": "sensor",
                "device_class": "temperature",
                "unit_of_measurement": "°C",
                "val_tpl": "{{ value_json.out | round(1) }}",
            },
            "curve": {
                "p": "number",
                "min": 0.1,
                "max": 3,
                "step": 0.1,
                "cmd_t": "~/set",
                "cmd_tpl": '{"curve": {{ value }}}',
                "val_tpl": "{{ value_json.curve }}",
            },
            "quiet": {"p": "switch", "cmd_t": "hp/quiet/set", "stat_t": "hp/quiet"},
            "gone": {"p": "sensor"},
        },
    }
}
