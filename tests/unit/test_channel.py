import threading

import pytest

from agent.channel import Channel, Overflow


def test_items_come_out_in_the_order_they_went_in() -> None:
    """A channel is first in, first out, and iteration ends when it is closed and empty."""
    channel: Channel[int] = Channel(8)
    for item in range(5):
        assert channel.put(item)
    channel.close()
    assert list(channel) == [0, 1, 2, 3, 4]


def test_a_full_live_channel_drops_the_oldest_and_counts_it() -> None:
    """For live sound the newest items survive, and every loss is counted and reported."""
    lost: list[int] = []
    channel: Channel[int] = Channel(3, on_drop=lost.append)
    for item in range(10):
        channel.put(item)
    channel.close()
    assert list(channel) == [7, 8, 9]
    assert lost == [0, 1, 2, 3, 4, 5, 6]
    assert channel.dropped == 7


def test_a_waiting_channel_loses_nothing() -> None:
    """Under WAIT a fast producer is slowed down to its consumer and no item is lost."""
    channel: Channel[int] = Channel(2, Overflow.WAIT)

    def produce() -> None:
        for item in range(500):
            channel.put(item)
        channel.close()

    producer = threading.Thread(target=produce)
    producer.start()
    received = list(channel)
    producer.join(60)
    assert received == list(range(500))
    assert channel.dropped == 0


def test_close_releases_a_waiting_producer_and_refuses_its_item() -> None:
    """A producer that waits for room is let go when the channel closes, and learns that its item was not taken."""
    channel: Channel[int] = Channel(1, Overflow.WAIT)
    channel.put(1)
    answers: list[bool] = []
    producer = threading.Thread(target=lambda: answers.append(channel.put(2)))
    producer.start()
    channel.close()
    producer.join(60)
    assert answers == [False]
    assert list(channel) == [1]


def test_close_releases_a_waiting_consumer() -> None:
    """A consumer that waits for an item is let go when the channel closes."""
    channel: Channel[int] = Channel(1)
    received: list[list[int]] = []
    consumer = threading.Thread(target=lambda: received.append(list(channel)))
    consumer.start()
    channel.close()
    channel.close()
    consumer.join(60)
    assert received == [[]]


def patient(channel: Channel[int], taken: list[int], timeout_s: float = 60.0) -> threading.Thread:
    """A thread that takes items until the end, and wants to be woken for three at a time."""

    def consume() -> None:
        while (item := channel.get(timeout_s, rouse_at=3)) is not None:
            taken.append(item)

    consumer = threading.Thread(target=consume)
    consumer.start()
    return consumer


def test_a_patient_consumer_sleeps_until_enough_is_there() -> None:
    """It gets every item, and never waits for more than the channel can hold."""
    channel: Channel[int] = Channel(2, Overflow.WAIT)
    taken: list[int] = []
    consumer = patient(channel, taken)
    for item in range(5):
        assert channel.put(item)
    channel.close()
    consumer.join(60)
    assert taken == [0, 1, 2, 3, 4]


def test_a_patient_consumer_wakes_at_the_end() -> None:
    """However little is queued."""
    channel: Channel[int] = Channel(8)
    taken: list[int] = []
    consumer = patient(channel, taken)
    channel.put(1)
    channel.close()
    consumer.join(60)
    assert taken == [1]


def test_a_patient_consumer_takes_what_there_is_after_its_timeout() -> None:
    """The items that it sleeps for may never come."""
    channel: Channel[int] = Channel(8)
    taken: list[int] = []
    consumer = patient(channel, taken, timeout_s=0.5)
    channel.put(1)
    channel.put(2)
    consumer.join(60)
    assert taken == [1, 2]


def test_get_gives_up_after_its_timeout() -> None:
    """Nothing to read within the timeout is None, not an endless wait."""
    assert Channel[int](1).get(timeout_s=0.01) is None


def test_a_channel_without_room_is_a_programming_error() -> None:
    """A capacity below one is refused at once."""
    with pytest.raises(ValueError, match="room for at least one"):
        Channel[int](0)


def test_what_waits_is_taken_up_to_the_first_that_is_not_wanted() -> None:
    """In order, no more than asked for, and without waiting."""
    channel: Channel[int] = Channel(8)
    for item in (2, 4, 6, 7, 8):
        channel.put(item)

    def even(item: int) -> bool:
        return item % 2 == 0

    assert channel.take(2, even) == [2, 4]
    assert channel.take(8, even) == [6]
    assert channel.take(8, even) == []
    channel.close()
    assert list(channel) == [7, 8]


def test_to_take_makes_room_for_a_waiting_producer() -> None:
    """As reading one by one does."""
    channel: Channel[int] = Channel(1, Overflow.WAIT)
    channel.put(1)
    producer = threading.Thread(target=channel.put, args=(2,))
    producer.start()
    assert channel.take(1, lambda _: True) == [1]
    producer.join(60)
    assert channel.get(timeout_s=1.0) == 2


def test_what_goes_ahead_is_read_first_and_never_dropped() -> None:
    """It takes nobody's room, whether it comes before the channel is full or after; several keep their order."""
    channel: Channel[str] = Channel(2)
    channel.put_first("errand 1")
    for item in ("a", "b", "c"):
        channel.put(item)
    channel.put_first("errand 2")
    assert len(channel) == 2
    assert channel.snapshot() == ("b", "c")
    assert channel.take(8, lambda _: True) == []
    channel.close()
    assert not channel.put_first("too late")
    assert list(channel) == ["errand 1", "errand 2", "b", "c"]


def test_what_is_wanted_is_taken_out_from_wherever_it_stands() -> None:
    """The rest keeps its order."""
    channel: Channel[int] = Channel(8)
    for item in (1, 2, 3, 4):
        channel.put(item)
    assert channel.take_out(lambda item: item % 2 == 0) == [2, 4]
    channel.close()
    assert list(channel) == [1, 3]
