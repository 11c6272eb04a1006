import random
from collections import Counter

import pytest

from agent.config.settings import OutboxSettings
from agent.mqtt.delivery import Outgoing, PublishResult
from agent.mqtt.outbox_queue import Batch, OutboxQueue, QueueEntry, entry_of
from tests.messages import transcript

RESULTS = tuple(PublishResult)
DAY_S = 86_400


def new_queue(mode: str = "balanced", seed: int = 1, **further: object) -> OutboxQueue:
    """An empty queue."""
    settings = OutboxSettings.model_validate({"mode": mode, **further})
    return OutboxQueue(settings, random.Random(seed))  # noqa: S311 - jitter, not a secret


def words(now_s: float, *, late: str | None = "backlog", expiry_s: int | None = None) -> Outgoing:
    """A message of 100 bytes."""
    return Outgoing("topic", b"{}".ljust(100), 1, False, "text/plain", "x/1", expiry_s, now_s, late, 1)


def put(queue: OutboxQueue, now_s: float, count: int = 1) -> list[QueueEntry]:
    """Add transcripts."""
    return [queue.put(words(now_s), now_s) for _ in range(count)]


def take(queue: OutboxQueue, now_s: float, count: int) -> list[int]:
    """Keys of the next messages."""
    entries = [queue.take(now_s) for _ in range(count)]
    return [entry.key for entry in entries if entry]


def write(queue: OutboxQueue, now_s: float) -> None:
    """Everything goes to the disk."""
    while any(batch := queue.batch()):
        queue.written(batch, now_s)


def test_whatever_happens_every_message_is_accounted_for() -> None:
    """Ten thousand random steps: none is handed out twice at once, none vanishes, the counts and limits hold."""
    chance = random.Random(3)  # noqa: S311 - repeatable
    queue = new_queue(max_messages=50)
    now_s, delivered, condemned = 0.0, 0, 0
    away: dict[int, QueueEntry] = {}
    happened: Counter[str] = Counter()
    for _ in range(10_000):
        now_s += chance.choice([0.0, 0.1, 1.0, 30.0])
        match chance.randrange(12):
            case 0 | 1 | 2 | 3:
                late, expiry_s = chance.choice(["backlog", "backlog", None]), chance.choice([60, None])
                queue.put(words(now_s, late=late, expiry_s=expiry_s), now_s)
            case 4 | 5 | 6:
                if entry := queue.take(now_s):
                    assert entry.key not in away
                    away[entry.key] = entry
                    queue.hand_out(entry, words(now_s))
            case 7 | 8 if away:
                key, result = away.popitem()[0], chance.choice(RESULTS)
                queue.acknowledge(key, result, now_s)
                delivered += result is PublishResult.DELIVERED
                happened[result.name] += 1
            case 9:
                queue.requeue()
                away.clear()
            case 10 if not condemned:
                queue.condemn(2)
                condemned = min(2, queue.pending - len(away))
            case 11:
                deleted = chance.random() < 0.5
                queue.end_condemned(now_s, deleted=deleted)
                happened["condemned"] += condemned
                condemned = 0
            case _:
                write(queue, now_s)
        queue.make_room(now_s)
        assert queue.pending + queue.dropped + delivered == queue.last_key
        waiting = queue.pending - len(away) - condemned
        assert waiting <= 50
        assert queue.waiting_bytes == 356 * waiting
    assert min(happened.values()) > 100


def test_a_message_of_an_earlier_boot_is_late_however_young_it_seems() -> None:
    """It is unknown how long the machine was off: "heater on" from before a power cut turns nothing on."""
    queue = new_queue()
    queue.take_stock([entry_of(1, 100, -5.0, "backlog", None, DAY_S, this_boot=False)], 10.0)
    assert queue.take(10.0) is None
    later_s = 10.0 + queue.due_in_s(10.0)
    entry = queue.take(later_s)
    assert entry
    sent = queue.hand_out(entry, Outgoing.of("pi-1", transcript(1), later_s))
    assert sent.topic.endswith("/transcript/backlog")


def test_what_was_condemned_in_vain_lines_up_again() -> None:
    """Room that could not be made costs nothing, and what may be deleted is not handed out meanwhile."""
    queue = new_queue()
    put(queue, 0.0, 4)
    write(queue, 0.0)
    assert queue.condemn(2) == [1, 2]
    assert take(queue, 0.0, 1) == [3]
    queue.end_condemned(0.0, deleted=False)
    assert take(queue, 0.0, 3) == [1, 2, 4]
    assert queue.dropped == 0


