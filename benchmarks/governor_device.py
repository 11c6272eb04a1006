"""A simulated device: the product's queue, governor, ladder and measure of pace, on simulated time.

[speech] ─▶ draft, submit ─▶ Channel ─▶ engine: so much work at this clock ─▶ words
                               │ full          ▲ exchange, late
                               ▼               │
                            [spool] ◀── tick every second: Governor ◀── temperature, queue, pace

What `agent/asr/transcriber.py` and `agent/governor/runner.py` do with threads is done here in order of time.
"""

import random
from collections.abc import Iterator
from typing import Final

from governor_board import Chip
from governor_engines import Ways
from governor_queue import Exchange, Job, Kept, Load, Plan, Work, events, is_final
from governor_record import Fate, Record
from governor_speech import HOUR_S, Spoken

from agent.app import UTTERANCES_CAPACITY
from agent.asr.pace import EnginePace, SpeculationBudget
from agent.asr.transcriber import LONGEST_REST_S
from agent.channel import Channel, Overflow
from agent.governor.policy import Decision, Governor, Signals
from agent.governor.runner import IDLE_S
from agent.messages.telemetry import Pwr
from agent.telemetry.vitals import Vitals

TICK_S: Final = 1.0
_NEVER_S: Final = float("inf")
_SPREAD: Final = 0.15
"""Inference times scatter by so much around what the length says (a log-normal distribution)."""
_DONE_S: Final = 1e-9
"""Work that is left by rounding."""


