"""One connection to a broker: paho-mqtt as mere transport, TLS, and the limits of packets.

paho keeps no queue on disk (paho.mqtt.python#223), has no jitter, ignores the broker's Receive Maximum and its Maximum
Packet Size, and its thread may die (#894) or hang (#891). So each connection gets a fresh client, driven by the thread
`mqtt`. Messages that the broker has not acknowledged stay in the outbox.
"""

import contextlib
import errno
import logging
import select
import socket
import ssl
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, Literal

from paho.mqtt.client import Client, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, LogLevel, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.exception import MQTTException
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.config.settings import MqttSettings, TlsSettings
from agent.errors import ConfigError, SinkError
from agent.mqtt.delivery import NOTHING, Inbox, Incoming, Outgoing

log = logging.getLogger("agent.mqtt.client")

Version = Literal["5", "3.1.1"]

SESSION_EXPIRY_S: Final = 3_600
COMMAND_LIMIT_BYTES: Final = 16_384
"""Largest packet that the agent reads: the 8,192 bytes of a command, and as much for topic and properties."""
CONTRACT_LIMIT_BYTES: Final = 65_536
"""Largest packet that a subscriber to devices reads. A transcript, the largest message, has about 16 KB."""
CLOCK_REMEDY: Final = "set this device's clock, or renew the broker's certificate if the clock is right"
_USER_TIMEOUT_MS: Final = 30_000
_WINDOW: Final = 8
_BEGINNING_BYTES: Final = 2_048
"""Read of a packet that is too large, for its topic."""

# Bits of a PUBLISH packet's first byte (MQTT 5.0, 3.3.1), and of the integers that say how long it is.
_PUBLISH: Final = 0x30
_TYPE_MASK: Final = 0xF0
_RETAIN: Final = 0x01
_QOS_1: Final = 0x02
_QOS_2: Final = 0x04
_VARINT_BITS: Final = 7


class Cause(Enum):
    """Why there is no connection, and how the log says it.

    `at` is the broker's address, `why` the reason, `user` the name at the broker, and `id` the device.
    """

    UNREACHABLE = "no broker at {at} ({why})"
    """The host is unknown, refuses the connection, cannot be routed to or does not answer."""
    UNTRUSTED = (
        "cannot trust the broker at {at} ({why}): set mqtt.tls.ca_file to the authority that signed its certificate, "
        "and mqtt.host to a name in that certificate"
    )
    DATES = "cannot trust the broker at {at} ({why}): " + CLOCK_REMEDY
    """The broker's certificate is not valid at the time that this device's clock shows."""
    UNUSABLE_FILES = "cannot connect to {at} ({why})"
    """The device's own certificate files could be used at the start, and cannot now; perhaps they are being renewed."""
    NO_TLS = "{at} does not speak TLS as it should ({why}): check mqtt.port and mqtt.tls.enabled"
    CERTIFICATE = "{at} does not take this device's certificate ({why}): check mqtt.tls.cert_file and key_file"
    CREDENTIALS = "{at} refuses the user '{user}' ({why}): check mqtt.username and mqtt.password"
    VERSION = '{at} does not speak this version of MQTT ({why}): set mqtt.protocol to "auto"'
    SILENT = (
        "{at} does not answer as a broker does ({why}): check mqtt.port and mqtt.tls.enabled, and whether the broker "
        "takes retained messages at QoS 1"
    )
    """The broker ended the conversation before it answered; old brokers do that to a version they do not know."""
    REFUSED = "{at} refuses the connection ({why})"
    """The broker is busy, over a quota, …"""
    RETAIN = "{at} refuses the connection ({why}), though no message was to be retained"
    """The broker keeps no retained messages, and says so."""
    QOS = "{at} takes QoS 0 only ({why}) and so acknowledges nothing: use a broker that takes QoS 1"
    GREETING = (
        "{at} hangs up on the first message of every connection ({why}): use a broker that takes retained messages at "
        "QoS 1, and check that its access control list lets '{id}' publish its status"
    )
    TOO_LARGE = "hung up on {at} ({why}): no command has more than " + f"{COMMAND_LIMIT_BYTES} bytes"
    """This device hung up, since the broker began to send a packet that is too large."""
    TAKEN_OVER = "another client connected to {at} as '{id}': give each device a device.id of its own"
    LOST = "lost the broker at {at} ({why})"
    """There was a connection, and it broke."""


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

