"""The configuration of a trial's own MQTT broker.  Pure.

It listens on loopback only, so that no account is needed, and writes nothing but its log."""

from __future__ import annotations


def render_config(port: int) -> str:
    """mosquitto.conf, as mosquitto 2 reads it."""
    return f"""\
# Written by `skerry up`; changes are lost.
listener {port} 127.0.0.1
allow_anonymous true
persistence false
log_dest stderr
log_timestamp_format %Y-%m-%dT%H:%M:%S
# Bounds on what one client can make the broker hold.
max_packet_size 1048576
max_queued_messages 1000
max_queued_bytes 8388608
"""
