"""One connection to a broker: paho-mqtt as transport and nothing more.

paho keeps no queue on disk (paho.mqtt.python#223), has no jitter, ignores the broker's Receive Maximum and its Maximum
Packet Size, and its thread may die (#894) or hang (#891). So each connection gets a fresh client, driven by the sink's
own thread: whatever becomes of it, what was not acknowledged is still in the outbox.
"""

import contextlib
import select
import socket
import ssl
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import LogLevel, MQTTProtocolVersion
from paho.mqtt.exception import MQTTException
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.config.settings import MqttSettings
from agent.errors import ConfigError, SinkError
from agent.mqtt.delivery import NOTHING, Inbox, Incoming, Outgoing
from agent.mqtt.packet import (
    COMMAND_LIMIT_BYTES,
    BoundedClient,
    Oversized,
    PacketTooLarge,
    properties_of,
    publish_bytes,
    publish_properties,
)
from agent.mqtt.reconnect import Cause, Version
from agent.mqtt.tls import is_alert, tls_cause, tls_context, tls_reason

SESSION_EXPIRY_S: Final = 3_600
_USER_TIMEOUT_MS: Final = 30_000
_WINDOW: Final = 8

_CONNACK_CAUSES: Final = {
    0x84: Cause.VERSION,
    0x86: Cause.CREDENTIALS,
    0x87: Cause.CREDENTIALS,
    0x8A: Cause.CREDENTIALS,
    0x8C: Cause.CREDENTIALS,
    0x9A: Cause.RETAIN,
    0x9B: Cause.QOS,
}
_DISCONNECT_CAUSES: Final = {0x8E: Cause.TAKEN_OVER, 0x9A: Cause.RETAIN, 0x9B: Cause.QOS}
_KEEP_ALIVE_TIMEOUT: Final = 0x8D
_FAILURE: Final = 0x80
"""MQTT 5 reason codes from here on are failures (MQTT 5.0, 2.4)."""

# A malformed packet comes out of paho as any of these (before 2.2; since then it is a lost connection), an impossible
# host name as ValueError. What the other end says must not end the process.
_BROKEN_PEER: Final = (OSError, ValueError, LookupError, struct.error, MQTTException)


