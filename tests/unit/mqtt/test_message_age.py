import pytest

from agent.mqtt.outbox_queue import Stamp

DAY_S = 86_400.0


def stamp(boot_id: str, monotonic_s: float, wall_s: float, *, synced: bool = True) -> Stamp:
    """An instant."""
    return Stamp(boot_id, monotonic_s, wall_s, synced)


@pytest.mark.parametrize("jump_s", [0.0, 10 * 365 * DAY_S, -30 * 365 * DAY_S])
def test_within_a_boot_the_wall_clock_does_not_matter(jump_s: float) -> None:
    """Whatever it is set to, a message is as old as the monotonic clock says."""
    assert stamp("a", 100, 1e9).age_s(stamp("a", 160, 1e9 + 60 + jump_s)) == 60


def test_across_boots_synchronised_wall_clocks_tell() -> None:
    """A day without power is a day."""
    assert stamp("a", 5_000, 1e9).age_s(stamp("b", 30, 1e9 + DAY_S)) == DAY_S


@pytest.mark.parametrize(("then_synced", "now_synced"), [(True, False), (False, True), (False, False)])
def test_a_clock_that_is_a_guess_ages_nothing(*, then_synced: bool, now_synced: bool) -> None:
    """A board that believed it was 1970 does not throw its words away when it learns the date."""
    then = stamp("a", 5_000, 0.0, synced=then_synced)
    assert then.age_s(stamp("b", 30, 1.8e9, synced=now_synced)) == 30


def test_a_clock_that_went_back_makes_nothing_younger_than_the_boot() -> None:
    """What was there at the boot is at least as old as the boot."""
    assert stamp("a", 5_000, 2e9).age_s(stamp("b", 300, 1e9)) == 300


def test_an_earlier_instant_of_the_same_boot_is_earlier_on_both_clocks() -> None:
    """A message is stamped with the time at which it was accepted, not with that of its storage."""
    assert stamp("a", 100, 1e9).at(90) == stamp("a", 90, 1e9 - 10)
