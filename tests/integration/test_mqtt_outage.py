"""The MQTT sink against a real mosquitto that is absent, dies, freezes, comes back empty, or is something else."""

import json
import logging
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from agent.config.settings import MqttSettings, OutboxSettings
from agent.messages import Health
from agent.mqtt.delivery import Outgoing
from tests.integration.conftest import OpenSink
from tests.messages import info, transcript
from tests.support.gate import Gate
from tests.support.mosquitto import StartMosquitto, free_port
from tests.support.receiver import Receiver, eventually

pytestmark = pytest.mark.mosquitto

Seeded = random.Random
"""Chance that repeats itself."""


def numbers(receiver: Receiver) -> list[int]:
    """The `seq` of every transcript that arrived, in order of arrival."""
    return [json.loads(payload)["seq"] for payload in receiver.payloads("transcript")]


def first_arrivals(seqs: list[int]) -> list[int]:
    """Without the duplicates that at-least-once delivery may bring."""
    return list(dict.fromkeys(seqs))


def test_a_missing_broker_is_one_line_and_no_loss(
    start_mosquitto: StartMosquitto, open_sink: OpenSink, caplog: pytest.LogCaptureFixture
) -> None:
    """Many attempts log once; when the broker appears, everything that waited is delivered."""
    caplog.set_level(logging.INFO, "agent")
    broker = start_mosquitto(start=False)
    sink = open_sink(MqttSettings(port=broker.port))
    for seq in range(20):
        sink.send(transcript(seq))
    time.sleep(1.5)
    assert sink.stats.outbox_n == 20
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"mqtt: no broker at localhost:{broker.port} (Connection refused)")
    broker.start()
    assert eventually(lambda: sink.stats.outbox_n == 0)
    assert sink.stats.dropped == 0


def test_what_was_said_during_an_outage_arrives_in_order(start_mosquitto: StartMosquitto, open_sink: OpenSink) -> None:
    """Killed and restarted without its memory, the broker gets birth, state and every transcript, in that order."""
    broker = start_mosquitto()
    gate = Gate(broker.port)
    gate.open()
    sink = open_sink(MqttSettings(port=gate.port))
    sink.send(info())
    assert eventually(lambda: sink.connected)
    gate.shut()
    broker.kill()
    assert eventually(lambda: not sink.connected)
    for seq in range(50):
        sink.send(transcript(seq))
    broker.start()
    with Receiver(broker.port) as receiver:
        gate.open()
        assert eventually(lambda: len(numbers(receiver)) == 50)
        kinds = [message.topic.rsplit("/", 1)[1] for message in receiver.messages]
        assert kinds == ["status", "info"] + ["transcript"] * 50
        assert numbers(receiver) == list(range(50))
        sink.close(5.0)
    gate.shut()
    assert sink.stats.reconnects == 1


def test_nothing_is_lost_while_connections_break_at_random(
    start_mosquitto: StartMosquitto, open_sink: OpenSink
) -> None:
    """300 transcripts through ten broken connections: each arrives, first arrivals are in order."""
    broker = start_mosquitto()
    gate = Gate(broker.port)
    gate.open()
    chance = Seeded(7)
    with Receiver(broker.port) as receiver:
        sink = open_sink(MqttSettings(port=gate.port))

        def speak() -> None:
            for seq in range(300):
                sink.send(transcript(seq))
                time.sleep(0.01)

        speaker = threading.Thread(target=speak)
        speaker.start()
        for _ in range(10):
            time.sleep(chance.uniform(0.1, 0.5))
            gate.shut()
            gate.open()
        speaker.join()
        assert eventually(lambda: len(first_arrivals(numbers(receiver))) == 300)
        assert first_arrivals(numbers(receiver)) == list(range(300))
        assert sink.stats.dropped == 0
        assert sink.stats.reconnects >= 1
        sink.close(5.0)
    gate.shut()


def test_a_withdrawal_survives_the_link_on_which_it_was_sent(
    start_mosquitto: StartMosquitto, open_sink: OpenSink
) -> None:
    """It vanished on its way: on the next connection it goes again, and the broker forgets what was retained."""
    broker = start_mosquitto()
    gate = Gate(broker.port)
    gate.open()
    sink = open_sink(MqttSettings(port=gate.port))
    sink.post(config := Outgoing("homeassistant/device/pi-1/config", b"{}", 1, True, "application/json", "x/1"))
    assert eventually(lambda: sink.connected and sink.has_taken({config.topic}))
    gate.hold()
    sink.post(replace(config, payload=b""))
    time.sleep(0.3)
    assert not sink.has_taken({config.topic})
    gate.shut()
    gate.open()
    assert eventually(lambda: sink.has_taken({config.topic}))
    with Receiver(broker.port, "#") as receiver:
        assert eventually(lambda: bool(receiver.messages))
        time.sleep(0.2)
        assert {message.topic for message in receiver.messages} == {"edgescribe/v1/pi-1/status"}
    sink.close(5.0)
    gate.shut()


