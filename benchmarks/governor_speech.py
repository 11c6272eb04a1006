"""The speech around a simulated device in a day: utterances of a real recording, in bursts."""

import csv
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

HOUR_S: Final = 3_600.0
HANG_OVER_S: Final = 0.6
"""Silence that ends an utterance (`vad.hang_over_ms`): two of them are at least so far apart."""
LOOK_S: Final = 0.2
"""Silence after which the engine may begin ahead."""
_HESITATES: Final = 0.5
"""Assumed share of the utterances longer than `_LONG_S` with a pause that looks like the end and is not."""
_LONG_S: Final = 3.0

_LENGTHS: Final = """
13.3 6.0 9.1 7.3 8.3 8.4 6.4 3.2 2.9 7.6 2.8 1.5 2.1 1.4 2.1 3.9 3.7 3.0 9.1 6.7 7.5 6.0 4.3 3.5 17.0 4.5 17.3
6.9 3.7 1.9 3.3 2.2 3.7 3.7 3.9 3.4 4.5 4.9 10.7 3.4 18.1 6.5 10.6 19.9 7.1 4.3 2.7 2.5 2.9 2.2 2.6 3.5 2.2 3.3
13.7 3.1 6.2 5.6 2.1 4.8 3.1 4.5 21.5 10.2 2.7 2.9 4.9 3.7 3.7 1.8 2.1 2.5 2.6 9.2 9.3 5.8 9.0 9.0 3.8 8.3 5.1
4.0 2.1 2.0 3.1 2.7 2.8 2.9 3.6 3.2 2.3 2.7 5.5 2.0 2.7 4.4 1.7 1.3 2.7 3.5 3.2 1.8 3.9 4.4 4.3 4.0 2.0 3.5 2.5
3.1 2.4 4.2 5.1 2.1 4.7 2.6 2.8 2.1 3.5 2.7 4.4 4.0 3.6 4.1 2.9 2.3 3.9 2.6 2.5 2.6 3.5 2.6 1.8 3.3 2.4 3.1 3.6
2.4 3.5 3.4 3.2 2.0 3.1 3.0 3.7 3.9 1.7 4.4 1.9 4.0 2.3 3.2 2.1 2.1 4.7
"""
LENGTHS_S: Final = tuple(map(float, _LENGTHS.split()))
"""Seconds of each utterance of a recording of 13 minutes, read aloud by several people (LibriSpeech, CMU ARCTIC)."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """One utterance."""

    number: int
    start_s: float
    """Since midnight."""
    length_s: float
    hesitates_s: float | None = None
    """How far into it there is a pause that looks like its end."""

    @property
    def end_s(self) -> float:
        """Of the speech; the utterance is known to be over `HANG_OVER_S` later."""
        return self.start_s + self.length_s


@dataclass(frozen=True, slots=True)
class Burst:
    """A stretch of the day in which people talk."""

    begin_h: float
    end_h: float
    pause_s: float
    """Mean pause between two utterances, beyond the hang-over; exponentially distributed."""


DAY: Final = (
    Burst(7.0, 8.0, 15.0),
    Burst(8.0, 9.5, 300.0),
    Burst(9.5, 11.0, 0.4),
    Burst(11.0, 14.0, 120.0),
    Burst(14.0, 15.25, 0.4),
    Burst(15.25, 19.0, 180.0),
    Burst(19.0, 22.5, 0.2),
    Burst(22.5, 23.0, 30.0),
)
"""Breakfast, commands now and then, a meeting, commands, a meeting, a dinner party, the last guests; and silence."""


def day(lengths_s: tuple[float, ...], chance: random.Random, bursts: tuple[Burst, ...] = DAY) -> Iterator[Spoken]:
    """Yield the utterances of a day in order. The recording repeats at its end."""
    numbers = count()
    for burst in bursts:
        at_s = burst.begin_h * HOUR_S + chance.expovariate(1.0 / burst.pause_s)
        while at_s < burst.end_h * HOUR_S:
            number = next(numbers)
            length_s = lengths_s[number % len(lengths_s)]
            hesitates = length_s > _LONG_S and chance.random() < _HESITATES
            yield Spoken(number, at_s, length_s, length_s * chance.uniform(0.3, 0.8) if hesitates else None)
            at_s += length_s + HANG_OVER_S + chance.expovariate(1.0 / burst.pause_s)


def lengths_from(path: Path) -> tuple[float, ...]:
    """Seconds of each line of a table with the columns `start` and `end`, tab-separated.

    Raises:
        ValueError: it is no such table, or has no line.
    """
    with path.open(encoding="utf-8", newline="") as file:
        try:
            found = tuple(float(row["end"]) - float(row["start"]) for row in csv.DictReader(file, delimiter="\t"))
        except (KeyError, TypeError, ValueError) as error:
            msg = "needs columns start and end, in seconds, separated by tabs"
            raise ValueError(msg) from error
    if not found or min(found) <= 0:
        msg = "needs at least one line, and each has to end after its start"
        raise ValueError(msg)
    return found
