import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from agent.config.settings import OutboxSettings
from agent.mqtt.delivery import Outgoing
from agent.mqtt.outbox import StoredOutbox
from agent.mqtt.outbox_queue import Outbox
from agent.worker import Worker
from tests.clock import FakeClock
from tests.messages import transcript

MAX_AGE_S = 7 * 86_400


class Open(Protocol):
    """Opens an outbox."""

    def __call__(self, max_messages: int, *, replayable: bool = True) -> Outbox:
        """Return it, with room for so many messages."""


@pytest.fixture
def clock() -> FakeClock:
    """Moved by the test."""
    return FakeClock()


@pytest.fixture(params=["memory", "balanced", "strict"])
def open_outbox(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Iterator[Open]:
    """Opens an outbox of each kind."""
    opened: list[Outbox] = []
    failures: list[Worker] = []

    def open_one(max_messages: int, *, replayable: bool = True) -> Outbox:
        chance = random.Random(1)  # noqa: S311 - jitter, not a secret
        settings = OutboxSettings(mode=request.param, max_messages=max_messages)
        outbox: Outbox
        if request.param == "memory":
            outbox = Outbox(settings, clock=clock, chance=chance, replayable=replayable)
        else:
            outbox = StoredOutbox(
                settings, tmp_path, failures.append, clock=clock, chance=chance, replayable=replayable
            )
        opened.append(outbox)
        return outbox

    yield open_one
    for outbox in opened:
        outbox.close()
    assert [worker.failure for worker in failures] == []


def outgoing(clock: FakeClock, seq: int) -> Outgoing:
    """A transcript, accepted now."""
    return Outgoing.of("pi-1", transcript(seq), clock.now.monotonic_s)


def fill(outbox: Outbox, clock: FakeClock, seqs: range) -> None:
    """Put transcripts with these numbers."""
    for seq in seqs:
        assert outbox.put(outgoing(clock, seq))


def take(outbox: Outbox) -> Outgoing:
    """Take a message that must be there."""
    entry = outbox.take()
    assert entry is not None
    return entry


def take_all(outbox: Outbox, clock: FakeClock) -> list[Outgoing]:
    """Take whatever comes within the next minutes, and settle nothing."""
    entries: list[Outgoing] = []
    for _ in range(1_000):
        while entry := outbox.take():
            entries.append(entry)
        if (due_in_s := outbox.due_in_s()) == float("inf"):
            break
        clock.advance(due_in_s)
    return entries


def seqs_of(entries: list[Outgoing]) -> list[int]:
    """The numbers in the payloads."""
    return [json.loads(entry.payload)["seq"] for entry in entries]
