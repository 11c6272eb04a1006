import random
from itertools import pairwise

from agent.telemetry.schedule import TelemetrySchedule

Seeded = random.Random
"""Chance that repeats itself."""


def due_times(schedule: TelemetrySchedule, until_s: float) -> list[float]:
    """When it was due, looking every tenth of a second."""
    return [tick / 10 for tick in range(int(until_s * 10)) if schedule.due(tick / 10)]


def test_messages_keep_their_distance_within_a_tenth() -> None:
    """Every 60 s, never sooner than 54 and never later than 66 (and a look)."""
    times = due_times(TelemetrySchedule(60.0, "pi-1", 0.0, Seeded(1)), 7_200.0)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(times) > 100
    assert all(54.0 <= gap <= 66.2 for gap in gaps)
    assert max(gaps) - min(gaps) > 6.0


def test_a_fleet_that_starts_together_is_spread_over_the_interval() -> None:
    """Of a hundred devices started at once, no tenth of the interval gets more than twice its share."""
    first = [TelemetrySchedule(60.0, f"pi-{number}", 1_000.0, Seeded(1)).next_s for number in range(100)]
    shares = [sum(1_000 + tenth * 6 <= at < 1_006 + tenth * 6 for at in first) for tenth in range(10)]
    assert sum(shares) == 100
    assert max(shares) <= 20


def test_a_device_keeps_its_phase_from_start_to_start() -> None:
    """The id decides, not chance."""
    one, two = (TelemetrySchedule(60.0, "pi-1", 0.0, Seeded(seed)) for seed in (1, 2))
    assert one.next_s == two.next_s


def test_what_was_missed_is_not_made_up() -> None:
    """After a suspended hour one message is due, not sixty."""
    schedule = TelemetrySchedule(60.0, "pi-1", 0.0, Seeded(1))
    assert schedule.due(3_600.0)
    assert not schedule.due(3_600.1)
