import random
from itertools import pairwise

import pytest

from agent.messages import Status
from agent.mqtt.connection import Cause, Oversized
from agent.mqtt.delivery import Outgoing
from agent.mqtt.reconnect import (
    LOSSES,
    STABLE_S,
    STRAIGHT_S,
    Approach,
    Backoff,
    PoisonMessageDetector,
    Subscriptions,
)

Seeded = random.Random
"""Chance that repeats itself."""


class Highest(random.Random):
    """Always the upper end, so that the limits show."""

    def uniform(self, a: float, b: float) -> float:  # noqa: ARG002 - the signature is random.Random's
        """Return `b`."""
        return b


def test_the_limit_doubles_up_to_five_minutes() -> None:
    """The first attempts are quick, later ones patient, and patience has an end."""
    backoff = Backoff(Highest())
    limits = [backoff.wait_s(Cause.UNREACHABLE) for _ in range(12)]
    assert limits[:9] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert limits[9:] == [300, 300, 300]


def test_the_jitter_is_full() -> None:
    """Anything from nothing to the limit: devices that lost the broker together do not come back together."""
    backoff = Backoff(Seeded(1))
    for _ in range(10):
        backoff.wait_s(Cause.LOST)
    waits = [backoff.wait_s(Cause.LOST) for _ in range(500)]
    assert min(waits) < 15
    assert max(waits) > 285
    assert 130 < sum(waits) / len(waits) < 170


def test_only_a_stable_connection_makes_it_hurry_again() -> None:
    """A broker that accepts and hangs up at once is not hammered; one that held for a minute is given credit."""
    backoff = Backoff(Highest())
    assert [backoff.wait_s(Cause.LOST, connected_s=5.0) for _ in range(3)] == [1, 2, 4]
    assert backoff.wait_s(Cause.LOST, connected_s=60.0) == 1


@pytest.mark.parametrize("cause", [Cause.CREDENTIALS, Cause.CERTIFICATE, Cause.TAKEN_OVER, Cause.QOS, Cause.GREETING])
def test_what_only_a_person_can_mend_is_retried_slowly(cause: Cause) -> None:
    """Between one and fifteen minutes: insisting only gets a device banned."""
    backoff = Backoff(Seeded(2))
    waits = [backoff.wait_s(cause) for _ in range(200)]
    assert all(60 <= wait <= 900 for wait in waits)
    assert max(waits) - min(waits) > 600


def test_months_of_attempts_do_not_overflow() -> None:
    """The exponent stops growing long before a float runs out."""
    backoff = Backoff(Highest())
    assert {backoff.wait_s(Cause.UNREACHABLE) for _ in range(5_000)} >= {300.0}


def test_a_refusal_of_mqtt_5_is_followed_by_3_1_1_at_once_and_never_for_ever() -> None:
    """A proxy may say `unsupported protocol version` once: when the connection ends, 5 has its turn again."""
    approach = Approach("auto")
    assert (approach.version, approach.guessing) == ("5", True)
    assert approach.fall_back(Cause.VERSION)
    assert (approach.version, approach.guessing) == ("3.1.1", False)
    assert not approach.fall_back(Cause.LOST)
    assert approach.version == "5"


def test_a_broker_that_refuses_both_versions_is_not_hammered() -> None:
    """Only every other attempt comes at once."""
    approach = Approach("auto")
    assert [approach.fall_back(Cause.VERSION) for _ in range(4)] == [True, False, True, False]


def test_silence_is_tried_both_ways_in_turn() -> None:
    """A silent broker may be old or merely starting: neither version is given up, and only one retry is immediate."""
    approach = Approach("auto")
    history = []
    for _ in range(6):
        history.append(approach.version)
        approach.fall_back(Cause.SILENT)
    assert all(one != other for one, other in pairwise(history))


def test_a_broken_connection_gives_mqtt_5_another_chance() -> None:
    """The broker may have been replaced by a newer one while it was away."""
    approach = Approach("auto")
    assert approach.fall_back(Cause.SILENT)
    assert not approach.fall_back(Cause.LOST)
    assert approach.version == "5"


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_version_that_was_set_is_kept(version: str) -> None:
    """A user who sets the protocol gets that protocol or a clear refusal."""
    approach = Approach("5" if version == "5" else "3.1.1")
    assert not any(approach.fall_back(cause) for cause in Cause if cause is not Cause.RETAIN)
    assert approach.version == version


def test_a_broker_without_retained_messages_gets_none_until_the_connection_ends() -> None:
    """The second refusal in a row waits; retained messages have their turn again on the next connection."""
    approach = Approach("5")
    assert approach.fall_back(Cause.RETAIN)
    assert (approach.version, approach.retained) == ("5", False)
    assert not approach.fall_back(Cause.RETAIN)
    assert approach.retained
    assert approach.fall_back(Cause.RETAIN)
    assert not approach.fall_back(Cause.LOST)
    assert approach.retained


OWN, GROUP = "edgescribe/v1/pi-1/cmd/+", "edgescribe/v1/_group/up/cmd/+"


def test_one_message_that_is_too_large_costs_no_filter() -> None:
    """It does not come again to a clean session; `health` says so for an hour."""
    subscriptions = Subscriptions((OWN, GROUP))
    assert not subscriptions.trouble(0.0)
    assert subscriptions.too_large(Oversized(99_999, "edgescribe/v1/pi-1/cmd/mute"), 0.0) == ()
    assert subscriptions.wanted(0.0) == (OWN, GROUP)
    assert subscriptions.trouble(3_599.0)
    assert not subscriptions.trouble(3_600.0)


