"""What every outbox promises of a replay: what was delivered goes again, last of all, as long as it is kept."""

import json

import pytest

from agent.mqtt.delivery import Outgoing, PublishResult, Replay, SeqRange
from agent.mqtt.outbox_queue import Outbox
from tests.clock import FakeClock
from tests.contract.conftest import MAX_AGE_S, Open, fill, outgoing, seqs_of, take, take_all
from tests.messages import failed, transcript


def deliver(outbox: Outbox, clock: FakeClock, seqs: range) -> None:
    """Transcripts with these numbers come, go, and arrive."""
    fill(outbox, clock, seqs)
    for _ in seqs:
        outbox.acknowledge(take(outbox), PublishResult.DELIVERED)


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
    again = entries[0]
    assert again.topic == "edgescribe/v1/pi-1/transcript/backlog"
    assert json.loads(again.payload) == json.loads(outgoing(clock, 7).payload) | {"replayed": True}
    for entry in entries:
        outbox.acknowledge(entry, PublishResult.DELIVERED)
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
    outbox.acknowledge(entries[3], PublishResult.DELIVERED)
    outbox.acknowledge(entries[0], PublishResult.DELIVERED)
    outbox.requeue()
    assert seqs_of(take_all(outbox, clock)) == [10, 11, 1, 2]


def test_a_busy_broker_delays_a_replay_and_a_refusal_ends_it(open_outbox: Open, clock: FakeClock) -> None:
    """Nothing of it counts as dropped: the broker had it once."""
    outbox = open_outbox(500)
    deliver(outbox, clock, range(3))
    outbox.replay(SeqRange(0, 2))
    clock.advance(30)
    outbox.due_in_s()
    clock.advance(30)
    outbox.acknowledge(take(outbox), PublishResult.BUSY)
    assert outbox.take() is None
    clock.advance(1)
    entries = take_all(outbox, clock)
    assert seqs_of(entries) == [0, 1, 2]
    results = (PublishResult.DEFERRED, PublishResult.REFUSED, PublishResult.EXPIRED)
    for entry, result in zip(entries, results, strict=True):
        outbox.acknowledge(entry, result)
    outbox.requeue()
    assert take_all(outbox, clock) == []
    assert (outbox.pending, outbox.dropped) == (0, 0)


def test_what_is_kept_for_a_replay_is_bounded_in_bytes_and_in_age(open_outbox: Open, clock: FakeClock) -> None:
    """Long texts leave room for fewer; a week-old one is worth nothing."""
    outbox = open_outbox(500)
    for seq in range(60):
        assert outbox.put(Outgoing.of("pi-1", transcript(seq, "word " * 1_600), clock.now.monotonic_s))
        outbox.acknowledge(take(outbox), PublishResult.DELIVERED)
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
    outbox.acknowledge(take(outbox), PublishResult.DELIVERED)
    assert outbox.replay(SeqRange(0, 1)) == Replay(1, (SeqRange(1, 1),), SeqRange(0, 0))


def test_a_purge_forgets_what_was_delivered(open_outbox: Open, clock: FakeClock) -> None:
    """Also what waits to go again, and what is only just arriving."""
    outbox = open_outbox(500)
    deliver(outbox, clock, range(4))
    outbox.replay(SeqRange(0, 1))
    fill(outbox, clock, range(4, 5))
    entry = take(outbox)
    outbox.purge()
    outbox.acknowledge(entry, PublishResult.DELIVERED)
    assert take_all(outbox, clock) == []
    assert outbox.replay(SeqRange(0, 4)) == Replay(0, (SeqRange(0, 4),), None)


def test_where_words_are_private_nothing_that_was_delivered_is_kept(open_outbox: Open, clock: FakeClock) -> None:
    """Not even for a moment."""
    outbox = open_outbox(500, replayable=False)
    deliver(outbox, clock, range(4))
    assert outbox.replay(SeqRange(0, 4)).available is None
