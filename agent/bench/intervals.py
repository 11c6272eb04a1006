"""Uncertainty: bootstrap intervals over utterances, paired where two systems heard the same ones. Pure functions.

M. Bisani, H. Ney: "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004: draw as
many utterances as there are, with replacement, many times over; the middle 95 % of the rates so found is the interval.
For a difference, both systems are scored on the same draw.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 10_000
_SEED = 20_220_906
"""Fixed: the same measurements always give the same report."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and the interval in which it lies with 95 % confidence."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether the interval says something.

        Clips that are all alike (one clip, or none with an error) always give the same: that is a want of clips, not
        certainty.
        """
        return not math.isclose(self.low, self.high, rel_tol=1e-9, abs_tol=1e-12)


def rate(parts: Sequence[float], wholes: Sequence[float], resamples: int = RESAMPLES) -> Estimate:
    """Sum of `parts` over the sum of `wholes`, with an interval over the items: WER, RTF, a ratio of CPU seconds.

    With the differences of two systems on the same items as `parts`, the interval is the paired one.

    Raises:
        ValueError: no items, not as many parts as wholes, or the wholes add up to nothing.
    """
    numerator, denominator = np.asarray(parts, dtype=np.float64), np.asarray(wholes, dtype=np.float64)
    items = len(numerator)
    if not items or items != len(denominator) or denominator.sum() <= 0:
        msg = f"no rate from {items} parts and {len(denominator)} wholes of {denominator.sum():g}"
        raise ValueError(msg)
    # How often each item is drawn, shape (resamples, items).
    draws = np.random.default_rng(_SEED).multinomial(items, np.full(items, 1.0 / items), size=resamples)
    drawn = draws @ denominator
    quotients = (draws @ numerator)[drawn > 0] / drawn[drawn > 0]
    low, high = np.quantile(quotients, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(numerator.sum() / denominator.sum()), float(low), float(high))


def percentile(values: Sequence[float], fraction: float) -> float:
    """The smallest value that at least `fraction` of all do not exceed (nearest rank)."""
    return float(np.quantile(values, fraction, method="inverted_cdf"))
