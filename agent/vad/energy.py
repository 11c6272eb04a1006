"""Voice activity by level alone: next to no computing, and fooled by every noise that begins."""

import math

from agent.audio.frames import Pcm16
from agent.vad.level import NoiseFloor, level_dbfs, voice_band_dbfs

EVEN_ODDS_DB = 9.0
"""This far above the floor a frame is as likely speech as not."""
SLOPE_DB = 2.0
"""Another 2 dB change the odds by a factor of e."""
LOWEST_FLOOR_DBFS = -70.0


class EnergyDetector:
    """Compares each frame's level in the voice band with the noise floor there."""

    def __init__(self) -> None:
        self._floor = NoiseFloor()
        self._voice_band_floor = NoiseFloor()

    @property
    def noise_floor_dbfs(self) -> float | None:
        """Level of the room without speech; any thread may ask."""
        return self._floor.dbfs

    def probability(self, pcm: Pcm16) -> float:
        """Probability in [0, 1] that `pcm`, shape (512,), holds speech; 0 until the room is known."""
        level = voice_band_dbfs(pcm)
        self._floor.hear(level_dbfs(pcm))
        self._voice_band_floor.hear(level)
        floor = self._voice_band_floor.dbfs
        if floor is None:
            return 0.0
        above_db = level - max(floor, LOWEST_FLOOR_DBFS)
        return 1.0 / (1.0 + math.exp((EVEN_ODDS_DB - above_db) / SLOPE_DB))

    def reset(self) -> None:
        """Nothing is carried from frame to frame but the noise floor, and the room has not changed."""
