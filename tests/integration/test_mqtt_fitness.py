"""Brokers that cannot do all that the sink wants, or do what none should: a fall-back or one clear line."""

import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from agent.config.settings import MqttSettings
from agent.mqtt.client import MqttClient
from agent.mqtt.connection import COMMAND_LIMIT_BYTES
from agent.mqtt.delivery import Inbox, Incoming
from agent.mqtt.reconnect import Backoff
from agent.worker import Worker
from tests.integration.conftest import OpenSink
from tests.integration.scripted_broker import CONNECT, HANG_UP, PUBLISH, SUBSCRIBE, ScriptedBroker, accommodating
from tests.messages import info, transcript
from tests.support.mosquitto import Authority, StartMosquitto
from tests.support.outboxes import memory_outbox
from tests.support.receiver import LIMIT_S, Receiver, eventually

COMMANDS = "edgescribe/v1/pi-1/cmd/+"
MUTE = b"edgescribe/v1/pi-1/cmd/mute"
CLEAN = 0x02
"""Flag of CONNECT (MQTT 5.0, 3.1.2.3): the sixth byte behind the protocol's name."""


def flags(rest: bytes) -> int:
    """Connect Flags of a CONNECT packet without its fixed header."""
    return rest[7]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as a warning or worse."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


class Promptly(Backoff):
    """Retries at once, and remembers what the real one would have waited."""

    def __init__(self) -> None:
        super().__init__(random.Random(1))  # noqa: S311 - jitter, not a secret
        self.waits_s: list[float] = []

    def wait_s(self, *args: object, **options: object) -> float:
        """Return next to nothing."""
        self.waits_s.append(super().wait_s(*args, **options))  # type: ignore[arg-type]
        return 0.01


Subscribing = Callable[..., tuple[MqttClient, Promptly, list[Incoming]]]


@pytest.fixture
def subscribing() -> Iterator[Subscribing]:
    """Sinks of the device `pi-1` that subscribe to commands and retry at once; closed at the end."""
    sinks: list[MqttClient] = []
    failures: list[Worker] = []

    def open_one(port: int, **settings: object) -> tuple[MqttClient, Promptly, list[Incoming]]:
        received: list[Incoming] = []
        backoff = Promptly()
        mqtt = MqttSettings.model_validate({"host": "127.0.0.1", "port": port, **settings})
        inbox = Inbox((COMMANDS,), received.append)
        sinks.append(MqttClient(mqtt, "pi-1", memory_outbox(100), failures.append, backoff=backoff, inbox=inbox))
        return sinks[-1], backoff, received

    yield open_one
    for sink in sinks:
        sink.close(1.0)
    assert [worker.failure for worker in failures] == []


@pytest.mark.mosquitto
def test_a_broker_without_retained_messages_gets_everything_not_retained(
    start_mosquitto: StartMosquitto, open_sink: OpenSink, caplog: pytest.LogCaptureFixture
) -> None:
    """A real mosquitto refuses the retained will: one line and a code say so, and all messages arrive."""
    broker = start_mosquitto("allow_anonymous true", "retain_available false")
    with Receiver(broker.port) as receiver:
        sink = open_sink(MqttSettings(port=broker.port))
        sink.send(info())
        sink.send(transcript(1))
        assert eventually(lambda: len(receiver.messages) == 3)
        assert sink.conditions == ("mqtt_not_retained",)
    (line,) = warnings(caplog)
    assert "keeps no retained messages" in line


@pytest.mark.mosquitto
@pytest.mark.parametrize(
    ("protocol", "lack"),
    [
        ("auto", "max_qos 0"),
        ("5", "max_qos 0"),
        ("3.1.1", "max_qos 0"),
        ("3.1.1", "retain_available false"),
    ],
)
def test_a_broker_that_will_not_do_is_one_line(
    start_mosquitto: StartMosquitto,
    subscribing: Subscribing,
    caplog: pytest.LogCaptureFixture,
    protocol: str,
    lack: str,
) -> None:
    """QoS 0 only, or a 3.1.1 broker that hangs up on a retained will: one line, and the transcript is kept."""
    broker = start_mosquitto("allow_anonymous true", lack)
    sink, backoff, _ = subscribing(broker.port, protocol=protocol)
    sink.send(transcript(1))
    assert eventually(lambda: len(backoff.waits_s) >= 5)
    (line,) = warnings(caplog)
    assert "QoS" in line
    assert sink.stats.outbox_n == 1
    if protocol != "3.1.1":
        assert min(backoff.waits_s) >= 60.0
        assert sink.conditions == ("mqtt_unfit",)


