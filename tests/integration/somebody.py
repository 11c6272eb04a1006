"""A plain MQTT client that may try whatever it wants, and is told by the broker what it may."""

import threading

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.config import MqttSettings
from agent.sinks.mqtt_tls import tls_context
from tests.integration.receiver import LIMIT_S


class Somebody:
    """One connection, by MQTT 5, with the TLS and the password of some settings."""

    def __init__(self, name: str, settings: MqttSettings) -> None:
        self.heard: list[tuple[str, str]] = []
        self._answered = threading.Event()
        self._code = -1
        self._client = Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTProtocolVersion.MQTTv5)
        if settings.password:
            self._client.username_pw_set(settings.username, settings.password.get_secret_value())
        self._client.tls_set_context(tls_context(settings.tls))
        self._client.on_connect = lambda _client, _data, _flags, reason, _properties: self._answer(reason.value)
        self._client.on_subscribe = lambda *_: self._answered.set()
        self._client.on_publish = lambda _client, _data, _mid, reason, _properties: self._answer(reason.value)
        self._client.on_message = lambda _client, _data, message: self.heard.append(
            (message.topic, message.payload.decode())
        )
        self._client.connect(settings.host, settings.effective_port)
        self._client.loop_start()
        assert self._await() == 0

    def _answer(self, code: int) -> None:
        self._code = code
        self._answered.set()

    def _await(self) -> int:
        assert self._answered.wait(LIMIT_S), "the broker did not answer"
        self._answered.clear()
        return self._code

    def listen(self, topic: str) -> "Somebody":
        """Subscribe; mosquitto accepts every subscription, and delivers only what may be read."""
        self._client.subscribe(topic, options=SubscribeOptions(qos=1))
        self._await()
        return self

    def may_write(self, topic: str, payload: str = "{}", *, answer: str | None = None) -> bool:
        """Whether the broker takes a message; an answer to it is wanted at `answer`."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho has not annotated it
        if answer:
            properties.ResponseTopic = answer
        self._client.publish(topic, payload, qos=1, properties=properties)
        return self._await() == 0

    def topics(self) -> set[str]:
        """What has been heard so far."""
        return {topic for topic, _ in self.heard}

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()
