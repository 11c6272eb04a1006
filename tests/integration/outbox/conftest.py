import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.config.settings import OutboxSettings
from agent.mqtt.delivery import Outgoing, PublishResult
from agent.mqtt.outbox import StoredOutbox
from agent.worker import Worker
from tests.clock import FakeClock
from tests.messages import transcript

Open = Callable[..., StoredOutbox]
"""Opens an outbox in a folder, with the settings that are given."""


@pytest.fixture
def clock() -> FakeClock:
    """Moved by the test."""
    return FakeClock()


@pytest.fixture
def open_outbox(clock: FakeClock) -> Iterator[Open]:
    """Opens outboxes, and closes them in the end. No thread of theirs may have failed."""
    opened: list[StoredOutbox] = []
    failures: list[Worker] = []

    def open_one(folder: Path, **settings: object) -> StoredOutbox:
        outbox = StoredOutbox(
            OutboxSettings.model_validate(settings), folder, failures.append, memory_folder=folder, clock=clock
        )
        opened.append(outbox)
        return outbox

    yield open_one
    for outbox in opened:
        outbox.close()
    assert [worker.failure for worker in failures] == []


def say(outbox: StoredOutbox, clock: FakeClock, count: int, text: str = "turn on the light") -> list[int]:
    """Put transcripts; return their numbers."""
    seqs = [outbox.next_seq() for _ in range(count)]
    for seq in seqs:
        outbox.put(Outgoing.of("pi-1", transcript(seq, text), clock.now.monotonic_s))
    return seqs


def deliveries(outbox: StoredOutbox, clock: FakeClock) -> list[dict[str, Any]]:
    """Take and settle until nothing is left, time passing as the outbox asks for; return the payloads."""
    payloads: list[dict[str, Any]] = []
    while (due_in_s := outbox.due_in_s()) != float("inf"):
        clock.advance(due_in_s)
        while entry := outbox.take():
            payloads.append(json.loads(entry.payload))
            outbox.acknowledge(entry, PublishResult.DELIVERED)
    return payloads


def deliver_all(outbox: StoredOutbox, clock: FakeClock) -> list[int]:
    """As `deliveries`; return the numbers."""
    return [payload["seq"] for payload in deliveries(outbox, clock)]