def test_a_half_open_connection_is_noticed(start_mosquitto: StartMosquitto, open_sink: OpenSink) -> None:
    """Packets vanish without a sign: within two keep-alives the sink knows, and loses nothing."""
    broker = start_mosquitto()
    gate = Gate(broker.port)
    gate.open()
    sink = open_sink(MqttSettings(port=gate.port, keepalive_s=5))
    assert eventually(lambda: sink.connected)
    gate.hold()
    sink.send(transcript(1))
    assert eventually(lambda: not sink.connected)
    assert sink.stats.outbox_n == 1
    gate.shut()
    with Receiver(broker.port) as receiver:
        gate.open()
        assert eventually(lambda: 1 in numbers(receiver))
        sink.close(5.0)
    gate.shut()


def test_a_frozen_broker_never_holds_up_the_speaker(start_mosquitto: StartMosquitto, open_sink: OpenSink) -> None:
    """With the broker stopped (SIGSTOP), a thousand long messages are accepted at once; all arrive when it goes on."""
    broker = start_mosquitto()
    with Receiver(broker.port) as receiver:
        sink = open_sink(MqttSettings(port=broker.port))
        assert eventually(lambda: sink.connected)
        broker.signal(signal.SIGSTOP)
        for seq in range(1_000):  # would never end if the speaker waited for the broker
            sink.send(transcript(seq, "word " * 1_000))
        broker.signal(signal.SIGCONT)
        assert eventually(lambda: len(first_arrivals(numbers(receiver))) == 1_000)
        assert first_arrivals(numbers(receiver)) == list(range(1_000))


def test_a_full_queue_keeps_the_newest_and_says_so(
    start_mosquitto: StartMosquitto, open_sink: OpenSink, caplog: pytest.LogCaptureFixture
) -> None:
    """Of ten transcripts with room for three, the last three arrive and seven are counted."""
    broker = start_mosquitto()
    gate = Gate(broker.port)
    sink = open_sink(MqttSettings(port=gate.port, outbox=OutboxSettings(max_messages=3)))
    for seq in range(10):
        sink.send(transcript(seq))
    with Receiver(broker.port) as receiver:
        gate.open()
        assert eventually(lambda: len(numbers(receiver)) == 3)
        assert numbers(receiver) == [7, 8, 9]
        sink.close(5.0)
    gate.shut()
    assert sink.stats.dropped == 7
    assert sum("queue is full" in record.getMessage() for record in caplog.records) == 1


def test_closing_without_a_broker_tells_what_is_lost(open_sink: OpenSink) -> None:
    """The count comes back."""
    sink = open_sink(MqttSettings(port=free_port()))
    for seq in range(4):
        sink.send(transcript(seq))
    sink.send(Health(problem="OFF"))
    assert sink.close(2.0) == 4


def test_closing_gives_a_broker_that_just_came_back_its_chance(
    start_mosquitto: StartMosquitto, open_sink: OpenSink
) -> None:
    """Whatever pause the back-off was in, what waits is tried once more before the end."""
    broker = start_mosquitto(start=False)
    sink = open_sink(MqttSettings(port=broker.port))
    sink.send(transcript(1))
    time.sleep(0.5)
    broker.start()
    assert sink.close(10.0) == 0


def test_two_devices_of_one_name_are_suspected(
    start_mosquitto: StartMosquitto, open_sink: OpenSink, caplog: pytest.LogCaptureFixture
) -> None:
    """They keep throwing each other out: the log asks the right question, or says what the broker has told."""
    broker = start_mosquitto()
    open_sink(MqttSettings(port=broker.port))
    open_sink(MqttSettings(port=broker.port))
    said = ("does another client use the id 'pi-1'?", "another client connected to")  # newer mosquittos give the reason
    assert eventually(lambda: any(words in caplog.text for words in said))


class Nonsense:
    """Something that listens, and answers every client with bytes that are no MQTT."""

    def __init__(self, port: int) -> None:
        self.answered = 0
        self._listener = socket.create_server(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        chance = Seeded(3)
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                client.recv(4_096)
                # Half of it pretends to accept the client first, so that nonsense reaches every stage.
                greeting = b"\x20\x03\x00\x00\x00" if self.answered % 2 else b""
                client.sendall(greeting + chance.randbytes(chance.randint(1, 200)))
                self.answered += 1

    def close(self) -> None:
        """Stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def nonsense() -> Iterator[Nonsense]:
    """Running, and closed at the end."""
    server = Nonsense(free_port())
    yield server
    server.close()


def test_nonsense_from_the_other_end_is_survived(open_sink: OpenSink, nonsense: Nonsense) -> None:
    """Random bytes in place of a broker's answers end connections, never the thread; `open_sink` checks that."""
    sink = open_sink(MqttSettings(port=nonsense._listener.getsockname()[1]))
    sink.send(transcript(1))
    assert eventually(lambda: nonsense.answered >= 100, limit_s=120.0)
    assert sink.stats.outbox_n == 1