def test_an_accepting_broker_may_say_that_it_takes_qos_0_only(
    subscribing: Subscribing, caplog: pytest.LogCaptureFixture
) -> None:
    """Maximum QoS 0 in CONNACK: nothing is published that could be lost without notice."""
    with ScriptedBroker(lambda *_: b"\x20\x05\x00\x00\x02\x24\x00") as broker:
        sink, backoff, _ = subscribing(broker.port)
        sink.send(transcript(1))
        assert eventually(lambda: len(backoff.waits_s) >= 2)
        assert broker.of(PUBLISH) == []
    assert "QoS 0 only" in warnings(caplog)[0]


def test_an_accepting_broker_may_say_that_it_retains_nothing(subscribing: Subscribing) -> None:
    """Retain Available 0 in CONNACK: no message carries the flag, on the same connection."""

    def answer(_number: int, head: int, rest: bytes) -> bytes | None:
        return b"\x20\x05\x00\x00\x02\x25\x00" if head >> 4 == CONNECT else accommodating("5", head, rest)

    with ScriptedBroker(answer) as broker:
        sink, _, _ = subscribing(broker.port)
        sink.send(info())
        assert eventually(lambda: len(broker.of(PUBLISH)) == 2)
        assert [head & 0x01 for _, head, _ in broker.of(PUBLISH)] == [0, 0]
        assert len(broker.of(CONNECT)) == 1
        assert eventually(lambda: sink.conditions == ("mqtt_not_retained",))


def test_a_broker_that_refuses_retained_messages_when_they_come_gets_others(subscribing: Subscribing) -> None:
    """DISCONNECT with reason code 0x9A: the next connection comes at once, and retains nothing."""

    def answer(_number: int, head: int, rest: bytes) -> bytes | None:
        if head >> 4 == PUBLISH and head & 0x01:
            return b"\xe0\x01\x9a"
        return accommodating("5", head, rest)

    with ScriptedBroker(answer) as broker:
        sink, backoff, _ = subscribing(broker.port)
        sink.send(transcript(1))
        assert eventually(lambda: sink.stats.outbox_n == 0)
        assert backoff.waits_s == []
        assert [flags(rest) >> 5 & 1 for _, _, rest in broker.of(CONNECT)] == [1, 0]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_broker_that_hangs_up_on_the_first_message_is_two_lines_for_ever(
    subscribing: Subscribing, caplog: pytest.LogCaptureFixture, version: str
) -> None:
    """It takes no retained message, or none of QoS 1, and cannot say so: first a loss, then what it means; no hurry."""
    caplog.set_level(logging.INFO, "agent")

    def answer(_number: int, head: int, rest: bytes) -> bytes | None:
        return HANG_UP if head >> 4 == PUBLISH else accommodating(version, head, rest)

    with ScriptedBroker(answer) as broker:
        sink, backoff, _ = subscribing(broker.port, protocol=version)
        sink.send(transcript(1))
        assert eventually(lambda: len(backoff.waits_s) >= 9)
        assert sink.conditions == ("mqtt_unfit",)
        assert sink.stats.outbox_n == 1
        assert min(backoff.waits_s[4:9]) >= 60.0
        lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "retained messages at QoS 1" in lines[1]


def test_one_refusal_of_mqtt_5_does_not_last(subscribing: Subscribing) -> None:
    """After CONNACK 0x84 comes 3.1.1 at once, and MQTT 5 again when that connection has ended."""

    def answer(number: int, head: int, rest: bytes) -> bytes | None:
        if head >> 4 == CONNECT and number == 1:
            return b"\x20\x03\x00\x84\x00"
        if head >> 4 == PUBLISH and number == 2:
            return HANG_UP
        return accommodating("3.1.1" if number == 2 else "5", head, rest)

    with ScriptedBroker(answer) as broker:
        sink, _, _ = subscribing(broker.port)
        sink.send(transcript(1))
        assert eventually(lambda: sink.stats.outbox_n == 0)
        assert [rest[6] for _, _, rest in broker.of(CONNECT)] == [5, 4, 5]


