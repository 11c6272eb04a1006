import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from agent.governor.policy import DUTY, Decision, Governor, Limits, Reason, Signals
from agent.messages.telemetry import Pwr
from agent.telemetry.vitals import Vitals

LIMITS = Limits(queue_age_s=10.0, hot_c=80.0, mem_available_mb=48)
COSTS = (0.6, 0.4, 0.2, 0.1)


def signals(now_s: float, temp_c: float | None = 50.0, **further: Any) -> Signals:
    """A device at ease, but for what is said."""
    return replace(Signals(now_s, Vitals(at_s=now_s, cpu_temp_c=temp_c)), **further)


def run(governor: Governor, since_s: float, seconds: float, **what: float) -> list[Decision]:
    """One decision a second while it is like this."""
    return [governor.decide(signals(since_s + second, **what)) for second in range(round(seconds))]


def test_a_device_at_ease_stays_at_the_top() -> None:
    """A day without trouble is a day without a step."""
    governor = Governor(COSTS, LIMITS)
    assert {decision.level for decision in run(governor, 0.0, 3_600, queue_age_s=0.4, rtf=0.3)} == {0}
    assert governor.steps == 0


def test_it_steps_down_before_the_queue_is_too_old() -> None:
    """What waits will take longer than is allowed: the step comes while the oldest is still in time."""
    governor = Governor(COSTS, LIMITS)
    decision = governor.decide(signals(1.0, queue_age_s=2.0, backlog_s=8.0, rtf=0.6))
    assert (decision.level, decision.reason) == (1, Reason.BEHIND)


def test_one_step_at_a_time_and_each_gets_time_to_help() -> None:
    """A backlog that lasts leads all the way down, ten seconds a step."""
    governor = Governor(COSTS, LIMITS)
    levels = [decision.level for decision in run(governor, 0.0, 40, queue_age_s=20.0, backlog_s=30.0, rtf=1.0)]
    assert [levels.index(level) for level in (1, 2, 3)] == [0, 10, 20]


@pytest.mark.parametrize(
    ("vitals", "reason"),
    [
        (Vitals(0.0, cpu_temp_c=80.0), Reason.HOT),
        (Vitals(0.0, power=Pwr(thr_now=True)), Reason.THROTTLED),
        (Vitals(0.0, power=Pwr(uv_now=True)), Reason.UNDERVOLTAGE),
        (Vitals(0.0, mem_available_mb=20), Reason.MEMORY),
        (Vitals(0.0, mem_stalled_pct=25.0), Reason.MEMORY),
    ],
)
def test_each_trouble_of_the_board_is_a_reason(vitals: Vitals, reason: Reason) -> None:
    """One step at once, the next a minute later; what is not known is no trouble."""
    governor = Governor(COSTS, LIMITS)
    decisions = [governor.decide(Signals(float(second), vitals)) for second in range(round(LIMITS.down_after_s) + 1)]
    assert [decision.level for decision in decisions] == [1] * round(LIMITS.down_after_s) + [2]
    assert {decision.reason for decision in decisions} == {reason}


def test_nothing_known_is_nothing_wrong() -> None:
    """A board without sensors is left alone."""
    assert Governor(COSTS, LIMITS).decide(Signals(1.0, Vitals(1.0))) == Decision(0)


def test_a_temperature_that_rises_fast_is_met_before_the_limit() -> None:
    """From three degrees below, if it would be there within a minute; a steady one there is no trouble."""
    steady, rising = Governor(COSTS, LIMITS), Governor(COSTS, LIMITS)
    assert {decision.level for decision in run(steady, 0.0, 600, temp_c=78.0)} == {0}
    temperatures = [60.0 + 0.15 * second for second in range(133)]
    decisions = [rising.decide(signals(float(at), temp_c)) for at, temp_c in enumerate(temperatures)]
    first = next(at for at, decision in enumerate(decisions) if decision.level)
    assert 77.0 <= temperatures[first] < 80.0


def test_it_goes_up_again_one_step_after_a_long_quiet_time() -> None:
    """Five minutes after the last trouble at the earliest, only when cool enough, and step by step."""
    governor = Governor(COSTS, LIMITS)
    run(governor, 0.0, 61, temp_c=81.0)
    assert {decision.level for decision in run(governor, 61.0, 400, temp_c=77.0)} == {2}, "not cool enough"
    levels = [decision.level for decision in run(governor, 461.0, 700, temp_c=60.0)]
    assert levels[0] == 1
    assert levels.index(0) == round(LIMITS.up_after_s)
    assert governor.decide(signals(1_200.0)).reason is None


def test_it_does_not_go_up_to_what_would_be_too_slow() -> None:
    """Where costs are known: what there was to do has to fit on the level above."""
    governor = Governor((0.9, 0.3), LIMITS)
    run(governor, 0.0, 1, queue_age_s=9.0, backlog_s=10.0, rtf=0.9)
    busy = run(governor, 1.0, 1_000, rtf=0.3, load=0.3)
    assert {decision.level for decision in busy} == {1}, "0.3 of the time would be 0.9 there"
    assert run(governor, 1_001.0, 2, rtf=0.3, load=0.1)[-1].level == 0


