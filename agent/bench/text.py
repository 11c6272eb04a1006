"""Figures as words, for terminal and page alike."""

import math
from typing import Final

from agent.bench.idle import IdleSummary
from agent.bench.intervals import Estimate
from agent.bench.latencies import LatencySummary
from agent.bench.records import LeftOut
from agent.bench.streams import StreamSummary
from agent.bench.summary import Comparison, Report, SystemSummary

STREAM_TITLE: Final = "Speech in a stream / each clip decoded whole by the stock library"
STREAM_HEADINGS: Final = ("clips", "wrong, %", "points", "deleted", "lost: first, last", "split", "stray", "CPU s/s")
MEGABYTE: Final = 1_000_000


def percent(estimate: Estimate | None) -> str:
    """A rate with its interval, in percent: `8.41 (7.1–9.9)`; `0.00 (–)` where there is none, see `_known`."""
    if estimate is None:
        return "–"
    value, low, high = (100 * part for part in (estimate.value, estimate.low, estimate.high))
    return f"{value:.2f} ({low:.1f}–{high:.1f})" if _known(estimate) else f"{value:.2f} (–)"


def points(estimate: Estimate) -> str:
    """A difference of rates with its interval, in percentage points: `+0.12 (-0.40 … +0.61)`."""
    value, low, high = (100 * part for part in (estimate.value, estimate.low, estimate.high))
    return f"{value:+.2f} ({low:+.2f} … {high:+.2f})" if _known(estimate) else f"{value:+.2f} (–)"


def _known(estimate: Estimate) -> bool:
    """Whether the interval says something.

    Drawing from clips that are all alike (one clip, or none with an error) always gives the same: that is no certainty
    but a want of clips.
    """
    return not math.isclose(estimate.low, estimate.high, rel_tol=1e-9, abs_tol=1e-12)


def difference(system: SystemSummary) -> str:
    """The word error rate against the baseline's."""
    return "baseline" if system.against_baseline is None else wrong_more(system.against_baseline)


def wrong_more(comparison: Comparison) -> str:
    """How many points more of the words are wrong."""
    return points(comparison.error_rate_difference) if comparison.error_rate_difference else "–"


def ratio(estimate: Estimate) -> str:
    """A ratio with its interval: `0.291 (0.24–0.35)`."""
    interval = f"{estimate.low:.2f}–{estimate.high:.2f}" if _known(estimate) else "–"
    return f"{estimate.value:.3f} ({interval})"


def seconds(value_s: float | None) -> str:
    """Milliseconds' worth of digits; a dash where it is not known."""
    return "–" if value_s is None else f"{value_s:.3f}"


def how_often(repeats: int) -> str:
    """How many passes the figures come from."""
    return "one pass" if repeats == 1 else f"medians of {repeats} passes"


def whose_place(report: Report) -> str:
    """Which baseline another one stands in for; empty if it is the one that was asked for."""
    missing = report.missing_baseline
    return f"{missing} has no results: the baseline is {report.baseline} instead" if missing else ""


def not_taken(left_out: LeftOut) -> str:
    """Which clips a system was not given: how many of which language."""
    counts = " and ".join(f"{number} in {language}" for language, number in left_out.clips.items())
    return f"clips left out, as {left_out.system} knows English only: {counts}"


def trust_cells(system: SystemSummary) -> tuple[str, ...]:
    """Clips without speech, those with text, words in them; speech rejected, doubtful transcripts."""
    return (
        str(system.noise_clips),
        str(system.noise_clips_with_text),
        f"{system.noise_words:g}",
        str(system.speech_clips_rejected),
        str(system.doubtful),
    )


def latency_cells(system: LatencySummary) -> tuple[str, ...]:
    """Utterances; seconds after the hang-over and from the end of speech, p50 and p95 each; peak PSS in MB."""
    return (
        str(system.utterances),
        seconds(system.after_hangover_p50_s),
        seconds(system.after_hangover_p95_s),
        seconds(system.from_speech_end_p50_s),
        seconds(system.from_speech_end_p95_s),
        f"{system.peak_pss_bytes / MEGABYTE:.0f}",
    )


def idle_cells(system: IdleSummary) -> tuple[str, ...]:
    """Runs; percent of one core, mean and highest; CPU seconds of loading; peak PSS in MB; transcripts."""
    return (
        str(system.runs),
        f"{100 * system.core_share:.2f}",
        f"{100 * system.core_share_max:.2f}",
        f"{system.loading_cpu_s:.1f}",
        f"{system.peak_pss_bytes / MEGABYTE:.0f}",
        str(system.transcripts),
    )


def stream_cells(part: StreamSummary) -> tuple[str, ...]:
    """The figures under `STREAM_HEADINGS`."""
    return (
        str(part.clips),
        f"{100 * part.error_rate:.1f} / {100 * part.whole_error_rate:.1f}",
        f"{100 * (part.error_rate - part.whole_error_rate):+.2f}",
        f"{part.deletions:g} / {part.whole_deletions:g}",
        f"{part.first_lost:g}, {part.last_lost:g}",
        f"{part.split:g}",
        "" if part.strays is None else f"{part.strays:.1f}",
        "" if part.cpu_rtf is None else f"{part.cpu_rtf:.3f}",
    )
