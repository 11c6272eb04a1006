import threading

from agent.delivery import Outbox, Outgoing
from agent.outbox.memory import MemoryOutbox
from tests.messages import transcript


def outgoing(seq: int) -> Outgoing:
    """A transcript, ready to go."""
    return Outgoing.of("pi-1", transcript(seq), 0.0)


def taken(outbox: Outbox, count: int) -> list[int]:
    """Take `count` messages; return their keys."""
    entries = [outbox.take() for _ in range(count)]
    return [entry.key for entry in entries if entry]


def test_messages_come_out_in_the_order_they_went_in() -> None:
    """First in, first out, and each once."""
    outbox = MemoryOutbox(10)
    for seq in range(3):
        assert outbox.put(outgoing(seq))
    entries = [outbox.take(), outbox.take(), outbox.take()]
    assert [entry.outgoing for entry in entries if entry] == [outgoing(0), outgoing(1), outgoing(2)]
    assert outbox.take() is None


def test_a_message_is_pending_until_it_is_settled() -> None:
    """Being on its way is not having arrived."""
    outbox = MemoryOutbox(10)
    outbox.put(outgoing(0))
    (key,) = taken(outbox, 1)
    assert outbox.pending == 1
    outbox.settle(key, delivered=True)
    assert (outbox.pending, outbox.dropped) == (0, 0)


def test_a_lost_connection_puts_everything_back_in_order() -> None:
    """What was not settled comes again before what was never taken, oldest first, whatever was settled in between."""
    outbox = MemoryOutbox(10)
    for seq in range(5):
        outbox.put(outgoing(seq))
    first, second, third = taken(outbox, 3)
    outbox.settle(second, delivered=True)
    outbox.rewind()
    assert taken(outbox, 4) == [first, third, third + 1, third + 2]


def test_a_full_outbox_drops_the_oldest_and_counts_it() -> None:
    """The newest words matter most; nothing vanishes uncounted."""
    outbox = MemoryOutbox(2)
    assert [outbox.put(outgoing(seq)) for seq in range(4)] == [True, True, False, False]
    assert outbox.dropped == 2
    entry = outbox.take()
    assert entry
    assert entry.outgoing == outgoing(2)


def test_what_is_on_its_way_is_not_dropped_for_room() -> None:
    """A message that the broker may already have is not called dropped."""
    outbox = MemoryOutbox(1)
    outbox.put(outgoing(0))
    taken(outbox, 1)
    assert outbox.put(outgoing(1))
    assert (outbox.pending, outbox.dropped) == (2, 0)


def test_a_refused_message_counts_as_dropped() -> None:
    """What the broker will not have is gone, and known to be gone."""
    outbox = MemoryOutbox(10)
    outbox.put(outgoing(0))
    (key,) = taken(outbox, 1)
    outbox.settle(key, delivered=False)
    outbox.settle(key, delivered=False)
    assert (outbox.pending, outbox.dropped) == (0, 1)


def test_threads_may_put_while_another_takes() -> None:
    """No message is lost or doubled between four writers and one reader."""
    outbox = MemoryOutbox(10_000)
    writers = [threading.Thread(target=lambda: [outbox.put(outgoing(0)) for _ in range(500)]) for _ in range(4)]
    for writer in writers:
        writer.start()
    keys: list[int] = []
    while any(writer.is_alive() for writer in writers) or outbox.pending > len(keys):
        keys += taken(outbox, 10)
    assert sorted(keys) == list(range(1, 2_001))
