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

from agent.calibration.records import Choice, Limits, Measurement, plural

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
        return _fastest(fitting, limits)
    accurate = _as_accurate_as_the_best(in_time)
    largest = max(_size_rank(one) for one in accurate)
    best = _quickest([one for one in accurate if _size_rank(one) == largest])
    return Choice(best.candidate, keeps_up=True, reasons=tuple(_reasons(best, measurements, limits)))


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


def _as_accurate_as_the_best(measurements: Sequence[Measurement]) -> list[Measurement]:
    fewest = min(one.errors for one in measurements)
    return [one for one in measurements if one.errors - fewest <= WORDS_OF_NOISE * one.words]


def _quickest(measurements: Sequence[Measurement]) -> Measurement:
    bound_s = (1 + LATENCY_OF_NOISE) * min(one.latency_p50_s for one in measurements)
    near = [one for one in measurements if one.latency_p50_s <= bound_s]
    return min(near, key=lambda one: (one.cpu_per_speech, one.peak_mb))


def _smallest(measurements: Sequence[Measurement], limits: Limits) -> Choice:
    best = min(measurements, key=lambda one: one.peak_mb)
    reason = (
        f"Nothing fits into the {limits.memory_mb} MB that the engine may have; this one is the smallest, with "
        f"{best.peak_mb} MB. Expect it to be killed when memory runs out."
    )
    return Choice(best.candidate, keeps_up=False, reasons=(reason,))


def _fastest(measurements: Sequence[Measurement], limits: Limits) -> Choice:
    best = min(measurements, key=lambda one: (one.latency_p50_s, one.cpu_per_speech))
    reason = (
        f"Nothing is as fast as it should be (real-time factor {limits.rtf_p95:g}, {limits.latency_p50_s:g} s for a "
        f"sentence); this one is the fastest, with {best.rtf_p95:.2f} and {best.latency_p50_s:.1f} s."
    )
    behind = "Where people speak without a pause, it will fall behind." if best.rtf_p95 > 1 else ""
    return Choice(best.candidate, keeps_up=False, reasons=(reason, behind) if behind else (reason,))


def _reasons(best: Measurement, measurements: Sequence[Measurement], limits: Limits) -> list[str]:
    """Why `best`, and why not what looks better at first sight."""
    first = (
        f"It gets {best.words - best.errors} of {best.words} words right, needs {best.latency_p50_s:.2f} s for a "
        f"sentence (limit {limits.latency_p50_s:g} s) at a real-time factor of {best.rtf_p95:.2f} (limit "
        f"{limits.rtf_p95:g}), and {best.peak_mb} of the {limits.memory_mb} MB that the engine may have."
    )
    names_by_reason: dict[str, list[str]] = {}
    for one in measurements:
        if one.candidate.model != best.candidate.model:
            name = f"{one.candidate.engine} {one.candidate.model}"
            names_by_reason.setdefault(_why_not(one, best, limits), []).append(name)
    sentences = [first, *(f"Not {', '.join(names)}: {why}." for why, names in names_by_reason.items())]
    if fewer := [one for one in measurements if one.candidate.model == best.candidate.model and one != best]:
        sentences.append(f"{plural(best.candidate.threads, 'thread').capitalize()}: {_why_threads(best, fewer)}.")
    return sentences


def _why_not(other: Measurement, best: Measurement, limits: Limits) -> str:
    if other.peak_mb > limits.memory_mb:
        return f"its {other.peak_mb} MB do not fit"
    if not keeps_up(other, limits):
        return f"too slow, with {other.latency_p50_s:.2f} s at a real-time factor of {other.rtf_p95:.2f}"
    if other.errors - best.errors > WORDS_OF_NOISE * best.words:
        return f"it gets {plural(other.errors - best.errors, 'more word')} wrong"
    if _size_rank(other) < _size_rank(best):
        return f"{other.size} is the smaller Whisper, and there is time for {best.size}"
    if other.latency_p50_s > (1 + LATENCY_OF_NOISE) * best.latency_p50_s:
        return f"no more accurate, and slower with {other.latency_p50_s:.2f} s"
    return f"no faster, and takes more (CPU {other.cpu_per_speech:.2f} s a second of speech, {other.peak_mb} MB)"


def _why_threads(best: Measurement, others: Sequence[Measurement]) -> str:
    times = ", ".join(
        f"{plural(one.candidate.threads, 'thread')} {one.latency_p50_s:.2f} s and CPU {one.cpu_per_speech:.2f}"
        for one in sorted((best, *others), key=lambda one: one.candidate.threads)
    )
    return f"fastest, or as fast as more of them for less CPU time ({times})"
