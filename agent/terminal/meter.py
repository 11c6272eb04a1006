"""How loud it is, and how much like speech, since somebody looked last."""

import math
import threading
from dataclasses import dataclass

import numpy as np

from agent.audio.frames import FULL_SCALE, SILENCE_DBFS, AudioFrame, Pcm16


@dataclass(frozen=True, slots=True)
class Loudness:
    """Of the sound between two looks."""

    rms_dbfs: float
    """Root mean square level."""
    peak_dbfs: float
    """The loudest sample."""
    speech_prob: float
    """The highest probability of speech of a frame, in [0, 1]."""


class LevelMeter:
    """`hear` is called from the listen thread, for every frame while somebody looks; `take` from any other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._squares = 0.0
        self._samples = 0
        self._peak = 0
        self._speech_prob = 0.0

    def hear(self, frame: AudioFrame, speech_prob: float) -> None:
        """Take in a frame, and what the detector said of it."""
        squares, peak = _measure(frame.pcm)
        with self._lock:
            self._squares += squares
            self._samples += len(frame.pcm)
            self._peak = max(self._peak, peak)
            self._speech_prob = max(self._speech_prob, speech_prob)

    def take(self) -> Loudness | None:
        """What there was since the last call; None if there was nothing."""
        with self._lock:
            squares, samples, peak, speech_prob = self._squares, self._samples, self._peak, self._speech_prob
            self._squares, self._samples, self._peak, self._speech_prob = 0.0, 0, 0, 0.0
        if not samples:
            return None
        return Loudness(_dbfs(math.sqrt(squares / samples)), _dbfs(peak), round(speech_prob, 3))


def _measure(pcm: Pcm16) -> tuple[float, int]:
    """Sum of squares, and largest magnitude, of samples of shape (n,)."""
    samples = pcm.astype(np.float32)
    return float(np.dot(samples, samples)), int(np.abs(samples).max(initial=0.0))


def _dbfs(amplitude: float) -> float:
    return round(max(SILENCE_DBFS, 20.0 * math.log10(amplitude / FULL_SCALE)), 1) if amplitude else SILENCE_DBFS