def oversized(version: str, *, retained: bool, size_bytes: int = 200_000_000) -> bytes:
    """The beginning of a PUBLISH packet at QoS 1 that announces so many bytes."""
    lengths = bytes(size_bytes >> shift & 0x7F | (0x80 if shift < 21 else 0) for shift in (0, 7, 14, 21))
    head = 0x33 if retained else 0x32
    topic = len(MUTE).to_bytes(2, "big") + MUTE
    return bytes([head]) + lengths + topic + b"\x00\x07" + (b"\x00" if version == "5" else b"") + b"x" * 1_000


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_message_that_is_too_large_ends_the_connection_before_it_is_read(
    subscribing: Subscribing, caplog: pytest.LogCaptureFixture, version: str
) -> None:
    """A broker that minds no Maximum Packet Size: the next session is clean, and a command is received."""

    def answer(number: int, head: int, rest: bytes) -> bytes | None:
        sent = accommodating(version, head, rest)
        if head >> 4 != SUBSCRIBE or sent is None:
            return sent
        if number == 1:
            return sent + oversized(version, retained=False)
        topic = len(MUTE).to_bytes(2, "big") + MUTE + (b"\x00" if version == "5" else b"")
        return sent + b"\x30" + bytes([len(topic) + 2]) + topic + b"ON"

    with ScriptedBroker(answer) as broker:
        sink, _, received = subscribing(broker.port, protocol=version)
        assert eventually(lambda: bool(received))
        assert [message.payload for message in received] == [b"ON"]
        assert eventually(lambda: sink.conditions == ("mqtt_message_too_large",))
        first, second = [rest for _, _, rest in broker.of(CONNECT)]
        assert bool(flags(first) & CLEAN) is (version != "5")
        assert flags(second) & CLEAN
        limit = b"\x27" + COMMAND_LIMIT_BYTES.to_bytes(4, "big")
        assert (limit in first) is (version == "5")
        (line,) = warnings(caplog)
    assert MUTE.decode() in line
    assert "200000000" in line


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_retained_message_that_is_too_large_costs_one_connection(subscribing: Subscribing, version: str) -> None:
    """It comes with every subscription, so there is none of that topic, and transcripts go on."""

    def answer(_number: int, head: int, rest: bytes) -> bytes | None:
        sent = accommodating(version, head, rest)
        return sent + oversized(version, retained=True) if head >> 4 == SUBSCRIBE and sent else sent

    with ScriptedBroker(answer) as broker:
        sink, backoff, _ = subscribing(broker.port, protocol=version)
        assert eventually(lambda: len(broker.of(CONNECT)) == 2)
        sink.send(transcript(1))
        assert eventually(lambda: sink.connected and sink.stats.outbox_n == 0)
        assert len(broker.of(SUBSCRIBE)) == 1
        assert len(backoff.waits_s) == 1
        assert sink.conditions == ("mqtt_message_too_large",)


@pytest.mark.mosquitto
def test_a_message_that_is_too_large_is_not_read_through_tls_either(
    start_mosquitto: StartMosquitto, subscribing: Subscribing, tmp_path: Path
) -> None:
    """A retained message of 5 MB by a real mosquitto: the filter is left out, and transcripts go on."""
    authority = Authority(tmp_path)
    cert_file, key_file = authority.issue("broker")
    broker = start_mosquitto(f"certfile {cert_file}", f"keyfile {key_file}", "allow_anonymous true")
    tls = {"enabled": True, "ca_file": authority.cert_file}
    publisher = Client(CallbackAPIVersion.VERSION2)
    publisher.tls_set_context(authority.context())
    publisher.connect("localhost", broker.port)
    publisher.loop_start()
    publisher.publish(MUTE.decode(), bytes(5 << 20), 1, retain=True).wait_for_publish(LIMIT_S)
    publisher.disconnect()
    publisher.loop_stop()
    sink, backoff, received = subscribing(broker.port, host="localhost", protocol="3.1.1", tls=tls)
    assert eventually(lambda: bool(backoff.waits_s))
    sink.send(transcript(1))
    assert eventually(lambda: sink.connected and sink.stats.outbox_n == 0)
    assert sink.conditions == ("mqtt_message_too_large",)
    assert received == []
    assert len(backoff.waits_s) == 1


def test_a_message_at_qos_2_is_not_kept_for_a_broker_that_never_releases_it(
    subscribing: Subscribing, caplog: pytest.LogCaptureFixture
) -> None:
    """The sink never asks for QoS 2: the connection ends, in place of memory for 65,535 messages."""

    def answer(number: int, head: int, rest: bytes) -> bytes | None:
        sent = accommodating("5", head, rest)
        return sent + b"\x34\x08\x00\x01t\x00\x01\x00on" if head >> 4 == SUBSCRIBE and sent and number == 1 else sent

    with ScriptedBroker(answer) as broker:
        sink, _, received = subscribing(broker.port)
        sink.send(transcript(1))
        assert eventually(lambda: len(broker.of(CONNECT)) == 2 and sink.stats.outbox_n == 0)
    assert received == []
    assert "QoS 2" in warnings(caplog)[0]


def test_what_waits_is_being_delivered_as_long_as_the_broker_takes_some_of_it(
    subscribing: Subscribing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that acknowledges no transcript ends the patience of a recording's end, connected or not."""
    monkeypatch.setattr("agent.mqtt.client.PROGRESS_S", 1.0)

    def answer(_number: int, head: int, rest: bytes) -> bytes | None:
        return None if b"/transcript" in rest else accommodating("5", head, rest)

    with ScriptedBroker(answer) as broker:
        sink, _, _ = subscribing(broker.port)
        assert not sink.delivering
        assert eventually(lambda: sink.connected)
        sink.send(transcript(1))
        assert eventually(lambda: not sink.delivering)
        sink.send(info())
        assert eventually(lambda: sink.delivering)
        assert eventually(lambda: not sink.delivering)
        assert (sink.connected, sink.stats.outbox_n) == (True, 1)
