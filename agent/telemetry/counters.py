"""What the stages count, for telemetry."""

import copy
import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Final, Literal, get_args

from agent.audio.monitor import Condition
from agent.channel import Window
from agent.messages import Latency
from agent.messages.telemetry import Asr, Audio

RTF_BOUNDS: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 4.0)
LATENCY_BOUNDS_S: Final = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0)
RTF: Final = "rtf"
STAGES: Final = ("vad_close", "queue", "encode_decode", "total_from_speech_end")
"""The parts of a transcript's latency, as `agent.messages.Latency` has them."""
Total = Literal[
    "heard_s",  # sound that went through the listener
    "speech_s",  # sound of it that became utterances
    "spoken_samples",  # samples of these utterances
    "clipped_samples",  # those among them that were at full scale
    "xruns",  # the microphone was not read in time, and sound is missing
    "losses",  # the microphone went away, or nothing came from it any more
    "utt",  # utterances that were transcribed
    "rejected",  # utterances without words, or with none worth publishing
    "discarded",  # sounds called speech that were too short to be an utterance
    "dropped_s",  # utterances given up: the engine could not keep up, or failed on them
    "engine_restarts",  # the engine's process died or hung, and another took its place
]


class Histogram:
    """Counts values in classes whose upper ends are `bounds`, ascending. Not thread-safe: its owner guards it."""

    def __init__(self, bounds: Iterable[float]) -> None:
        self.bounds = tuple(bounds)
        self.total = 0.0
        """The sum of all values."""
        self._counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """Count `value`."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def counts(self) -> tuple[int, ...]:
        """How many values were at most the bound of the same place (cumulative); the last one is of all values."""
        return tuple(accumulate(self._counts))


class Counters:
    """Totals and distributions since the start, and windows over the last 64 utterances.

    Every method may be called from any thread, and every attribute be replaced.
    """

    def __init__(self) -> None:
        self.sound = Condition()
        """What the sound is like."""
        self.noise_floor_dbfs: float | None = None
        """The level of the room without speech."""
        self._lock = threading.Lock()
        self._totals: dict[Total, float] = dict.fromkeys(get_args(Total), 0)
        self._windows = {name: Window() for name in (RTF, *STAGES)}
        latencies = {stage: Histogram(LATENCY_BOUNDS_S) for stage in STAGES}
        self._histograms = {RTF: Histogram(RTF_BOUNDS), **latencies}

    def add(self, total: Total, amount: float = 1) -> None:
        """Count something that happened, or so much of it."""
        with self._lock:
            self._totals[total] += amount

    def transcribed(self, *, rtf: float, latency: Latency | None) -> None:
        """Count an utterance that was published, and where its time went; nobody waited for a late one: None."""
        with self._lock:
            self._totals["utt"] += 1
            self._windows[RTF].add(rtf)
            self._histograms[RTF].add(rtf)
            for stage in STAGES if latency else ():
                took_ms = getattr(latency, stage)
                self._windows[stage].add(took_ms)
                self._histograms[stage].add(took_ms / 1_000)

    def audio(self) -> Audio:
        """The `audio` part of telemetry."""
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
        """The `asr` part of telemetry; `waiting` utterances are in the queue."""
        totals = self.totals()
        with self._lock:
            p50 = {name: window.p50() for name, window in self._windows.items()}
            p95 = {name: window.p95() for name, window in self._windows.items()}
        return Asr(
            utt=int(totals["utt"]),
            rtf_p50=_rounded(p50[RTF], 3),
            rtf_p95=_rounded(p95[RTF], 3),
            lat_ms_p50=_whole(p50["total_from_speech_end"]),
            lat_ms_p95=_whole(p95["total_from_speech_end"]),
            queue_ms_p95=_whole(p95["queue"]),
            decode_ms_p95=_whole(p95["encode_decode"]),
            waiting=waiting,
            dropped_s=round(totals["dropped_s"], 2),
            speech_pct=round(100 * totals["speech_s"] / totals["heard_s"], 1) if totals["heard_s"] else 0.0,
            rejected=int(totals["rejected"]),
            discarded=int(totals["discarded"]),
            engine_restarts=int(totals["engine_restarts"]),
        )

    def totals(self) -> Mapping[Total, float]:
        """Everything that was counted, since the start."""
        with self._lock:
            return self._totals.copy()

    def histograms(self) -> Mapping[str, Histogram]:
        """Real-time factors (`RTF`), and where the time went, in seconds (`STAGES`), of all published utterances."""
        with self._lock:
            return copy.deepcopy(self._histograms)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
