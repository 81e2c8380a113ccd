"""Connections to MQTT brokers, one for all who name the same.  paho stays in here.

paho runs a thread of its own per connection and connects again by itself.  What arrives goes to the event loop; when the loop
falls behind by `MAX_WAITING` messages, further ones are dropped and counted."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as paho

from mappers.framework.errors import DeviceError, DriverError

log = logging.getLogger(__name__)

MAX_WAITING = 1000
MAX_PAYLOAD = 256 * 1024
ACK_S = 5.0
KEEPALIVE_S = 30
_TLS = ("ssl", "tls", "mqtts", "tcps")
Listener = Callable[[str, bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """What makes two users share a connection."""

    host: str
    port: int
    tls: bool = False
    client_id: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    ca: str | None = None


def broker_of(url: str, **rest: Any) -> Broker:
    """Read `tcp://host:1883`, `ssl://host` or `host:port`.  Raises: DriverError."""
    bad = f"not a broker's address: {url[:64]!r}"
    try:
        parts = urlsplit(url if "://" in url else f"tcp://{url}")
        tls = parts.scheme in _TLS
        port = parts.port or (8883 if tls else 1883)
    except ValueError as error:
        raise DriverError(bad) from error
    if (not tls and parts.scheme not in ("tcp", "mqtt")) or not parts.hostname:
        raise DriverError(bad)
    return Broker(host=parts.hostname, port=port, tls=tls, **rest)


class Link:
    """A shared connection.  Take one with `use`, give it back with `leave`; both in the event loop."""

    _open: dict[tuple[int, Broker], "Link"] = {}

    def __init__(self, key: tuple[int, Broker]) -> None:
        self._key = key
        self._loop = asyncio.get_running_loop()
        self._users = 0
        self._listeners: dict[str, tuple[int, list[Listener]]] = {}
        self._acks: dict[int, asyncio.Future[None]] = {}
        self._waiting = 0
        self.dropped = 0
        self.connected = asyncio.Event()
        self._client = self._start(key[1])

    @classmethod
    def use(cls, broker: Broker) -> "Link":
        """Raises: DriverError if the broker's settings cannot be used."""
        key = (id(asyncio.get_running_loop()), broker)
        link = cls._open.get(key)
        if link is None:
            link = cls._open[key] = cls(key)
        link._users += 1
        return link

    async def leave(self) -> None:
        self._users -= 1
        if self._users == 0:
            self._open.pop(self._key, None)
            self._client.disconnect()
            await asyncio.to_thread(self._client.loop_stop)  # it waits for paho's thread
            client, self._client = self._client, None
            # paho closes its last sockets when it is collected; a cycle of callbacks would put that off
            client.on_connect = client.on_disconnect = client.on_message = client.on_publish = None

    async def wait(self, timeout_s: float) -> None:
        """Until there is a connection.  Raises: DeviceError."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.connected.wait()
        except TimeoutError:
            broker = self._key[1]
            raise DeviceError(f"no connection to the broker {broker.host}:{broker.port}") from None

    def subscribe(self, topic: str, listener: Listener, *, qos: int = 1) -> None:
        """Hear a topic, wildcards allowed.  Also after every reconnection.  Raises: DriverError."""
        if not topic or len(topic.encode()) > 1024 or "\0" in topic:
            raise DriverError(f"not a topic: {topic[:64]!r}")
        known = self._listeners.get(topic)
        if known is not None:
            known[1].append(listener)
            if self.connected.is_set():
                self._subscribe(
                    topic, known[0]
                )  # again: the broker repeats retained messages for the newcomer
            return
        self._listeners[topic] = (qos, [listener])
        if self.connected.is_set():
            self._subscribe(topic, qos)

    def unsubscribe(self, topic: str, listener: Listener) -> None:
        known = self._listeners.get(topic)
        if known is None or listener not in known[1]:
            return
        known[1].remove(listener)
        if not known[1]:
            del self._listeners[topic]
            self._client.unsubscribe(topic)

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Send; with QoS 1 or 2 returns when the broker has it.  Raises: DeviceError, DriverError."""
        if not self.connected.is_set():
            raise DeviceError("the broker is away")
        try:
            sent = self._client.publish(topic, payload, qos=qos, retain=retain)
        except ValueError as error:
            raise DriverError(f"cannot publish to {topic[:64]!r}: {error}") from error
        if qos == 0:
            return
        ack = self._acks.setdefault(
            sent.mid, self._loop.create_future()
        )  # before `_acked` can run: same loop
        try:
            async with asyncio.timeout(ACK_S):
                await ack
        except TimeoutError:
            raise DeviceError(f"the broker did not confirm {topic[:64]}") from None
        finally:
            self._acks.pop(sent.mid, None)

    # --- paho's thread

    def _start(self, broker: Broker) -> Any:
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=broker.client_id)
        if broker.user:
            client.username_pw_set(broker.user, broker.password)
        if broker.tls:
            try:
                client.tls_set(ca_certs=broker.ca)
            except (OSError, ValueError) as error:
                raise DriverError(f"cannot use {broker.ca}: {error}") from error
        client.max_queued_messages_set(MAX_WAITING)
        client.reconnect_delay_set(1, 30)
        client.on_socket_open = _at_once
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.connect_async(broker.host, broker.port, keepalive=KEEPALIVE_S)
        client.loop_start()
        return client

    def _soon(self, callback: Callable[..., None], *args: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *args)

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._soon(log.warning, "Broker %s refuses: %s", self._key[1].host, reason)
        else:
            self._soon(self._up)

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._soon(self.connected.clear)

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            self.dropped += 1
            return
        if len(message.payload) > MAX_PAYLOAD or self._waiting >= MAX_WAITING:
            self.dropped += 1
            return
        self._waiting += 1  # a count that is off by one now and then does no harm
        self._soon(self._deliver, topic, bytes(message.payload))

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        self._soon(self._acked, mid)

    # --- the event loop

    def _up(self) -> None:
        self.connected.set()
        for topic, (qos, _) in self._listeners.items():
            self._subscribe(topic, qos)

    def _subscribe(self, topic: str, qos: int) -> None:
        try:
            self._client.subscribe(topic, qos)
        except ValueError as error:
            log.warning("Cannot subscribe to %s: %s", topic[:64], error)

    def _deliver(self, topic: str, payload: bytes) -> None:
        self._waiting -= 1
        for pattern, (_, listeners) in list(self._listeners.items()):
            if paho.topic_matches_sub(pattern, topic):
                for listener in list(listeners):
                    listener(topic, payload)

    def _acked(self, mid: int) -> None:
        ack = self._acks.get(mid)
        if ack is not None and not ack.done():
            ack.set_result(None)


def _at_once(client: Any, userdata: Any, sock: Any) -> None:
    """Send small packets without waiting for the broker's acknowledgement of the ones before: that costs 40 ms each time."""
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
