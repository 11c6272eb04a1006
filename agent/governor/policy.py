"""Decides when to step down the ladder and when to step up. Pure: time and signals are arguments.

The governor steps down at once if words would come too late, and one step a minute while the board suffers. It steps
up after five minutes without trouble, and at least five minutes after the last step, so that the device does not swing.
It skips a level that cannot be loaded. The last level that can be loaded is the lowest.
"""

import math
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from agent.telemetry.vitals import Vitals

RELIEF_S: Final = 10.0
"""Time for a step down to shorten the queue, before the next one."""
LOOK_AHEAD_S: Final = 60.0
"""The temperature counts as it will be after this time, if it goes on rising."""
NEARLY_HOT_C: Final = 3.0
"""A rising temperature counts from this far below the limit."""
COOLER_BY_C: Final = 6.0
"""A step up waits for a temperature this far below the limit."""
STALLED_PCT: Final = 10.0
"""Share of time in which some task waits for memory (PSI, `some`), from which memory is short."""
LONGEST_WAIT: Final = 12
"""Longest wait, in multiples of `up_after_s`. A step up that had to be taken back doubles the wait for the next one. So
does each refusal of a level."""
GOOD: Final = 2
"""A step up that lasted for its wait, and for this many `up_after_s`, halves the wait again."""
MEMORY: Final = 3
"""A step up depends on the longest wait within this many `up_after_s`: speech is not even."""
LATE_SHARE: Final = 0.5
"""The queue is late when its age will reach this share of the limit. The next utterance must still be in time."""
CALM_SHARE: Final = 0.1
ROOM: Final = 0.7
"""A level fits if it would be busy for at most this share of the time."""
DUTY: Final = 0.5
"""Share of the time in which the engine works on the lowest level if the board is still too hot."""


class Reason(StrEnum):
    """Why the device is not on its best level."""

    BEHIND = "behind"
    """Utterances wait too long."""
    HOT = "hot"
    THROTTLED = "throttled"
    """The board slows down."""
    UNDERVOLTAGE = "undervoltage"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the device."""

    queue_age_s: float = 10.0
    """Longest time that an utterance should wait for the engine."""
    hot_c: float = 80.0
    """Processor temperature at which the board begins to suffer."""
    mem_available_mb: int = 48
    """With less available memory, in MiB, it is short."""
    down_after_s: float = 60.0
    """Time for a step down to relieve the board, before the next one: heat sinks are slow."""
    up_after_s: float = 300.0
    """Shortest time between a step of either direction and a step up."""


@dataclass(frozen=True, slots=True)
class Signals:
    """The state of the device at one moment."""

    now_s: float
    """Monotonic."""
    vitals: Vitals
    queue_age_s: float = 0.0
    """How long the oldest utterance in the queue has waited; 0 if the queue is empty."""
    backlog_s: float = 0.0
    """Seconds of speech in the queue."""
    rtf: float = 0.0
    """Recent inference time for a second of speech on this level; 0 before the first utterance."""
    load: float = 0.0
    """Share of the last minutes in which the engine worked, 0 to 1."""
    changing: bool = False
    """Whether the last step is not complete: its engine is loading, or waits for an inference to end."""

    @property
    def expected_s(self) -> float:
        """How long the last utterance in the queue will have waited for its words; 0 if the queue is empty."""
        return self.queue_age_s + self.backlog_s * self.rtf if self.backlog_s else 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do from now on."""

    level: int
    """Index into the ladder; 0 is the best."""
    reason: Reason | None = None
    """Reason of the last step down; None on level 0."""
    duty: float = 1.0
    """Share of the time in which the engine may work."""
    set_aside: bool = False
    """Whether utterances that have waited too long leave the queue: the lowest level cannot keep up."""


