import random
from collections import Counter
from dataclasses import replace

import pytest

from agent.config.settings import OutboxSettings
from agent.mqtt.delivery import Outgoing, PublishResult
from agent.mqtt.outbox_queue import Outbox, QueueEntry, entry_of
from tests.clock import FakeClock

RESULTS = tuple(PublishResult)
DAY_S = 86_400


class Rig(Outbox):
    """An empty queue without a disk; the test moves its clock."""

    def __init__(self, mode: str = "balanced", seed: int = 1, **further: object) -> None:
        self.clock = FakeClock(monotonic_s=0.0)
        settings = OutboxSettings.model_validate({"mode": mode, **further})
        super().__init__(settings, clock=self.clock, chance=random.Random(seed))  # noqa: S311 - jitter, not a secret

    @property
    def now_s(self) -> float:
        """The time."""
        return self.clock.now.monotonic_s

    def say(self, count: int = 1, *, late: str | None = "backlog", expiry_s: int | None = None) -> None:
        """Put messages of 100 bytes."""
        payload = b"{}".ljust(100)
        for _ in range(count):
            self.put(Outgoing("topic", payload, 1, False, "text/plain", "x/1", expiry_s, self.now_s, late, 1))

    def keys(self, count: int) -> list[int]:
        """Take messages; return their keys."""
        messages = [self.take() for _ in range(count)]
        return [message.key for message in messages if message and message.key is not None]

    def write(self) -> None:
        """Write everything to the disk."""
        while any(batch := self.batch()):
            self.written(*batch)

    def _load(self, entry: QueueEntry) -> Outgoing | None:
        entry.message = Outgoing("topic", b"{}".ljust(100), 1, False, "text/plain", "x/1", None, 0.0, "backlog", 1)
        entry.message = replace(entry.message, key=entry.key)
        return entry.message


def test_whatever_happens_every_message_is_accounted_for() -> None:
    """Ten thousand random steps: none is handed out twice at once, none vanishes, the counts and limits hold."""
    chance = random.Random(3)  # noqa: S311 - repeatable
    queue = Rig(max_messages=50)
    said, delivered, condemned = 0, 0, 0
    away: dict[int | None, Outgoing] = {}
    happened: Counter[str] = Counter()
    for _ in range(10_000):
        queue.clock.advance(chance.choice([0.0, 0.1, 1.0, 30.0]))
        match chance.randrange(12):
            case 0 | 1 | 2 | 3:
                queue.say(late=chance.choice(["backlog", "backlog", None]), expiry_s=chance.choice([60, None]))
                said += 1
            case 4 | 5 | 6:
                if message := queue.take():
                    assert message.key not in away
                    away[message.key] = message
            case 7 | 8 if away:
                message, result = away.popitem()[1], chance.choice(RESULTS)
                queue.acknowledge(message, result)
                delivered += result is PublishResult.DELIVERED
                happened[result.name] += 1
            case 9:
                queue.requeue()
                away.clear()
            case 10 if not condemned:
                queue.condemn(2)
                condemned = min(2, queue.pending - len(away))
            case 11:
                queue.end_condemned(deleted=chance.random() < 0.5)
                happened["condemned"] += condemned
                condemned = 0
            case _:
                queue.write()
        queue.make_room()
        assert queue.pending + queue.dropped + delivered == said
        waiting = queue.pending - len(away) - condemned
        assert waiting <= 50
        assert queue.size_bytes == 356 * waiting
    assert min(happened.values()) > 100


def test_a_message_of_an_earlier_boot_is_late_however_young_it_seems() -> None:
    """It is unknown how long the machine was off: "heater on" from before a power cut turns nothing on."""
    queue = Rig()
    queue.clock.advance(10.0)
    entry = entry_of(1, 100, -5.0, "backlog", None, DAY_S, this_boot=False)
    entry.stored = True
    queue.take_stock([entry])
    assert queue.take() is None
    queue.clock.advance(queue.due_in_s())
    sent = queue.take()
    assert sent
    assert sent.topic == "backlog"


def test_what_was_condemned_in_vain_lines_up_again() -> None:
    """Room that could not be made costs nothing, and what may be deleted is not handed out meanwhile."""
    queue = Rig()
    queue.say(4)
    queue.write()
    assert queue.condemn(2) == [1, 2]
    assert queue.keys(1) == [3]
    queue.end_condemned(deleted=False)
    assert queue.keys(3) == [1, 2, 4]
    assert queue.dropped == 0


