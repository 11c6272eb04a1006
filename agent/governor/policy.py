"""When to step down, and when up again: pure, fed with time and what is known of the device.

Down at once where words would come too late, and a step a minute where the board suffers. Up one step when nothing has
been wrong for five minutes, and never sooner than that after the last step, so that the device does not swing. A level
that cannot be loaded is passed over; the last one that can be is the lowest.
"""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from agent.telemetry.vitals import Vitals

RELIEF_S: Final = 10.0
"""A step down for the queue's sake gets so long to show what it does."""
LOOK_AHEAD_S: Final = 60.0
"""The temperature is believed to go on rising like this."""
NEARLY_HOT_C: Final = 3.0
"""A rising temperature counts from so far below the limit on."""
COOLER_BY_C: Final = 6.0
"""Going up waits until it is so far below."""
STALLED_PCT: Final = 10.0
"""Share of time that some task waits for memory (PSI, `some`), from which memory counts as short."""
LONGEST_WAIT: Final = 12
"""Each step up that had to be taken back before its time doubles the wait for the next, up to so many times that. So
does each refusal of a level for the next attempt at it."""
GOOD: Final = 2
"""One that lasted for so many times `up_after_s`, and for its wait, halves it again."""
MEMORY: Final = 3
"""Going up, the longest wait of the last so many times `up_after_s` on this level counts: nobody talks evenly."""
LATE_SHARE: Final = 0.5
"""The queue counts as late when its age will reach this share of the limit: what comes then has to be in time."""
CALM_SHARE: Final = 0.1
ROOM: Final = 0.7
"""A level fits if it would be busy for at most so much of the time."""
DUTY: Final = 0.5
"""Share of the time in which the engine works on the lowest level, where the board is still too hot."""


class Reason(StrEnum):
    """Why the device is not on its best level."""

    BEHIND = "behind"
    """Utterances wait too long."""
    HOT = "hot"
    THROTTLED = "throttled"
    """The board slows itself down."""
    UNDERVOLTAGE = "undervoltage"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the device has to keep to."""

    queue_age_s: float = 10.0
    """Longest time that an utterance should wait for the engine."""
    hot_c: float = 80.0
    """Processor temperature at which the board begins to suffer."""
    mem_available_mb: int = 48
    """With less memory than this left, in MiB, it is short."""
    down_after_s: float = 60.0
    """A step down for the board's sake gets so long to show what it does: heat sinks are slow."""
    up_after_s: float = 300.0
    """At least so long after the last step, in whatever direction, comes a step up."""