def test_a_step_up_that_had_to_be_taken_back_makes_it_wait_longer() -> None:
    """Each time twice as long, so that a device that cannot do better stops trying every few minutes."""
    governor = Governor((None, None), LIMITS)
    now_s, waits = 0.0, []
    for _ in range(3):
        governor.decide(signals(now_s, queue_age_s=9.0, backlog_s=9.0, rtf=1.0))
        down_s = now_s
        while governor.decide(signals(now_s)).level:
            now_s += 1.0
        waits.append(now_s - down_s)
        now_s += 5.0
    assert waits == [LIMITS.up_after_s, 2 * LIMITS.up_after_s, 4 * LIMITS.up_after_s]


def test_at_the_lowest_level_what_is_too_old_is_set_aside() -> None:
    """Only there, and only what has waited longer than allowed."""
    governor = Governor((0.5, 0.2), LIMITS)
    behind = {"backlog_s": 60.0, "rtf": 1.2}
    first = governor.decide(signals(0.0, queue_age_s=9.0, **behind))
    assert (first.level, first.set_aside) == (1, False)
    assert governor.decide(signals(1.0, queue_age_s=10.5, **behind)).set_aside
    assert not governor.decide(signals(2.0, queue_age_s=9.5, **behind)).set_aside


def test_the_engine_rests_where_even_the_lowest_level_is_too_hot() -> None:
    """A minute after it was reached; never for the sake of anything else."""
    governor = Governor((0.5, 0.2), LIMITS)
    duties = [decision.duty for decision in run(governor, 0.0, 90, temp_c=85.0)]
    assert duties[0] == duties[59] == 1.0
    assert duties[60] == duties[-1] == DUTY


def test_a_step_that_could_not_be_made_is_followed_by_the_next_one() -> None:
    """The device stays where it is, and the attempt at the level below has to wait like any step."""
    governor = Governor(COSTS, LIMITS)
    assert governor.decide(signals(0.0, temp_c=85.0)).level == 1
    governor.refused(0, 1.0)
    assert governor.decide(signals(2.0, temp_c=85.0)).level == 0
    assert governor.decide(signals(LIMITS.down_after_s + 1.0, temp_c=85.0)).level == 2


class Ladder:
    """A device that is asked for one decision a second; what is in `missing` cannot be loaded."""

    def __init__(self, costs: tuple[float | None, ...], missing: set[int]) -> None:
        self.governor, self.missing = Governor(costs, LIMITS), missing
        self.now_s, self.in_force = 0.0, 0
        self.attempts: list[tuple[float, int]] = []
        """When something was loaded, and what."""

    def run(self, seconds: float, **what: float) -> list[Decision]:
        """The decisions while it is like this."""
        return [self._second(**what) for _ in range(round(seconds))]

    def _second(self, **what: float) -> Decision:
        decision = self.governor.decide(signals(self.now_s, **what))
        if decision.level != self.in_force:
            self.attempts.append((self.now_s, decision.level))
            if decision.level in self.missing:
                self.governor.refused(self.in_force, self.now_s)
            else:
                self.in_force = decision.level
        self.now_s += 1.0
        return decision


BEHIND = {"queue_age_s": 30.0, "backlog_s": 60.0, "rtf": 2.0}


def test_a_level_that_cannot_be_loaded_does_not_bar_the_way_down() -> None:
    """It is passed over, and tried again after ever longer waits, as far as it is wanted at all."""
    ladder = Ladder((None,) * 4, missing={2})
    ladder.run(3_600, **BEHIND)
    assert [level for _at_s, level in ladder.attempts] == [1, 2, 3]
    assert ladder.in_force == 3


def test_the_last_level_that_can_be_loaded_is_the_lowest() -> None:
    """What is too old is set aside there, and the engine rests where it is too hot; the rest is tried now and then."""
    ladder = Ladder((None,) * 3, missing={2})
    decisions = ladder.run(3_600, **BEHIND)
    assert ladder.in_force == 1
    assert sum(decision.set_aside for decision in decisions) > 3_500
    attempts_s = [at_s for at_s, level in ladder.attempts if level == 2]
    waits_s = [later - earlier for earlier, later in pairwise(attempts_s)]
    assert waits_s == [LIMITS.up_after_s * times for times in (1, 2, 4)]
    hot = Ladder((None, None), missing={1})
    assert hot.run(150, temp_c=85.0)[-1].duty == DUTY


def test_a_level_that_can_be_loaded_again_is_taken() -> None:
    """Whoever pulls the missing model need not start the agent anew; and its failure is forgotten."""
    ladder = Ladder((None,) * 3, missing={2})
    ladder.run(60, **BEHIND)
    ladder.missing.clear()
    ladder.run(LIMITS.up_after_s, **BEHIND)
    assert ladder.in_force == 2
    ladder.run(2 * LIMITS.up_after_s + 2)
    assert ladder.in_force == 0
    ladder.missing.add(2)
    ladder.run(LIMITS.up_after_s + 30, **BEHIND)
    attempts_s = [at_s for at_s, level in ladder.attempts if level == 2]
    assert attempts_s[-1] - attempts_s[-2] == LIMITS.up_after_s