class LinkDown(SinkError):  # noqa: N818 - reads as a condition, and the sink waits for it to pass
    """There is no connection, or no longer one."""

    def __init__(self, cause: Cause, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Ack:
    """The broker has answered a QoS 1 message."""

    packet_id: int
    code: int
    """Reason code of the PUBACK (MQTT 5.0, 3.4.2.1); 0 with MQTT 3.1.1."""
    refusal: str | None
    """The broker's reason if it did not take the message."""


class Connection:
    """One connection, from CONNECT to its end. Belongs to one thread. Everything raises `LinkDown` when it is over.

    Where `will` is not retained, nothing else is published as retained either. With `clean` the broker forgets what it
    still has for us.
    """

    def __init__(
        self,
        settings: MqttSettings,
        client_id: str,
        version: Version,
        will: Outgoing,
        will_delay_s: int,
        inbox: Inbox = NOTHING,
        *,
        clean: bool = False,
    ) -> None:
        self._settings = settings
        self._inbox = inbox
        self.version: Version = version
        self.window = _WINDOW
        """Messages that may be on their way at once: 8, or less if the broker's Receive Maximum says so."""
        self.packet_limit_bytes: int | None = None
        """The broker's Maximum Packet Size; None if it has not said any, as with MQTT 3.1.1."""
        self.retained = will.retained
        """Whether retained messages are published as such; not where the broker keeps none (Retain Available)."""
        self._clean = clean
        self.accepted = False
        """The broker has let us in."""
        self._down: LinkDown | None = None
        self._complaint = ""
        self._acks: list[Ack] = []
        self.refused_filters: list[str] = []
        """What the broker did not let us subscribe to."""
        self._subscribed: tuple[str, ...] = ()
        self._subscribing: dict[int, tuple[str, ...]] = {}
        self._client = self._make_client(client_id, will, will_delay_s)

    def _make_client(self, client_id: str, will: Outgoing, will_delay_s: int) -> BoundedClient:
        five = self.version == "5"
        client = BoundedClient(
            COMMAND_LIMIT_BYTES,
            client_id,
            # A 3.1.1 session never expires: an abandoned device would leave one behind for ever.
            clean_session=None if five else True,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            # We reconnect ourselves; this also keeps paho from falling back to MQTT 3.1.
            reconnect_on_failure=False,
        )
        client.max_inflight_messages = 0  # no second window inside ours
        properties = properties_of(
            PacketTypes.WILLMESSAGE,
            WillDelayInterval=will_delay_s,
            PayloadFormatIndicator=1,
            ContentType=will.content_type,
            UserProperty=[("schema", will.schema)],
        )
        client.will_set(will.topic, will.payload, will.qos, will.retained, properties if five else None)
        if name := self._settings.username_for(client_id):
            client.username_pw_set(name, self._settings.plain_password)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.on_socket_open = self._on_socket_open
        client.on_socket_close = self._on_socket_close
        client.on_log = self._on_log
        return client

    def open(self, timeout_s: float) -> None:
        """Reach the broker, do the TLS handshake, and ask to be accepted; `step` until `accepted`.

        TCP and TLS may take `timeout_s` each; how long names take to resolve is the system's business.
        """
        self._client.connect_timeout = timeout_s
        with self._translated(Cause.UNREACHABLE):
            if self._settings.tls.enabled:
                self._client.tls_set_context(tls_context(self._settings.tls))
            address = (self._settings.host, self._settings.effective_port, self._settings.keepalive_s)
            if self.version == "5":
                properties = properties_of(
                    PacketTypes.CONNECT, SessionExpiryInterval=SESSION_EXPIRY_S, MaximumPacketSize=COMMAND_LIMIT_BYTES
                )
                self._client.connect(*address, clean_start=self._clean, properties=properties)
            else:
                self._client.connect(*address)

    def subscribe(self, filters: tuple[str, ...]) -> None:
        """Ask for the messages on these topics, unless that is done; what is refused comes to `refused_filters`."""
        if not filters or filters == self._subscribed:
            return
        self._subscribed = filters
        # Retained as published: a command that somebody retains is told from others not only after a reconnection.
        options = SubscribeOptions(qos=1, retainAsPublished=True)
        with self._translated(Cause.LOST):
            wanted = [(name, options if self.version == "5" else 1) for name in filters]
            _, packet_id = self._client.subscribe(wanted)  # type: ignore[arg-type]  # paho knows no list of both
            self._subscribing[packet_id or 0] = filters

    def publish(self, outgoing: Outgoing, expiry_s: int | None) -> int:
        """Send a message with what is left of its expiry; return the packet id that its `Ack` will carry.

        Raises:
            PacketTooLarge: the broker has said that it would not take it.
        """
        properties = publish_properties(outgoing, expiry_s) if self.version == "5" else None
        if self.packet_limit_bytes and (size_bytes := publish_bytes(outgoing, properties)) > self.packet_limit_bytes:
            raise PacketTooLarge(size_bytes, self.packet_limit_bytes)
        with self._translated(Cause.LOST):
            return self._client.publish(
                outgoing.topic, outgoing.payload, outgoing.qos, outgoing.retained and self.retained, properties
            ).mid

    def step(self, wake: socket.socket | None, timeout_s: float) -> tuple[Ack, ...]:
        """Read and write what can be; wait for at most `timeout_s`, less if `wake` becomes readable."""
        with self._translated(Cause.LOST if self.accepted else Cause.SILENT):
            self._await(wake, timeout_s)
            self._raise_if_down()
            self._client.loop_read()
            while isinstance(tls := self._client.socket(), ssl.SSLSocket) and tls.pending():
                self._client.loop_read()
            if self._client.want_write():
                self._client.loop_write()
            self._client.loop_misc()
        self._raise_if_down()
        acks = tuple(self._acks)
        self._acks.clear()
        return acks

    def _await(self, wake: socket.socket | None, timeout_s: float) -> None:
        sock = self._client.socket()
        if sock is None or (isinstance(sock, ssl.SSLSocket) and sock.pending()):
            return
        poll = select.poll()  # not select(), which cannot see descriptors beyond 1023
        poll.register(sock.fileno(), select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
        if wake is not None:
            poll.register(wake, select.POLLIN)
        poll.poll(timeout_s * 1_000)

    def _raise_if_down(self) -> None:
        if self._down is not None:
            raise self._down
        if self._client.socket() is None:
            raise LinkDown(Cause.LOST if self.accepted else Cause.SILENT, self._complaint or "it hung up")

    @property
    def oversized(self) -> Oversized | None:
        """What the broker began to send and was too large to be read, if that is why the connection is over."""
        return self._client.oversized if self.accepted else None

    @property
    def congested(self) -> bool:
        """True while what was published before still waits for the network to take it."""
        return self._client.want_write()

    def close(self) -> None:
        """Say goodbye, so that the broker does not publish the will; never fails."""
        with contextlib.suppress(*_BROKEN_PEER):
            self._client.disconnect()
            self._client.loop_write()

    def drop(self) -> None:
        """Close the socket without a goodbye; never fails."""
        if (sock := self._client.socket()) is not None:
            with contextlib.suppress(OSError):
                sock.close()

    @contextlib.contextmanager
    def _translated(self, cause: Cause) -> Iterator[None]:
        """Turn what paho, the socket and TLS raise into `LinkDown`."""
        try:
            yield
        except LinkDown:
            raise
        except ConfigError as error:
            # It was usable at the start; perhaps it is being renewed right now.
            raise LinkDown(Cause.UNUSABLE_FILES, str(error)) from error
        except ssl.SSLError as error:
            raise LinkDown(tls_cause(error), tls_reason(error)) from error
        except _BROKEN_PEER as error:
            strerror = error.strerror if isinstance(error, OSError) else None
            raise LinkDown(cause, strerror or str(error) or type(error).__name__) from error

    # Callbacks. They run inside paho's loop functions, so in our own thread; they only take note.

    def _on_connect(
        self, _client: Client, _data: Any, _flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.value >= _FAILURE:
            self._down = LinkDown(_CONNACK_CAUSES.get(reason.value, Cause.REFUSED), str(reason))
            return
        self.accepted = True
        self.window = min(_WINDOW, getattr(properties, "ReceiveMaximum", _WINDOW))
        self.packet_limit_bytes = getattr(properties, "MaximumPacketSize", None)
        if not getattr(properties, "RetainAvailable", 1):
            self.retained = False
        if not getattr(properties, "MaximumQoS", 1):
            self._down = LinkDown(Cause.QOS, "QoS not supported")

    def _on_disconnect(
        self, _client: Client, _data: Any, flags: DisconnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if self._down is not None:
            return
        if flags.is_disconnect_packet_from_server:
            self._down = LinkDown(_DISCONNECT_CAUSES.get(reason.value, Cause.REFUSED), str(reason))
            return
        if self.oversized:
            self._down = LinkDown(Cause.TOO_LARGE, str(self.oversized))
            return
        alert = is_alert(self._complaint)
        cause = Cause.CERTIFICATE if alert else Cause.LOST if self.accepted else Cause.SILENT
        quiet = reason.value == _KEEP_ALIVE_TIMEOUT
        self._down = LinkDown(cause, self._complaint or ("it went quiet" if quiet else "it hung up"))

    def _on_publish(
        self, _client: Client, _data: Any, packet_id: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        self._acks.append(Ack(packet_id, reason.value, str(reason) if reason.value >= _FAILURE else None))

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return  # brokers do not let that through (MQTT 5.0, 1.5.4)
        properties = message.properties
        response_topic = getattr(properties, "ResponseTopic", None)
        correlation = getattr(properties, "CorrelationData", None)
        self._inbox.on_message(Incoming(topic, bytes(message.payload), message.retain, response_topic, correlation))

    def _on_subscribe(
        self, _client: Client, _data: Any, packet_id: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        filters = self._subscribing.pop(packet_id, ())
        self.refused_filters += [
            name for name, reason in zip(filters, reasons, strict=False) if reason.value >= _FAILURE
        ]

    def _on_socket_open(self, _client: Client, _data: Any, sock: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)

    def _on_socket_close(self, _client: Client, _data: Any, sock: Any) -> None:
        # A broker that does not like our certificate says so after the handshake, while we are already writing. paho
        # stops at the failed write; the alert is still there to be read.
        if isinstance(sock, ssl.SSLSocket) and not self.accepted:
            try:
                sock.recv(1)
            except OSError as error:
                self._complaint = str(error) if is_alert(str(error)) else self._complaint

    def _on_log(self, _client: Client, _data: Any, level: int, text: str) -> None:
        # paho turns errors on the socket into a bare number; the words are in its log only.
        if level == LogLevel.MQTT_LOG_ERR:
            self._complaint = text.rpartition("socket: ")[2]
