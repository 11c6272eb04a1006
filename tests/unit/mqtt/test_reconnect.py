import random
from itertools import pairwise

import pytest

from agent.mqtt.packet import Oversized
from agent.mqtt.reconnect import Approach, Backoff, Cause, Subscriptions

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
