import random

import pytest

from agent.mqtt.pacing import QuotaPause, ReplayPace


def test_a_replay_sends_five_messages_a_second() -> None:
    """Ten thousand devices that come back must not drown their broker."""
    pace = ReplayPace(random.Random(1))  # noqa: S311 - jitter, not a secret
    now_s = 100.0 + pace.due_in_s(100.0)
    began_s = now_s
    for _ in range(50):
        now_s += pace.due_in_s(now_s)
        pace.spend(now_s)
    assert 9.7 <= now_s - began_s <= 9.9


def test_the_delay_runs_from_the_first_question_and_is_spread_over_30_s() -> None:
    """It is drawn once for each connection, whoever asks how often."""
    delays_s = []
    for seed in range(200):
        pace = ReplayPace(random.Random(seed))  # noqa: S311 - jitter, not a secret
        delay_s = pace.due_in_s(50.0)
        assert pace.due_in_s(50.0 + delay_s / 2) == pytest.approx(delay_s / 2)
        delays_s.append(delay_s)
    assert 0 <= min(delays_s) < 1
    assert 29 < max(delays_s) <= 30


def test_a_pause_doubles_up_to_a_minute_and_is_forgotten_with_the_first_success() -> None:
    """A broker over its quota is asked less and less often."""
    pause = QuotaPause()
    now_s, waits_s = 0.0, []
    for _ in range(9):
        pause.refused(now_s)
        waits_s.append(pause.due_in_s(now_s))
        now_s += waits_s[-1]
    assert waits_s == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    pause.accepted()
    pause.refused(now_s)
    assert pause.due_in_s(now_s) == 1


def test_a_window_full_of_refusals_is_one_refusal() -> None:
    """Eight messages were on their way when the broker had enough: that is no reason to wait eight times as long."""
    pause = QuotaPause()
    for _ in range(8):
        pause.refused(10.0)
    assert pause.due_in_s(10.0) == 1
