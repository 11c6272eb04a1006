"""How loud a frame is, and how loud the room is when nobody speaks."""

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from agent.audio.frames import FULL_SCALE, SILENCE_DBFS, Pcm16

HISTORY_FRAMES = 125
"""4 s: long enough to hold pauses between words, short enough to follow a fan that was switched on."""
QUIETEST_PART = 10
"""The floor is the level that a tenth of the frames do not exceed."""
UPDATE_FRAMES = 8
MEANS_OF = 4


def level_dbfs(pcm: Pcm16) -> float:
    """Level of a frame, shape (n,), in dB relative to full scale, without its mean (an offset of the microphone)."""
    samples = pcm.astype(np.float32)
    mean = float(samples.sum()) / len(samples)
    return _dbfs(float(np.dot(samples, samples)) / len(samples) - mean * mean)


def voice_band_dbfs(pcm: Pcm16) -> float:
    """Level of a frame, shape (512,), where voices are: a few hundred Hz to 2 kHz. For comparisons with its like only.

    Means of four samples do away with the hiss above, differences of those with rumble and mains hum below. Against a
    level over all frequencies this makes steady noise steadier and lets voices stand out by several dB.
    """
    samples = pcm.astype(np.float32)
    means: NDArray[np.float32] = samples[::4] + samples[1::4] + samples[2::4] + samples[3::4]
    changes = means[1:] - means[:-1]
    return _dbfs(float(np.dot(changes, changes)) / (MEANS_OF**2 * len(changes)))


def _dbfs(mean_square: float) -> float:
    return max(SILENCE_DBFS, 10.0 * math.log10(mean_square / FULL_SCALE**2)) if mean_square > 0.0 else SILENCE_DBFS


class NoiseFloor:
    """Follows the level of the room by the quietest tenth of the last 4 s. Pure: fed levels, one a frame."""

    def __init__(self) -> None:
        self.dbfs: float | None = None
        """The floor; None until a quarter of a second was heard. May be read by any thread."""
        self._levels: deque[float] = deque(maxlen=HISTORY_FRAMES)
        self._until_update = UPDATE_FRAMES

    def hear(self, level_dbfs: float) -> None:
        """Take in the level of the next frame."""
        self._levels.append(level_dbfs)
        self._until_update -= 1
        if not self._until_update:
            self._until_update = UPDATE_FRAMES
            self.dbfs = sorted(self._levels)[len(self._levels) // QUIETEST_PART]
