"""The connection of `edgescribe watch`: subscribed for as long as it lasts, and again when it comes back."""

import secrets
import ssl
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.channel import Channel
from agent.config.settings import MqttSettings
from agent.errors import SinkError
from agent.mqtt.packet import CONTRACT_LIMIT_BYTES, BoundedClient, properties_of
from agent.mqtt.reconnect import Cause
from agent.mqtt.subscriber import Received, taken
from agent.mqtt.tls import CLOCK_REMEDY, tls_cause, tls_context, tls_reason
from agent.telemetry.tcp import spelt

_CAPACITY: Final = 20_000
_ANSWER_S: Final = 30.0
_RECONNECT_S: Final = (1, 30)
_UNSPECIFIED: Final = 0x80
_HUNG_UP: Final = "it hung up"
_REMEDY: Final = "name it with --host and --port"


@dataclass(frozen=True, slots=True)
class LinkChange:
    """The broker was lost, or is back."""

    connected: bool
    reason: str
    """Why it is gone; empty if it is there."""


class Link:
    """Receives what is published on `topic`, with the TLS and the credentials of the settings.

    Subscribed when the constructor returns. `get` belongs to one thread. MQTT 3.1.1, as every broker speaks it, unless
    the settings say 5.

    Raises:
        SinkError: there is no broker, it refuses us, or it cannot be trusted.
        ConfigError: a certificate file cannot be used.
    """

    def __init__(self, settings: MqttSettings, user: str, topic: str) -> None:
        self.address = spelt(settings.host, settings.effective_port)
        self.topic = topic
        self._events: Channel[Received | LinkChange | SinkError] = Channel(_CAPACITY)
        self._answered = threading.Event()
        self._refusal: str | None = None
        self._settings = settings
        self._client = self._make_client(settings, user)
        self._connect()
        self._client.loop_start()
        if not self._answered.wait(_ANSWER_S) or self._refusal:
            self.close()
            raise SinkError(self._explain(self._refusal or "no answer"))

    def _make_client(self, settings: MqttSettings, user: str) -> BoundedClient:
        protocol = MQTTProtocolVersion.MQTTv5 if settings.protocol == "5" else MQTTProtocolVersion.MQTTv311
        name = f"edgescribe-watch-{secrets.token_hex(4)}"
        client = BoundedClient(CONTRACT_LIMIT_BYTES, name, protocol=protocol)
        client.reconnect_delay_set(*_RECONNECT_S)
        if username := settings.username_for(user):
            client.username_pw_set(username, settings.plain_password)
        if settings.tls.enabled:
            client.tls_set_context(tls_context(settings.tls))
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        return client

    def _connect(self) -> None:
        settings, properties = self._settings, None
        if settings.protocol == "5":
            properties = properties_of(PacketTypes.CONNECT, MaximumPacketSize=CONTRACT_LIMIT_BYTES)
        try:
            self._client.connect(settings.host, settings.effective_port, settings.keepalive_s, properties=properties)
        except ssl.SSLError as error:
            remedy = CLOCK_REMEDY if tls_cause(error) is Cause.DATES else "check mqtt.tls and the port"
            raise SinkError(f"no TLS connection to {self.address} ({tls_reason(error)}): {remedy}") from error
        except (OSError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or error
            raise SinkError(f"no broker at {self.address} ({why}): {_REMEDY}") from error

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get(self, timeout_s: float) -> Received | LinkChange | None:
        """The next message or change; None if nothing came within `timeout_s`.

        Raises:
            SinkError: the broker sends a message that is too large, and would send it again after every reconnection.
        """
        event = self._events.get(timeout_s)
        if isinstance(event, SinkError):
            raise event
        return event

    @property
    def overrun(self) -> int:
        """Messages that were dropped because they came faster than they were read."""
        return self._events.dropped

    def close(self) -> None:
        """Disconnect; idempotent."""
        self._client.disconnect()
        self._client.loop_stop()
        self._events.close()

    # Callbacks, in paho's thread.

    def _on_connect(
        self, client: Client, _data: Any, _flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        self._client.oversized = None
        if reason.is_failure:
            self._refuse(str(reason))
        else:
            client.subscribe(self.topic, qos=1)

    def _on_subscribe(
        self, _client: Client, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        refused = next((str(reason) for reason in reasons if reason.is_failure), None)
        if refused:
            self._refuse(refused)
            return
        self._answered.set()
        self._events.put(LinkChange(connected=True, reason=""))

    def _refuse(self, reason: str) -> None:
        if not self._answered.is_set():
            self._refusal = reason
            self._answered.set()
        self._events.put(LinkChange(connected=False, reason=reason))

    def _on_disconnect(
        self, _client: Client, _data: Any, _flags: DisconnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        # paho knows no reason where the other end gave none.
        words = str(reason) if reason.value != _UNSPECIFIED else _HUNG_UP
        if too_large := self._client.oversized:
            words = f"{too_large} is not read"
        if not self._answered.is_set():
            self._refuse(words)
        elif too_large and too_large.retained:
            self._events.put(SinkError(self._explain(words)))
        elif self._refusal is None:
            self._events.put(LinkChange(connected=False, reason=words))

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        if received := taken(message):
            self._events.put(received)
