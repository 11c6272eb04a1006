"""From raw results to figures. Pure functions.

Repeats of a clip: medians of the seconds, means of the errors (decoders with a temperature are not the same twice).
Only clips that both systems got through enter a comparison.
"""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from agent.bench.clips import NO_SPEECH
from agent.bench.intervals import RESAMPLES, Estimate, percentile, rate
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
from agent.bench.scoring import BY_CHARACTER, Alignment, align, words_in
from agent.bench.systems import are_peers

ALL = "all"
Row = dict[str, Any]
"""Figures by column, as in `report.json`; a column's unit is in its name. `Estimate` where there is an interval."""
OfSystem = TypeVar("OfSystem", Measurement, LatencyBlock, IdleMeasurement, StreamBlock, SystemStart, LeftOut)


@dataclass(frozen=True, slots=True)
class ClipResult:
    """One system on one clip, all repeats together."""

    system: str
    key: str
    set_name: str
    language: str
    audio_s: float
    said: int
    """Reference words (or characters); 0 where nobody speaks."""
    wrong: float
    """Errors a repeat."""
    invented_words: float
    """Words a repeat that were found where nobody speaks; `[BLANK_AUDIO]`, `(wind)` and `...` are none."""
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
    """Empty if nothing was measured."""
    missing_baseline: str
    """The one that was asked for, if it has no results and another one takes its place."""
    repeats: int
    systems: tuple[Row, ...]
    comparisons: tuple[Row, ...]
    """Every system with the baseline, and each of ours with the peers on the same weights."""
    latencies: tuple[Row, ...]
    idle: tuple[Row, ...]
    streams: tuple[Row, ...]
    left_out: tuple[LeftOut, ...]
    failures: tuple[Failure, ...]


def summarise(records: Sequence[Record], baseline: str | None = None, resamples: int = RESAMPLES) -> Report:
    """All figures; `baseline` is the name of a system (default: the first one that has results)."""
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
    groups: dict[str, list[OfSystem]] = defaultdict(list)
    for record in records:
        if isinstance(record, kind):
            groups[record.system].append(record)
    return groups


def clip_results(measurements: Iterable[Measurement]) -> list[ClipResult]:
    """Put the repeats of each clip together."""
    by_clip: dict[str, list[Measurement]] = defaultdict(list)
    for measurement in measurements:
        by_clip[measurement.step].append(measurement)
    return [_clip(repeats) for repeats in by_clip.values()]


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
    """One system over everything."""
    audio_s = sum(clip.audio_s for clip in clips)
    noise = [clip for clip in clips if clip.language == NO_SPEECH]
    walls_s = [clip.wall_s for clip in clips if clip.language != NO_SPEECH] or [clip.wall_s for clip in clips]
    first_pass = {one.step: one for one in reversed(measurements)}.values()
    by_set: dict[str, list[ClipResult]] = defaultdict(list)
    for clip in clips:
        by_set[clip.set_name].append(clip)
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
            for name, group in sorted(by_set.items())
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
    """`ours` against `theirs` over the clips that both have, paired over utterances; None if there are none.

    A positive difference means more errors than the other.
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
    """A whole system, from the sound to a subscriber; None where no utterance arrived."""
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
        # The agent with its children; for a peer, its server and our client.
        "peak_pss_bytes": max(block.peak_pss_bytes for block in blocks),
        # A second of sound; pauses and loading included for ours, neither for a peer.
        "cpu_rtf": sum(block.cpu_s for block in blocks) / sum(block.audio_s for block in blocks),
    }


def _over_passes(measured: Iterable[tuple[int, float | None]], fraction: float) -> float | None:
    """Median over passes of each pass's percentile; `measured` has pass and seconds of every utterance.

    One bad pass (a neighbour, a hot board) does not decide then over the 95th percentile of all.
    """
    passes: dict[int, list[float]] = defaultdict(list)
    for repeat, took_s in measured:
        if took_s is not None:
            passes[repeat].append(took_s)
    return statistics.median(percentile(values, fraction) for values in passes.values()) if passes else None


def _idle(name: str, group: Sequence[IdleMeasurement]) -> Row:
    """A whole agent at rest, over all runs, children included."""
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


@dataclass(frozen=True, slots=True)
class _Scored:
    """One clip in one stream, with the alignments of both texts."""

    block: StreamBlock
    clip: StreamClip
    stream: Alignment
    whole: Alignment

    def loses(self, index: int) -> bool:
        """Whether the stream leaves out a word that the stock library hears."""
        return self.whole.operations[index] == "equal" and self.stream.operations[index] == "delete"


def stream_summaries(records: Iterable[Record]) -> tuple[Row, ...]:
    """What was measured in streams: by system in all, by room, and by set."""
    return tuple(part for name, blocks in _by_system(records, StreamBlock).items() for part in _parts(name, blocks))


def _parts(name: str, blocks: Sequence[StreamBlock]) -> Iterator[Row]:
    scored = [_score(block, clip) for block in blocks for clip in block.heard]
    scored = [one for one in scored if one.whole.said]
    if not scored:
        return
    yield _stream(name, ALL, scored, blocks)
    for room in dict.fromkeys(one.block.room for one in scored):
        of_room = [one for one in scored if one.block.room == room]
        yield _stream(name, room, of_room, [block for block in blocks if block.room == room])
    for set_name in sorted({one.clip.set_name for one in scored}):
        yield _stream(name, set_name, [one for one in scored if one.clip.set_name == set_name], [])


def _score(block: StreamBlock, clip: StreamClip) -> _Scored:
    texts = (clip.text, clip.whole_text)
    return _Scored(block, clip, *(align(clip.reference, text, clip.language, spelled=False) for text in texts))


def _stream(name: str, part: str, scored: Sequence[_Scored], blocks: Sequence[StreamBlock]) -> Row:
    """One system in all streams, in one room, or on one set (without `blocks`): medians over seeds."""
    by_seed: dict[int, list[_Scored]] = defaultdict(list)
    for one in scored:
        by_seed[one.block.repeat].append(one)
    # A run that was interrupted leaves a seed with fewer clips, which may be the easier ones.
    most = max(map(len, by_seed.values()))
    seeds = {seed: group for seed, group in by_seed.items() if len(group) == most}
    heard = [block for block in blocks if block.repeat in seeds]

    def median(figure: Callable[[_Scored], int]) -> float:
        return statistics.median(sum(map(figure, group)) for group in seeds.values())

    def median_rate(text: Callable[[_Scored], Alignment]) -> float:
        pairs = ([text(one) for one in group] for group in seeds.values())
        return statistics.median(sum(one.errors for one in group) / sum(one.said for one in group) for group in pairs)

    error_rate, whole_rate = median_rate(lambda one: one.stream), median_rate(lambda one: one.whole)
    return {
        "name": name,
        "part": part,
        "seeds": len(seeds),
        "clips": most,  # of one seed; a clip counts once a room
        "error_rate": error_rate,
        "whole_error_rate": whole_rate,
        "error_rate_difference": error_rate - whole_rate,
        "deletions": median(lambda one: one.stream.deletions),
        "whole_deletions": median(lambda one: one.whole.deletions),
        # Clips whose first, or last, word the stock library hears and the stream leaves out.
        "first_lost": median(lambda one: one.loses(0)),
        "last_lost": median(lambda one: one.loses(-1)),
        "split": median(lambda one: one.clip.pieces > 1),
        # A seed; utterances without a clip.
        "strays": sum(block.strays for block in heard) / len(seeds) if blocks else None,
        "cpu_rtf": sum(block.cpu_s for block in heard) / sum(block.audio_s for block in heard) if blocks else None,
    }