def test_what_is_about_to_go_is_not_handed_out_by_a_new_connection() -> None:
    """While the disk still deletes it the link may break and come back."""
    queue = new_queue()
    put(queue, 0.0, 2)
    queue.condemn(1)
    queue.requeue()
    assert take(queue, 0.0, 2) == [2]
    queue.end_condemned(0.0, deleted=True)
    assert (queue.pending, queue.dropped) == (1, 1)


@pytest.mark.parametrize("deleted", [False, True])
def test_what_was_purged_while_it_was_about_to_go_neither_comes_back_nor_counts(*, deleted: bool) -> None:
    """A purge forgets without trace, whichever way the deletion ends."""
    queue = new_queue()
    put(queue, 0.0)
    queue.condemn(1)
    assert queue.purge(0.0) == 1
    queue.end_condemned(0.0, deleted=deleted)
    assert (queue.pending, queue.dropped, queue.waiting_bytes, queue.take(0.0)) == (0, 0, 0, None)


def test_strict_holds_a_message_until_it_is_written_or_released() -> None:
    """Nothing leaves before it is on the medium, unless the medium does not work."""
    queue = new_queue("strict")
    put(queue, 0.0, 2)
    assert (queue.take(0.0), queue.write_in_s(0.0), queue.pending) == (None, 0.0, 2)
    write(queue, 0.0)
    assert take(queue, 0.0, 2) == [1, 2]
    put(queue, 0.0)
    queue.release(0.0)
    assert take(queue, 0.0, 1) == [3]


def test_a_message_that_was_acknowledged_while_it_was_written_is_deleted() -> None:
    """Else it would come again after a restart."""
    queue = new_queue()
    put(queue, 0.0)
    batch = queue.batch()
    assert take(queue, 0.0, 1) == [1]
    queue.acknowledge(1, PublishResult.DELIVERED, 0.0)
    queue.written(batch, 0.0)
    assert queue.batch() == Batch({}, (1,), {})


def test_payloads_of_stored_messages_are_in_memory_only_in_flight() -> None:
    """50,000 messages wait in a few megabytes."""
    queue = new_queue()
    (entry,) = put(queue, 0.0)
    write(queue, 0.0)
    stored = entry.message
    queue.take(0.0)
    queue.hand_out(entry, words(0.0))
    in_flight = entry.message
    queue.requeue()
    assert (stored, in_flight, entry.message) == (None, words(0.0), None)


def test_the_backlog_leaves_at_five_messages_a_second() -> None:
    """Ten thousand devices that come back must not drown their broker."""
    queue = new_queue()
    put(queue, 0.0, 51)
    now_s = began_s = 100.0 + queue.due_in_s(100.0)
    for _ in range(51):
        now_s += queue.due_in_s(now_s)
        assert queue.take(now_s)
    assert now_s - began_s == pytest.approx(10.0)


def test_the_delay_runs_from_the_first_question_and_is_spread_over_30_s() -> None:
    """It is drawn once for each connection, whoever asks how often."""
    delays_s = []
    for seed in range(200):
        queue = new_queue(seed=seed)
        put(queue, 0.0)
        delay_s = queue.due_in_s(100.0)
        assert queue.due_in_s(100.0 + delay_s / 2) == pytest.approx(delay_s / 2)
        delays_s.append(delay_s)
    assert 0 <= min(delays_s) < 1
    assert 29 < max(delays_s) <= 30


def test_a_pause_doubles_up_to_a_minute_and_is_forgotten_with_the_first_success() -> None:
    """A broker over its quota is asked less and less often."""
    queue = new_queue()
    now_s, waits_s = 0.0, []
    for _ in range(9):
        put(queue, now_s)
        (key,) = take(queue, now_s, 1)
        queue.acknowledge(key, PublishResult.BUSY, now_s)
        put(queue, now_s)
        waits_s.append(queue.due_in_s(now_s))
        now_s += waits_s[-1]
    assert waits_s == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    queue.acknowledge(0, PublishResult.DELIVERED, now_s)
    queue.acknowledge(0, PublishResult.BUSY, now_s)
    assert queue.due_in_s(now_s) == 1


def test_a_window_full_of_refusals_is_one_refusal() -> None:
    """Eight messages were in flight when the broker had enough: that is no reason to wait eight times as long."""
    queue = new_queue()
    put(queue, 10.0, 8)
    for key in take(queue, 10.0, 8):
        queue.acknowledge(key, PublishResult.BUSY, 10.0)
    assert queue.due_in_s(10.0) == 1
