"""The other end of the line: what a subscriber receives. Used by `edgescribe demo`, in a connection of its own."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.channel import Channel
from agent.errors import SinkError
from agent.mqtt.packet import CONTRACT_LIMIT_BYTES, BoundedClient

_CAPACITY = 10_000
_SUBSCRIBED_S = 60.0


@dataclass(frozen=True, slots=True)
class Received:
    """A message as it came in."""

    topic: str
    payload: bytes
    retained: bool
    """It was published before we subscribed."""
    received_s: float
    """Monotonic time of its arrival."""


def taken(message: MQTTMessage) -> Received | None:
    """`message`, which has arrived now; None if its topic is not text, which MQTT 5.0, 1.5.4 demands."""
    try:
        return Received(message.topic, bytes(message.payload), message.retain, time.monotonic())
    except UnicodeDecodeError:
        return None


class Subscriber:
    """Receives what is published on `topic` (wildcards allowed), without TLS or password, by MQTT 3.1.1.

    Subscribed when the constructor returns. `get` and iteration belong to one thread; `close` to any.

    Raises:
        SinkError: there is no broker, or it refuses the subscription.
    """

    def __init__(self, host: str, port: int, topic: str = "edgescribe/v1/#") -> None:
        self.topic = topic
        self._messages: Channel[Received] = Channel(_CAPACITY)
        self._subscribed = threading.Event()
        self._refusal: str | None = None
        # 3.1.1 because every broker speaks it.
        self._client = BoundedClient(CONTRACT_LIMIT_BYTES, protocol=MQTTProtocolVersion.MQTTv311)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        try:
            self._client.connect(host, port)
        except OSError as error:
            msg = f"no broker at {host}:{port} ({error.strerror or error})"
            raise SinkError(msg) from error
        self._client.loop_start()
        if not self._subscribed.wait(_SUBSCRIBED_S) or self._refusal:
            self.close()
            msg = f"{host}:{port} did not accept the subscription to {topic} ({self._refusal or 'no answer'})"
            raise SinkError(msg)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get(self, timeout_s: float | None = None) -> Received | None:
        """Return the next message; None if none came within `timeout_s`, or after `close` when all are read."""
        return self._messages.get(timeout_s)

    def __iter__(self) -> Iterator[Received]:
        return iter(self._messages)

    def close(self) -> None:
        """Disconnect; what has been received can still be read, then iteration ends. Idempotent."""
        self._client.disconnect()
        self._client.loop_stop()
        self._messages.close()

    # Callbacks, in paho's thread.

    def _on_connect(
        self, client: Client, _data: Any, _flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self._refusal = str(reason)
            self._subscribed.set()
        else:
            client.subscribe(self.topic, qos=1)

    def _on_subscribe(
        self, _client: Client, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._refusal = next((str(reason) for reason in reasons if reason.is_failure), None)
        self._subscribed.set()

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        if received := taken(message):
            self._messages.put(received)
