"""Counts what happens in the stages, for telemetry."""

import threading
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

from prometheus_client import CollectorRegistry, Histogram, Metric, disable_created_metrics

from agent.audio.monitor import Condition
from agent.channel import Window
from agent.messages import Latency
from agent.messages.telemetry import Asr, Audio

PREFIX: Final = "edgescribe_"
"""Of all names in Prometheus."""
RTF_BOUNDS: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 4.0)
LATENCY_BOUNDS_S: Final = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0)
RTF: Final = "rtf"
STAGES: Final = tuple(Latency.model_fields)
"""The parts of a transcript's latency."""
Total = Literal[
    "heard_s",  # sound that the listener took
    "speech_s",  # sound that became utterances
    "spoken_samples",  # samples of these utterances
    "clipped_samples",  # those among them at full scale
    "xruns",  # overruns: the microphone was not read in time, and sound is missing
    "losses",  # the microphone went away, or delivered no more sound
    "utt",  # transcribed utterances
    "rejected",  # utterances without words, or without words worth publishing
    "discarded",  # speech that was too short for an utterance
    "dropped_s",  # dropped utterances: the engine could not keep up, or failed
    "engine_restarts",  # the engine's process died or hung, and another one took over
]
disable_created_metrics()  # type: ignore[no-untyped-call]  # else each histogram shows when it was made


class Counters:
    """Totals and distributions since the start, and windows over the last 64 utterances.

    Any thread may call every method, and replace every attribute.
    """

    def __init__(self) -> None:
        self.sound = Condition()
        """The condition of the sound."""
        self.noise_floor_dbfs: float | None = None
        """The level of the room without speech."""
        self._lock = threading.Lock()
        self._totals: dict[Total, float] = dict.fromkeys(get_args(Total), 0)
        self._windows = {name: Window() for name in (RTF, *STAGES)}
        self._registry = CollectorRegistry()
        rtf_help, latency_help = "Inference time over the utterance's length.", "Where the time of an utterance went."
        self._rtf = Histogram(f"{PREFIX}real_time_factor", rtf_help, registry=self._registry, buckets=RTF_BOUNDS)
        latency = Histogram(
            f"{PREFIX}latency_seconds", latency_help, ["stage"], registry=self._registry, buckets=LATENCY_BOUNDS_S
        )
        self._latencies = {stage: latency.labels(stage) for stage in STAGES}

    def add(self, total: Total, amount: float = 1) -> None:
        """Add to a total."""
        with self._lock:
            self._totals[total] += amount

    def transcribed(self, *, rtf: float, latency: Latency | None) -> None:
        """Count a published utterance and its latency; None for a late one."""
        with self._lock:
            self._totals["utt"] += 1
            self._windows[RTF].add(rtf)
            self._rtf.observe(rtf)
            for stage in STAGES if latency else ():
                took_ms = getattr(latency, stage)
                self._windows[stage].add(took_ms)
                self._latencies[stage].observe(took_ms / 1_000)

    def audio(self) -> Audio:
        """Return the `audio` part of telemetry."""
        totals, sound = self.totals(), self.sound
        spoken = totals["spoken_samples"]
        return Audio(
            xruns=int(totals["xruns"]),
            gaps_s=round(sound.lost_s, 2),
            losses=int(totals["losses"]),
            silences=sound.silences,
            noise_floor_dbfs=_rounded(self.noise_floor_dbfs, 1),
            clip_pct=round(100 * totals["clipped_samples"] / spoken, 2) if spoken else None,
            offset_pct=_rounded(sound.offset_pct, 1),
        )

    def asr(self, waiting: int | None = None) -> Asr:
        """Return the `asr` part of telemetry; `waiting` utterances are in the queue."""
        totals = self.totals()
        with self._lock:
            p50 = {name: window.p50() for name, window in self._windows.items()}
            p95 = {name: window.p95() for name, window in self._windows.items()}
        return Asr(
            utt=int(totals["utt"]),
            rtf_p50=_rounded(p50[RTF], 3),
            rtf_p95=_rounded(p95[RTF], 3),
            lat_ms_p50=_rounded(p50["total_from_speech_end"]),
            lat_ms_p95=_rounded(p95["total_from_speech_end"]),
            queue_ms_p95=_rounded(p95["queue"]),
            decode_ms_p95=_rounded(p95["encode_decode"]),
            waiting=waiting,
            dropped_s=round(totals["dropped_s"], 2),
            speech_pct=round(100 * totals["speech_s"] / totals["heard_s"], 1) if totals["heard_s"] else 0.0,
            rejected=int(totals["rejected"]),
            discarded=int(totals["discarded"]),
            engine_restarts=int(totals["engine_restarts"]),
        )

    def totals(self) -> Mapping[Total, float]:
        """Return all totals since the start."""
        with self._lock:
            return self._totals.copy()

    def distributions(self) -> tuple[Metric, ...]:
        """Return real-time factors and latencies of all published utterances, as histograms of Prometheus."""
        with self._lock:
            return tuple(self._registry.collect())


def _rounded(value: float | None, digits: int | None = None) -> Any:
    """Return `value` rounded, to a whole number without `digits`; None if it is unknown."""
    return None if value is None else round(value, digits)