class Device:
    """One board for a day."""

    def __init__(self, ways: Ways, plan: Plan, chance: random.Random) -> None:
        self._ways, self._plan, self._chance = ways, plan, chance
        self._now_s = plan.begin_s
        self._chip = Chip(plan.board, plan.begin_s, chance)
        self._governor = Governor(tuple(level.cost for level in ways.levels), plan.limits)
        self._pace, self._budget = EnginePace(), SpeculationBudget()
        self._jobs: Channel[Job | Exchange] = Channel(UTTERANCES_CAPACITY, Overflow.DROP_OLDEST, self._crowded_out)
        self._spool = Kept(plan.spool_bytes if plan.governed else 0)
        self._level, self._duty = 0, 1.0
        self._load: Load | None = None
        self._work: Work | None = None
        self._rests_until_s = 0.0
        self._draft_done: tuple[int, float, float] | None = None
        self._withdrawn = False
        self._idle_since_s: float | None = None
        self._late: Job | None = None
        self.record = Record(tuple(level.model for level in ways.levels))

    def run(self, speech: Iterator[Spoken]) -> Record:
        """Live through it, and tell what became of every utterance."""
        sound = events(speech, self._plan)
        upcoming = next(sound, None)
        tick_s = self._now_s
        while self._now_s < self._plan.end_s or upcoming or self._unfinished():
            heard_s = upcoming[0] if upcoming else _NEVER_S
            self._advance(min(tick_s, heard_s, self._done_s(), self._wakes_s()))
            if upcoming and heard_s <= self._now_s:
                self._hear(upcoming[1], upcoming[2])
                upcoming = next(sound, None)
            if self._work and self._work.left_s <= _DONE_S:
                self._finish(self._work)
            if tick_s <= self._now_s:
                self._tick()
                tick_s += TICK_S
            self._take()
        self.record.steps = self._governor.steps
        return self.record

    # Time.

    def _advance(self, to_s: float) -> None:
        seconds = to_s - self._now_s
        stolen = any(one.begin_h * HOUR_S <= self._now_s < one.end_h * HOUR_S for one in self._plan.neighbours)
        if self._work:
            self._work.left_s -= seconds * self._speed
        self._chip.advance(self._now_s, seconds, busy=self._work is not None or stolen)
        self.record.passed(seconds, self._chip)
        self._now_s = to_s

    @property
    def _speed(self) -> float:
        at_h = self._now_s / HOUR_S
        left = (one.leaves for one in self._plan.neighbours if one.begin_h <= at_h < one.end_h)
        return self._chip.clock * next(left, 1.0)

    def _done_s(self) -> float:
        return self._now_s + max(0.0, self._work.left_s) / self._speed if self._work else _NEVER_S

    def _wakes_s(self) -> float:
        return self._rests_until_s if self._rests_until_s > self._now_s else _NEVER_S

    def _unfinished(self) -> bool:
        return bool(self._work or len(self._jobs) or self._spool.waiting)

    # The listener.

    def _hear(self, what: str, spoken: Spoken) -> None:
        hesitation_s = spoken.hesitates_s or 0.0
        if what == "hesitated":
            self._offer_draft(spoken, hesitation_s)
        elif what == "resumed":
            self._withdrawn = True
        elif what == "paused":
            self._offer_draft(spoken, spoken.length_s)
        else:
            self.record.said(spoken)
            self._jobs.put(Job(spoken, spoken.length_s, self._now_s, "final"))

    def _offer_draft(self, spoken: Spoken, length_s: float) -> None:
        self._withdrawn = False
        if self._ways.levels[self._level].speculative and not len(self._jobs) and self._budget.allows:
            self._jobs.put(Job(spoken, length_s, self._now_s, "draft"))

    # The engine.

    def _take(self) -> None:
        while not self._work and self._rests_until_s <= self._now_s and (item := self._jobs.get(0.0)):
            if isinstance(item, Exchange):
                self._exchange(item.level)
            elif item.kind == "draft":
                self._discard_draft()
                if not self._withdrawn:
                    self._begin(item)
            elif item.kind == "late" or not self._came_true(item):
                self._begin(item)

    def _begin(self, job: Job) -> None:
        if job.kind == "final":
            self.record.left_queue(self._now_s - job.submitted_s)
        work_s = self._ways.rtf[self._level] * job.length_s * self._chance.lognormvariate(0.0, _SPREAD)
        self._work = Work(job, work_s, self._now_s)

    def _finish(self, work: Work) -> None:
        self._work = None
        job, took_s = work.job, self._now_s - work.began_s
        if job.kind == "draft":
            self._draft_done = (job.spoken.number, job.length_s, took_s)
            self._pace.inferred(self._now_s, took_s, job.length_s)
        elif job.kind == "late":
            self._late = None
            self._spool.waiting.remove(job.spoken)
            self._became(job.spoken, Fate.LATE)
            self._offer_late()
            return
        else:
            self._budget.spent(took_s, useful=True)
            self._pace.inferred(self._now_s, took_s, job.length_s)
            self._became(job.spoken, Fate.IN_TIME)
        if self._duty < 1.0:
            self._rests_until_s = self._now_s + min(LONGEST_REST_S, took_s * (1.0 / self._duty - 1.0))

    def _came_true(self, job: Job) -> bool:
        done, self._draft_done = self._draft_done, None
        if done is None:
            return False
        number, length_s, took_s = done
        useful = (number, length_s) == (job.spoken.number, job.length_s)
        self._budget.spent(took_s, useful=useful)
        if useful:
            self.record.left_queue(0.0)
            self._became(job.spoken, Fate.IN_TIME)
        return useful

    def _discard_draft(self) -> None:
        if self._draft_done:
            self._budget.spent(self._draft_done[2], useful=False)
            self._draft_done = None

    def _exchange(self, level: int) -> None:
        self._discard_draft()
        self._pace.rtf = 0.0
        self._level, self._load = level, None

    def _became(self, spoken: Spoken, fate: Fate) -> None:
        self.record.became(spoken, fate, self._ways.levels[self._level].model, self._now_s)

    # Overload.

    def _crowded_out(self, item: Job | Exchange) -> None:
        """The queue was full."""
        if isinstance(item, Job) and item.kind == "late":
            self._late = None
        elif isinstance(item, Job) and item.kind == "final":
            self._put_away(item)

    def _put_away(self, job: Job) -> None:
        self.record.left_queue(self._now_s - job.submitted_s)
        if not self._spool.put(job.spoken):
            self._became(job.spoken, Fate.DROPPED)

    def _offer_late(self) -> None:
        if self._spool.waiting and not len(self._jobs):
            oldest = self._spool.waiting[0]
            self._late = Job(oldest, oldest.length_s, self._now_s, "late")
            self._jobs.put(self._late)

    # The main thread.

    def _tick(self) -> None:
        waiting = [job for job in self._jobs.snapshot() if isinstance(job, Job) and job.kind == "final"]
        age_s = max((self._now_s - job.submitted_s for job in waiting), default=0.0)
        reading_c = self._chip.reading_c()
        self.record.looked(self._now_s, self._chip.temp_c, self._level, age_s)
        if not self._plan.governed:
            return
        signals = Signals(
            self._now_s,
            Vitals(self._now_s, cpu_temp_c=reading_c, power=Pwr(thr_now=self._chip.throttled)),
            age_s,
            sum(job.length_s for job in waiting),
            rtf=self._pace.rtf,
            load=self._pace.load(self._now_s),
            changing=self._load is not None,
        )
        self._follow(self._governor.decide(signals))
        self._catch_up()

    def _follow(self, decision: Decision) -> None:
        self._duty = decision.duty
        if self._load is None and decision.level != self._level:
            same = self._ways.levels[decision.level].engine == self._ways.levels[self._level].engine
            if same:
                self._level = decision.level
                return
            self._load = Load(decision.level, self._now_s + self._ways.load_s[decision.level] / self._speed)
        elif decision.set_aside:
            before_s = self._now_s - self._plan.limits.queue_age_s
            for job in self._jobs.take_out(lambda job: is_final(job) and job.submitted_s < before_s):
                self._put_away(job)
        if self._load and not self._load.handed_over and self._load.done_s <= self._now_s:
            self._load.handed_over = True
            self._jobs.put_first(Exchange(self._load.level))

    def _catch_up(self) -> None:
        if not self._spool.waiting or len(self._jobs) or (self._work and self._work.job.kind != "late"):
            self._idle_since_s = None
            return
        self._idle_since_s = self._now_s if self._idle_since_s is None else self._idle_since_s
        if self._now_s - self._idle_since_s >= IDLE_S and self._late is None:
            self._offer_late()
