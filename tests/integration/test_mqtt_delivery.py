"""The MQTT sink against a real mosquitto: what arrives, and what a subscriber sees of a device's life."""

import json
import subprocess
import sys
import threading
import time

import pytest

from agent.config.settings import MqttSettings
from agent.messages import Health, Vad
from tests.integration.conftest import OpenSink
from tests.messages import info, transcript
from tests.support.mosquitto import StartMosquitto
from tests.support.receiver import Receiver, eventually

pytestmark = pytest.mark.mosquitto


def test_a_device_is_born_before_it_speaks(start_mosquitto: StartMosquitto, open_sink: OpenSink) -> None:
    """`online` comes before all else, and each message comes once."""
    broker = start_mosquitto()
    with Receiver(broker.port) as receiver:
        sink = open_sink(MqttSettings(port=broker.port))
        sink.send(info())
        sink.send(transcript(1))
        assert eventually(lambda: len(receiver.messages) == 3)
    assert receiver.messages[0].payload == "online"
    assert receiver.payloads("info") == [info().payload().decode()]
    assert receiver.payloads("transcript") == [transcript(1).payload().decode()]


def test_messages_carry_the_properties_of_mqtt_5(start_mosquitto: StartMosquitto, open_sink: OpenSink) -> None:
    """Content type, schema and expiry tell a consumer what it has before it parses anything."""
    broker = start_mosquitto()
    with Receiver(broker.port) as receiver:
        sink = open_sink(MqttSettings(port=broker.port))
        sink.send(transcript(1))
        assert eventually(lambda: len(receiver.messages) == 2)
    (words,) = receiver.of("transcript")
    assert words.qos == 1
    assert words.properties["ContentType"] == "application/json"
    assert words.properties["UserProperty"] == [("schema", "transcript/1")]
    assert words.properties["PayloadFormatIndicator"] == 1
    assert 86_300 < words.properties["MessageExpiryInterval"] <= 86_400
    (status,) = receiver.of("status")
    assert status.properties["ContentType"] == "text/plain"
    assert "MessageExpiryInterval" not in status.properties


def test_who_comes_late_sees_the_state_but_nothing_that_was_said(
    start_mosquitto: StartMosquitto, open_sink: OpenSink
) -> None:
    """Status, info and health are retained; transcripts never are."""
    broker = start_mosquitto()
    sink = open_sink(MqttSettings(port=broker.port))
    sink.send(info())
    sink.send(Health(problem="OFF"))
    sink.send(transcript(1))
    assert eventually(lambda: sink.connected and sink.stats.outbox_n == 0)
    with Receiver(broker.port) as receiver:
        assert eventually(lambda: len(receiver.messages) >= 3)
        time.sleep(0.2)
    assert sorted(message.topic.rsplit("/", 1)[1] for message in receiver.messages) == ["health", "info", "status"]
    assert all(message.retained for message in receiver.messages)


def test_closing_delivers_what_waits_and_says_offline(start_mosquitto: StartMosquitto, open_sink: OpenSink) -> None:
    """Nothing is left behind, the retained status is `offline`, and it is the last thing said."""
    broker = start_mosquitto()
    with Receiver(broker.port) as receiver:
        sink = open_sink(MqttSettings(port=broker.port))
        for seq in range(100):
            sink.send(transcript(seq))
        assert sink.close(10.0) == 0
        assert eventually(lambda: receiver.payloads("status") == ["online", "offline"])
    assert [json.loads(payload)["seq"] for payload in receiver.payloads("transcript")] == list(range(100))
    assert receiver.messages[-1].payload == "offline"
    with Receiver(broker.port) as latecomer:
        assert eventually(lambda: latecomer.payloads("status") == ["offline"])


_SPEAK_AND_WAIT = """
import sys, time
from agent.config.settings import MqttSettings
from tests.support.outboxes import memory_outbox
from agent.mqtt.client import MqttClient
sink = MqttClient(MqttSettings(port=int(sys.argv[1])), "pi-1", memory_outbox(10), print, will_delay_s=int(sys.argv[2]))
time.sleep(60)
"""


def test_a_device_that_dies_is_announced_by_its_will(start_mosquitto: StartMosquitto) -> None:
    """Kill -9: the broker itself publishes the retained `offline` after the will delay."""
    broker = start_mosquitto()
    with Receiver(broker.port) as receiver:
        process = subprocess.Popen([sys.executable, "-c", _SPEAK_AND_WAIT, str(broker.port), "1"])
        assert eventually(lambda: receiver.payloads("status") == ["online"])
        process.kill()
        process.wait()
        assert eventually(lambda: receiver.payloads("status") == ["online", "offline"])


def test_a_device_that_is_back_at_once_was_never_offline(start_mosquitto: StartMosquitto) -> None:
    """A restart within the will delay raises no false alarm: the session is resumed and the will withdrawn."""
    broker = start_mosquitto()
    with Receiver(broker.port) as receiver:
        for births in (1, 2):
            process = subprocess.Popen([sys.executable, "-c", _SPEAK_AND_WAIT, str(broker.port), "3"])
            assert eventually(lambda births=births: len(receiver.of("status")) == births)  # type: ignore[misc]
            if births == 1:
                process.kill()
                process.wait()
        time.sleep(5.0)
        assert receiver.payloads("status") == ["online", "online"]
        process.kill()
        process.wait()


def test_signs_of_speech_are_not_stored(start_mosquitto: StartMosquitto, open_sink: OpenSink) -> None:
    """What was worth something only then (QoS 0) is dropped while there is no broker, and sent while there is."""
    broker = start_mosquitto(start=False)
    sink = open_sink(MqttSettings(port=broker.port))
    sink.send(Vad(state="ON"))
    broker.start()
    with Receiver(broker.port) as receiver:
        assert eventually(lambda: receiver.payloads("status") == ["online"])
        sink.send(Vad(state="OFF"))
        assert eventually(lambda: bool(receiver.of("vad")))
    assert receiver.payloads("vad") == ["OFF"]


def test_the_acknowledgement_time_is_measured(start_mosquitto: StartMosquitto, open_sink: OpenSink) -> None:
    """Telemetry can tell how quick the broker is."""
    broker = start_mosquitto()
    sink = open_sink(MqttSettings(port=broker.port))
    sink.send(transcript(1))
    assert eventually(lambda: sink.connected and sink.stats.outbox_n == 0)
    assert eventually(lambda: sink.stats.puback_ms_p95 is not None)
    p95_ms = sink.stats.puback_ms_p95
    assert p95_ms is not None
    assert 0 <= p95_ms < 5_000


def test_the_work_is_done_by_one_thread_that_ends(start_mosquitto: StartMosquitto, open_sink: OpenSink) -> None:
    """It is called `mqtt`, paho starts none of its own, and after `close` it is gone."""
    broker = start_mosquitto()
    before = threading.active_count()
    sink = open_sink(MqttSettings(port=broker.port))
    assert eventually(lambda: sink.connected)
    assert threading.active_count() == before + 1
    assert "mqtt" in {thread.name for thread in threading.enumerate()}
    sink.close(5.0)
    assert threading.active_count() == before
