"""Figures as words, for terminal and page alike."""

from agent.bench.intervals import Estimate
from agent.bench.summary import Comparison, SystemSummary


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
    return "baseline" if system.against_baseline is None else wrong_more(system.against_baseline)


def wrong_more(comparison: Comparison) -> str:
    """How many points more of the words are wrong."""
    return points(comparison.error_rate_difference) if comparison.error_rate_difference else "–"


def ratio(estimate: Estimate) -> str:
    """A ratio with its interval: `0.291 (0.24–0.35)`."""
    return f"{estimate.value:.3f} ({estimate.low:.2f}–{estimate.high:.2f})"


def seconds(value_s: float | None) -> str:
    """Milliseconds' worth of digits; a dash where it is not known."""
    return "–" if value_s is None else f"{value_s:.3f}"


def how_often(repeats: int) -> str:
    """How many passes the figures come from."""
    return "one pass" if repeats == 1 else f"medians of {repeats} passes"
