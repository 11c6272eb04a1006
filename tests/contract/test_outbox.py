"""What every outbox promises its sink, whatever it keeps messages in; replays are in `test_outbox_replay.py`."""

import json
import threading

import pytest

from agent.messages import Info
from agent.mqtt.delivery import Outgoing, PublishResult
from tests.clock import FakeClock
from tests.contract.conftest import MAX_AGE_S, Open, fill, outgoing, seqs_of, take, take_all
from tests.messages import info


class Reply(Info):
    """A message that is of no use later."""

    topic = "reply"
    retained = False
    expiry_s = 60


REPLY = Reply.model_validate(info().model_dump())


def test_messages_come_out_in_the_order_they_went_in(open_outbox: Open, clock: FakeClock) -> None:
    """First in, first out, each once and byte for byte."""
    outbox = open_outbox(10)
    fill(outbox, clock, range(3))
    assert [take(outbox) for _ in range(3)] == [outgoing(clock, seq) for seq in range(3)]
    assert outbox.take() is None
    assert outbox.due_in_s() == float("inf")


def test_a_message_is_pending_until_it_is_settled(open_outbox: Open, clock: FakeClock) -> None:
    """Being on its way is not having arrived; to settle twice does no harm."""
    outbox = open_outbox(10)
    fill(outbox, clock, range(1))
    entry = take(outbox)
    assert outbox.pending == 1
    outbox.acknowledge(entry, PublishResult.DELIVERED)
    outbox.acknowledge(entry, PublishResult.DELIVERED)
    assert (outbox.pending, outbox.dropped) == (0, 0)


def test_a_lost_connection_puts_everything_back_in_order(open_outbox: Open, clock: FakeClock) -> None:
    """What was not settled comes again before what was never taken, oldest first, whatever was settled in between."""
    outbox = open_outbox(10)
    fill(outbox, clock, range(5))
    entries = [take(outbox) for _ in range(3)]
    outbox.acknowledge(entries[1], PublishResult.DELIVERED)
    outbox.requeue()
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
    entry = take(outbox)
    outbox.acknowledge(entry, PublishResult.REFUSED)
    outbox.acknowledge(entry, PublishResult.REFUSED)
    assert (outbox.pending, outbox.dropped) == (0, 1)


def test_a_broker_without_room_is_left_alone_for_a_while(open_outbox: Open, clock: FakeClock) -> None:
    """Quota exceeded: nothing goes for a second, then two, then four; nothing is lost and the order stays."""
    outbox = open_outbox(10)
    fill(outbox, clock, range(2))
    for pause_s in (1.0, 2.0, 4.0):
        outbox.acknowledge(take(outbox), PublishResult.BUSY)
        assert outbox.take() is None
        assert outbox.due_in_s() == pytest.approx(pause_s)
        clock.advance(pause_s)
    assert seqs_of([take(outbox), take(outbox)]) == [0, 1]


def test_what_is_not_authorised_is_parked_and_lets_others_pass(open_outbox: Open, clock: FakeClock) -> None:
    """A parked message waits for a quarter of an hour or a new connection, and blocks nobody meanwhile."""
    outbox = open_outbox(10)
    fill(outbox, clock, range(2))
    outbox.acknowledge(take(outbox), PublishResult.DEFERRED)
    assert seqs_of([take(outbox)]) == [1]
    assert outbox.take() is None
    outbox.requeue()
    first = take(outbox)
    assert seqs_of([first]) == [0]
    outbox.acknowledge(first, PublishResult.DEFERRED)
    take(outbox)
    clock.advance(900)
    assert seqs_of(take_all(outbox, clock)) == [0]


def test_late_transcripts_go_to_the_backlog_marked_and_slowly(open_outbox: Open, clock: FakeClock) -> None:
    """An hour-old transcript leaves on another topic, within 30 s, five a second, with what is left of a week."""
    outbox = open_outbox(100)
    fill(outbox, clock, range(10))
    clock.advance(3_600)
    outbox.requeue()
    assert outbox.take() is None
    assert 0 < outbox.due_in_s() <= 30
    clock.advance(outbox.due_in_s())
    began_s = clock.now.monotonic_s
    entries = take_all(outbox, clock)
    assert seqs_of(entries) == list(range(10))
    assert clock.now.monotonic_s - began_s == pytest.approx(1.8)
    late = entries[0]
    assert late.topic == "edgescribe/v1/pi-1/transcript/backlog"
    assert json.loads(late.payload) == json.loads(outgoing(clock, 0).payload) | {"replayed": True}
    assert late.remaining_s(began_s) == pytest.approx(MAX_AGE_S - 3_630, abs=31)


def test_live_words_overtake_the_backlog(open_outbox: Open, clock: FakeClock) -> None:
    """What is said now goes now, between the messages of a long replay."""
    outbox = open_outbox(100)
    fill(outbox, clock, range(5))
    clock.advance(61)
    outbox.requeue()
    assert outbox.take() is None
    clock.advance(outbox.due_in_s())
    assert seqs_of([take(outbox)]) == [0]
    fill(outbox, clock, range(5, 6))
    live = take(outbox)
    assert seqs_of([live]) == [5]
    assert live.topic.endswith("/transcript")
    assert seqs_of(take_all(outbox, clock)) == [1, 2, 3, 4]


def test_every_connection_begins_its_replay_with_a_delay_of_its_own(open_outbox: Open, clock: FakeClock) -> None:
    """A fleet that comes back together does not pour out its backlogs together."""
    outbox = open_outbox(100)
    fill(outbox, clock, range(1))
    clock.advance(61)
    delays_s = set()
    for _ in range(5):
        outbox.requeue()
        delays_s.add(outbox.due_in_s())
    assert len(delays_s) == 5
    assert all(0 <= delay_s <= 30 for delay_s in delays_s)


def test_expired_messages_are_dropped_and_counted(open_outbox: Open, clock: FakeClock) -> None:
    """A transcript lives for a week and a reply as long as it says; neither leaves later."""
    outbox = open_outbox(10)
    outbox.put(Outgoing.of("pi-1", REPLY, clock.now.monotonic_s))
    fill(outbox, clock, range(1))
    clock.advance(61)
    assert [entry.schema for entry in take_all(outbox, clock)] == ["transcript/1"]
    assert outbox.dropped == 1
    outbox.requeue()
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
        assert entry.remaining_s(clock.now.monotonic_s) == 86_400
        assert entry.topic.endswith("/transcript")
        outbox.acknowledge(entry, PublishResult.DELIVERED)
    assert outbox.dropped == 0


def test_a_purge_leaves_only_what_is_on_its_way(open_outbox: Open, clock: FakeClock) -> None:
    """Who mutes and wants it forgotten has it forgotten; that is no loss to be counted."""
    outbox = open_outbox(10)
    fill(outbox, clock, range(4))
    entry = take(outbox)
    assert outbox.purge() == 3
    assert outbox.take() is None
    assert (outbox.pending, outbox.dropped) == (1, 0)
    outbox.acknowledge(entry, PublishResult.DELIVERED)
    assert outbox.pending == 0


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
    entries: list[Outgoing] = []
    while any(writer.is_alive() for writer in writers) or outbox.pending:
        if entry := outbox.take():
            entries.append(entry)
            outbox.acknowledge(entry, PublishResult.DELIVERED)
    assert sorted(seqs_of(entries)) == list(range(400))


def test_closing_twice_does_no_harm(open_outbox: Open) -> None:
    """Whoever cleans up need not know who did before."""
    outbox = open_outbox(1)
    outbox.close()
    outbox.close()
    assert outbox.conditions == ()
