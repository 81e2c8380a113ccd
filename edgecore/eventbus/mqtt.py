"""The node's MQTT bus: one connection to a broker, kept up for ever.  The only file that knows paho.

paho runs a thread of its own; what it receives crosses into the event loop through a bounded place.  Messages of QoS 1 are
acknowledged after their handler is done and wait in the broker while we are away (the session is kept), so they are not lost
when edgecore restarts; at the bound they hold up the connection.  Messages of QoS 0 are dropped at the bound, and counted.
Retained requests are ignored: the broker would repeat an old command at every reconnect.  What devices announce of themselves
is retained, and heard while somebody wants to know (`listen`).

MQTT 5 is tried first, because only there a client can refuse packets that are too large for it; a broker without it gets 3.1.1.
Source: protocol notes on MQTT section 1."""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from beehive.errors import ConfigError
from edgecore.eventbus import topics
from edgecore.eventbus.topics import Destination

log = logging.getLogger(__name__)

KEEPALIVE_S = 20
RETRY_MIN_S, RETRY_MAX_S = 1, 10
MAX_PACKET_BYTES = 1024 * 1024  # of one message; four times the largest request about a twin
MAX_WAITING = 500  # messages received and not yet handled
MAX_QUEUED = 1000  # messages of QoS 1 to publish while the broker is away; the newest are refused beyond
SESSION_S = 24 * 3600  # how long the broker keeps what we missed
_UNSUPPORTED_VERSION = 132  # MQTT 5, 3.2.2.2; an older broker's code 1 is mapped to it by paho

