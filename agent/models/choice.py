"""Compares measured candidates: the Pareto front, and the rule that picks the best. Pure.

The rule, in this order:

1. A candidate that does not fit into memory is out.
2. Candidates that keep up with margin (real-time factor and latency within their limits) come first. If none does, the
   rule takes the fastest, and says that it is too slow.
3. The fewest wrong words. The clips have about 80 words, so a difference of up to 2 % of them does not count.
4. The larger Whisper. Clear recordings of a native speaker flatter the small models; on all others a larger one gains.
5. The shortest latency. A difference of less than a tenth does not count.
6. The least CPU time, then the least memory.
"""

from collections.abc import Sequence
from typing import Final

from agent.models import ModelFormat
from agent.models.calibration import Choice, Engine, Limits, Measurement, plural
from agent.models.catalogue import Model

WORDS_OF_NOISE: Final = 0.02
LATENCY_OF_NOISE: Final = 0.10
SIZES: Final = ("tiny", "base", "small", "medium", "large")
"""Whisper's size classes, ascending."""
LIKELIEST: Final = ("q8_0", "q4_0", "q5_1", "q5_0", "q4_1", "f16")
"""Quantisations, the fastest on most CPUs first."""


def size_rank(size: str) -> int:
    """Return the position of a size class; `large-v3-turbo` counts as large, an unknown one as the smallest."""
    return next((rank for rank, name in enumerate(SIZES) if size.startswith(name)), -1)


def engine_for(model: Model) -> Engine:
    """Return the engine that takes a model of this format."""
    return "whisper_cpp" if model.format is ModelFormat.GGML else "faster_whisper"


def for_language(models: Sequence[Model], language: str) -> list[Model]:
    """Return the models that suit `engine.language`.

    `auto` takes multilingual models, and English-only ones if there is no other.
    """
    if language == "en":
        return list(models)
    multilingual = [model for model in models if model.languages == "multilingual"]
    return multilingual or (list(models) if language == "auto" else [])


def dominates(one: Measurement, other: Measurement) -> bool:
    """Return whether `one` is better than `other` in one respect and worse in none; a larger Whisper is better."""

    def costs(each: Measurement) -> tuple[float, ...]:
        return each.errors, -size_rank(each.size), each.rtf_p95, each.cpu_per_speech, each.peak_mb

    ours, theirs = costs(one), costs(other)
    return ours != theirs and all(our <= their for our, their in zip(ours, theirs, strict=True))


def pareto_front(measurements: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Return the measurements that no other dominates, in their order."""
    return tuple(one for one in measurements if not any(dominates(other, one) for other in measurements))


def keeps_up(measurement: Measurement, limits: Limits) -> bool:
    """Return whether it is fast enough, with margin."""
    return measurement.rtf_p95 <= limits.rtf_p95 and measurement.latency_p50_s <= limits.latency_p50_s


def choose(measurements: Sequence[Measurement], limits: Limits) -> Choice:
    """Apply the rule above to at least one measurement."""
    fitting = [one for one in measurements if one.peak_mb <= limits.memory_mb]
    if not fitting:
        return _smallest(measurements, limits)
    in_time = [one for one in fitting if keeps_up(one, limits)]
    if not in_time:
        return _fastest(fitting, limits, "No model" if len(fitting) == len(measurements) else "No model that fits")
    fewest = min(in_time, key=lambda one: one.errors)
    accurate = [one for one in in_time if one.errors - fewest.errors <= WORDS_OF_NOISE * one.words]
    largest = max(size_rank(one.size) for one in accurate)
    large = [one for one in accurate if size_rank(one.size) == largest]
    bound_s = (1 + LATENCY_OF_NOISE) * min(one.latency_p50_s for one in large)
    quick = [one for one in large if one.latency_p50_s <= bound_s]
    best = min(quick, key=lambda one: (one.cpu_per_speech, one.peak_mb))
    names_by_reason: dict[str, list[str]] = {}
    for one in measurements:
        if one != best:
            why = _why_not(one, best, fewest, (fitting, in_time, accurate, large, quick))
            names_by_reason.setdefault(why, []).append(_name(one, measurements))
    first = (
        f"It gets {best.errors} of {best.words} words wrong, needs {best.latency_p50_s:.2f} s for a "
        f"sentence (limit {limits.latency_p50_s:g} s) at a real-time factor of {best.rtf_p95:.2f} (limit "
        f"{limits.rtf_p95:g}), and {best.peak_mb} of the {limits.memory_mb} MB that the engine may have."
    )
    others = (f"Not {', '.join(names)}: {why}." for why, names in names_by_reason.items())
    return Choice(best.candidate, keeps_up=True, reasons=(first, *others))


def _why_not(one: Measurement, best: Measurement, fewest: Measurement, rounds: Sequence[Sequence[Measurement]]) -> str:
    """Return the comparison that `one` lost. `rounds` are the candidates that rules 1 to 5 left, one after another."""
    than = "" if best.errors == fewest.errors else f" than {fewest.candidate.model}"
    reasons = (
        f"its {one.peak_mb} MB do not fit",
        f"too slow, with {one.latency_p50_s:.2f} s at a real-time factor of {one.rtf_p95:.2f}",
        f"it gets {plural(one.errors - fewest.errors, 'more word')} wrong{than}",
        f"{one.size} is the smaller Whisper, and there is time for {best.size}",
        f"no more accurate, and slower with {one.latency_p50_s:.2f} s",
    )
    for left, reason in zip(rounds, reasons, strict=True):
        if one not in left:
            return reason
    if one.cpu_per_speech > best.cpu_per_speech:
        more = f"{one.cpu_per_speech:.3f} s a second of speech, not {best.cpu_per_speech:.3f}"
        return f"no clear difference in words or time, and more CPU time ({more})"
    if one.peak_mb > best.peak_mb:
        return f"no clear difference but in memory: {one.peak_mb} MB, not {best.peak_mb}"
    return "no clear difference"


def _name(one: Measurement, measurements: Sequence[Measurement]) -> str:
    """Return the candidate's name, with its number of threads if there are several of one model."""
    alike = sum(other.candidate.model == one.candidate.model for other in measurements)
    return str(one.candidate) if alike > 1 else f"{one.candidate.engine} {one.candidate.model}"


def _smallest(measurements: Sequence[Measurement], limits: Limits) -> Choice:
    best = min(measurements, key=lambda one: one.peak_mb)
    reason = (
        f"No model fits into the {limits.memory_mb} MB that the engine may have; this one is the smallest, with "
        f"{best.peak_mb} MB. The kernel may kill it when memory runs out."
    )
    return Choice(best.candidate, keeps_up=False, reasons=(reason,))


def _fastest(fitting: Sequence[Measurement], limits: Limits, subject: str) -> Choice:
    best = min(fitting, key=lambda one: (one.latency_p50_s, one.cpu_per_speech))
    reason = (
        f"{subject} keeps to the limits (real-time factor {limits.rtf_p95:g}, {limits.latency_p50_s:g} s for a "
        f"sentence); this one is the fastest, with {best.rtf_p95:.2f} and {best.latency_p50_s:.1f} s."
    )
    behind = ("Where people speak without a pause, it will fall behind.",) if best.rtf_p95 > 1 else ()
    return Choice(best.candidate, keeps_up=False, reasons=(reason, *behind))
