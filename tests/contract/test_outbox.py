"""What every outbox promises its sink, whatever it keeps messages in."""

import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from agent.config import OutboxSettings
from agent.delivery import Entry, Fate, Outbox, Outgoing, Replay, SeqRange
from agent.outbox.memory import MemoryOutbox
from agent.outbox.sqlite import SqliteOutbox
from agent.wire import Info
from agent.worker import Worker
from tests.clock import FakeClock
from tests.messages import failed, info, transcript

MAX_AGE_S = 7 * 86_400


class Open(Protocol):
    """Opens an outbox."""

    def __call__(self, max_messages: int, *, replayable: bool = True) -> Outbox:
        """Return it, with room for so many messages."""


class Reply(Info):
    """A message that is of no use later."""

    topic = "reply"
    retained = False
    expiry_s = 60


REPLY = Reply.model_validate(info().model_dump())


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
        outbox: Outbox
        if request.param == "memory":
            outbox = MemoryOutbox(max_messages, clock=clock, chance=chance, replayable=replayable)
        else:
            settings = OutboxSettings(mode=request.param, max_messages=max_messages)
            outbox = SqliteOutbox(
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


def take(outbox: Outbox) -> Entry:
    """Take a message that must be there."""
    entry = outbox.take()
    assert entry is not None
    return entry


def take_all(outbox: Outbox, clock: FakeClock) -> list[Entry]:
    """Take whatever comes within the next minutes, and settle nothing."""
    entries: list[Entry] = []
    for _ in range(1_000):
        while entry := outbox.take():
            entries.append(entry)
        if (due_in_s := outbox.due_in_s()) == float("inf"):
            break
        clock.advance(due_in_s)
    return entries


def seqs_of(entries: list[Entry]) -> list[int]:
    """The numbers in the payloads."""
    return [json.loads(entry.outgoing.payload)["seq"] for entry in entries]


def test_messages_come_out_in_the_order_they_went_in(open_outbox: Open, clock: FakeClock) -> None:
    """First in, first out, each once and byte for byte."""
    outbox = open_outbox(10)
    fill(outbox, clock, range(3))
    assert [take(outbox).outgoing for _ in range(3)] == [outgoing(clock, seq) for seq in range(3)]
    assert outbox.take() is None
    assert outbox.due_in_s() == float("inf")


def test_a_message_is_pending_until_it_is_settled(open_outbox: Open, clock: FakeClock) -> None:
    """Being on its way is not having arrived; to settle twice does no harm."""
    outbox = open_outbox(10)
    fill(outbox, clock, range(1))
    key = take(outbox).key
    assert outbox.pending == 1
    outbox.settle(key, Fate.DELIVERED)
    outbox.settle(key, Fate.DELIVERED)
    assert (outbox.pending, outbox.dropped) == (0, 0)


def test_a_lost_connection_puts_everything_back_in_order(open_outbox: Open, clock: FakeClock) -> None:
    """What was not settled comes again before what was never taken, oldest first, whatever was settled in between."""
    outbox = open_outbox(10)
    fill(outbox, clock, range(5))
    entries = [take(outbox) for _ in range(3)]
    outbox.settle(entries[1].key, Fate.DELIVERED)
    outbox.rewind()
    assert seqs_of([take(outbox) for _ in range(4)]) == [0, 2, 3, 4]


def test_a_full_outbox_drops_the_oldest_and_counts_it(open_outbox: Open, clock: FakeClock) -> None:
    """The newest words matter most; nothing vanishes uncounted."""
    outbox = open_outbox(2)
    assert [outbox.put(outgoing(clock, seq)) for seq in range(4)] == [True, True, False, False]
    assert outbox.dropped == 2
    assert seqs_of([take(outbox), take(outbox)]) == [2, 3]


def test_what_is_on_its_way_is_not_dropped_for_room(open_outbox: Open, clock: FakeClock) -> None:
    """A message that the broker may already have is not called dropped."""
    outbox = open_outbox(1)
    fill(outbox, clock, range(1))
    take(outbox)
    fill(outbox, clock, range(1, 2))
    assert (outbox.pending, outbox.dropped) == (2, 0)


def test_replies_go_before_transcripts_when_room_runs_out(open_outbox: Open, clock: FakeClock) -> None:
    """A transcript can still be read tomorrow: a newer reply does not push an older transcript out."""
    outbox = open_outbox(2)
    fill(outbox, clock, range(2))
    assert not outbox.put(Outgoing.of("pi-1", REPLY, clock.now.monotonic_s))
    assert seqs_of([take(outbox), take(outbox)]) == [0, 1]


def test_a_refused_message_counts_as_dropped(open_outbox: Open, clock: FakeClock) -> None:
    """What the broker will not have is gone, and known to be gone."""
    outbox = open_outbox(10)
    fill(outbox, clock, range(1))
    key = take(outbox).key
    outbox.settle(key, Fate.REFUSED)
    outbox.settle(key, Fate.REFUSED)
    assert (outbox.pending, outbox.dropped) == (0, 1)


def test_a_broker_without_room_is_left_alone_for_a_while(open_outbox: Open, clock: FakeClock) -> None:
    """Quota exceeded: nothing goes for a second, then two, then four; nothing is lost and the order stays."""
    outbox = open_outbox(10)
    fill(outbox, clock, range(2))
    for pause_s in (1.0, 2.0, 4.0):
        outbox.settle(take(outbox).key, Fate.BUSY)
        assert outbox.take() is None
        assert outbox.due_in_s() == pytest.approx(pause_s)
        clock.advance(pause_s)
    assert seqs_of([take(outbox), take(outbox)]) == [0, 1]


def test_what_is_not_authorised_is_parked_and_lets_others_pass(open_outbox: Open, clock: FakeClock) -> None:
    """A parked message waits for a quarter of an hour or a new connection, and blocks nobody meanwhile."""
    outbox = open_outbox(10)
    fill(outbox, clock, range(2))
    outbox.settle(take(outbox).key, Fate.PARKED)
    assert seqs_of([take(outbox)]) == [1]
    assert outbox.take() is None
    outbox.rewind()
    first = take(outbox)
    assert seqs_of([first]) == [0]
    outbox.settle(first.key, Fate.PARKED)
    take(outbox)
    clock.advance(900)
    assert seqs_of(take_all(outbox, clock)) == [0]


def test_late_transcripts_go_to_the_backlog_marked_and_slowly(open_outbox: Open, clock: FakeClock) -> None:
    """An hour-old transcript leaves on another topic, within 30 s, five a second, with what is left of a week."""
    outbox = open_outbox(100)
    fill(outbox, clock, range(10))
    clock.advance(3_600)
    outbox.rewind()
    assert outbox.take() is None
    assert 0 < outbox.due_in_s() <= 30
    clock.advance(outbox.due_in_s())
    began_s = clock.now.monotonic_s
    entries = take_all(outbox, clock)
    assert seqs_of(entries) == list(range(10))
    assert clock.now.monotonic_s - began_s == pytest.approx(1.8)
    late = entries[0].outgoing
    assert late.topic == "edgescribe/v1/pi-1/transcript/backlog"
    assert json.loads(late.payload) == json.loads(outgoing(clock, 0).payload) | {"replayed": True}
    assert late.remaining_s(began_s) == pytest.approx(MAX_AGE_S - 3_630, abs=31)


def test_live_words_overtake_the_backlog(open_outbox: Open, clock: FakeClock) -> None:
    """What is said now goes now, between the messages of a long replay."""
    outbox = open_outbox(100)
    fill(outbox, clock, range(5))
    clock.advance(61)
    outbox.rewind()
    assert outbox.take() is None
    clock.advance(outbox.due_in_s())
    assert seqs_of([take(outbox)]) == [0]
    fill(outbox, clock, range(5, 6))
    live = take(outbox)
    assert seqs_of([live]) == [5]
    assert live.outgoing.topic.endswith("/transcript")
    assert seqs_of(take_all(outbox, clock)) == [1, 2, 3, 4]


def test_every_connection_begins_its_replay_with_a_delay_of_its_own(open_outbox: Open, clock: FakeClock) -> None:
    """A fleet that comes back together does not pour out its backlogs together."""
    outbox = open_outbox(100)
    fill(outbox, clock, range(1))
    clock.advance(61)
    delays_s = set()
    for _ in range(5):
        outbox.rewind()
        delays_s.add(outbox.due_in_s())
    assert len(delays_s) == 5
    assert all(0 <= delay_s <= 30 for delay_s in delays_s)


def test_expired_messages_are_dropped_and_counted(open_outbox: Open, clock: FakeClock) -> None:
    """A transcript lives for a week and a reply as long as it says; neither leaves later."""
    outbox = open_outbox(10)
    outbox.put(Outgoing.of("pi-1", REPLY, clock.now.monotonic_s))
    fill(outbox, clock, range(1))
    clock.advance(61)
    assert [entry.outgoing.schema for entry in take_all(outbox, clock)] == ["transcript/1"]
    assert outbox.dropped == 1
    outbox.rewind()
    clock.advance(MAX_AGE_S)
    assert take_all(outbox, clock) == []
    assert (outbox.pending, outbox.dropped) == (0, 2)


def test_a_wall_clock_that_jumps_expires_nothing(open_outbox: Open, clock: FakeClock) -> None:
    """Ten years forward or back: what was said a moment ago is live."""
    outbox = open_outbox(10)
    for jump_s in (315_360_000.0, -630_720_000.0):
        fill(outbox, clock, range(1))
        clock.jump_wall(jump_s)
        entry = take(outbox)
        assert entry.outgoing.remaining_s(clock.now.monotonic_s) == 86_400
        assert entry.outgoing.topic.endswith("/transcript")
        outbox.settle(entry.key, Fate.DELIVERED)
    assert outbox.dropped == 0


def test_a_purge_leaves_only_what_is_on_its_way(open_outbox: Open, clock: FakeClock) -> None:
    """Who mutes and wants it forgotten has it forgotten; that is no loss to be counted."""
    outbox = open_outbox(10)
    fill(outbox, clock, range(4))
    entry = take(outbox)
    assert outbox.purge() == 3
    assert outbox.take() is None
    assert (outbox.pending, outbox.dropped) == (1, 0)
    outbox.settle(entry.key, Fate.DELIVERED)
    assert outbox.pending == 0


def deliver(outbox: Outbox, clock: FakeClock, seqs: range) -> None:
    """Transcripts with these numbers come, go, and arrive."""
    fill(outbox, clock, seqs)
    for _ in seqs:
        outbox.settle(take(outbox).key, Fate.DELIVERED)


def test_what_was_delivered_goes_again_when_it_is_wanted(open_outbox: Open, clock: FakeClock) -> None:
    """Same words, id and number, marked, to the backlog, oldest first, five a second; never pending, never written."""
    outbox = open_outbox(500)
    deliver(outbox, clock, range(5, 10))
    assert outbox.replay(SeqRange(7, 8)) == Replay(2, (), SeqRange(5, 9))
    assert (outbox.pending, outbox.size_bytes) == (0, 0)
    assert 0 <= outbox.due_in_s() <= 30
    clock.advance(outbox.due_in_s())
    began_s = clock.now.monotonic_s
    entries = take_all(outbox, clock)
    assert seqs_of(entries) == [7, 8]
    assert clock.now.monotonic_s - began_s == pytest.approx(0.2)
    again = entries[0].outgoing
    assert again.topic == "edgescribe/v1/pi-1/transcript/backlog"
    assert json.loads(again.payload) == json.loads(outgoing(clock, 7).payload) | {"replayed": True}
    for entry in entries:
        outbox.settle(entry.key, Fate.DELIVERED)
    assert outbox.replay(SeqRange(8, 8)).again == 1


def test_a_replay_says_what_is_not_here(open_outbox: Open, clock: FakeClock) -> None:
    """What never was, what was not delivered yet and what is too long ago; and nothing at all at first."""
    outbox = open_outbox(500)
    assert outbox.replay(SeqRange(1, 10**18)) == Replay(0, (SeqRange(1, 10**18),), None)
    deliver(outbox, clock, range(1, 258))
    deliver(outbox, clock, range(259, 261))
    fill(outbox, clock, range(261, 262))
    replay = outbox.replay(SeqRange(1, 300))
    assert replay == Replay(256, (SeqRange(1, 3), SeqRange(258, 258), SeqRange(261, 300)), SeqRange(4, 260))


def test_one_replay_at_a_time(open_outbox: Open, clock: FakeClock) -> None:
    """So that what goes again is bounded by what is kept."""
    outbox = open_outbox(500)
    deliver(outbox, clock, range(4))
    assert outbox.replay(SeqRange(0, 1)).again == 2
    second = outbox.replay(SeqRange(2, 3))
    assert (second.again, second.still_waiting) == (0, 2)
    assert seqs_of(take_all(outbox, clock)) == [0, 1]


def test_live_words_and_the_backlog_go_before_a_replay(open_outbox: Open, clock: FakeClock) -> None:
    """What nobody has yet is more urgent than what somebody wants twice; a lost connection changes nothing of it."""
    outbox = open_outbox(500)
    deliver(outbox, clock, range(3))
    fill(outbox, clock, range(10, 12))
    clock.advance(61)
    outbox.replay(SeqRange(0, 2))
    fill(outbox, clock, range(20, 21))
    entries = take_all(outbox, clock)
    assert seqs_of(entries) == [20, 10, 11, 0, 1, 2]
    outbox.settle(entries[3].key, Fate.DELIVERED)
    outbox.settle(entries[0].key, Fate.DELIVERED)
    outbox.rewind()
    assert seqs_of(take_all(outbox, clock)) == [10, 11, 1, 2]


def test_a_busy_broker_delays_a_replay_and_a_refusal_ends_it(open_outbox: Open, clock: FakeClock) -> None:
    """Nothing of it counts as dropped: the broker had it once."""
    outbox = open_outbox(500)
    deliver(outbox, clock, range(3))
    outbox.replay(SeqRange(0, 2))
    clock.advance(30)
    outbox.due_in_s()
    clock.advance(30)
    outbox.settle(take(outbox).key, Fate.BUSY)
    assert outbox.take() is None
    clock.advance(1)
    entries = take_all(outbox, clock)
    assert seqs_of(entries) == [0, 1, 2]
    for entry, fate in zip(entries, (Fate.PARKED, Fate.REFUSED, Fate.EXPIRED), strict=True):
        outbox.settle(entry.key, fate)
    outbox.rewind()
    assert take_all(outbox, clock) == []
    assert (outbox.pending, outbox.dropped) == (0, 0)


def test_what_is_kept_for_a_replay_is_bounded_in_bytes_and_in_age(open_outbox: Open, clock: FakeClock) -> None:
    """Long texts leave room for fewer; a week-old one is worth nothing."""
    outbox = open_outbox(500)
    for seq in range(60):
        assert outbox.put(Outgoing.of("pi-1", transcript(seq, "word " * 1_600), clock.now.monotonic_s))
        outbox.settle(take(outbox).key, Fate.DELIVERED)
    available = outbox.replay(SeqRange(1_000, 1_000)).available
    assert available
    assert available.last == 59
    assert (60 - available.first) * 8_000 <= 256 << 10
    clock.advance(MAX_AGE_S)
    assert outbox.replay(SeqRange(0, 59)).available is None


def test_what_failed_is_not_repeated(open_outbox: Open, clock: FakeClock) -> None:
    """It has a number among the transcripts, and nothing to say late."""
    outbox = open_outbox(500)
    deliver(outbox, clock, range(1))
    outbox.put(Outgoing.of("pi-1", failed(1), clock.now.monotonic_s))
    outbox.settle(take(outbox).key, Fate.DELIVERED)
    assert outbox.replay(SeqRange(0, 1)) == Replay(1, (SeqRange(1, 1),), SeqRange(0, 0))


def test_a_purge_forgets_what_was_delivered(open_outbox: Open, clock: FakeClock) -> None:
    """Also what waits to go again, and what is only just arriving."""
    outbox = open_outbox(500)
    deliver(outbox, clock, range(4))
    outbox.replay(SeqRange(0, 1))
    fill(outbox, clock, range(4, 5))
    entry = take(outbox)
    outbox.purge()
    outbox.settle(entry.key, Fate.DELIVERED)
    assert take_all(outbox, clock) == []
    assert outbox.replay(SeqRange(0, 4)) == Replay(0, (SeqRange(0, 4),), None)


def test_where_words_are_private_nothing_that_was_delivered_is_kept(open_outbox: Open, clock: FakeClock) -> None:
    """Not even for a moment."""
    outbox = open_outbox(500, replayable=False)
    deliver(outbox, clock, range(4))
    assert outbox.replay(SeqRange(0, 4)).available is None


def test_its_size_follows_its_content(open_outbox: Open, clock: FakeClock) -> None:
    """Telemetry can say how much waits."""
    outbox = open_outbox(10)
    assert outbox.size_bytes == 0
    fill(outbox, clock, range(2))
    assert outbox.size_bytes >= 2 * len(outgoing(clock, 0).payload)
    take_all(outbox, clock)
    assert outbox.size_bytes == 0


def test_numbers_count_up_without_gaps(open_outbox: Open) -> None:
    """From any thread, each number is given once."""
    outbox = open_outbox(10)
    numbers: list[int] = []
    threads = [threading.Thread(target=lambda: numbers.extend(outbox.next_seq() for _ in range(50))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(numbers) == list(range(1, 201))


def test_threads_may_put_while_another_takes(open_outbox: Open, clock: FakeClock) -> None:
    """No message is lost or doubled between four writers and one reader that settles."""
    outbox = open_outbox(10_000)
    writers = [threading.Thread(target=fill, args=(outbox, clock, range(n, n + 100))) for n in (0, 100, 200, 300)]
    for writer in writers:
        writer.start()
    entries: list[Entry] = []
    while any(writer.is_alive() for writer in writers) or outbox.pending:
        if entry := outbox.take():
            entries.append(entry)
            outbox.settle(entry.key, Fate.DELIVERED)
    assert sorted(seqs_of(entries)) == list(range(400))


def test_closing_twice_does_no_harm(open_outbox: Open) -> None:
    """Whoever cleans up need not know who did before."""
    outbox = open_outbox(1)
    outbox.close()
    outbox.close()
    assert outbox.conditions == ()
