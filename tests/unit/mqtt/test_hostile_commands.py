"""Hostile commands from the door to the reply, with everything real but microphone, engine and broker."""

import json
import logging
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import psutil
import pytest
from hypothesis import HealthCheck, given, settings

from agent.channel import Channel
from agent.config.commanded import Applied
from agent.config.settings import COMMANDS, Settings
from agent.errors import EngineError
from agent.messages import REPLIES, Message, Reply
from agent.mqtt.command_dispatcher import CommandDispatcher
from agent.mqtt.commands import CommandValidator
from agent.mqtt.connection import publish_bytes, publish_properties
from agent.mqtt.delivery import Incoming, Outgoing
from agent.mqtt.publisher import Publisher
from agent.telemetry.counters import Counters
from tests.support.controlled import controlled
from tests.support.hostile import DEVICE, GROUP, OWN, HostileCommand, commands, drawn

FEW: Final = settings(
    max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
DRAWN_A_ROUND: Final = 100
VARIANTS: Final = 5
ROUNDS: Final = 200
WARM_UP_ROUNDS: Final = 10
OWN_REPLY: Final = f"edgescribe/v1/{DEVICE}/reply"


class BusyTranscriber:
    """Takes any engine, and has no time to transcribe."""

    def exchange(self, engine: object, timeout_s: float) -> None:
        """Nothing: there is no engine."""

    def forget(self) -> int:
        """No utterance waits."""
        return 0

    def probe(self, utterance: object, timeout_s: float) -> object:
        """Fail as an engine may."""
        raise EngineError(f"no time for {utterance!r:.9} within {timeout_s:.0f} s")


class Serialising:
    """A sink to which every message can be sent."""

    def send(self, message: Message) -> None:
        """Serialise it."""
        message.payload()

    def close(self, timeout_s: float) -> int:
        """Nothing waits."""
        return int(timeout_s * 0)


class Device:
    """Answers commands at once, in the thread of the test."""

    def __init__(self, folder: Path) -> None:
        self.posted: list[Outgoing] = []
        applied = Applied(folder)
        publisher = Publisher(Counters(), "boot-1")
        publisher.open([Serialising()])
        device = controlled(applied.overlay(Settings()), applied, transcriber=BusyTranscriber(), publisher=publisher)
        validator = CommandValidator(DEVICE, COMMANDS, (GROUP,))
        self._dispatcher = CommandDispatcher(
            DEVICE, validator, device.execute, self.posted.append, lambda worker: pytest.fail(worker.name)
        )

    def replies_to(self, *incoming: Incoming) -> Sequence[Outgoing]:
        """Let messages come in and be handled."""
        self.posted.clear()
        channel: Channel[Incoming] = Channel(len(incoming))
        for each in incoming:
            channel.put(each)
        channel.close()
        self._dispatcher._serve(channel)  # without its threads, so that hypothesis sees one example after the other
        self._dispatcher.join(60.0)  # but for a calibration
        return tuple(self.posted)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """One of them."""
    return Device(tmp_path)


def check_reply(outgoing: Outgoing) -> None:
    """Fail unless a broker takes it, its reader understands it, and it does no harm where it goes."""
    reply = Reply.model_validate_json(outgoing.payload)
    assert reply.code != "internal_error", reply
    assert "\n" not in reply.msg
    assert len(outgoing.payload) < 16_384
    topic = outgoing.topic
    assert (
        topic == OWN_REPLY or topic.startswith(f"{REPLIES}/") or not topic.startswith(("edgescribe/", "homeassistant"))
    )
    assert topic.isprintable()
    assert not set("+#") & set(topic)
    assert publish_bytes(outgoing, publish_properties(outgoing, outgoing.expiry_s)) > len(outgoing.payload)


def incoming_of(command: HostileCommand) -> Incoming:
    """The same as the sink hands it on."""
    return Incoming(command.topic, command.payload, command.retained, command.response_topic, command.correlation)


def check_answers(device: Device, incoming: Incoming) -> None:
    """Fail unless `incoming` has at most one reply, one if it must, and the next command is obeyed."""
    replies = device.replies_to(incoming)
    for reply in replies:
        check_reply(reply)
    ours = incoming.topic.startswith((OWN, f"edgescribe/v1/_group/{GROUP}/cmd/")) and not incoming.retained
    assert len(replies) <= ours
    assert replies or not ours or b'"id"' in incoming.payload  # which may be a repetition
    (reply,) = device.replies_to(Incoming(OWN + "identify", b"", retained=False))
    assert json.loads(reply.payload)["code"] == "ok"


def test_no_command_goes_unanswered_or_ends_the_thread(device: Device, caplog: pytest.LogCaptureFixture) -> None:
    """Each has one reply that can be sent, and the next command is obeyed. The log stays readable."""
    caplog.set_level(logging.INFO)

    @FEW
    @given(commands().map(incoming_of))
    def check(incoming: Incoming) -> None:
        caplog.clear()
        check_answers(device, incoming)
        assert all(record.getMessage().isprintable() for record in caplog.records)

    check()


def variants(incoming: Incoming, chance: random.Random) -> Iterator[Incoming]:
    """The message itself, and some with bytes changed, doubled or cut out."""
    yield incoming
    for _ in range(VARIANTS - 1):
        payload = bytearray(incoming.payload or b"{}")
        for _ in range(chance.randint(1, 4)):
            at, length = chance.randrange(len(payload) + 1), chance.randint(0, 8)
            payload[at : at + length] = chance.choice(
                [
                    b"",
                    chance.randbytes(length),
                    bytes(payload[at : at + length]) * 2,
                    b'"',
                    b"\\ud800",
                    b"{",
                    b"9" * length,
                ]
            )
        yield Incoming(incoming.topic, bytes(payload), incoming.retained, incoming.response_topic, incoming.correlation)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_a_hundred_thousand_hostile_commands_take_no_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """All are answered or ignored; after a warm-up the process does not grow by a tenth."""
    caplog.set_level(logging.CRITICAL)  # pytest keeps every line
    device, chance, sent, sizes_kb = Device(tmp_path), random.Random(0), 0, list[int]()  # noqa: S311 - no secret
    # In a process of its own, as hypothesis remembers what it has drawn.
    with ProcessPoolExecutor(1, get_context("spawn")) as drawing:
        for number in range(ROUNDS):
            for incoming in map(incoming_of, drawing.submit(drawn, DRAWN_A_ROUND, number).result()):
                for each in variants(incoming, chance):
                    check_answers(device, each)
                    sent += 1
            sizes_kb.append(psutil.Process().memory_info().rss >> 10)
    before_kb, after_kb = sizes_kb[WARM_UP_ROUNDS - 1], sizes_kb[-1]
    warm_up = WARM_UP_ROUNDS * DRAWN_A_ROUND * VARIANTS
    print(f"{sent} payloads; RSS {before_kb} kB after {warm_up}, {after_kb} kB after all")  # noqa: T201
    assert sent >= 100_000
    assert after_kb < 1.1 * before_kb
