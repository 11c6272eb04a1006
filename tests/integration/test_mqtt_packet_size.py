"""The MQTT sink against a real mosquitto that hangs up on large packets: one of them must not hold up the others."""

import time

import pytest

from agent.config.settings import MqttSettings
from agent.mqtt.delivery import Outgoing
from tests.integration.conftest import OpenSink
from tests.messages import transcript
from tests.support.mosquitto import StartMosquitto
from tests.support.receiver import Receiver, eventually

pytestmark = pytest.mark.mosquitto

LIMITED = ("allow_anonymous true", "max_packet_size 4096")
LONG = "word " * 1_600
CONFIG = "homeassistant/device/pi-1/config"


def announcement(payload: bytes) -> Outgoing:
    """What Home Assistant is told: retained, and large."""
    return Outgoing(CONFIG, payload, 1, True, "application/json", "homeassistant", accepted_s=time.monotonic())


def large(receiver: Receiver) -> list[int]:
    """Sizes of what came and should not have."""
    return [size for message in receiver.messages if (size := len(message.payload)) > 4_096]


def test_what_the_broker_says_is_too_large_is_given_up_and_costs_no_connection(
    start_mosquitto: StartMosquitto, open_sink: OpenSink, caplog: pytest.LogCaptureFixture
) -> None:
    """MQTT 5: a transcript and an announcement are not sent, all others arrive; the log says sizes and remedy, once."""
    broker = start_mosquitto(*LIMITED)
    with Receiver(broker.port) as receiver:
        sink = open_sink(MqttSettings(port=broker.port, protocol="5"))
        sink.post(announcement(b"x" * 8_192))
        for seq in range(1, 9):
            sink.send(transcript(seq, LONG if seq in {1, 5} else "turn on the light"))
        assert eventually(lambda: len(receiver.of("transcript")) == 6)
        assert eventually(lambda: sink.stats.outbox_n == 0)
        assert large(receiver) == []
    assert (sink.stats.dropped, sink.stats.reconnects) == (2, 0)
    assert sink.has_taken({CONFIG})  # whoever waits for that waits no longer
    warnings = [record.getMessage() for record in caplog.records if "takes no packet above 4096" in record.getMessage()]
    assert len(warnings) == 2
    assert all("max_packet_size" in text for text in warnings)
    assert "another client" not in caplog.text


@pytest.mark.parametrize("retained", [False, True])
def test_a_broker_that_hangs_up_without_a_word_gets_the_rest_all_the_same(
    retained: bool,  # noqa: FBT001 - a column
    start_mosquitto: StartMosquitto,
    open_sink: OpenSink,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """MQTT 3.1.1: after five losses right behind it the message is set aside, and no namesake is blamed."""
    broker = start_mosquitto(*LIMITED, start=False)
    sink = open_sink(MqttSettings(port=broker.port, protocol="3.1.1"))
    if retained:
        sink.post(announcement(b"x" * 8_192))
    for seq in range(1, 9):
        sink.send(transcript(seq, LONG if seq == 5 and not retained else "turn on the light"))
    broker.start()
    with Receiver(broker.port) as receiver:
        assert eventually(lambda: sink.stats.outbox_n == 0)
        reconnects = sink.stats.reconnects
        sink.send(transcript(9))
        assert eventually(lambda: bool(receiver.of("transcript")) and sink.stats.outbox_n == 0)
        assert large(receiver) == []
    assert sink.stats.dropped == (0 if retained else 1)
    assert sink.stats.reconnects == reconnects
    assert sink.has_taken({CONFIG})
    assert caplog.text.count("which is not sent again") == 1
    assert "max_packet_size" in caplog.text
    assert "another client" not in caplog.text
