"""A plain MQTT client that tries what a test asks for; the broker says what it may do."""

import ssl
import threading
from collections.abc import Mapping
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.support.receiver import LIMIT_S

_REFUSED = 0x80
"""The first reason code that is an error (MQTT 5.0, 2.4)."""


class Peer:
    """One connection by MQTT 5, with `host`, `port`, `username`, `password` and `tls` of the settings `mqtt.*`."""

    def __init__(self, name: str, mqtt: Mapping[str, Any]) -> None:
        self.heard: list[tuple[str, str]] = []
        self._answered = threading.Event()
        self._code = -1
        self._client = Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTProtocolVersion.MQTTv5)
        if "password" in mqtt:
            self._client.username_pw_set(mqtt["username"], mqtt["password"])
        if tls := mqtt.get("tls"):
            context = ssl.create_default_context(cafile=tls["ca_file"])
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            if "cert_file" in tls:
                context.load_cert_chain(tls["cert_file"], tls["key_file"])
            self._client.tls_set_context(context)
        self._client.on_connect = lambda _client, _data, _flags, reason, _properties: self._answer(reason.value)
        self._client.on_subscribe = lambda *_: self._answered.set()
        self._client.on_publish = lambda _client, _data, _mid, reason, _properties: self._answer(reason.value)
        self._client.on_message = lambda _client, _data, message: self.heard.append(
            (message.topic, message.payload.decode())
        )
        self._client.connect(mqtt["host"], mqtt["port"])
        self._client.loop_start()
        assert self._await() == 0

    def _answer(self, code: int) -> None:
        self._code = code
        self._answered.set()

    def _await(self) -> int:
        assert self._answered.wait(LIMIT_S), "the broker did not answer"
        self._answered.clear()
        return self._code

    def listen(self, topic: str) -> "Peer":
        """Subscribe; mosquitto accepts every subscription, and delivers only what may be read."""
        self._client.subscribe(topic, options=SubscribeOptions(qos=1))
        self._await()
        return self

    def may_write(self, topic: str, payload: str = "{}", *, answer: str | None = None, retain: bool = False) -> bool:
        """Whether the broker takes a message; an answer to it is wanted at `answer`."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho has not annotated it
        if answer:
            properties.ResponseTopic = answer
        self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        return self._await() < _REFUSED

    def topics(self) -> set[str]:
        """What has been heard so far."""
        return {topic for topic, _ in self.heard}

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()
