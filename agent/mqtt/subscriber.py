"""A connection that only subscribes: for `edgescribe watch`, the demonstration and benchmarks."""

import contextlib
import secrets
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Self

from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from agent.channel import Channel
from agent.config.settings import MqttSettings
from agent.errors import SinkError
from agent.mqtt.connection import (
    CLOCK_REMEDY,
    CONTRACT_LIMIT_BYTES,
    BoundedClient,
    Cause,
    properties_of,
    tls_cause,
    tls_context,
    tls_reason,
)
from agent.telemetry.tcp import spelt

_CAPACITY: Final = 20_000
_ANSWER_S: Final = 30.0
_RECONNECT_S: Final = (1, 30)
_UNSPECIFIED: Final = 0x80
_HUNG_UP: Final = "it hung up"


@dataclass(frozen=True, slots=True)
class Received:
    """An incoming message."""

    topic: str
    payload: bytes
    retained: bool
    """It was published before the subscription."""
    received_s: float
    """Monotonic time of its arrival."""


@dataclass(frozen=True, slots=True)
class LinkChange:
    """The connection was lost, or made again."""

    connected: bool
    reason: str = ""
    """Why it was lost; empty if it was made."""


class Subscriber:
    """Receives what is published on `topic` (wildcards allowed), with the TLS and the credentials of the settings.

    The constructor returns once it has subscribed, and it subscribes again after every loss of the connection. One
    thread reads; any may call `close`. MQTT 3.1.1, which every broker speaks, unless the settings say 5. `user` is the
    name at the broker if the settings have only a password.

    Raises:
        SinkError: there is no broker, it refuses the client, or it cannot be trusted.
        ConfigError: a certificate file cannot be used.
    """

    def __init__(self, settings: MqttSettings, topic: str = "edgescribe/v1/#", user: str = "") -> None:
        self.address = spelt(settings.host, settings.effective_port)
        self.topic = topic
        self._settings = settings
        self._events: Channel[Received | LinkChange | SinkError] = Channel(_CAPACITY)
        self._answered = threading.Event()
        self._refusal: str | None = None
        five = settings.protocol == "5"
        protocol = MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311
        name = f"edgescribe-watch-{secrets.token_hex(4)}"
        self._client = client = BoundedClient(CONTRACT_LIMIT_BYTES, name, protocol=protocol)
        client.reconnect_delay_set(*_RECONNECT_S)
        if username := settings.username_for(user):
            client.username_pw_set(username, settings.plain_password)
        if settings.tls.enabled:
            client.tls_set_context(tls_context(settings.tls))
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        self._connect()
        client.loop_start()
        if not self._answered.wait(_ANSWER_S) or self._refusal:
            self.close()
            raise SinkError(self._explain(self._refusal or "no answer"))

    def _connect(self) -> None:
        settings, five = self._settings, self._settings.protocol == "5"
        properties = properties_of(PacketTypes.CONNECT, MaximumPacketSize=CONTRACT_LIMIT_BYTES) if five else None
        try:
            self._client.connect(settings.host, settings.effective_port, settings.keepalive_s, properties=properties)
        except ssl.SSLError as error:
            remedy = CLOCK_REMEDY if tls_cause(error) is Cause.DATES else "check mqtt.tls and the port"
            raise SinkError(f"no TLS connection to {self.address} ({tls_reason(error)}): {remedy}") from error
        except (OSError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or error
            raise SinkError(f"no broker at {self.address} ({why}): name it with --host and --port") from error

    def _explain(self, why: str) -> str:
        if self._client.oversized:
            remedy = "remove a retained message with mosquitto_pub -r -n -t TOPIC, or watch one device with --device"
        elif why != _HUNG_UP:
            remedy = "check --username and --password-file, and the broker's access control list"
        elif self._settings.tls.enabled:
            remedy = "does it want a certificate? Check mqtt.tls.cert_file and key_file"
        else:
            remedy = "does it want TLS? Check --port and mqtt.tls.enabled"
        return f"{self.address} does not let us watch ({why}): {remedy}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def event(self, timeout_s: float | None) -> Received | LinkChange | None:
        """Return the next message or change; None if none came within `timeout_s`, or if all are read after `close`.

        Raises:
            SinkError: the broker retains a message that is too large, and would send it after every reconnection.
        """
        event = self._events.get(timeout_s)
        if isinstance(event, SinkError):
            raise event
        return event

    def get(self, timeout_s: float | None = None) -> Received | None:
        """Return the next message, as `event` does, without changes of the connection."""
        while isinstance(event := self.event(timeout_s), LinkChange):
            pass
        return event

    def __iter__(self) -> Iterator[Received]:
        while received := self.get():
            yield received

    @property
    def overrun(self) -> int:
        """Messages that were dropped because they came faster than the reader reads."""
        return self._events.dropped

    def close(self) -> None:
        """Disconnect. Received messages can still be read. Idempotent."""
        self._client.disconnect()
        self._client.loop_stop()
        self._events.close()

    # Callbacks, in paho's thread.

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        self._client.oversized = None
        if reason.is_failure:
            self._refuse(str(reason))
        else:
            self._client.subscribe(self.topic, qos=1)

    def _on_subscribe(self, _client: Any, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Any) -> None:
        if refused := next((str(reason) for reason in reasons if reason.is_failure), None):
            self._refuse(refused)
        else:
            self._answered.set()
            self._events.put(LinkChange(connected=True))

    def _refuse(self, reason: str) -> None:
        if not self._answered.is_set():
            self._refusal = reason
            self._answered.set()
        self._events.put(LinkChange(connected=False, reason=reason))

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        # paho has no reason if the other end gave none.
        words = str(reason) if reason.value != _UNSPECIFIED else _HUNG_UP
        if too_large := self._client.oversized:
            # Its topic may hold any character, also one that controls a terminal.
            words = "".join(character if character.isprintable() else "?" for character in f"{too_large} is not read")
        if not self._answered.is_set():
            self._refuse(words)
        elif too_large and too_large.retained:
            self._events.put(SinkError(self._explain(words)))
        elif self._refusal is None:
            self._events.put(LinkChange(connected=False, reason=words))

    def _on_message(self, _client: Any, _data: Any, message: MQTTMessage) -> None:
        with contextlib.suppress(UnicodeDecodeError):  # MQTT 5.0, 1.5.4 demands text
            self._events.put(Received(message.topic, bytes(message.payload), message.retain, time.monotonic()))
