"""Which candidate is best: the Pareto front, and the rule that picks one of it. Pure functions.

The rule, in this order:

1. What does not fit into memory is out.
2. What keeps up with margin (real-time factor and latency within their limits) goes before what does not. Where nothing
   does, the fastest is taken, and said to be too slow.
3. The fewest wrong words. The clips have about 80 words, so counts that differ by 2 % of them are no difference.
4. The larger Whisper. Clear recordings of a native speaker flatter the small models; a larger one gains on all others.
5. The shortest latency. What differs by less than a tenth is no difference.
6. The least CPU time, then the least memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.models.calibration_records import Choice, Limits, Measurement, plural

WORDS_OF_NOISE = 0.02
LATENCY_OF_NOISE = 0.10
SIZES = ("tiny", "base", "small", "medium", "large")
"""Whisper's size classes, ascending."""


def dominates(one: Measurement, other: Measurement) -> bool:
    """Whether `one` is nowhere worse than `other`, and somewhere better."""
    ours, theirs = _costs(one), _costs(other)
    return ours != theirs and all(our <= their for our, their in zip(ours, theirs, strict=True))


def pareto_front(measurements: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Those that no other dominates, in their order."""
    return tuple(one for one in measurements if not any(dominates(other, one) for other in measurements))


def choose(measurements: Sequence[Measurement], limits: Limits) -> Choice:
    """Apply the rule above to at least one measurement."""
    fitting = [one for one in measurements if one.peak_mb <= limits.memory_mb]
    if not fitting:
        return _smallest(measurements, limits)
    in_time = [one for one in fitting if keeps_up(one, limits)]
    if not in_time:
        return _fastest(fitting, limits, "Nothing" if len(fitting) == len(measurements) else "Nothing that fits")
    contest = _decide(in_time)
    return Choice(contest.best.candidate, keeps_up=True, reasons=tuple(_reasons(contest, measurements, limits)))


def keeps_up(measurement: Measurement, limits: Limits) -> bool:
    """Whether it is fast enough, with margin."""
    return measurement.rtf_p95 <= limits.rtf_p95 and measurement.latency_p50_s <= limits.latency_p50_s


def _costs(measurement: Measurement) -> tuple[float, ...]:
    """What one would want less of. The larger Whisper counts for itself, see rule 4."""
    return (
        measurement.errors,
        -_size_rank(measurement),
        measurement.rtf_p95,
        measurement.cpu_per_speech,
        measurement.peak_mb,
    )


def _size_rank(measurement: Measurement) -> int:
    """Position of its size class; `large-v3-turbo` counts as large, and what nobody knows as the smallest."""
    return next((rank for rank, size in enumerate(SIZES) if measurement.size.startswith(size)), -1)


@dataclass(frozen=True, slots=True)
class _Contest:
    """What decided."""

    best: Measurement
    most_accurate: Measurement
    latency_bound_s: float
    """What takes longer was out for that, if for nothing before."""


def _decide(in_time: Sequence[Measurement]) -> _Contest:
    """Rules 3 to 6."""
    most_accurate = min(in_time, key=lambda one: one.errors)
    accurate = [one for one in in_time if _near(one, most_accurate)]
    largest = max(map(_size_rank, accurate))
    large = [one for one in accurate if _size_rank(one) == largest]
    bound_s = (1 + LATENCY_OF_NOISE) * min(one.latency_p50_s for one in large)
    quick = [one for one in large if one.latency_p50_s <= bound_s]
    return _Contest(min(quick, key=lambda one: (one.cpu_per_speech, one.peak_mb)), most_accurate, bound_s)


def _near(one: Measurement, most_accurate: Measurement) -> bool:
    """Whether the words that it gets more wrong are noise."""
    return one.errors - most_accurate.errors <= WORDS_OF_NOISE * one.words


def _smallest(measurements: Sequence[Measurement], limits: Limits) -> Choice:
    best = min(measurements, key=lambda one: one.peak_mb)
    reason = (
        f"Nothing fits into the {limits.memory_mb} MB that the engine may have; this one is the smallest, with "
        f"{best.peak_mb} MB. Expect it to be killed when memory runs out."
    )
    return Choice(best.candidate, keeps_up=False, reasons=(reason,))


def _fastest(measurements: Sequence[Measurement], limits: Limits, nothing: str) -> Choice:
    best = min(measurements, key=lambda one: (one.latency_p50_s, one.cpu_per_speech))
    reason = (
        f"{nothing} is as fast as it should be (real-time factor {limits.rtf_p95:g}, {limits.latency_p50_s:g} s for a "
        f"sentence); this one is the fastest, with {best.rtf_p95:.2f} and {best.latency_p50_s:.1f} s."
    )
    behind = "Where people speak without a pause, it will fall behind." if best.rtf_p95 > 1 else ""
    return Choice(best.candidate, keeps_up=False, reasons=(reason, behind) if behind else (reason,))


def _reasons(contest: _Contest, measurements: Sequence[Measurement], limits: Limits) -> list[str]:
    """Why the best one, and why none of the others: of each the comparison that it lost."""
    best = contest.best
    first = (
        f"It gets {best.errors} of {best.words} words wrong, needs {best.latency_p50_s:.2f} s for a "
        f"sentence (limit {limits.latency_p50_s:g} s) at a real-time factor of {best.rtf_p95:.2f} (limit "
        f"{limits.rtf_p95:g}), and {best.peak_mb} of the {limits.memory_mb} MB that the engine may have."
    )
    names_by_reason: dict[str, list[str]] = {}
    for one in measurements:
        if one != best:
            names_by_reason.setdefault(_why_not(one, contest, limits), []).append(_name(one, measurements))
    return [first, *(f"Not {', '.join(names)}: {why}." for why, names in names_by_reason.items())]


def _name(one: Measurement, measurements: Sequence[Measurement]) -> str:
    """With the number of threads, where that tells it from another."""
    alike = sum(other.candidate.model == one.candidate.model for other in measurements)
    return str(one.candidate) if alike > 1 else f"{one.candidate.engine} {one.candidate.model}"


def _why_not(other: Measurement, contest: _Contest, limits: Limits) -> str:
    """In the order of the rule, with the very comparisons of `choose`."""
    if other.peak_mb > limits.memory_mb:
        return f"its {other.peak_mb} MB do not fit"
    if not keeps_up(other, limits):
        return f"too slow, with {other.latency_p50_s:.2f} s at a real-time factor of {other.rtf_p95:.2f}"
    return _lost_by(other, contest)


def _lost_by(other: Measurement, contest: _Contest) -> str:
    """Rules 3 to 6."""
    best = contest.best
    if not _near(other, contest.most_accurate):
        more = plural(other.errors - contest.most_accurate.errors, "more word")
        than = "" if best.errors == contest.most_accurate.errors else f" than {contest.most_accurate.candidate.model}"
        return f"it gets {more} wrong{than}"
    if _size_rank(other) < _size_rank(best):
        return f"{other.size} is the smaller Whisper, and there is time for {best.size}"
    if other.latency_p50_s > contest.latency_bound_s:
        return f"no more accurate, and slower with {other.latency_p50_s:.2f} s"
    if other.cpu_per_speech > best.cpu_per_speech:
        return (
            "no difference in words or time worth speaking of, and more CPU time "
            f"({other.cpu_per_speech:.3f} s a second of speech, not {best.cpu_per_speech:.3f})"
        )
    if other.peak_mb > best.peak_mb:
        return f"no difference worth speaking of but in memory: {other.peak_mb} MB, not {best.peak_mb}"
    return "no difference worth speaking of"
