import pytest

from agent.asr.pace import GRACE_S, WINDOW_S, EnginePace, SpeculationBudget


def test_drafts_are_allowed_from_the_start() -> None:
    """Before anything was decoded there is nothing to hold against drafts."""
    assert SpeculationBudget().allows


def test_waste_beyond_its_share_switches_drafts_off() -> None:
    """Past the grace, wasted work may be at most 30 % of the useful work."""
    budget = SpeculationBudget()
    budget.spent(10.0, useful=True)
    budget.spent(3.0 + GRACE_S, useful=False)
    assert budget.allows
    budget.spent(0.1, useful=False)
    assert not budget.allows


def test_useful_work_switches_drafts_on_again() -> None:
    """The share is that of the whole run: useful work makes room for drafts again."""
    budget = SpeculationBudget()
    budget.spent(2 * GRACE_S, useful=False)
    before = budget.allows
    budget.spent(10.0, useful=True)
    assert (before, budget.allows) == (False, True)


def test_the_real_time_factor_follows_what_it_is_told() -> None:
    """The first utterance counts whole, later ones move it."""
    pace = EnginePace()
    assert pace.rtf == 0.0
    pace.inferred(1.0, 0.5, 2.0)
    assert pace.rtf == 0.25
    for second in range(20):
        pace.inferred(2.0 + second, 2.0, 2.0)
    assert pace.rtf == pytest.approx(1.0, abs=0.01)


def test_the_load_is_the_share_of_the_last_two_minutes() -> None:
    """What is older is forgotten, and it is never more than all of the time."""
    pace = EnginePace()
    pace.inferred(0.0, 60.0, 10.0)
    assert pace.load(0.0) == 60.0 / WINDOW_S
    pace.inferred(100.0, 100.0, 10.0)
    assert pace.load(100.0) == 1.0
    assert pace.load(130.0) == pytest.approx(100.0 / WINDOW_S)
    assert pace.load(300.0) == 0.0
