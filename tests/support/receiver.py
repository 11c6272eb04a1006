"""A subscriber by MQTT 5 that keeps everything it receives, properties included."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

LIMIT_S = 120.0
"""Generous: machines that run tests are busy."""


def eventually(condition: Callable[[], bool], limit_s: float = LIMIT_S) -> bool:
    """Wait until `condition` holds; False if it did not within a generous limit."""
    deadline_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.01)
    return True


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it came in."""

    topic: str
    payload: str
    retained: bool
    qos: int
    properties: dict[str, Any]


class Receiver:
    """Receives everything below `edgescribe/`, or `wanted`; finds the broker again when it was restarted.

    With `from_now_on=True` it gets nothing that was retained before, and `retained` says what the publisher wanted.

    With `qos=0`, what the broker has acknowledged to the publisher is in our socket already, though the broker be
    killed the next moment: mosquitto writes to subscribers first, and only QoS 1 has a window in which it may wait.
    """

    def __init__(self, port: int, wanted: str = "edgescribe/#", **options: Any) -> None:
        self.port = port
        """Of the broker."""
        self.messages: list[Message] = []
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        if "tls" in options:
            self._client.tls_set_context(options["tls"])
        if "user" in options:
            self._client.username_pw_set(options["user"], options["password"])
        live = options.get("from_now_on", False)
        subscription = SubscribeOptions(
            options.get("qos", 1),
            retainAsPublished=live,
            retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND if live else SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE,
        )
        self._client.on_connect = lambda client, *_: client.subscribe(wanted, options=subscription)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_disconnect = lambda *_: self._subscribed.clear()
        self._client.on_message = self._on_message
        self._client.connect("localhost", port)
        self._client.loop_start()
        self.await_subscription()

    @property
    def subscribed(self) -> bool:
        """Whether the broker has taken the subscription, as far as is known."""
        return self._subscribed.is_set()

    def await_subscription(self) -> None:
        """Wait until the broker has taken the subscription (again)."""
        assert self._subscribed.wait(LIMIT_S), "the test's own subscriber was not let in"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        properties = vars(message.properties) if message.properties else {}
        payload = message.payload.decode(errors="replace")
        self.messages.append(Message(message.topic, payload, message.retain, message.qos, properties))

    def of(self, kind: str) -> list[Message]:
        """Messages of the topic `edgescribe/v1/<any id>/<kind>`."""
        return [message for message in self.messages if message.topic.endswith(f"/{kind}")]

    def payloads(self, kind: str) -> list[str]:
        """Their payloads."""
        return [message.payload for message in self.of(kind)]