class Governor:
    """Decides for a ladder with these relative costs, each level cheaper than the one above; None if not measured.

    Deterministic: the same signals give the same decisions.
    """

    def __init__(self, costs: tuple[float | None, ...], limits: Limits) -> None:
        self._costs = costs
        self._limits = limits
        self._level = 0
        self._reason: Reason | None = None
        self._stepped_s = self._down_s = self._troubled_s = -math.inf
        self._up_s: float | None = None
        """When the last step up was made; None after a step down."""
        self._up_after_s = limits.up_after_s
        self._trend = TemperatureTrend()
        self._waits: deque[tuple[float, float]] = deque()
        """Times and expected waits, each shorter than the one before: a longer one makes earlier ones irrelevant."""
        self._refused: dict[int, tuple[float, float]] = {}
        """Levels that could not be loaded: when to try again (monotonic), and how long that wait is."""
        self.steps = 0
        """Steps since the start, in either direction."""

    def decide(self, signals: Signals) -> Decision:
        """Decide from the next look at the device. Call it about once a second."""
        now_s, limits = signals.now_s, self._limits
        self._remember_wait(now_s, signals.expected_s)
        reason = self._trouble(signals, self._trend.look(now_s, signals.vitals.cpu_temp_c))
        if reason:
            self._troubled_s = now_s
        if signals.changing:
            self._postpone(now_s)
        else:  # the level is loaded
            self._refused.pop(self._level, None)
            self._step(reason, signals)
        at_floor = self._below(now_s) is None
        too_hot = at_floor and reason is Reason.HOT and now_s - self._stepped_s >= limits.down_after_s
        set_aside = at_floor and signals.queue_age_s > limits.queue_age_s
        return Decision(self._level, self._reason, DUTY if too_hot else 1.0, set_aside)

    def refused(self, level: int, now_s: float) -> None:
        """Take back the last step: its level could not be loaded, and the device stays on `level`.

        The refused level is skipped for `up_after_s`, and for twice as long after each further refusal.
        """
        if self._level != level:
            known, least_s = self._refused.get(self._level), self._limits.up_after_s
            wait_s = min(2 * known[1], LONGEST_WAIT * least_s) if known else least_s
            self._refused[self._level] = (now_s + wait_s, wait_s)
        self._level, self._stepped_s = level, now_s
        self._reason = self._reason if level else None

    def _remember_wait(self, now_s: float, expected_s: float) -> None:
        while self._waits and self._waits[-1][1] <= expected_s:
            self._waits.pop()
        self._waits.append((now_s, expected_s))
        while self._waits[0][0] <= now_s - MEMORY * self._limits.up_after_s:
            self._waits.popleft()

    def _trouble(self, signals: Signals, slope_c_per_s: float) -> Reason | None:
        """Return the most urgent trouble of this moment; None if there is none."""
        limits, vitals = self._limits, signals.vitals
        if signals.expected_s > LATE_SHARE * limits.queue_age_s:
            return Reason.BEHIND
        if vitals.power.uv_now:
            return Reason.UNDERVOLTAGE
        if (temp_c := vitals.cpu_temp_c) is not None:
            soon_c = temp_c + max(0.0, slope_c_per_s) * LOOK_AHEAD_S
            if temp_c >= limits.hot_c or (temp_c >= limits.hot_c - NEARLY_HOT_C and soon_c >= limits.hot_c):
                return Reason.HOT
        if vitals.power.thr_now:
            return Reason.THROTTLED
        short = vitals.mem_available_mb is not None and vitals.mem_available_mb < limits.mem_available_mb
        return Reason.MEMORY if short or (vitals.mem_stalled_pct or 0.0) > STALLED_PCT else None

    def _first(self, levels: range, now_s: float) -> int | None:
        """Return the first of `levels` that may be tried now; None if there is none."""
        refused = {level for level, (until_s, _) in self._refused.items() if now_s < until_s}
        return next((level for level in levels if level not in refused), None)

    def _below(self, now_s: float) -> int | None:
        return self._first(range(self._level + 1, len(self._costs)), now_s)

    def _step(self, reason: Reason | None, signals: Signals) -> None:
        now_s = signals.now_s
        if reason:
            wait_s = self._limits.down_after_s
            if reason is Reason.BEHIND:
                wait_s = min(RELIEF_S, wait_s)
            if now_s - self._down_s >= wait_s and (below := self._below(now_s)):
                self._step_down(below, reason, now_s)
            return
        above = self._first(range(self._level - 1, -1, -1), now_s)
        if above is not None and self._may_step_up(above, signals):
            self._up_s = now_s
            self._reason = self._reason if above else None
            self._step_to(above, now_s)

    def _may_step_up(self, level: int, signals: Signals) -> bool:
        limits, temp_c = self._limits, signals.vitals.cpu_temp_c
        return (
            signals.now_s - max(self._stepped_s, self._troubled_s) >= self._up_after_s
            and signals.queue_age_s <= CALM_SHARE * limits.queue_age_s
            and (temp_c is None or temp_c <= limits.hot_c - COOLER_BY_C)
            and self._would_fit(level, signals)
        )

    def _would_fit(self, level: int, signals: Signals) -> bool:
        """Whether a level above would keep up with the recent work, if the costs are known."""
        here, above = self._costs[self._level], self._costs[level]
        if here is None or above is None or not here:
            return True
        dearer = above / here
        late = self._waits[0][1] * dearer > LATE_SHARE * self._limits.queue_age_s
        return signals.load * dearer <= ROOM and signals.rtf * dearer <= 1.0 and not late

    def _step_down(self, level: int, reason: Reason, now_s: float) -> None:
        if self._up_s is not None:
            least_s = self._limits.up_after_s
            held = now_s - self._up_s >= max(self._up_after_s, GOOD * least_s)
            factor = 0.5 if held else 2.0
            self._up_after_s = min(max(least_s, factor * self._up_after_s), LONGEST_WAIT * least_s)
        self._reason, self._down_s, self._up_s = reason, now_s, None
        self._step_to(level, now_s)

    def _step_to(self, level: int, now_s: float) -> None:
        self._level, self._stepped_s = level, now_s
        self._waits.clear()
        self.steps += 1

    def _postpone(self, now_s: float) -> None:
        """Let the last step count from now on: it shows no effect before it is complete."""
        if self._stepped_s == -math.inf:
            return
        if self._down_s == self._stepped_s:
            self._down_s = now_s
        if self._up_s == self._stepped_s:
            self._up_s = now_s
        self._stepped_s = now_s
        self._waits.clear()


class TemperatureTrend:
    """Estimates how fast the temperature rises, smoothed over half a minute: sensors jump by a degree."""

    SMOOTHING_S: Final = 30.0

    def __init__(self) -> None:
        self._at_s = 0.0
        self._level_c: float | None = None
        self._slope = 0.0

    def look(self, now_s: float, temp_c: float | None) -> float:
        """Take in a reading; return the slope in °C a second, 0 while it is unknown."""
        if temp_c is None:
            self._level_c, self._slope = None, 0.0
            return 0.0
        elapsed_s = now_s - self._at_s
        if self._level_c is None:
            self._level_c = temp_c
        elif elapsed_s > 0:
            # Holt's linear smoothing: the level follows the readings, the slope follows the level.
            share = min(1.0, elapsed_s / self.SMOOTHING_S)
            before_c = self._level_c
            self._level_c += self._slope * elapsed_s + share * (temp_c - before_c - self._slope * elapsed_s)
            self._slope += share * ((self._level_c - before_c) / elapsed_s - self._slope)
        self._at_s = now_s
        return self._slope