# paho raises any of these for a malformed packet (before 2.2; since then it is a lost connection), and ValueError for
# an impossible host name. No packet of a broker may end the process.
_BROKEN_PEER: Final = (OSError, ValueError, LookupError, struct.error, MQTTException)


class LinkDown(SinkError):  # noqa: N818 - reads as a condition, and the client waits for it to pass
    """There is no connection, or no longer one."""

    def __init__(self, cause: Cause, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause
        self.reason = reason


class PacketTooLarge(SinkError):  # noqa: N818 - reads as a condition, as `LinkDown` does
    """The broker would hang up on this message, so it was not sent."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"{size_bytes} bytes, and the broker takes {limit_bytes}")
        self.size_bytes = size_bytes
        """The whole packet, as the broker counts it."""
        self.limit_bytes = limit_bytes
        """The broker's Maximum Packet Size."""


_DATES: Final = {9, 10}
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED (x509_vfy.h)."""


class _TlsSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails; paho would leave it open."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature is the library's
        """Shake hands.

        Raises:
            ssl.SSLError: it failed, or the other end hung up.
        """
        try:
            super().do_handshake(block)
        except OSError as error:
            self.close()
            if isinstance(error, ConnectionError):
                raise ssl.SSLEOFError(error.errno, error.strerror) from error
            raise


def tls_context(tls: TlsSettings) -> ssl.SSLContext:
    """TLS 1.2 or newer that verifies the broker's certificate and name.

    Raises:
        ConfigError: a file is missing or not a PEM file of the right kind.
    """
    context = ssl.create_default_context()
    try:
        if tls.ca_file:
            # Only this authority then, not the system's hundred as well.
            context = ssl.create_default_context(cafile=tls.ca_file)
            # From Python 3.13 on, authorities without extensions that many guides leave out would be refused.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if tls.cert_file:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except OSError as error:
        files = ", ".join(str(path) for path in (tls.ca_file, tls.cert_file, tls.key_file) if path)
        why = f"({error.strerror or error}): each must be a readable PEM file, and the key must fit the certificate"
        raise ConfigError(f"mqtt.tls: cannot use {files} {why}") from error
    context.sslsocket_class = _TlsSocket
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def tls_cause(error: ssl.SSLError) -> Cause:
    """Return which side does not accept the other, and why."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Cause.DATES if error.verify_code in _DATES else Cause.UNTRUSTED
    return Cause.CERTIFICATE if is_alert(str(error)) else Cause.NO_TLS


def is_alert(text: str) -> bool:
    """Whether the broker has refused this device's certificate; with TLS 1.3 the alert comes after the handshake."""
    return "ALERT" in text.upper()


def tls_reason(error: ssl.SSLError) -> str:
    """Explain the error in words; if it is about dates, with the time that this device's clock shows."""
    if isinstance(error, ssl.SSLCertVerificationError):
        now = f"; this device's clock says {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        return error.verify_message + (now if error.verify_code in _DATES else "")
    # `reason` is there only where OpenSSL has made the error.
    return (getattr(error, "reason", None) or error.strerror or str(error)).lower().replace("_", " ")


@dataclass(frozen=True, slots=True)
class Oversized:
    """A packet that was too large to be read."""

    size_bytes: int
    topic: str | None = None
    """None where it is no message, or its topic did not come with the first bytes."""
    retained: bool = False
    """The broker sends it again to each new subscription."""

    def __str__(self) -> str:
        """The words for messages to people."""
        kind = "a retained packet" if self.retained else "a packet"
        return f"{kind} of {self.size_bytes} bytes" + (f" on {self.topic}" if self.topic else "")


class BoundedClient(Client):
    """A paho client that hangs up as soon as the fixed header announces a packet of more than `limit_bytes`.

    paho itself reads up to 256 MiB into memory (MQTT 5.0, 2.1.4). A message at QoS 2 ends the connection as well: paho
    would keep it until the broker releases it, and the agent never subscribes at QoS 2.

    It ignores a message that it cannot read, and acknowledges it. paho hangs up on properties with the sign U+FEFF, and
    on some that brokers do not check. The broker would deliver such a message again on every connection.
    """

    def __init__(self, limit_bytes: int, client_id: str = "", **options: Any) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, client_id, **options)
        self.limit_bytes = limit_bytes
        self.oversized: Oversized | None = None
        """The packet on which this client hung up last."""

    def _sock_recv(self, bufsize: int) -> bytes:
        """Read from the socket. paho asks for the fixed header byte by byte, then for the rest of the packet.

        Raises:
            OSError: the packet is too large, or a message at QoS 2. paho logs it, and reports a lost connection.
        """
        command = self._in_packet["command"]
        is_message = command & _TYPE_MASK == _PUBLISH
        if is_message and command & _QOS_2:
            raise OSError(errno.EPROTO, "a message at QoS 2, which was not asked for")
        if bufsize <= self.limit_bytes:
            return super()._sock_recv(bufsize)
        beginning = super()._sock_recv(_BEGINNING_BYTES)
        topic = _topic(beginning) if is_message else None
        self.oversized = Oversized(bufsize, topic, retained=is_message and bool(command & _RETAIN))
        raise OSError(errno.EMSGSIZE, f"{self.oversized} is not read")

    def _handle_publish(self) -> MQTTErrorCode:
        try:
            return super()._handle_publish()
        except (MQTTException, ValueError, LookupError, struct.error) as error:
            packet = self._in_packet["packet"]
            topic_bytes = int.from_bytes(packet[:2], "big")
            topic, packet_id = packet[2 : 2 + topic_bytes], packet[2 + topic_bytes : 4 + topic_bytes]
            log.warning(f"mqtt: ignored a message on {bytes(topic[:100])!r} that cannot be read ({error})")
            if self._in_packet["command"] & _QOS_1:
                return self._send_puback(int.from_bytes(packet_id, "big"))
            return MQTTErrorCode.MQTT_ERR_SUCCESS


