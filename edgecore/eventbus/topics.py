"""Which topics of the node's MQTT bus edgecore listens to, and to whom each belongs.  Pure.

Source: protocol notes on MQTT sections 2 and 3."""

from collections.abc import Iterable
from enum import Enum

from beehive.errors import ConfigError

MAX_TOPIC_BYTES = 65_535  # MQTT's own limit

TWIN_FILTERS = (
    "$hw/events/device/+/+/state/update",
    "$hw/events/device/+/+/twin/+",
    "$hw/events/node/+/membership/get",
)
UPLOAD_FILTERS = ("$hw/events/upload/#", "SYS/dis/upload_records", "+/user/#")
ANNOUNCED_PREFIX = "homeassistant/"
"""Where devices announce themselves, as Home Assistant's discovery has it."""
_TWIN_PREFIXES = ("$hw/events/device/", "$hw/events/node/")


class Destination(Enum):
    """Whom a message from the bus is for."""

    TWIN = "twin"
    UPLOAD = "upload"
    ANNOUNCED = "announced"
    NOBODY = "nobody"


def filters(extra: Iterable[str], *, upload: bool) -> list[str]:
    """All filters to subscribe to.  extra: topics of rules, which also go up.  upload: whether anybody takes uploads."""
    more = [*UPLOAD_FILTERS, *extra] if upload else []
    return [*TWIN_FILTERS, *dict.fromkeys(more)]


def destination(topic: str) -> Destination:
    """To whom a message goes.  Our own answers, which `twin/+` also matches in part, are nobody's."""
    if topic.startswith(_TWIN_PREFIXES):
        levels = topic.split("/")
        asked = levels[-1] in ("update", "get", "cloud_updated")
        return Destination.TWIN if asked else Destination.NOBODY
    return Destination.ANNOUNCED if topic.startswith(ANNOUNCED_PREFIX) else Destination.UPLOAD


def can_publish(topic: str) -> bool:
    """Whether a topic is one to publish on: no wildcards, no zero byte, not empty, not too long."""
    return (
        bool(topic)
        and not any(c in topic for c in "+#\0")
        and len(topic.encode("utf-8", "surrogatepass")) <= MAX_TOPIC_BYTES
        and not any(0xD800 <= ord(c) < 0xE000 for c in topic)
    )


def parse_url(url: str) -> tuple[str, int, bool]:
    """Host, port and whether TLS is used, of `tcp://host:1883`, `mqtt://host`, `ssl://host:8883` or `mqtts://host`.

    Raises: ConfigError."""
    scheme, separator, rest = url.partition("://")
    tls = {"tcp": False, "mqtt": False, "ssl": True, "tls": True, "mqtts": True}.get(scheme.lower())
    if not separator or tls is None:
        raise ConfigError(f"mqtt url: not tcp://, mqtt://, ssl:// or mqtts://: {url[:256]!r}")
    rest = rest.rstrip("/")
    host, colon, port = rest.rpartition(":")
    if not colon or rest.endswith("]"):
        host, port = rest, "8883" if tls else "1883"
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ConfigError(f"mqtt url: no host and port: {url[:256]!r}")
    return host, int(port), tls
