"""Latency of whole systems, from raw results to figures. Pure functions."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.bench.intervals import percentile
from agent.bench.records import LatencyBlock, LatencyMeasurement, Record


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """A whole system, from the sound to whoever waits for the words."""

    name: str
    utterances: int
    """Of all passes; the seconds are medians over passes of what each pass has."""
    after_hangover_p50_s: float
    after_hangover_p95_s: float
    from_speech_end_p50_s: float | None
    from_speech_end_p95_s: float | None
    peak_pss_bytes: int
    """The agent with its children; for a peer, its server and our client."""
    cpu_rtf: float
    """CPU seconds a second of sound, pauses and loading included for ours, neither for a peer."""


def latencies(records: Sequence[Record]) -> tuple[LatencySummary, ...]:
    """What was measured of latency, by system."""
    blocks: dict[str, list[LatencyBlock]] = defaultdict(list)
    measured: dict[str, list[LatencyMeasurement]] = defaultdict(list)
    for record in records:
        if isinstance(record, LatencyBlock):
            blocks[record.system].append(record)
        elif isinstance(record, LatencyMeasurement):
            measured[record.system].append(record)
    return tuple(_latency(name, group, blocks[name]) for name, group in measured.items() if blocks[name])


def _over_passes(measured: Iterable[tuple[int, float]], fraction: float) -> float:
    """Median over passes of each pass's percentile; `measured` has pass and seconds of every utterance.

    One bad pass (a neighbour, a hot board) does not decide then over the 95th percentile of all.
    """
    passes: dict[int, list[float]] = defaultdict(list)
    for repeat, took_s in measured:
        passes[repeat].append(took_s)
    return statistics.median(percentile(values, fraction) for values in passes.values())


def _latency(name: str, measured: Sequence[LatencyMeasurement], blocks: Sequence[LatencyBlock]) -> LatencySummary:
    after_s = [(one.repeat, one.after_hangover_s) for one in measured]
    since_s = [(one.repeat, one.from_speech_end_s) for one in measured if one.from_speech_end_s is not None]
    return LatencySummary(
        name=name,
        utterances=len(measured),
        after_hangover_p50_s=_over_passes(after_s, 0.5),
        after_hangover_p95_s=_over_passes(after_s, 0.95),
        from_speech_end_p50_s=_over_passes(since_s, 0.5) if since_s else None,
        from_speech_end_p95_s=_over_passes(since_s, 0.95) if since_s else None,
        peak_pss_bytes=max(block.peak_pss_bytes for block in blocks),
        cpu_rtf=sum(block.cpu_s for block in blocks) / sum(block.audio_s for block in blocks),
    )
