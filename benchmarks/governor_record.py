"""What a simulated day came to: figures, a table of two days side by side."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from governor_board import Chip
from governor_speech import Spoken

MINUTE_S: Final = 60.0


class Fate(StrEnum):
    """What became of an utterance."""

    IN_TIME = "in_time"
    LATE = "late"
    """It was kept on disk, and transcribed when there was time."""
    DROPPED = "dropped"


@dataclass(slots=True)
class Minute:
    """A minute of the plot."""

    at_s: float
    """Since midnight."""
    temp_c: float
    """The highest."""
    level: int
    """The lowest step."""
    queue_age_s: float
    """The longest."""


@dataclass(slots=True)
class Record:
    """Filled by the device."""

    models: tuple[str, ...]
    """By level."""
    steps: int = 0
    """Taken by the governor, in either direction."""
    minutes: list[Minute] = field(default_factory=list)
    _waits_s: list[float] = field(default_factory=list)
    _answers_s: list[float] = field(default_factory=list)
    _seconds: Counter[Fate] = field(default_factory=Counter)
    _by_model: Counter[str] = field(default_factory=Counter)
    _said: int = 0
    _said_s: float = 0.0
    _passed_s: float = 0.0
    _throttled_s: float = 0.0
    _hottest_c: float = 0.0

    def said(self, spoken: Spoken) -> None:
        """An utterance is over."""
        self._said += 1
        self._said_s += spoken.length_s

    def left_queue(self, waited_s: float) -> None:
        """An utterance was taken by the engine, or put away, after so long in the queue."""
        self._waits_s.append(waited_s)

    def became(self, spoken: Spoken, fate: Fate, model: str, now_s: float) -> None:
        """Record the fate of an utterance, and its model if there was one."""
        self._seconds[fate] += spoken.length_s
        if fate is not Fate.DROPPED:
            self._by_model[model] += spoken.length_s
        if fate is Fate.IN_TIME:
            self._answers_s.append(now_s - spoken.end_s)

    def passed(self, seconds: float, chip: Chip) -> None:
        """So much time went by like this."""
        self._passed_s += seconds
        self._throttled_s += seconds * chip.throttled
        self._hottest_c = max(self._hottest_c, chip.temp_c)

    def looked(self, now_s: float, temp_c: float, level: int, queue_age_s: float) -> None:
        """For the plot."""
        if not self.minutes or now_s - self.minutes[-1].at_s >= MINUTE_S:
            self.minutes.append(Minute(now_s, temp_c, level, queue_age_s))
        last = self.minutes[-1]
        last.temp_c, last.level = max(last.temp_c, temp_c), max(last.level, level)
        last.queue_age_s = max(last.queue_age_s, queue_age_s)

    def figures(self) -> dict[str, object]:
        """All of them, rounded."""
        models = sorted(self._by_model, key=self.models.index)
        heard_s = sum(self._by_model.values()) or 1.0
        return {
            "utterances": self._said,
            "speech_s": round(self._said_s, 1),
            "queue_s": {name: round(_quantile(self._waits_s, share), 2) for name, share in _QUANTILES.items()},
            "words_after_s": {name: round(_quantile(self._answers_s, share), 2) for name, share in _QUANTILES.items()},
            "dropped_s": round(self._seconds[Fate.DROPPED], 1),
            "late_s": round(self._seconds[Fate.LATE], 1),
            "steps": self.steps,
            "hottest_c": round(self._hottest_c, 1),
            "throttled_share": round(self._throttled_s / (self._passed_s or 1.0), 4),
            "words_by_model": {model: round(self._by_model[model] / heard_s, 4) for model in models},
        }


_QUANTILES: Final = {"p50": 0.5, "p99": 0.99, "max": 1.0}


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def table(off: Mapping[str, object], on: Mapping[str, object]) -> str:
    """Both days, side by side, as Markdown."""
    rows = ["| | governor off | governor on |", "|---|---|---|"]
    rows += [f"| {label} | {_cell(off, key)} | {_cell(on, key)} |" for key, label in _LABELS.items()]
    return "\n".join(rows)


_LABELS: Final = {
    "utterances": "utterances",
    "queue_s": "wait in the queue, s",
    "words_after_s": "from the last sound to the words, s (late ones not counted)",
    "dropped_s": "speech dropped, s",
    "late_s": "speech transcribed late, s",
    "steps": "steps of the governor",
    "hottest_c": "hottest, °C",
    "throttled_share": "of the time throttled",
    "words_by_model": "words by model",
}


def _cell(figures: Mapping[str, object], key: str) -> str:
    value = figures[key]
    if key == "words_by_model" and isinstance(value, dict):
        return ", ".join(f"{model} {share:.0%}" for model, share in value.items())
    if isinstance(value, dict):
        return ", ".join(f"{name} {number:.1f}" for name, number in value.items())
    if key == "throttled_share" and isinstance(value, float):
        return f"{value:.1%}"
    return f"{value:,}"
