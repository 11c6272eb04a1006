"""Compute the figures of a run from its raw results. Pure functions.

Of the repeats of a clip, the seconds are medians and the errors are means, because decoders with a temperature do not
give the same text twice. A comparison has only the clips that both systems got through.
"""

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from agent.bench.clips import NO_SPEECH, grouped
from agent.bench.records import (
    Done,
    Failure,
    IdleMeasurement,
    LatencyBlock,
    LeftOut,
    Machine,
    Measurement,
    Record,
    StreamBlock,
    StreamClip,
    SystemStart,
    standing,
)
from agent.bench.score import BY_CHARACTER, RESAMPLES, Estimate, align, percentile, rate, words_in
from agent.bench.systems import are_peers

ALL = "all"
Row = dict[str, Any]
"""Figures by column, as in `report.json`; the name of a column has its unit. `Estimate` where there is an interval."""
_Scored = tuple[StreamBlock, StreamClip, Counter[str]]
OfSystem = TypeVar("OfSystem", Measurement, LatencyBlock, IdleMeasurement, StreamBlock, SystemStart, LeftOut)


@dataclass(frozen=True, slots=True)
class ClipResult:
    """One system on one clip, over all repeats."""

    system: str
    key: str
    set_name: str
    language: str
    audio_s: float
    said: int
    """Words (or characters) of the reference; 0 without speech."""
    wrong: float
    """Errors a repeat."""
    invented_words: float
    """Words a repeat in sound without speech; `[BLANK_AUDIO]`, `(wind)` and `...` are not words."""
    wall_s: float
    cpu_s: float

    @property
    def by_word(self) -> bool:
        """Whether it enters the word error rate. "Hmm." does not: the normaliser leaves no word of it."""
        return self.said > 0 and self.language not in BY_CHARACTER


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of a run."""

    machine: Machine | None
    baseline: str
    """Empty without measurements."""
    missing_baseline: str
    """The name that the user gave, if it has no results and another system is the baseline."""
    repeats: int
    systems: tuple[Row, ...]
    comparisons: tuple[Row, ...]
    """Every system with the baseline, and each of our engines with the peers on the same weights."""
    latencies: tuple[Row, ...]
    idle: tuple[Row, ...]
    streams: tuple[Row, ...]
    left_out: tuple[LeftOut, ...]
    failures: tuple[Failure, ...]


def summarise(records: Sequence[Record], baseline: str | None = None, resamples: int = RESAMPLES) -> Report:
    """Return all figures; `baseline` is the name of a system (default: the first one with results)."""
    measured = _by_system(records, Measurement)
    results = {name: clip_results(group) for name, group in measured.items()}
    chosen = baseline if baseline in results else next(iter(results), "")
    starts = {name: group[-1] for name, group in _by_system(records, SystemStart).items()}
    return Report(
        machine=next((record for record in records if isinstance(record, Machine)), None),
        baseline=chosen,
        missing_baseline=baseline if baseline and results and baseline != chosen else "",
        repeats=1 + max((record.repeat for record in records if isinstance(record, Done)), default=0),
        systems=tuple(_system(starts[name], measured[name], clips, resamples) for name, clips in results.items()),
        comparisons=tuple(_comparisons(results, chosen, resamples)),
        latencies=tuple(_latency(name, blocks) for name, blocks in _by_system(records, LatencyBlock).items()),
        idle=tuple(_idle(name, group) for name, group in _by_system(records, IdleMeasurement).items()),
        streams=stream_summaries(records),
        left_out=tuple(group[-1] for group in _by_system(records, LeftOut).values()),
        failures=standing(records),
    )


def _by_system(records: Iterable[Record], kind: type[OfSystem]) -> dict[str, list[OfSystem]]:
    return grouped((record for record in records if isinstance(record, kind)), lambda record: record.system)


def clip_results(measurements: Iterable[Measurement]) -> list[ClipResult]:
    """Return one result for each clip: its repeats put together."""
    return [_clip(repeats) for repeats in grouped(measurements, lambda one: one.step).values()]


def _clip(repeats: Sequence[Measurement]) -> ClipResult:
    first = repeats[0]
    speech = first.language != NO_SPEECH
    aligned = [align(first.reference, one.text, first.language) for one in repeats] if speech else []
    return ClipResult(
        system=first.system,
        key=first.step,
        set_name=first.set_name,
        language=first.language,
        audio_s=first.audio_s,
        said=aligned[0].said if aligned else 0,
        wrong=statistics.fmean(one.errors for one in aligned) if aligned else 0.0,
        invented_words=0.0 if speech else statistics.fmean(words_in(one.text) for one in repeats),
        wall_s=statistics.median(one.wall_s for one in repeats),
        cpu_s=statistics.median(one.cpu_s for one in repeats),
    )


def _system(
    start: SystemStart, measurements: Sequence[Measurement], clips: Sequence[ClipResult], resamples: int
) -> Row:
    audio_s = sum(clip.audio_s for clip in clips)
    noise = [clip for clip in clips if clip.language == NO_SPEECH]
    walls_s = [clip.wall_s for clip in clips if clip.language != NO_SPEECH] or [clip.wall_s for clip in clips]
    first_pass = {one.step: one for one in reversed(measurements)}.values()
    return {
        "name": start.system,
        "clips": len(clips),
        "error_rate": _error_rate([clip for clip in clips if clip.by_word], resamples),
        "retries": sum(one.retries for one in first_pass),
        "cpu_rtf": sum(clip.cpu_s for clip in clips) / audio_s,  # CPU seconds a second of sound
        "rtf": sum(clip.wall_s for clip in clips) / audio_s,
        "wall_p50_s": percentile(walls_s, 0.5),
        "wall_p95_s": percentile(walls_s, 0.95),
        "peak_rss_bytes": max(one.peak_rss_bytes for one in measurements),
        "pss_bytes": max(one.pss_bytes for one in measurements),
        "model_bytes": start.model_bytes,
        "load_s": start.load_s,
        "noise_clips": len(noise),
        "noise_clips_with_text": sum(clip.invented_words > 0 for clip in noise),
        "noise_words": sum(clip.invented_words for clip in noise),
        "speech_clips_rejected": len({one.step for one in measurements if one.rejected and one.language != NO_SPEECH}),
        "doubtful": sum(one.doubtful for one in first_pass),
        "sets": [
            {
                "name": name,
                "by_character": group[0].language in BY_CHARACTER,
                "error_rate": _error_rate(group, resamples),
            }
            for name, group in sorted(grouped(clips, lambda clip: clip.set_name).items())
        ],
    }


def _error_rate(clips: Sequence[ClipResult], resamples: int) -> Estimate | None:
    said = [clip for clip in clips if clip.said]
    return rate([clip.wrong for clip in said], [clip.said for clip in said], resamples) if said else None


def _comparisons(results: Mapping[str, Sequence[ClipResult]], baseline: str, resamples: int) -> Iterator[Row]:
    pairs = [(name, baseline) for name in results if name != baseline]
    pairs += [(ours, peer) for ours in results for peer in results if peer != baseline and are_peers(ours, peer)]
    for name, against in pairs:
        if comparison := compare(results[name], results[against], resamples):
            yield comparison


def compare(ours: Sequence[ClipResult], theirs: Sequence[ClipResult], resamples: int = RESAMPLES) -> Row | None:
    """Compare `ours` with `theirs` over the clips that both have, paired over utterances; None if there are none.

    A positive difference means that `ours` makes more errors.
    """
    other = {clip.key: clip for clip in theirs}
    pairs = [(clip, other[clip.key]) for clip in ours if clip.key in other]
    if not pairs:
        return None
    by_word = [(a, b) for a, b in pairs if a.by_word]
    wrong, said = [a.wrong - b.wrong for a, b in by_word], [a.said for a, _ in by_word]
    return {
        "name": ours[0].system,
        "against": theirs[0].system,
        "clips": len(pairs),
        "error_rate_difference": rate(wrong, said, resamples) if said else None,
        "cpu_ratio": rate([a.cpu_s for a, _ in pairs], [b.cpu_s for _, b in pairs], resamples),
        "wall_ratio": rate([a.wall_s for a, _ in pairs], [b.wall_s for _, b in pairs], resamples),
    }


def _latency(name: str, blocks: Sequence[LatencyBlock]) -> Row:
    """Return the row of a whole system; the seconds are None if no utterance arrived."""
    delays = [(block.repeat, delay) for block in blocks for delay in block.delays]
    after_s = [(repeat, delay.after_hangover_s) for repeat, delay in delays]
    since_s = [(repeat, delay.from_speech_end_s) for repeat, delay in delays]
    return {
        "name": name,
        "utterances": len(delays),  # of all passes
        "after_hangover_p50_s": _over_passes(after_s, 0.5),
        "after_hangover_p95_s": _over_passes(after_s, 0.95),
        "from_speech_end_p50_s": _over_passes(since_s, 0.5),
        "from_speech_end_p95_s": _over_passes(since_s, 0.95),
        # The agent with its children; for a peer, its server and the child that feeds it.
        "peak_pss_bytes": max(block.peak_pss_bytes for block in blocks),
        # A second of sound. For our engines it includes pauses and loading, for a peer neither.
        "cpu_rtf": sum(block.cpu_s for block in blocks) / sum(block.audio_s for block in blocks),
    }


def _over_passes(measured: Iterable[tuple[int, float | None]], fraction: float) -> float | None:
    """Return the median over passes of each pass's percentile; `measured` has pass and seconds of every utterance.

    So one bad pass (another process, a hot board) does not decide the 95th percentile.
    """
    passes = grouped([(repeat, took_s) for repeat, took_s in measured if took_s is not None], lambda one: one[0])
    percentiles = [percentile([took_s for _, took_s in group], fraction) for group in passes.values()]
    return statistics.median(percentiles) if percentiles else None


def _idle(name: str, group: Sequence[IdleMeasurement]) -> Row:
    shares = [one.cpu_s / one.wall_s for one in group]
    return {
        "name": name,
        "runs": len(group),
        "core_share": statistics.median(shares),  # loading excluded
        "highest_core_share": max(shares),
        "loading_cpu_s": statistics.median(one.loading_cpu_s for one in group),
        "peak_pss_bytes": max(one.peak_pss_bytes for one in group),
        "transcripts": sum(one.transcripts for one in group),
    }


def stream_summaries(records: Iterable[Record]) -> tuple[Row, ...]:
    """Return the rows for streams: for each system all streams, then each room, then each set."""
    rows: list[Row] = []
    for name, blocks in _by_system(records, StreamBlock).items():
        scored = [(block, clip, _stream_counts(clip)) for block in blocks for clip in block.heard]
        scored = [one for one in scored if one[2]["said"]]
        if scored:
            rows.append(_stream(name, ALL, scored, blocks))
        for room, group in grouped(scored, lambda one: one[0].room).items():
            rows.append(_stream(name, room, group, [block for block in blocks if block.room == room]))
        for set_name, group in sorted(grouped(scored, lambda one: one[1].set_name).items()):
            rows.append(_stream(name, set_name, group, []))
    return tuple(rows)


def _stream_counts(clip: StreamClip) -> Counter[str]:
    texts = (clip.text, clip.whole_text)
    stream, whole = (align(clip.reference, text, clip.language, spelled=False) for text in texts)
    pairs = zip(whole.operations, stream.operations, strict=True)
    lost = [pair == ("equal", "delete") for pair in pairs] or [False]  # only the stream leaves the word out
    return Counter(
        said=whole.said,
        errors=stream.errors,
        whole_errors=whole.errors,
        deletions=stream.deletions,
        whole_deletions=whole.deletions,
        first_lost=int(lost[0]),
        last_lost=int(lost[-1]),
        split=int(clip.pieces > 1),
    )


def _stream(name: str, part: str, scored: Sequence[_Scored], blocks: Sequence[StreamBlock]) -> Row:
    """Return medians over seeds: for all streams, one room, or one set (without `blocks`)."""
    by_seed = grouped(scored, lambda one: one[0].repeat)
    # A run that was interrupted leaves a seed with fewer clips, which may be the easier ones.
    most = max(map(len, by_seed.values()))
    sums = {
        seed: sum((counts for _, _, counts in group), Counter[str]())
        for seed, group in by_seed.items()
        if len(group) == most
    }
    heard = [block for block in blocks if block.repeat in sums]
    error_rate = statistics.median(counts["errors"] / counts["said"] for counts in sums.values())
    whole_rate = statistics.median(counts["whole_errors"] / counts["said"] for counts in sums.values())
    return {
        "name": name,
        "part": part,
        "seeds": len(sums),
        "clips": most,  # of one seed; a clip counts once a room
        "error_rate": error_rate,
        "whole_error_rate": whole_rate,
        "error_rate_difference": error_rate - whole_rate,
        **{
            column: statistics.median(counts[column] for counts in sums.values())
            # The lost ones are clips whose first, or last, word only the stock library hears.
            for column in ("deletions", "whole_deletions", "first_lost", "last_lost", "split")
        },
        # A seed; utterances without a clip.
        "strays": sum(block.strays for block in heard) / len(sums) if blocks else None,
        "cpu_rtf": sum(block.cpu_s for block in heard) / sum(block.audio_s for block in heard) if blocks else None,
    }
