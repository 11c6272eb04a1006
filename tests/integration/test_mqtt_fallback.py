"""MQTT 3.1.1 where the broker knows no better: against the real amqtt, which speaks nothing else."""

import logging
from collections.abc import Iterator

import pytest

from agent.config.settings import MqttSettings
from agent.mqtt.embedded_broker import EmbeddedBroker, embedded_broker
from agent.mqtt.subscriber import Subscriber
from tests.integration.conftest import OpenSink
from tests.messages import info, transcript
from tests.support.mosquitto import StartMosquitto
from tests.support.receiver import eventually


@pytest.fixture
def amqtt() -> Iterator[EmbeddedBroker]:
    """A broker that speaks 3.1.1 only."""
    with embedded_broker(kind="amqtt") as broker:
        yield broker


def test_a_broker_that_knows_3_1_1_only_is_spoken_to_in_3_1_1(
    amqtt: EmbeddedBroker, open_sink: OpenSink, caplog: pytest.LogCaptureFixture
) -> None:
    """Found out by itself within seconds; birth, state, every transcript in order, and the goodbye arrive."""
    caplog.set_level(logging.INFO, "agent")
    with Subscriber(amqtt.settings) as subscriber:
        sink = open_sink(MqttSettings(host=amqtt.host, port=amqtt.port))
        sink.send(info())
        for seq in range(30):
            sink.send(transcript(seq))
        assert eventually(lambda: sink.connected and sink.stats.outbox_n == 0)
        assert sink.close(10.0) == 0
        received = []
        while message := subscriber.get(2.0):
            received.append(message)
    assert received[0].payload == b"online"
    assert received[1].payload == info().payload()
    assert [message.payload for message in received[2:-1]] == [transcript(seq).payload() for seq in range(30)]
    assert received[-1].payload == b"offline"
    assert f"mqtt: connected to {amqtt.host}:{amqtt.port} (MQTT 3.1.1)" in caplog.text
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_the_version_can_be_set(amqtt: EmbeddedBroker, open_sink: OpenSink, caplog: pytest.LogCaptureFixture) -> None:
    """Who knows the broker need not wait for the guess."""
    caplog.set_level(logging.DEBUG)
    sink = open_sink(MqttSettings(host=amqtt.host, port=amqtt.port, protocol="3.1.1"))
    assert eventually(lambda: sink.connected)
    assert "trying MQTT 3.1.1" not in caplog.text


@pytest.mark.mosquitto
def test_mosquitto_takes_3_1_1_as_well(start_mosquitto: StartMosquitto, open_sink: OpenSink) -> None:
    """With the version set, a broker that knows both delivers the same bytes without properties."""
    broker = start_mosquitto()
    with Subscriber(MqttSettings(port=broker.port), "edgescribe/v1/pi-1/transcript") as subscriber:
        open_sink(MqttSettings(port=broker.port, protocol="3.1.1")).send(transcript(1))
        message = subscriber.get(10.0)
    assert message
    assert message.payload == transcript(1).payload()
    assert "p2, c1" in broker.log()