def test_what_is_about_to_go_is_not_handed_out_by_a_new_connection() -> None:
    """While the disk still deletes it the link may break and come back."""
    queue = Rig()
    queue.say(2)
    queue.condemn(1)
    queue.requeue()
    assert queue.keys(2) == [2]
    queue.end_condemned(deleted=True)
    assert (queue.pending, queue.dropped) == (1, 1)


@pytest.mark.parametrize("deleted", [False, True])
def test_what_was_purged_while_it_was_about_to_go_neither_comes_back_nor_counts(*, deleted: bool) -> None:
    """A purge forgets without trace, whichever way the deletion ends."""
    queue = Rig()
    queue.say()
    queue.condemn(1)
    assert queue.purge() == 1
    queue.end_condemned(deleted=deleted)
    assert (queue.pending, queue.dropped, queue.size_bytes, queue.take()) == (0, 0, 0, None)


def test_strict_holds_a_message_until_it_is_written() -> None:
    """Nothing leaves before it is on the medium."""
    queue = Rig("strict")
    queue.say(2)
    assert (queue.take(), queue.write_in_s(), queue.pending) == (None, 0.0, 2)
    queue.write()
    assert queue.keys(2) == [1, 2]


def test_a_message_that_was_acknowledged_while_it_was_written_is_deleted() -> None:
    """Else it would come again after a restart."""
    queue = Rig()
    queue.say()
    batch = queue.batch()
    message = queue.take()
    assert message
    queue.acknowledge(message, PublishResult.DELIVERED)
    queue.written(*batch)
    assert queue.batch() == ({}, (1,), {})


def test_payloads_of_stored_messages_are_in_memory_only_in_flight() -> None:
    """50,000 messages wait in a few megabytes."""
    queue = Rig()
    queue.say()
    (entry,) = queue._entries.values()
    queue.write()
    stored = entry.message
    queue.take()
    in_flight = entry.message
    queue.requeue()
    assert (stored, in_flight is not None, entry.message) == (None, True, None)


def test_the_backlog_leaves_at_five_messages_a_second() -> None:
    """Ten thousand devices that come back must not drown their broker."""
    queue = Rig()
    queue.say(51)
    queue.clock.advance(100.0)
    queue.clock.advance(queue.due_in_s())
    began_s = queue.now_s
    for _ in range(51):
        queue.clock.advance(queue.due_in_s())
        assert queue.take()
    assert queue.now_s - began_s == pytest.approx(10.0)


def test_the_delay_runs_from_the_first_question_and_is_spread_over_30_s() -> None:
    """It is drawn once for each connection, whoever asks how often."""
    delays_s = []
    for seed in range(200):
        queue = Rig(seed=seed)
        queue.say()
        queue.clock.advance(100.0)
        delay_s = queue.due_in_s()
        queue.clock.advance(delay_s / 2)
        assert queue.due_in_s() == pytest.approx(delay_s / 2)
        delays_s.append(delay_s)
    assert 0 <= min(delays_s) < 1
    assert 29 < max(delays_s) <= 30


def answer(queue: Rig, result: PublishResult) -> None:
    """A message is said, sent and answered."""
    queue.say()
    message = queue.take()
    assert message
    queue.acknowledge(message, result)


def test_a_pause_doubles_up_to_a_minute_and_is_forgotten_with_the_first_success() -> None:
    """A broker over its quota is asked less and less often."""
    queue = Rig()
    waits_s = []
    for _ in range(9):
        answer(queue, PublishResult.BUSY)
        queue.say()
        waits_s.append(queue.due_in_s())
        queue.clock.advance(waits_s[-1])
    assert waits_s == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    answer(queue, PublishResult.DELIVERED)
    answer(queue, PublishResult.BUSY)
    assert queue.due_in_s() == 1


def test_a_window_full_of_refusals_is_one_refusal() -> None:
    """Eight messages were in flight when the broker had enough: that is no reason to wait eight times as long."""
    queue = Rig()
    queue.say(8)
    for message in [queue.take() for _ in range(8)]:
        assert message
        queue.acknowledge(message, PublishResult.BUSY)
    assert queue.due_in_s() == 1
