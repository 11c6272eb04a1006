"""What the stages count, for telemetry."""

import threading
from collections.abc import Mapping
from typing import Final

from agent.audio.monitor import Condition
from agent.channel import Window
from agent.messages import Latency
from agent.messages.telemetry import Asr, Audio
from agent.telemetry.histogram import Distribution, Histogram

RTF_BOUNDS: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 4.0)
LATENCY_BOUNDS_S: Final = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0)
STAGES: Final = ("vad_close", "queue", "encode_decode", "total_from_speech_end")
"""The parts of a transcript's latency, as `agent.messages.Latency` has them."""


class Counters:
    """Totals and distributions since the start, and windows over the last 64 utterances.

    Every method may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard_s = 0.0
        self._speech_s = 0.0
        self._spoken_samples = 0
        self._clipped_samples = 0
        self._xruns = 0
        self._losses = 0
        self._sound = Condition()
        self._noise_floor_dbfs: float | None = None
        self._transcribed = 0
        self._rejected = 0
        self._discarded = 0
        self._dropped_s = 0.0
        self._engine_restarts = 0
        self._rtf = Window()
        self._latency_ms = {stage: Window() for stage in STAGES}
        self._rtfs = Histogram(RTF_BOUNDS)
        self._latencies_s = {stage: Histogram(LATENCY_BOUNDS_S) for stage in STAGES}

    def heard(self, audio_s: float) -> None:
        """So much sound went through the listener."""
        with self._lock:
            self._heard_s += audio_s

    def spoken(self, audio_s: float, *, samples: int = 0, clipped: int = 0) -> None:
        """So much of it became an utterance, whose `samples` had so many among them at full scale."""
        with self._lock:
            self._speech_s += audio_s
            self._spoken_samples += samples
            self._clipped_samples += clipped

    def noise_floor(self, dbfs: float) -> None:
        """The level of the room when nobody speaks."""
        with self._lock:
            self._noise_floor_dbfs = dbfs

    def overrun(self) -> None:
        """The microphone was not read in time, and sound is missing."""
        with self._lock:
            self._xruns += 1

    def microphone_lost(self) -> None:
        """It went away, or nothing came from it any more."""
        with self._lock:
            self._losses += 1

    def sound(self, condition: Condition) -> None:
        """What the sound is like."""
        with self._lock:
            self._sound = condition

    def transcribed(self, *, rtf: float, latency: Latency | None) -> None:
        """An utterance was published; this is where the time went. What was kept has no latency: nobody waited."""
        with self._lock:
            self._transcribed += 1
            self._rtf.add(rtf)
            self._rtfs.add(rtf)
            for stage in STAGES if latency else ():
                took_ms = getattr(latency, stage)
                self._latency_ms[stage].add(took_ms)
                self._latencies_s[stage].add(took_ms / 1_000)

    def rejected(self) -> None:
        """The engine found no words in an utterance, or none worth publishing."""
        with self._lock:
            self._rejected += 1

    def discarded(self) -> None:
        """Something was called speech, and was too short to be an utterance."""
        with self._lock:
            self._discarded += 1

    def dropped(self, audio_s: float) -> None:
        """An utterance was given up: the engine could not keep up, or failed on it."""
        with self._lock:
            self._dropped_s += audio_s

    def engine_restarted(self) -> None:
        """The engine's process died or hung, and another took its place."""
        with self._lock:
            self._engine_restarts += 1

    def audio(self) -> Audio:
        """The `audio` part of telemetry."""
        with self._lock:
            spoken = self._spoken_samples
            return Audio(
                xruns=self._xruns,
                gaps_s=round(self._sound.lost_s, 2),
                losses=self._losses,
                silences=self._sound.silences,
                noise_floor_dbfs=_rounded(self._noise_floor_dbfs, 1),
                clip_pct=round(100 * self._clipped_samples / spoken, 2) if spoken else None,
                offset_pct=_rounded(self._sound.offset_pct, 1),
            )

    def asr(self, waiting: int | None = None) -> Asr:
        """The `asr` part of telemetry; `waiting` utterances are in the queue."""
        with self._lock:
            total_ms, latency_ms = self._latency_ms["total_from_speech_end"], self._latency_ms
            return Asr(
                utt=self._transcribed,
                rtf_p50=_rounded(self._rtf.p50(), 3),
                rtf_p95=_rounded(self._rtf.p95(), 3),
                lat_ms_p50=_whole(total_ms.p50()),
                lat_ms_p95=_whole(total_ms.p95()),
                queue_ms_p95=_whole(latency_ms["queue"].p95()),
                decode_ms_p95=_whole(latency_ms["encode_decode"].p95()),
                waiting=waiting,
                dropped_s=round(self._dropped_s, 2),
                speech_pct=round(100 * self._speech_s / self._heard_s, 1) if self._heard_s else 0.0,
                rejected=self._rejected,
                discarded=self._discarded,
                engine_restarts=self._engine_restarts,
            )

    def rtfs(self) -> Distribution:
        """Real-time factors of all utterances that were published."""
        with self._lock:
            return self._rtfs.distribution()

    def latencies_s(self) -> Mapping[str, Distribution]:
        """Where their time went, in seconds, by stage (`STAGES`)."""
        with self._lock:
            return {stage: histogram.distribution() for stage, histogram in self._latencies_s.items()}

    @property
    def heard_s(self) -> float:
        """Seconds of sound that went through the listener."""
        with self._lock:
            return self._heard_s

    @property
    def speech_s(self) -> float:
        """Seconds of it that became utterances."""
        with self._lock:
            return self._speech_s


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
