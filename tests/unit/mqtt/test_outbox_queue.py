import random
from collections import Counter

from agent.mqtt.delivered import Delivered
from agent.mqtt.delivery import Fate
from agent.mqtt.outbox_queue import DeliveryQueue, Stub

FATES = tuple(Fate)


def stub(key: int, now_s: float, *, transcript: bool = True, life_s: float = 86_400.0) -> Stub:
    """A message of 100 bytes."""
    return Stub(key, 100, now_s, life_s, can_be_late=transcript)


def let_go(queue: DeliveryQueue, picked: list[int], *, deleted: bool) -> int:
    """The disk has deleted what was picked, or could not; return how many are gone."""
    if not deleted:
        queue.give_back(picked)
        return 0
    for key in picked:
        queue.drop(key)
    return len(picked)


def test_whatever_happens_every_message_is_accounted_for() -> None:
    """Ten thousand random steps: none is handed out twice at once, none vanishes, the counts and limits hold."""
    chance = random.Random(3)  # noqa: S311 - repeatable
    queue = DeliveryQueue(50, 50 * 356, chance, Delivered(86_400))
    now_s, last_key = 0.0, 0
    away: set[int] = set()
    picked: list[int] = []
    ends: Counter[str] = Counter()
    for _ in range(10_000):
        now_s += chance.choice([0.0, 0.1, 1.0, 30.0])
        match chance.randrange(12):
            case 0 | 1 | 2 | 3:
                last_key += 1
                queue.add(stub(last_key, now_s, transcript=chance.random() < 0.8, life_s=chance.choice([60, 3_600])))
            case 4 | 5 | 6:
                ends["gone"] += len(queue.expire(now_s))
                if turn := queue.take(now_s):
                    assert turn.key not in {*away, *picked}
                    away.add(turn.key)
            case 7 | 8 if away:
                key = away.pop()
                fate = chance.choice(FATES)
                forgotten = queue.settle(key, fate, now_s)
                assert forgotten == (fate in {Fate.DELIVERED, Fate.REFUSED, Fate.EXPIRED})
                ends["delivered" if fate is Fate.DELIVERED else "gone"] += forgotten
            case 9:
                queue.rewind()
                away.clear()
            case 10 if not picked:
                picked = queue.pick(2)
            case 11:
                ends["gone"] += let_go(queue, picked, deleted=chance.random() < 0.5)
                picked = []
            case _:
                pass
        ends["gone"] += len(queue.make_room())
        assert len(queue) + ends["gone"] + ends["delivered"] == last_key
        assert queue.dropped == ends["gone"]
        waiting = len(queue) - len(away) - len(picked)
        assert waiting <= 50
        assert queue.waiting_bytes == 356 * waiting
    assert min(ends.values()) > 100


def test_a_message_of_an_earlier_boot_is_late_however_young_it_seems() -> None:
    """Nobody knows how long the machine was off: "heater on" from before a power cut turns nothing on."""
    queue = DeliveryQueue(10, 10_000, random.Random(1), Delivered(86_400))  # noqa: S311 - jitter
    queue.add(Stub(1, 100, -5.0, 86_400.0, can_be_late=True, of_this_boot=False))
    assert queue.take(10.0) is None
    turn = queue.take(10.0 + queue.due_in_s(10.0))
    assert turn
    assert turn.late


def test_what_was_picked_in_vain_lines_up_again() -> None:
    """Room that could not be made costs nothing, and nobody hands out meanwhile what may be deleted."""
    queue = DeliveryQueue(10, 10_000, random.Random(1), Delivered(86_400))  # noqa: S311 - jitter
    for key in range(1, 5):
        queue.add(stub(key, 0.0))
    picked = queue.pick(2)
    assert picked == [1, 2]
    turn = queue.take(0.0)
    assert turn
    assert turn.key == 3
    queue.give_back(picked)
    assert [turn.key for _ in range(3) if (turn := queue.take(0.0))] == [1, 2, 4]
    assert queue.dropped == 0


def test_what_is_about_to_go_is_not_handed_out_by_a_new_connection() -> None:
    """While the disk still deletes it the link may break and come back."""
    queue = DeliveryQueue(10, 10_000, random.Random(1), Delivered(86_400))  # noqa: S311 - jitter
    for key in (1, 2):
        queue.add(stub(key, 0.0))
    (picked,) = queue.pick(1)
    queue.rewind()
    assert [turn.key for _ in range(2) if (turn := queue.take(0.0))] == [2]
    queue.drop(picked)
    assert (len(queue), queue.dropped) == (1, 1)


def test_what_was_purged_while_it_was_about_to_go_neither_comes_back_nor_counts() -> None:
    """Whichever way the deletion ends: a purge forgets without trace."""
    for deleted in (True, False):
        queue = DeliveryQueue(10, 10_000, random.Random(1), Delivered(86_400))  # noqa: S311 - jitter
        queue.add(stub(1, 0.0))
        picked = queue.pick(1)
        assert queue.clear() == [1]
        let_go(queue, picked, deleted=deleted)
        assert (len(queue), queue.dropped, queue.waiting_bytes, queue.take(0.0)) == (0, 0, 0, None)
