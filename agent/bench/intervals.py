"""Uncertainty: bootstrap intervals over utterances, paired where two systems heard the same ones. Pure functions.

M. Bisani, H. Ney: "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004: draw as
many utterances as there are, with replacement, many times over; the middle 95 % of the rates so found is the interval.
For a difference, both systems are scored on the same draw.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 10_000
_SEED = 20_220_906
"""Fixed: the same measurements always give the same report."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and the interval in which it lies with 95 % confidence; one of no width says nothing (too few clips)."""

    value: float
    low: float
    high: float


def rate(parts: Sequence[float], wholes: Sequence[float], resamples: int = RESAMPLES) -> Estimate:
    """Sum of `parts` over the sum of `wholes`, with an interval over the items: WER, RTF, a ratio of CPU seconds.

    Raises:
        ValueError: no items, not as many parts as wholes, or the wholes add up to nothing.
    """
    numerator, denominator = _column(parts), _column(wholes)
    _check(numerator, denominator)
    draws = _draws(len(numerator), resamples)
    return _estimate(float(numerator.sum() / denominator.sum()), _quotients(draws @ numerator, draws @ denominator))


def paired_difference(
    ours: Sequence[float], theirs: Sequence[float], wholes: Sequence[float], resamples: int = RESAMPLES
) -> Estimate:
    """Rate of `ours` minus rate of `theirs` over the same items; an interval that spans 0 shows no difference.

    Raises:
        ValueError: see `rate`.
    """
    difference, denominator = _column(ours) - _column(theirs), _column(wholes)
    _check(difference, denominator)
    draws = _draws(len(difference), resamples)
    return _estimate(float(difference.sum() / denominator.sum()), _quotients(draws @ difference, draws @ denominator))


def percentile(values: Sequence[float], fraction: float) -> float:
    """The smallest value that at least `fraction` of all do not exceed (nearest rank).

    Raises:
        ValueError: no values.
    """
    if not values:
        msg = "a percentile needs at least one value"
        raise ValueError(msg)
    ordered = sorted(values)
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


def _column(values: Sequence[float]) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)


def _check(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> None:
    if not len(numerator) or len(numerator) != len(denominator) or denominator.sum() <= 0:
        msg = f"no rate from {len(numerator)} parts and {len(denominator)} wholes of {denominator.sum():g}"
        raise ValueError(msg)


def _draws(items: int, resamples: int) -> NDArray[np.float64]:
    """How often each item is drawn, shape (resamples, items)."""
    generator = np.random.default_rng(_SEED)
    return generator.multinomial(items, np.full(items, 1.0 / items), size=resamples).astype(np.float64)


def _quotients(numerators: NDArray[np.float64], denominators: NDArray[np.float64]) -> NDArray[np.float64]:
    drawn_something = denominators > 0
    quotients: NDArray[np.float64] = numerators[drawn_something] / denominators[drawn_something]
    return quotients


def _estimate(value: float, quotients: NDArray[np.float64]) -> Estimate:
    tail = (1.0 - CONFIDENCE) / 2
    low, high = np.quantile(quotients, [tail, 1.0 - tail])
    return Estimate(value, float(low), float(high))