def test_a_retained_message_that_is_too_large_costs_its_filter_for_an_hour() -> None:
    """The others stay: a group's topic must not take the device's own commands away."""
    subscriptions = Subscriptions((OWN, GROUP))
    oversized = Oversized(99_999, "edgescribe/v1/_group/up/cmd/mute", retained=True)
    assert subscriptions.too_large(oversized, 10.0) == (GROUP,)
    assert subscriptions.wanted(3_609.0) == (OWN,)
    assert subscriptions.wanted(3_610.0) == (OWN, GROUP)


@pytest.mark.parametrize(("every_s", "guilty"), [(299.0, (OWN,)), (301.0, ())])
def test_the_third_message_within_ten_minutes_costs_its_filter(every_s: float, guilty: tuple[str, ...]) -> None:
    """A sender that goes on must not keep the device from publishing."""
    subscriptions = Subscriptions((OWN, GROUP))
    oversized = Oversized(99_999, "edgescribe/v1/pi-1/cmd/mute")
    outcomes = [subscriptions.too_large(oversized, count * every_s) for count in range(3)]
    assert outcomes == [(), (), guilty]


def test_a_topic_that_cannot_be_read_may_belong_to_any_filter() -> None:
    """All of them are left out then, rather than none."""
    subscriptions = Subscriptions((OWN, GROUP))
    assert subscriptions.too_large(Oversized(99_999, None, retained=True), 0.0) == (OWN, GROUP)
    assert subscriptions.wanted(1.0) == ()


WIDEST = 8


def losses(detector: PoisonMessageDetector, *items: object, after_s: float = 0.1, times: int = 1) -> list[bool]:
    """What comes of losing the link so often, so long behind the sending of these."""
    return [detector.lost(dict.fromkeys(items, 10.0), 10.0 + after_s) for _ in range(times)]


def test_the_message_that_is_alone_at_five_losses_in_a_row_is_set_aside() -> None:
    """Not before the fifth, and then no longer: what comes behind it is not suspected."""
    detector = PoisonMessageDetector()
    assert losses(detector, 1, times=LOSSES) == [False] * (LOSSES - 1) + [True]
    assert detector.window(WIDEST, 0.0) == WIDEST
    assert losses(detector, 2) == [False]


def test_of_many_on_their_way_none_is_convicted_but_they_go_one_by_one() -> None:
    """Until each of them has been answered."""
    detector = PoisonMessageDetector()
    many = range(WIDEST)
    assert losses(detector, *many, times=2 * LOSSES) == [False] * 2 * LOSSES
    windows = []
    for item in many:
        windows.append(detector.window(WIDEST, 0.0))
        detector.acknowledged(item)
    assert windows == [1] * WIDEST
    assert detector.window(WIDEST, 0.0) == WIDEST


def test_a_link_that_holds_is_used_in_full_again() -> None:
    """A suspect that was purged is never answered, and must not slow down the rest for ever."""
    detector = PoisonMessageDetector()
    losses(detector, 1)
    detector.connected(100.0)
    assert detector.window(WIDEST, 100.0 + STABLE_S - 1.0) == 1
    assert detector.window(WIDEST, 100.0 + STABLE_S) == WIDEST


def test_an_answer_acquits() -> None:
    """The link was bad; the count begins anew."""
    detector = PoisonMessageDetector()
    losses(detector, 1, times=LOSSES - 1)
    detector.acknowledged(1)
    assert losses(detector, 1, times=LOSSES - 1) == [False] * (LOSSES - 1)


def test_a_loss_that_a_time_out_noticed_is_nobodys_doing() -> None:
    """The network went away while the message was on its way."""
    detector = PoisonMessageDetector()
    losses(detector, 1, times=LOSSES - 1)
    assert losses(detector, 1, after_s=STRAIGHT_S) == [False]
    assert losses(detector, 1, times=LOSSES - 1) == [False] * (LOSSES - 1)


def test_a_loss_with_nothing_on_its_way_says_nothing() -> None:
    """It neither convicts nor acquits."""
    detector = PoisonMessageDetector()
    losses(detector, 1, times=LOSSES - 1)
    assert losses(detector, times=LOSSES) == [False] * LOSSES
    assert not detector.suspected
    assert losses(detector, 1) == [True]


def test_no_birth_is_ever_set_aside() -> None:
    """Each connection has its own; a broker that does not stand it takes nothing at all."""
    detector = PoisonMessageDetector()
    births = [Outgoing.of("pi-1", Status(state="online"), float(n)) for n in range(2 * LOSSES)]
    assert [losses(detector, birth) for birth in births] == [[False]] * 2 * LOSSES


def test_from_the_second_loss_on_there_is_a_name() -> None:
    """For the log: one loss alone is chance."""
    detector = PoisonMessageDetector()
    names = []
    for _ in range(LOSSES):
        losses(detector, 1)
        names.append(detector.suspected)
    assert names == [False, True, True, True, False]


def unanswered(detector: PoisonMessageDetector, times: int, *, after_s: float = 0.1, answered: bool = False) -> None:
    """So many connections, each of which broke so long after its start."""
    for count in range(times):
        detector.connected(100.0 * count)
        if answered:
            detector.answered()
        detector.lost({}, 100.0 * count + after_s)


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
