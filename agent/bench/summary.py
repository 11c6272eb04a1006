"""From raw results to figures. Pure functions.

Repeats of a clip: medians of the seconds, and errors added up over repeats (decoders with a temperature are not the
same twice). Only clips that both systems got through enter a comparison.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent.bench.clips import NO_SPEECH
from agent.bench.failures import standing
from agent.bench.idle import IdleSummary, idle_summaries
from agent.bench.intervals import RESAMPLES, Estimate, paired_difference, percentile, rate
from agent.bench.latencies import LatencySummary, latencies
from agent.bench.records import (
    Failure,
    IdleMeasurement,
    LatencyBlock,
    LeftOut,
    Machine,
    Measurement,
    Record,
    StreamBlock,
    SystemStart,
)
from agent.bench.scoring import BY_CHARACTER, Errors, score, words_in
from agent.bench.streams import StreamSummary, stream_summaries
from agent.bench.systems import is_ours, model_of

_REPEATED = Measurement | LatencyBlock | IdleMeasurement | StreamBlock


@dataclass(frozen=True, slots=True)
class ClipResult:
    """One system on one clip, all repeats together."""

    key: str
    set_name: str
    language: str
    audio_s: float
    errors: tuple[Errors, ...]
    """One a repeat; empty where nobody speaks."""
    invented_words: float
    """Mean number of words that were found where nobody speaks; `[BLANK_AUDIO]`, `(wind)` and `...` are none."""
    wall_s: float
    cpu_s: float
    rejected: bool
    """Whether anything was held back, in any repeat."""
    retries: int
    doubtful: int

    @property
    def wrong(self) -> float:
        """Errors, added up over repeats."""
        return float(sum(errors.total for errors in self.errors))

    @property
    def said(self) -> float:
        """Reference words, as often as they were transcribed."""
        return float(sum(errors.reference for errors in self.errors))


@dataclass(frozen=True, slots=True)
class SetSummary:
    """One system on one set."""

    name: str
    clips: int
    by_character: bool
    """True if the error rate is over characters."""
    error_rate: Estimate | None
    """None where nobody speaks."""
    rtf: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A system against the baseline, over the clips that both got through."""

    clips: int
    error_rate_difference: Estimate | None
    """Positive: more errors than the baseline. Paired over utterances."""
    cpu_ratio: Estimate
    wall_ratio: Estimate


@dataclass(frozen=True, slots=True)
class SystemSummary:
    """One system over everything."""

    name: str
    clips: int
    audio_s: float
    error_rate: Estimate | None
    """Words; sets that are scored by character are not in it."""
    rtf: float
    """Wall seconds a second of sound."""
    cpu_s: float
    cpu_rtf: float
    wall_p50_s: float
    wall_p95_s: float
    """Seconds from the samples to the words, over clips in which somebody speaks."""
    noise_clips: int
    noise_clips_with_text: int
    noise_words: float
    speech_clips_rejected: int
    retries: int
    doubtful: int
    load_s: float
    model_bytes: int
    peak_rss_bytes: int
    pss_bytes: int
    sets: tuple[SetSummary, ...]
    against_baseline: Comparison | None
    """None for the baseline itself."""


@dataclass(frozen=True, slots=True)
class Duel:
    """One of our engines against a peer on the same weights."""

    ours: str
    peer: str
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of a run."""

    machine: Machine | None
    baseline: str
    """Empty if nothing was measured."""
    missing_baseline: str
    """The one that was asked for, if it has no results and another one takes its place."""
    repeats: int
    systems: tuple[SystemSummary, ...]
    duels: tuple[Duel, ...]
    latencies: tuple[LatencySummary, ...]
    idle: tuple[IdleSummary, ...]
    streams: tuple[StreamSummary, ...]
    left_out: tuple[LeftOut, ...]
    failures: tuple[Failure, ...]


def summarise(records: Sequence[Record], baseline: str | None = None, resamples: int = RESAMPLES) -> Report:
    """All figures; `baseline` is the name of a system (default: the first one that has results)."""
    measured: dict[str, list[Measurement]] = defaultdict(list)
    for record in records:
        if isinstance(record, Measurement):
            measured[record.system].append(record)
    results = {name: clip_results(measurements) for name, measurements in measured.items()}
    chosen = baseline if baseline in results else next(iter(results), "")
    starts = {record.system: record for record in records if isinstance(record, SystemStart)}
    systems = tuple(
        _system(starts[name], measured[name], clips, None if name == chosen else results[chosen], resamples)
        for name, clips in results.items()
    )
    return Report(
        machine=next((record for record in records if isinstance(record, Machine)), None),
        baseline=chosen,
        missing_baseline=baseline if baseline and results and baseline != chosen else "",
        repeats=1 + max((record.repeat for record in records if isinstance(record, _REPEATED)), default=0),
        systems=systems,
        duels=tuple(duels(results, resamples)),
        latencies=latencies(records),
        idle=idle_summaries(records),
        streams=stream_summaries(records),
        left_out=tuple({record.system: record for record in records if isinstance(record, LeftOut)}.values()),
        failures=standing(records),
    )


def duels(results: Mapping[str, Sequence[ClipResult]], resamples: int = RESAMPLES) -> Iterator[Duel]:
    """Each of ours against each peer on the same model, by the systems' names."""
    for ours in filter(is_ours, results):
        for peer in results:
            if not is_ours(peer) and model_of(peer) == model_of(ours) != "":
                comparison = compare(results[ours], results[peer], resamples)
                if comparison:
                    yield Duel(ours, peer, comparison)