def _topic(beginning: bytes) -> str | None:
    """The topic at the beginning of a PUBLISH packet's variable header (MQTT 5.0, 3.3.2.1); None if it is cut off."""
    length_bytes = int.from_bytes(beginning[:2], "big")
    name = beginning[2 : 2 + length_bytes]
    try:
        return name.decode() if len(name) == length_bytes else None
    except UnicodeDecodeError:
        return None


def properties_of(packet_type: int, **values: Any) -> Properties:
    """MQTT 5 properties by their names in paho; None is left out."""
    properties = Properties(packet_type)  # type: ignore[no-untyped-call]  # paho has not annotated it
    for name, value in values.items():
        if value is not None:
            setattr(properties, name, value)
    return properties


def publish_properties(
    outgoing: Outgoing, expiry_s: int | None, packet_type: int = PacketTypes.PUBLISH, **more: Any
) -> Properties:
    """The properties of a message that expires in `expiry_s` seconds."""
    return properties_of(
        packet_type,
        PayloadFormatIndicator=1,
        ContentType=outgoing.content_type,
        UserProperty=[("schema", outgoing.schema)],
        MessageExpiryInterval=expiry_s,
        CorrelationData=outgoing.correlation,
        **more,
    )


def publish_bytes(outgoing: Outgoing, properties: Properties | None) -> int:
    """Size of the whole packet (MQTT 5.0, 2.1.4 and 3.3): fixed header, topic, packet id, properties and payload."""
    properties_bytes = 0 if properties is None else len(properties.pack())  # type: ignore[no-untyped-call]
    head_bytes = 2 + len(outgoing.topic.encode()) + (2 if outgoing.qos else 0)
    remaining_bytes = head_bytes + properties_bytes + len(outgoing.payload)
    length_bytes = max(1, -(-remaining_bytes.bit_length() // _VARINT_BITS))  # a variable byte integer: 7 bits a byte
    return 1 + length_bytes + remaining_bytes


@dataclass(frozen=True, slots=True)
class Ack:
    """The broker has answered a QoS 1 message."""

    packet_id: int
    code: int
    """Reason code of the PUBACK (MQTT 5.0, 3.4.2.1); 0 with MQTT 3.1.1."""
    refusal: str | None
    """The broker's reason, if it has refused the message."""


class Connection:
    """One connection, from CONNECT to its end. Belongs to one thread. Every method raises `LinkDown` when it is over.

    Where `will` is not retained, no other message is published as retained either. With `clean` the broker forgets the
    messages that it still has for this device.
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
        """Whether the broker has accepted the connection."""
        self._down: LinkDown | None = None
        self._complaint = ""
        self._acks: list[Ack] = []
        self.refused_filters: list[str] = []
        """Topic filters whose subscription the broker has refused."""
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
            # The client reconnects by itself; this also keeps paho from falling back to MQTT 3.1.
            reconnect_on_failure=False,
        )
        client.max_inflight_messages = 0  # no second window
        properties = publish_properties(will, None, PacketTypes.WILLMESSAGE, WillDelayInterval=will_delay_s)
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
        """Reach the broker, do the TLS handshake, and send CONNECT; call `step` until `accepted`.

        TCP and TLS may take `timeout_s` each. The system decides how long a name may take to resolve.
        """
        self._client.connect_timeout = timeout_s
        with self._translated(Cause.UNREACHABLE):
            if self._settings.tls.enabled:
                self._client.tls_set_context(tls_context(self._settings.tls))
            address = (self._settings.host, self._settings.effective_port, self._settings.keepalive_s)
            properties = properties_of(
                PacketTypes.CONNECT, SessionExpiryInterval=SESSION_EXPIRY_S, MaximumPacketSize=COMMAND_LIMIT_BYTES
            )
            options: dict[str, Any] = {"clean_start": self._clean, "properties": properties}
            self._client.connect(*address, **options if self.version == "5" else {})

    def subscribe(self, filters: tuple[str, ...]) -> None:
        """Subscribe to these topics, unless that is done; the broker's refusals come to `refused_filters`."""
        if not filters or filters == self._subscribed:
            return
        self._subscribed = filters
        # Retained as published: else a retained command looks like any other until the next connection.
        options = SubscribeOptions(qos=1, retainAsPublished=True)
        with self._translated(Cause.LOST):
            wanted = [(name, options if self.version == "5" else 1) for name in filters]
            _, packet_id = self._client.subscribe(wanted)  # type: ignore[arg-type]  # paho knows no list of both
            self._subscribing[packet_id or 0] = filters

    def publish(self, outgoing: Outgoing, expiry_s: int | None) -> int:
        """Send a message that expires in `expiry_s`; return the packet id that its `Ack` will carry.

        Raises:
            PacketTooLarge: it is larger than the broker's Maximum Packet Size.
        """
        properties = publish_properties(outgoing, expiry_s) if self.version == "5" else None
        if self.packet_limit_bytes and (size_bytes := publish_bytes(outgoing, properties)) > self.packet_limit_bytes:
            raise PacketTooLarge(size_bytes, self.packet_limit_bytes)
        with self._translated(Cause.LOST):
            return self._client.publish(
                outgoing.topic, outgoing.payload, outgoing.qos, outgoing.retained and self.retained, properties
            ).mid

    def step(self, wake: socket.socket | None, timeout_s: float) -> tuple[Ack, ...]:
        """Read and write as far as possible; wait for at most `timeout_s`, less if `wake` becomes readable.

        Empty `wake`. Return the answers to messages since the last step.
        """
        with self._translated(self._broken):
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
        with contextlib.suppress(BlockingIOError):
            while wake is not None and wake.recv(4_096):
                pass

    def _raise_if_down(self) -> None:
        if self._down is not None:
            raise self._down
        if self._client.socket() is None:
            raise LinkDown(self._broken, self._complaint or "it hung up")

    @property
    def _broken(self) -> Cause:
        return Cause.LOST if self.accepted else Cause.SILENT

    @property
    def oversized(self) -> Oversized | None:
        """The packet of the broker that was too large to be read, if that has ended the connection."""
        return self._client.oversized if self.accepted else None

    @property
    def congested(self) -> bool:
        """True while messages that were published before still wait for the network."""
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
        """Turn errors of paho, the socket and TLS into `LinkDown`."""
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

    # Callbacks. They run inside paho's loop functions, so in the thread `mqtt`; they only take note.

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: ReasonCode, properties: Any) -> None:
        if reason.value >= _FAILURE:
            self._down = LinkDown(_CONNACK_CAUSES.get(reason.value, Cause.REFUSED), str(reason))
            return
        self.accepted = True
        self.window = min(_WINDOW, getattr(properties, "ReceiveMaximum", _WINDOW))
        self.packet_limit_bytes = getattr(properties, "MaximumPacketSize", None)
        self.retained &= bool(getattr(properties, "RetainAvailable", 1))
        if not getattr(properties, "MaximumQoS", 1):
            self._down = LinkDown(Cause.QOS, "QoS not supported")

    def _on_disconnect(
        self, _client: Any, _data: Any, flags: DisconnectFlags, reason: ReasonCode, _properties: Any
    ) -> None:
        if self._down is not None:
            return
        if flags.is_disconnect_packet_from_server:
            self._down = LinkDown(_DISCONNECT_CAUSES.get(reason.value, Cause.REFUSED), str(reason))
        elif self.oversized:
            self._down = LinkDown(Cause.TOO_LARGE, str(self.oversized))
        else:
            cause = Cause.CERTIFICATE if is_alert(self._complaint) else self._broken
            quiet = reason.value == _KEEP_ALIVE_TIMEOUT
            self._down = LinkDown(cause, self._complaint or ("it went quiet" if quiet else "it hung up"))

    def _on_publish(self, _client: Any, _data: Any, packet_id: int, reason: ReasonCode, _properties: Any) -> None:
        self._acks.append(Ack(packet_id, reason.value, str(reason) if reason.value >= _FAILURE else None))

    def _on_message(self, _client: Any, _data: Any, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return  # brokers refuse that (MQTT 5.0, 1.5.4)
        properties = message.properties
        response_topic = getattr(properties, "ResponseTopic", None)
        correlation = getattr(properties, "CorrelationData", None)
        self._inbox.on_message(Incoming(topic, bytes(message.payload), message.retain, response_topic, correlation))

    def _on_subscribe(
        self, _client: Any, _data: Any, packet_id: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        answers = zip(self._subscribing.pop(packet_id, ()), reasons, strict=False)
        self.refused_filters += [name for name, reason in answers if reason.value >= _FAILURE]

    def _on_socket_open(self, _client: Any, _data: Any, sock: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)

    def _on_socket_close(self, _client: Any, _data: Any, sock: Any) -> None:
        # A broker may refuse this device's certificate after the handshake, while paho is writing. paho stops at the
        # failed write; the alert can still be read.
        if isinstance(sock, ssl.SSLSocket) and not self.accepted:
            try:
                sock.recv(1)
            except OSError as error:
                self._complaint = str(error) if is_alert(str(error)) else self._complaint

    def _on_log(self, _client: Any, _data: Any, level: int, text: str) -> None:
        # paho turns errors of the socket into a bare number; the words are in its log only.
        if level == LogLevel.MQTT_LOG_ERR:
            self._complaint = text.rpartition("socket: ")[2]