@dataclass(frozen=True, slots=True)
class Signals:
    """What is known at one moment."""

    now_s: float
    """Monotonic."""
    vitals: Vitals
    queue_age_s: float = 0.0
    """How long the oldest waiting utterance has waited; 0 if none waits."""
    backlog_s: float = 0.0
    """Seconds of speech that wait."""
    rtf: float = 0.0
    """Inference time for a second of speech on the present level, of late; 0 if nothing was transcribed on it."""
    load: float = 0.0
    """Share of the last minutes in which the engine worked, 0–1."""
    changing: bool = False
    """The last step is still being made: its engine is being loaded, or waits for an inference to end."""

    @property
    def expected_s(self) -> float:
        """How long the last of what waits will have waited when its words are there; 0 if nothing waits."""
        return self.queue_age_s + self.backlog_s * self.rtf if self.backlog_s else 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do from now on."""

    level: int
    """Index into the ladder; 0 is the best."""
    reason: Reason | None = None
    """Why it is not 0; that of the last step down."""
    duty: float = 1.0
    """Share of the time in which the engine may work."""
    set_aside: bool = False
    """The lowest level cannot keep up: what has waited too long makes room for what is said now."""


class Governor:
    """Decides for a ladder of which each level is to cost less than the one above, given as relative costs.

    `costs` holds None where nothing was measured. Deterministic: the same signals give the same decisions.
    """

    def __init__(self, costs: tuple[float | None, ...], limits: Limits) -> None:
        self._costs = costs
        self._limits = limits
        self._level = 0
        self._reason: Reason | None = None
        self._stepped_s: float | None = None
        self._down_s: float | None = None
        self._up_s: float | None = None
        self._troubled_s: float | None = None
        self._up_after_s = limits.up_after_s
        self._trend = TemperatureTrend()
        self._worst = RecentWorst(MEMORY * limits.up_after_s)
        self._refused: dict[int, _Refusal] = {}
        self.steps = 0
        """Steps since the start, in either direction."""

    def decide(self, signals: Signals) -> Decision:
        """Take in the next look at the device; to be called about once a second."""
        slope = self._trend.look(signals.now_s, signals.vitals.cpu_temp_c)
        self._worst.look(signals.now_s, signals.expected_s)
        reason = self._trouble(signals, slope)
        if reason:
            self._troubled_s = signals.now_s
        if not signals.changing:  # else it is not known yet whether this level can be loaded
            self._refused.pop(self._level, None)
        if signals.changing:  # the effect of a step does not show before it is done
            self._delay(signals.now_s)
        elif reason:
            if (below := self._below(signals.now_s)) and self._may_step_down(reason, signals.now_s):
                self._step_down(below, reason, signals.now_s)
        elif (above := self._first(range(self._level - 1, -1, -1), signals.now_s)) is not None and self._may_step_up(
            above, signals
        ):
            self._step_up(above, signals.now_s)
        at_floor = self._below(signals.now_s) is None
        return Decision(
            self._level,
            self._reason,
            duty=DUTY if at_floor and reason is Reason.HOT and self._stepped_long_ago(signals.now_s) else 1.0,
            set_aside=at_floor and signals.queue_age_s > self._limits.queue_age_s,
        )

    def refused(self, level: int, now_s: float) -> None:
        """The step to a level that was decided could not be made: the device is on `level`.

        The other one is passed over for `up_after_s`, and for twice as long each time that it cannot be made again.
        """
        if self._level != level:
            known, least_s = self._refused.get(self._level), self._limits.up_after_s
            wait_s = min(2 * known.wait_s, LONGEST_WAIT * least_s) if known else least_s
            self._refused[self._level] = _Refusal(now_s + wait_s, wait_s)
        self._level, self._stepped_s = level, now_s
        self._reason = self._reason if level else None

    def _trouble(self, signals: Signals, slope_c_per_s: float) -> Reason | None:
        """What is wrong at this moment; the most urgent, if it is several things."""
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
        if short or (vitals.mem_stalled_pct or 0.0) > STALLED_PCT:
            return Reason.MEMORY
        return None

    def _first(self, levels: range, now_s: float) -> int | None:
        """Return the first of `levels` that may be tried now; None if there is none."""
        refused = {level for level, refusal in self._refused.items() if now_s < refusal.until_s}
        return next((level for level in levels if level not in refused), None)

    def _below(self, now_s: float) -> int | None:
        return self._first(range(self._level + 1, len(self._costs)), now_s)

    def _may_step_down(self, reason: Reason, now_s: float) -> bool:
        wait_s = self._limits.down_after_s
        if reason is Reason.BEHIND:
            wait_s = min(RELIEF_S, wait_s)
        return self._stepped_s is None or self._down_s is None or now_s - self._down_s >= wait_s

    def _may_step_up(self, level: int, signals: Signals) -> bool:
        limits, temp_c = self._limits, signals.vitals.cpu_temp_c
        since_s = max(at_s for at_s in (self._stepped_s, self._troubled_s, 0.0) if at_s is not None)
        return (
            signals.now_s - since_s >= self._up_after_s
            and signals.queue_age_s <= CALM_SHARE * limits.queue_age_s
            and (temp_c is None or temp_c <= limits.hot_c - COOLER_BY_C)
            and self._would_fit(level, signals)
        )

    def _would_fit(self, level: int, signals: Signals) -> bool:
        """Whether a level above would keep up with what there was to do of late, where costs are known."""
        here, above = self._costs[self._level], self._costs[level]
        if here is None or above is None or not here:
            return True
        dearer = above / here
        late = self._worst.value * dearer > LATE_SHARE * self._limits.queue_age_s
        return signals.load * dearer <= ROOM and signals.rtf * dearer <= 1.0 and not late

    def _step_down(self, level: int, reason: Reason, now_s: float) -> None:
        if self._up_s is not None:
            least_s = self._limits.up_after_s
            held = now_s - self._up_s >= max(self._up_after_s, GOOD * least_s)
            factor = 0.5 if held else 2.0
            self._up_after_s = min(max(least_s, factor * self._up_after_s), LONGEST_WAIT * least_s)
        self._level = level
        self._worst.forget()
        self._reason, self._down_s, self._stepped_s, self._up_s = reason, now_s, now_s, None
        self.steps += 1

    def _step_up(self, level: int, now_s: float) -> None:
        self._level = level
        self._worst.forget()
        if self._level == 0:
            self._reason = None
        self._up_s = self._stepped_s = now_s
        self.steps += 1

    def _delay(self, now_s: float) -> None:
        """The last step counts from now on."""
        if self._stepped_s is None:
            return
        if self._down_s == self._stepped_s:
            self._down_s = now_s
        if self._up_s == self._stepped_s:
            self._up_s = now_s
        self._stepped_s = now_s
        self._worst.forget()

    def _stepped_long_ago(self, now_s: float) -> bool:
        return self._stepped_s is None or now_s - self._stepped_s >= self._limits.down_after_s


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A level could not be loaded."""

    until_s: float
    """Monotonic; before, it is not tried again."""
    wait_s: float
    """How long that is."""


class RecentWorst:
    """The greatest value of the last `window_s` seconds."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._falling: deque[tuple[float, float]] = deque()
        """Times and values, each value less than the one before: a later and greater one makes others irrelevant."""

    def look(self, now_s: float, value: float) -> None:
        """Take in the value of this moment."""
        while self._falling and self._falling[-1][1] <= value:
            self._falling.pop()
        self._falling.append((now_s, value))
        while self._falling[0][0] <= now_s - self._window_s:
            self._falling.popleft()

    def forget(self) -> None:
        """Begin anew."""
        self._falling.clear()

    @property
    def value(self) -> float:
        """0 before the first."""
        return self._falling[0][1] if self._falling else 0.0


class TemperatureTrend:
    """How fast the temperature rises: smoothed over half a minute, as sensors jump by a degree."""

    SMOOTHING_S: Final = 30.0

    def __init__(self) -> None:
        self._at_s = 0.0
        self._level_c: float | None = None
        self._slope = 0.0

    def look(self, now_s: float, temp_c: float | None) -> float:
        """Take in a reading; return the slope in °C a second, 0 while it is not known."""
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
