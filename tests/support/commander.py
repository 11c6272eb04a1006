"""Somebody who commands devices by MQTT 5 and waits for their answers."""

import json
import threading
import time
from itertools import count
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.support.receiver import LIMIT_S, eventually

ANSWERS = "commander/answers"


class Commander:
    """Publishes commands; answers come to a topic of its own, told apart by their Correlation Data."""

    def __init__(self, port: int) -> None:
        self.answers: dict[bytes, list[dict[str, Any]]] = {}
        self._numbers = count(1)
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe(ANSWERS, qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.connect("localhost", port)
        self._client.loop_start()
        assert self._subscribed.wait(LIMIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        correlation = getattr(message.properties, "CorrelationData", b"")
        self.answers.setdefault(correlation, []).append(json.loads(message.payload))

    def publish(self, topic: str, payload: object = "", *, retain: bool = False) -> None:
        """Publish without waiting for an answer; a dict goes as JSON."""
        text = payload if isinstance(payload, str) else json.dumps(payload)
        self._client.publish(topic, text, 1, retain).wait_for_publish(LIMIT_S)

    def send(self, topic: str, payload: object = "") -> bytes:
        """Ask; return the Correlation Data of the answers."""
        correlation = f"\x00{next(self._numbers)}".encode()
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho has not annotated it
        properties.ResponseTopic = ANSWERS
        properties.CorrelationData = correlation
        text = payload if isinstance(payload, str) else json.dumps(payload)
        self._client.publish(topic, text, 1, properties=properties)
        return correlation

    def ask(self, name: str, payload: object = "", device: str = "pi-1") -> dict[str, Any]:
        """Command one device and return its answer."""
        correlation = self.send(f"edgescribe/v1/{device}/cmd/{name}", payload)
        assert eventually(lambda: correlation in self.answers), f"no answer to {name}"
        (answer,) = self.answers[correlation]
        return answer

    def silence(self, correlation: bytes, wait_s: float = 1.0) -> bool:
        """Whether nobody answers for a while."""
        time.sleep(wait_s)
        return correlation not in self.answers
