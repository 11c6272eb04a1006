"""What the stages count, for telemetry."""

import threading

from agent.window import Window
from agent.wire import Asr, Audio


class Counters:
    """Totals since the start, and windows over the last 64 utterances. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard_s = 0.0
        self._speech_s = 0.0
        self._xruns = 0
        self._gaps_s = 0.0
        self._noise_floor_dbfs: float | None = None
        self._transcribed = 0
        self._rejected = 0
        self._dropped_s = 0.0
        self._engine_restarts = 0
        self._rtf = Window()
        self._latency_ms = Window()

    def heard(self, audio_s: float) -> None:
        """So much sound went through the listener."""
        with self._lock:
            self._heard_s += audio_s

    def spoken(self, audio_s: float) -> None:
        """So much of it became an utterance."""
        with self._lock:
            self._speech_s += audio_s

    def noise_floor(self, dbfs: float) -> None:
        """The level of the room when nobody speaks."""
        with self._lock:
            self._noise_floor_dbfs = dbfs

    def overrun(self, lost_s: float) -> None:
        """The microphone was not read in time, and so much sound is missing."""
        with self._lock:
            self._xruns += 1
            self._gaps_s += lost_s

    def transcribed(self, *, rtf: float, latency_ms: float) -> None:
        """An utterance was published, so long after the end of speech."""
        with self._lock:
            self._transcribed += 1
            self._rtf.add(rtf)
            self._latency_ms.add(latency_ms)

    def rejected(self) -> None:
        """The engine found no words in an utterance, or none worth publishing."""
        with self._lock:
            self._rejected += 1

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
            floor = self._noise_floor_dbfs
            return Audio(
                xruns=self._xruns,
                gaps_s=round(self._gaps_s, 2),
                noise_floor_dbfs=None if floor is None else round(floor, 1),
            )

    def asr(self) -> Asr:
        """The `asr` part of telemetry."""
        with self._lock:
            rtf, latency_ms = self._rtf.p95(), self._latency_ms.p95()
            return Asr(
                utt=self._transcribed,
                rtf_p95=None if rtf is None else round(rtf, 3),
                lat_ms_p95=None if latency_ms is None else round(latency_ms),
                dropped_s=round(self._dropped_s, 2),
                speech_pct=round(100 * self._speech_s / self._heard_s, 1) if self._heard_s else 0.0,
                rejected=self._rejected,
                engine_restarts=self._engine_restarts,
            )
