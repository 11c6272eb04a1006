"""The connection of `edgescribe watch`: subscribed for as long as it lasts, and again when it comes back."""

import secrets
import ssl
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.channel import Channel
from agent.config import MqttSettings
from agent.errors import SinkError
from agent.sinks.mqtt_tls import tls_context, tls_reason
from agent.subscriber import Received, taken
from agent.tcp import spelt

_CAPACITY: Final = 20_000
_ANSWER_S: Final = 10.0
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

    def __init__(self, settings: MqttSettings, user: str | None, topic: str) -> None:
        self.address = spelt(settings.host, settings.effective_port)
        self.topic = topic
        self._events: Channel[Received | LinkChange] = Channel(_CAPACITY)
        self._answered = threading.Event()
        self._refusal: str | None = None
        self._client = self._make_client(settings, user)
        self._connect(settings)
        self._client.loop_start()
        if not self._answered.wait(_ANSWER_S) or self._refusal:
            self.close()
            raise SinkError(self._explain(self._refusal or "no answer", settings))

    def _make_client(self, settings: MqttSettings, user: str | None) -> Client:
        protocol = MQTTProtocolVersion.MQTTv5 if settings.protocol == "5" else MQTTProtocolVersion.MQTTv311
        client = Client(CallbackAPIVersion.VERSION2, f"edgescribe-watch-{secrets.token_hex(4)}", protocol=protocol)
        client.reconnect_delay_set(*_RECONNECT_S)
        if settings.password:
            client.username_pw_set(settings.username or user, settings.password.get_secret_value())
        if settings.tls.enabled:
            client.tls_set_context(tls_context(settings.tls))
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        return client

    def _connect(self, settings: MqttSettings) -> None:
        try:
            self._client.connect(settings.host, settings.effective_port, settings.keepalive_s)
        except ssl.SSLError as error:
            remedy = "check mqtt.tls and the port"
            raise SinkError(f"no TLS connection to {self.address} ({tls_reason(error)}): {remedy}") from error
        except (OSError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or error
            raise SinkError(f"no broker at {self.address} ({why}): {_REMEDY}") from error

    def _explain(self, why: str, settings: MqttSettings) -> str:
        if why != _HUNG_UP:
            remedy = "check --username and --password-file, and the broker's access control list"
        elif settings.tls.enabled:
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
        """The next message or change; None if nothing came within `timeout_s`."""
        return self._events.get(timeout_s)

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
        if not self._answered.is_set():
            self._refuse(words)
        elif self._refusal is None:
            self._events.put(LinkChange(connected=False, reason=words))

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        if received := taken(message):
            self._events.put(received)
