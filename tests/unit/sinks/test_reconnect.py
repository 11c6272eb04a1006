import random
from itertools import pairwise

import pytest

from agent.sinks.reconnect import Backoff, Cause, VersionChoice

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


@pytest.mark.parametrize("cause", [Cause.CREDENTIALS, Cause.CERTIFICATE, Cause.TAKEN_OVER])
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


def test_a_plain_refusal_of_mqtt_5_settles_it() -> None:
    """A broker that says it does not know MQTT 5 is not asked again."""
    choice = VersionChoice("auto")
    assert (choice.version, choice.guessing) == ("5", True)
    assert choice.fall_back(Cause.VERSION)
    assert not choice.fall_back(Cause.LOST)
    assert not choice.fall_back(Cause.SILENT)
    assert (choice.version, choice.guessing) == ("3.1.1", False)


def test_silence_is_tried_both_ways_in_turn() -> None:
    """A silent broker may be old or merely starting: neither version is given up, and only one retry is immediate."""
    choice = VersionChoice("auto")
    history = []
    for _ in range(6):
        history.append(choice.version)
        choice.fall_back(Cause.SILENT)
    assert all(one != other for one, other in pairwise(history))


def test_a_broken_connection_gives_mqtt_5_another_chance() -> None:
    """The broker may have been replaced by a newer one while it was away."""
    choice = VersionChoice("auto")
    assert choice.fall_back(Cause.SILENT)
    assert not choice.fall_back(Cause.LOST)
    assert choice.version == "5"


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_version_that_was_set_is_kept(version: str) -> None:
    """Whoever sets the protocol gets that protocol or a clear refusal."""
    choice = VersionChoice("5" if version == "5" else "3.1.1")
    assert not any(choice.fall_back(cause) for cause in Cause)
    assert choice.version == version