def test_a_level_that_cannot_be_loaded_does_not_bar_the_way_up() -> None:
    """The one above it is tried in its stead, if the costs allow that."""
    ladder = Ladder((0.9, 0.6, 0.3), missing=set())
    ladder.run(60, **BEHIND)
    assert ladder.in_force == 2
    ladder.missing.add(1)
    ladder.run(2_000, rtf=0.3, load=0.25)
    assert ladder.in_force == 2, "0.25 of the time would be 0.75 on the highest level"
    ladder.run(700, rtf=0.3, load=0.1)
    assert ladder.in_force == 0


def test_a_ladder_of_which_nothing_can_be_loaded_is_stayed_on() -> None:
    """Even then a device that is behind sets aside what is too old."""
    ladder = Ladder((None,) * 4, missing={1, 2, 3})
    decisions = ladder.run(600, **BEHIND)
    assert (ladder.in_force, decisions[-1].set_aside, decisions[-1].reason) == (0, True, None)


def _weather(chance: random.Random, now_s: float, before: Signals) -> Signals:
    """The next second of a device to which anything may happen, at random, and now and then nothing for a while."""
    if chance.random() > 0.004:
        return replace(before, now_s=now_s, vitals=replace(before.vitals, at_s=now_s))
    if chance.random() < 0.6:
        return signals(now_s)
    vitals = Vitals(
        now_s,
        cpu_temp_c=chance.choice([None, chance.uniform(30, 95)]),
        power=Pwr(uv_now=chance.choice([None, True, False, False]), thr_now=chance.choice([None, True, False, False])),
        mem_available_mb=chance.choice([None, chance.randint(0, 4_000)]),
    )
    age_s = chance.choice([0.0, 0.0, chance.uniform(0, 60)])
    return Signals(now_s, vitals, age_s, age_s * chance.random(), rtf=chance.uniform(0, 2), load=chance.random())


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_it_keeps_to_its_rules(seed: int) -> None:
    """Six hours of anything: within the ladder, one step at a time, at most one step up in five minutes, repeatable."""
    chance = random.Random(seed)  # noqa: S311 - repeatable
    governor, twin = Governor(COSTS, LIMITS), Governor(COSTS, LIMITS)
    now, levels, ups = signals(0.0), [0], list[float]()
    for second in range(6 * 3_600):
        now = _weather(chance, float(second), now)
        decision = governor.decide(now)
        assert twin.decide(now) == decision
        assert 0 <= decision.level < len(COSTS)
        assert abs(decision.level - levels[-1]) <= 1
        assert (decision.reason is None) == (decision.level == 0)
        if decision.level < levels[-1]:
            ups.append(float(second))
        levels.append(decision.level)
    assert ups, "it never went up: nothing was tried"
    assert all(later - earlier >= LIMITS.up_after_s for earlier, later in pairwise(ups))
    assert governor.steps == sum(one != other for one, other in pairwise(levels))


def test_while_a_step_is_being_made_no_other_is_taken() -> None:
    """It has to be seen what the first one does: the next one's time begins when that is done."""
    governor = Governor(COSTS, LIMITS)
    behind = {"queue_age_s": 9.0, "backlog_s": 10.0, "rtf": 0.9}
    assert governor.decide(signals(0.0, **behind)).level == 1
    changing = [governor.decide(replace(signals(float(at), **behind), changing=True)) for at in range(1, 30)]
    assert {decision.level for decision in changing} == {1}
    levels = [decision.level for decision in run(governor, 30.0, 11, **behind)]
    assert levels.index(2) == 9


def test_it_does_not_go_up_to_where_the_longest_wait_would_be_too_long() -> None:
    """People do not talk evenly: what waited 2 s of late would have waited 6 s, whatever the mean load says."""
    governor = Governor((0.9, 0.3), LIMITS)
    run(governor, 0.0, 1, queue_age_s=9.0, backlog_s=10.0, rtf=0.9)
    uneven = [second % 120 == 0 for second in range(3_000)]
    for second, waits in enumerate(uneven, start=1):
        now = signals(float(second), rtf=0.3, load=0.1, queue_age_s=0.5 * waits, backlog_s=5.0 * waits)
        assert governor.decide(now).level == 1, second
    assert run(governor, 3_001.0, 1_000, rtf=0.3, load=0.1)[-1].level == 0


def test_a_step_up_that_lasted_makes_the_next_one_wait_less_again() -> None:
    """What went wrong in the morning is not held against the evening."""
    governor = Governor((None, None), LIMITS)
    now_s, waits = 0.0, []
    for lasted_s in (5.0, 5.0, 3_600.0, 3_600.0, 3_600.0):
        governor.decide(signals(now_s, queue_age_s=9.0, backlog_s=9.0, rtf=1.0))
        down_s = now_s
        while governor.decide(signals(now_s)).level:
            now_s += 1.0
        waits.append((now_s - down_s) / LIMITS.up_after_s)
        now_s += lasted_s
    assert waits == [1, 2, 4, 2, 1]
