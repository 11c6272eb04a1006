from dataclasses import replace

from agent.messages import Status
from agent.mqtt.delivery import Outgoing
from agent.mqtt.poison import LOSSES, STRAIGHT_S, InFlight, PoisonMessageDetector
from agent.mqtt.reconnect import STABLE_S
from tests.messages import transcript

WIDEST = 8


def words(key: int) -> Outgoing:
    """A message of the outbox."""
    return replace(Outgoing.of("pi-1", transcript(key), 0.0), key=key)


def losses(
    detector: PoisonMessageDetector, *items: Outgoing, after_s: float = 0.1, times: int = 1
) -> list[Outgoing | None]:
    """What comes of losing the link so often, so long behind the sending of these."""
    return [detector.lost([InFlight(item, 10.0) for item in items], 10.0 + after_s) for _ in range(times)]


def test_the_message_that_is_alone_at_five_losses_in_a_row_is_set_aside() -> None:
    """Not before the fifth, and then no longer: what comes behind it is not suspected."""
    detector = PoisonMessageDetector()
    assert losses(detector, words(1), times=LOSSES) == [None] * (LOSSES - 1) + [words(1)]
    assert detector.window(WIDEST, 0.0) == WIDEST
    assert losses(detector, words(2)) == [None]


def test_of_many_on_their_way_none_is_convicted_but_they_go_one_by_one() -> None:
    """Until each of them has been answered."""
    detector = PoisonMessageDetector()
    many = [words(key) for key in range(WIDEST)]
    assert losses(detector, *many, times=2 * LOSSES) == [None] * 2 * LOSSES
    windows = []
    for item in many:
        windows.append(detector.window(WIDEST, 0.0))
        detector.acknowledged(item)
    assert windows == [1] * WIDEST
    assert detector.window(WIDEST, 0.0) == WIDEST


def test_a_link_that_holds_is_used_in_full_again() -> None:
    """A suspect that was purged is never answered, and must not slow down the rest for ever."""
    detector = PoisonMessageDetector()
    losses(detector, words(1))
    detector.connected(100.0)
    assert detector.window(WIDEST, 100.0 + STABLE_S - 1.0) == 1
    assert detector.window(WIDEST, 100.0 + STABLE_S) == WIDEST


def test_an_answer_acquits() -> None:
    """The link was bad; the count begins anew."""
    detector = PoisonMessageDetector()
    losses(detector, words(1), times=LOSSES - 1)
    detector.acknowledged(words(1))
    assert losses(detector, words(1), times=LOSSES - 1) == [None] * (LOSSES - 1)


def test_a_loss_that_a_time_out_noticed_is_nobodys_doing() -> None:
    """The network went away while the message was on its way."""
    detector = PoisonMessageDetector()
    losses(detector, words(1), times=LOSSES - 1)
    assert losses(detector, words(1), after_s=STRAIGHT_S) == [None]
    assert losses(detector, words(1), times=LOSSES - 1) == [None] * (LOSSES - 1)


def test_a_loss_with_nothing_on_its_way_says_nothing() -> None:
    """It neither convicts nor acquits."""
    detector = PoisonMessageDetector()
    losses(detector, words(1), times=LOSSES - 1)
    assert losses(detector, times=LOSSES) == [None] * LOSSES
    assert detector.prime is None
    assert losses(detector, words(1)) == [words(1)]


def test_a_message_of_the_outbox_is_told_by_its_key() -> None:
    """Read again from disk, it is a little older."""
    detector = PoisonMessageDetector()
    losses(detector, words(1), times=LOSSES - 1)
    again = replace(Outgoing.of("pi-1", transcript(1), 5.0), key=1)
    assert losses(detector, again) == [again]


def test_no_birth_is_ever_set_aside() -> None:
    """Each connection has its own; a broker that does not stand it takes nothing at all."""
    detector = PoisonMessageDetector()
    births = [Outgoing.of("pi-1", Status(state="online"), float(n)) for n in range(2 * LOSSES)]
    assert [losses(detector, birth) for birth in births] == [[None]] * 2 * LOSSES


def test_from_the_second_loss_on_there_is_a_name() -> None:
    """For the log: one loss alone is chance."""
    detector = PoisonMessageDetector()
    names = []
    for _ in range(LOSSES):
        losses(detector, words(1))
        names.append(detector.prime)
    assert names == [None, words(1), words(1), words(1), None]


def unanswered(detector: PoisonMessageDetector, times: int, *, after_s: float = 0.1, answered: bool = False) -> None:
    """So many connections, each of which broke so long after its start."""
    for count in range(times):
        detector.connected(100.0 * count)
        if answered:
            detector.answered()
        detector.lost([], 100.0 * count + after_s)


def test_a_broker_that_never_answers_and_hangs_up_each_time_does_not_want_us() -> None:
    """After the fifth connection in a row, however long the pauses in between are."""
    detector = PoisonMessageDetector()
    verdicts = []
    for times, answered in ((LOSSES - 1, False), (1, False), (1, True)):
        unanswered(detector, times, answered=answered)
        verdicts.append(detector.unwelcome)
    assert verdicts == [False, True, False]


def test_attempts_without_a_connection_say_nothing_about_the_broker() -> None:
    """A broker that is out of reach after a loss is counted once."""
    detector = PoisonMessageDetector()
    unanswered(detector, 1)
    losses(detector, times=2 * LOSSES, after_s=-9.9)
    assert not detector.unwelcome


def test_a_connection_that_broke_late_or_was_answered_is_no_refusal() -> None:
    """A bad link breaks at any time."""
    detector = PoisonMessageDetector()
    unanswered(detector, 2 * LOSSES, after_s=STRAIGHT_S)
    unanswered(detector, 2 * LOSSES, answered=True)
    assert not detector.unwelcome


def test_only_the_first_answer_of_a_connection_is_news() -> None:
    """It shows that the broker takes messages at all."""
    detector = PoisonMessageDetector()
    for _ in range(2):
        detector.connected(0.0)
        assert [detector.answered() for _ in range(3)] == [True, False, False]