def clip_results(measurements: Iterable[Measurement]) -> list[ClipResult]:
    """Put the repeats of each clip together."""
    by_clip: dict[str, list[Measurement]] = defaultdict(list)
    for measurement in measurements:
        by_clip[measurement.clip_key].append(measurement)
    return [_clip(key, repeats) for key, repeats in by_clip.items()]


def _clip(key: str, repeats: list[Measurement]) -> ClipResult:
    first = repeats[0]
    speech = first.language != NO_SPEECH
    return ClipResult(
        key=key,
        set_name=first.set_name,
        language=first.language,
        audio_s=first.audio_s,
        errors=tuple(score(first.reference, m.text, first.language) for m in repeats) if speech else (),
        invented_words=0.0 if speech else statistics.fmean(words_in(m.text) for m in repeats),
        wall_s=statistics.median(m.wall_s for m in repeats),
        cpu_s=statistics.median(m.cpu_s for m in repeats),
        rejected=any(m.rejected for m in repeats),
        retries=first.retries,
        doubtful=first.doubtful,
    )


def _system(
    start: SystemStart,
    measurements: Sequence[Measurement],
    clips: Sequence[ClipResult],
    baseline: Sequence[ClipResult] | None,
    resamples: int,
) -> SystemSummary:
    audio_s = sum(clip.audio_s for clip in clips)
    speech = [clip for clip in clips if clip.errors]
    noise = [clip for clip in clips if clip.language == NO_SPEECH]
    walls_s = [clip.wall_s for clip in speech or clips]
    return SystemSummary(
        name=start.system,
        clips=len(clips),
        audio_s=audio_s,
        error_rate=_error_rate(_by_word(clips), resamples),
        rtf=sum(clip.wall_s for clip in clips) / audio_s,
        cpu_s=sum(clip.cpu_s for clip in clips),
        cpu_rtf=sum(clip.cpu_s for clip in clips) / audio_s,
        wall_p50_s=percentile(walls_s, 0.5),
        wall_p95_s=percentile(walls_s, 0.95),
        noise_clips=len(noise),
        noise_clips_with_text=sum(clip.invented_words > 0 for clip in noise),
        noise_words=sum(clip.invented_words for clip in noise),
        speech_clips_rejected=sum(clip.rejected for clip in speech),
        retries=sum(clip.retries for clip in clips),
        doubtful=sum(clip.doubtful for clip in clips),
        load_s=start.load_s,
        model_bytes=start.model_bytes,
        peak_rss_bytes=max(m.peak_rss_bytes for m in measurements),
        pss_bytes=max(m.pss_bytes for m in measurements),
        sets=_sets(clips, resamples),
        against_baseline=None if baseline is None else compare(clips, baseline, resamples),
    )


def compare(ours: Sequence[ClipResult], theirs: Sequence[ClipResult], resamples: int = RESAMPLES) -> Comparison | None:
    """`ours` against `theirs` over the clips that both have; None if there are none."""
    other = {clip.key: clip for clip in theirs}
    pairs = [(clip, other[clip.key]) for clip in ours if clip.key in other]
    if not pairs:
        return None
    # As in the rate of each: a reference that the normaliser leaves nothing of ("Hmm.") has no words to get wrong.
    by_word = [(a, b) for a, b in pairs if a.said and b.said and a.language not in BY_CHARACTER]
    # Rates per repeat, so that it does not matter if one of the two has been repeated more often than the other.
    difference = (
        paired_difference(
            [a.wrong / len(a.errors) for a, _ in by_word],
            [b.wrong / len(b.errors) for _, b in by_word],
            [a.said / len(a.errors) for a, _ in by_word],
            resamples,
        )
        if by_word
        else None
    )
    return Comparison(
        clips=len(pairs),
        error_rate_difference=difference,
        cpu_ratio=rate([a.cpu_s for a, _ in pairs], [b.cpu_s for _, b in pairs], resamples),
        wall_ratio=rate([a.wall_s for a, _ in pairs], [b.wall_s for _, b in pairs], resamples),
    )


def _by_word(clips: Iterable[ClipResult]) -> list[ClipResult]:
    return [clip for clip in clips if clip.errors and clip.language not in BY_CHARACTER]


def _error_rate(clips: Sequence[ClipResult], resamples: int) -> Estimate | None:
    scored = [clip for clip in clips if clip.said]
    return rate([clip.wrong for clip in scored], [clip.said for clip in scored], resamples) if scored else None


def _sets(clips: Sequence[ClipResult], resamples: int) -> tuple[SetSummary, ...]:
    by_set: dict[str, list[ClipResult]] = defaultdict(list)
    for clip in clips:
        by_set[clip.set_name].append(clip)
    return tuple(
        SetSummary(
            name=name,
            clips=len(group),
            by_character=group[0].language in BY_CHARACTER,
            error_rate=_error_rate(group, resamples),
            rtf=sum(clip.wall_s for clip in group) / sum(clip.audio_s for clip in group),
        )
        for name, group in sorted(by_set.items())
    )
