from agent.asr.speculative import GRACE_S, DraftBudget


def test_drafts_are_allowed_from_the_start() -> None:
    """Before anything was decoded there is nothing to hold against drafts."""
    assert DraftBudget().allows


def test_waste_beyond_its_share_switches_drafts_off() -> None:
    """Past the grace, wasted work may be at most 30 % of the useful work."""
    budget = DraftBudget(max_waste=0.3)
    budget.spent(10.0, useful=True)
    budget.spent(3.0 + GRACE_S, useful=False)
    assert budget.allows
    budget.spent(0.1, useful=False)
    assert not budget.allows


def test_useful_work_switches_drafts_on_again() -> None:
    """The share is that of the whole run: useful work makes room for drafts again."""
    budget = DraftBudget(max_waste=0.3)
    budget.spent(2 * GRACE_S, useful=False)
    before = budget.allows
    budget.spent(10.0, useful=True)
    assert (before, budget.allows) == (False, True)
