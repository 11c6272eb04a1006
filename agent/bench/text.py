"""Figures as words, for terminal and page alike."""

from agent.bench.intervals import Estimate
from agent.bench.summary import SystemSummary


def percent(estimate: Estimate | None) -> str:
    """A rate with its interval, in percent: `8.41 (7.1–9.9)`."""
    if estimate is None:
        return "–"
    value, low, high = (100 * part for part in (estimate.value, estimate.low, estimate.high))
    return f"{value:.2f} ({low:.1f}–{high:.1f})"


def points(estimate: Estimate) -> str:
    """A difference of rates with its interval, in percentage points: `+0.12 (-0.40 … +0.61)`."""
    value, low, high = (100 * part for part in (estimate.value, estimate.low, estimate.high))
    return f"{value:+.2f} ({low:+.2f} … {high:+.2f})"


def difference(system: SystemSummary) -> str:
    """The word error rate against the baseline's."""
    comparison = system.against_baseline
    if comparison is None:
        return "baseline"
    return points(comparison.error_rate_difference) if comparison.error_rate_difference else "–"


def seconds(value_s: float | None) -> str:
    """Milliseconds' worth of digits; a dash where it is not known."""
    return "–" if value_s is None else f"{value_s:.3f}"


def how_often(repeats: int) -> str:
    """How many passes the figures come from."""
    return "one pass" if repeats == 1 else f"medians of {repeats} passes"
