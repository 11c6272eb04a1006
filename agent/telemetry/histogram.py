"""Counts by size: what a percentile is made of, for a few bytes a class. Not thread-safe: its owner guards it."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a histogram has counted so far."""

    bounds: tuple[float, ...]
    """Upper ends of the classes, ascending; the last class, which has none, is not among them."""
    counts: tuple[int, ...]
    """How many values were at most the bound of the same place (cumulative); the last one is of all values."""
    total: float
    """The sum of all values."""


class Histogram:
    """Counts values in classes whose upper ends are `bounds`, ascending; adding one takes a binary search."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        """Count `value`."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def distribution(self) -> Distribution:
        """What was counted so far."""
        cumulative, seen = [], 0
        for count in self._counts:
            seen += count
            cumulative.append(seen)
        return Distribution(self._bounds, tuple(cumulative), self._total)
