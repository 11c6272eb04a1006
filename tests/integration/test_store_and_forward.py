"""The MQTT sink with the outbox on disk, against a real mosquitto: through outages, restarts and a reboot."""

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.config import MqttSettings, OutboxSettings
from agent.outbox.clock import Stamp
from agent.outbox.sqlite import SqliteOutbox
from agent.sinks.mqtt import MqttSink
from agent.sinks.reconnect import Backoff
from agent.worker import Worker
from tests.integration.conftest import StartMosquitto
from tests.integration.gate import Gate
from tests.integration.receiver import Receiver, eventually
from tests.messages import transcript

pytestmark = pytest.mark.mosquitto

Boot = Callable[..., tuple[MqttSink, SqliteOutbox]]
"""Starts an agent in a boot of the machine, with a broker's port."""


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[Boot]:
    """One device's sink and outbox; stopped at the end. Their threads must not have failed."""
    sinks: list[MqttSink] = []
    failures: list[Worker] = []

    def start(boot_id: str, port: int, mode: str = "balanced") -> tuple[MqttSink, SqliteOutbox]:
        def clock() -> Stamp:
            return Stamp(boot_id, time.monotonic(), time.time(), synced=True)

        outbox = SqliteOutbox(
            OutboxSettings.model_validate({"mode": mode, "max_free_pct": 50}),
            tmp_path / "state",
            failures.append,
            memory_folder=tmp_path,
            clock=clock,
            chance=random.Random(7_040),  # noqa: S311 - the first delay of this one is short
        )
        backoff = Backoff(random.Random(1), ceiling_s=0.3)  # noqa: S311 - jitter, not a secret
        sink = MqttSink(MqttSettings(port=port), "pi-1", outbox, failures.append, backoff=backoff)
        sinks.append(sink)
        return sink, outbox

    yield start
    for sink in sinks:
        sink.close(1.0)
    assert [worker.failure for worker in failures] == []


def say(sink: MqttSink, outbox: SqliteOutbox, count: int) -> list[int]:
    """Send transcripts; return their numbers."""
    seqs = [outbox.next_seq() for _ in range(count)]
    for seq in seqs:
        sink.send(transcript(seq))
    return seqs


def numbers(receiver: Receiver, kind: str) -> list[int]:
    """The numbers of what arrived on a topic, each once, in order of their first arrival."""
    return list(dict.fromkeys(json.loads(payload)["seq"] for payload in receiver.payloads(kind)))


@pytest.mark.parametrize("mode", ["balanced", "strict"])
def test_what_was_said_before_a_restart_is_delivered_after_it(
    start_mosquitto: StartMosquitto, start_agent: Boot, mode: str
) -> None:
    """A stop without a broker loses nothing and says so; the words are still live when the agent is back in time."""
    broker = start_mosquitto(start=False)
    sink, outbox = start_agent("a", broker.port, mode)
    before = say(sink, outbox, 20)
    assert sink.close(0.5) == 0
    broker.start()
    with Receiver(broker.port) as receiver:
        sink, outbox = start_agent("a", broker.port, mode)
        after = say(sink, outbox, 5)
        assert eventually(lambda: outbox.pending == 0)
        # The broker acknowledges to the one before it has written to the other.
        assert eventually(lambda: len(numbers(receiver, "transcript")) == len(before + after))
        assert numbers(receiver, "transcript") == before + after == list(range(1, 26))
        assert numbers(receiver, "transcript/backlog") == []


def test_after_a_reboot_live_words_overtake_the_backlog(start_mosquitto: StartMosquitto, start_agent: Boot) -> None:
    """What is said after the reboot arrives at once; what was said before it comes marked, in order, slowly."""
    broker = start_mosquitto()
    gate = Gate(broker.port)
    sink, outbox = start_agent("a", gate.port)
    before = say(sink, outbox, 15)
    assert sink.close(0.5) == 0
    gate.open()
    with Receiver(broker.port) as receiver:
        sink, outbox = start_agent("b", gate.port)
        assert eventually(lambda: len(numbers(receiver, "transcript/backlog")) >= 3)
        after = say(sink, outbox, 3)
        assert eventually(lambda: outbox.pending == 0)
        assert eventually(lambda: numbers(receiver, "transcript") == after)
        assert eventually(lambda: numbers(receiver, "transcript/backlog") == before)
        order = [json.loads(message.payload)["seq"] for message in receiver.messages if "/transcript" in message.topic]
        assert order.index(after[-1]) < order.index(before[-1])
        late = receiver.of("transcript/backlog")[0]
        assert json.loads(late.payload)["replayed"] is True
        assert 86_400 < late.properties["MessageExpiryInterval"] <= 7 * 86_400
        sink.close(2.0)
    gate.shut()
