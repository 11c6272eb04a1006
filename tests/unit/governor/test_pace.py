import pytest

from agent.governor.pace import WINDOW_S, Pace


def test_the_real_time_factor_follows_what_it_is_told() -> None:
    """The first utterance counts whole, later ones move it; another engine begins anew."""
    pace = Pace()
    assert pace.rtf == 0.0
    pace.inferred(1.0, 0.5, 2.0)
    assert pace.rtf == 0.25
    for second in range(20):
        pace.inferred(2.0 + second, 2.0, 2.0)
    assert pace.rtf == pytest.approx(1.0, abs=0.01)
    pace.another_engine()
    assert pace.rtf == 0.0


def test_the_load_is_the_share_of_the_last_two_minutes() -> None:
    """What is older is forgotten, and it is never more than all of the time."""
    pace = Pace()
    pace.inferred(0.0, 60.0, 10.0)
    assert pace.load(0.0) == 60.0 / WINDOW_S
    pace.inferred(100.0, 100.0, 10.0)
    assert pace.load(100.0) == 1.0
    assert pace.load(130.0) == pytest.approx(100.0 / WINDOW_S)
    assert pace.load(300.0) == 0.0