Handler = Callable[[str, bytes], Awaitable[None]]
Hearer = Callable[[str, bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files.  cert and key only where the broker asks for a client certificate."""

    ca: Path
    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class _Arrived:
    topic: str
    payload: bytes
    mid: int
    qos: int
    client: Any


def _at_once(client: Any, userdata: Any, sock: Any) -> None:
    """Send small packets without waiting for the broker's acknowledgement of the ones before: that costs 40 ms each time."""
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class EventBus:
    """`run` is a part for supervise; `publish` may be called at any time.

    on_message: gets requests about devices (topic, payload).  on_upload: gets what is meant for the cloud; None means that
    nobody listens to these topics.  topics: further filters of rules, for on_upload.  Handlers run one after the other."""

    def __init__(
        self,
        *,
        url: str,
        node_name: str,
        on_message: Handler,
        on_upload: Handler | None = None,
        username: str = "",
        password: str = "",
        tls: TlsFiles | None = None,
        topics_up: Sequence[str] = (),
        client_id: str = "",
    ) -> None:
        self._host, self._port, self._use_tls = topics.parse_url(url)
        if self._use_tls and tls is None:
            raise ConfigError(f"mqtt url: {url} needs a CA file")
        self._tls = tls
        self._client_id = client_id or f"skerry-{node_name}"
        self._username, self._password = username, password
        self._on_message, self._on_upload = on_message, on_upload
        self._filters = topics.filters(topics_up, upload=on_upload is not None)
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._announced: tuple[tuple[str, ...], Hearer] | None = None
        self._arrived: asyncio.Queue[_Arrived | None] = asyncio.Queue()
        self._room = threading.Semaphore(MAX_WAITING)
        self._closing = threading.Event()
        self._version: Any = paho.MQTTv5
        self._said = ""
        self.connected = asyncio.Event()
        self.counts = {"received": 0, "published": 0, "dropped_in": 0, "dropped_out": 0, "retained": 0}

    async def run(self) -> None:
        """Keep connected and pass on what comes.  Never returns."""
        self._loop = asyncio.get_running_loop()
        while True:
            await self._connection()

    async def _connection(self) -> None:
        """One paho client, until it is cancelled or must be made anew for an older protocol."""
        self._closing.clear()
        client = self._client = self._make()
        client.connect_async(self._host, self._port, keepalive=KEEPALIVE_S, **self._connect_options())
        client.loop_start()
        try:
            while (item := await self._arrived.get()) is not None:
                await self._handle(item)
                # neither of these waits while there are more: probes of pods would, for all that have come
                await asyncio.sleep(0)
        finally:
            self._client = None
            self.connected.clear()
            self._closing.set()
            client.disconnect()
            await asyncio.to_thread(client.loop_stop)

    def _make(self) -> Any:
        five = self._version == paho.MQTTv5
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=None if five else False,
            protocol=self._version,
            manual_ack=True,
        )
        if self._username:
            client.username_pw_set(self._username, self._password or None)
        if self._use_tls and self._tls is not None:
            tls = self._tls
            try:
                client.tls_set(
                    str(tls.ca), str(tls.cert) if tls.cert else None, str(tls.key) if tls.key else None
                )
            except (OSError, ValueError) as error:
                raise ConfigError(f"mqtt tls: {error}") from error
        client.reconnect_delay_set(RETRY_MIN_S, RETRY_MAX_S)
        client.max_queued_messages_set(MAX_QUEUED)
        client.on_socket_open = _at_once
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_paho_message
        return client

    def _connect_options(self) -> dict[str, Any]:
        if self._version != paho.MQTTv5:
            return {}
        properties = Properties(PacketTypes.CONNECT)
        properties.MaximumPacketSize = MAX_PACKET_BYTES
        properties.ReceiveMaximum = 100
        properties.SessionExpiryInterval = SESSION_S
        return {"clean_start": False, "properties": properties}

    async def _handle(self, item: _Arrived) -> None:
        self._room.release()
        if topics.destination(item.topic) is Destination.ANNOUNCED and self._announced is not None:
            self._hear(self._announced[1], item)
            return
        handler = self._on_message if topics.destination(item.topic) is Destination.TWIN else self._on_upload
        try:
            if handler is not None and topics.destination(item.topic) is not Destination.NOBODY:
                await handler(item.topic, item.payload)
        except Exception:  # one message, whatever it holds, must not end the bus
            log.exception("Cannot handle a message on %s", item.topic[:256])
        if item.qos and item.client is self._client:
            item.client.ack(item.mid, item.qos)

    def _hear(self, hear: Hearer, item: _Arrived) -> None:
        try:
            hear(item.topic, item.payload)
        except Exception:  # as above
            log.exception("Cannot handle a message on %s", item.topic[:256])
        if item.qos and item.client is self._client:
            item.client.ack(item.mid, item.qos)

    async def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        """Hand a message to the broker.  Does not wait for it: while it is away QoS 0 is dropped, QoS 1 waits up to a bound."""
        client = self._client
        if client is None or not topics.can_publish(topic):
            self.counts["dropped_out"] += 1
            return
        info = client.publish(topic, payload, qos=qos, retain=retain)
        waits = qos > 0 and info.rc == paho.MQTT_ERR_NO_CONN
        if info.rc == paho.MQTT_ERR_SUCCESS or waits:
            self.counts["published"] += 1
        else:
            self.counts["dropped_out"] += 1

    def dropped(self) -> dict[str, int]:
        """What was not taken or not published since the start, by reason."""
        return {
            "flood": self.counts["dropped_in"],
            "retained": self.counts["retained"],
            "unsent": self.counts["dropped_out"],
        }

    def listen(self, filters: Sequence[str], hear: Hearer | None) -> None:
        """Also hear these topics, with what is retained on them; None: no more.  Of one such listener at a time."""
        before, self._announced = self._announced, (tuple(filters), hear) if hear is not None else None
        client = self._client
        # not `self.connected`, which comes later: what `_on_connect` subscribed to in between would not have these
        if client is None or not client.is_connected():
            return  # told at the next connection
        if hear is not None:
            client.subscribe([(each, self._options(1)) for each in filters])
        elif before is not None:
            client.unsubscribe(list(before[0]))

    def _options(self, qos: int) -> Any:
        return SubscribeOptions(qos=qos) if self._version == paho.MQTTv5 else qos

    # --- in paho's thread

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(function, *arguments)

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            if reason.value == _UNSUPPORTED_VERSION and self._version == paho.MQTTv5:
                self._call(self._downgrade)
            else:
                self._call(self._say, f"the broker refuses: {reason}")
            return
        announced = self._announced
        filters = [*self._filters, *(announced[0] if announced is not None else ())]
        client.subscribe([(each, self._options(1)) for each in filters])

    def _on_subscribe(self, client: Any, userdata: Any, mid: int, reasons: Any, properties: Any) -> None:
        # Connected is who hears: a message before this would be for nobody.
        if refused := [str(reason) for reason in reasons if reason.is_failure]:
            self._call(self._say, f"the broker does not let us hear all topics: {refused[0]}")
        self._call(self._is_connected)

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if not self._closing.is_set():
            self._call(self._is_lost, _words(reason))

    def _on_paho_message(self, client: Any, userdata: Any, message: Any) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            self.counts["dropped_in"] += 1
            client.ack(message.mid, message.qos)
            return
        if message.retain and topics.destination(topic) is not Destination.ANNOUNCED:
            self.counts["retained"] += 1
            client.ack(message.mid, message.qos)
            return
        if not self._room.acquire(blocking=False):
            if message.qos == 0:
                self.counts["dropped_in"] += 1
                return
            while not self._room.acquire(timeout=0.5):
                if self._closing.is_set():
                    return  # not acknowledged: the broker sends it again
        self.counts["received"] += 1
        item = _Arrived(topic, bytes(message.payload), message.mid, message.qos, client)
        self._call(self._arrived.put_nowait, item)

    # --- back in the event loop

    def _is_connected(self) -> None:
        self._said = ""
        self.connected.set()
        log.info("Connected to the MQTT broker %s:%d", self._host, self._port)

    def _is_lost(self, reason: str) -> None:
        if self.connected.is_set():
            self.connected.clear()
            self._say(f"lost: {reason}")

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            log.warning("MQTT broker %s:%d: %s", self._host, self._port, text)

    def _downgrade(self) -> None:
        log.info("The MQTT broker does not speak version 5, using 3.1.1")
        self._version = paho.MQTTv311
        self._arrived.put_nowait(None)


def _words(reason: Any) -> str:
    """paho knows no more than that of a connection that ended without a packet."""
    text = str(reason)
    return "the connection ended" if text == "Unspecified error" else text
