"""Voice activity by level alone: next to no computing, and fooled by every noise that begins."""

import math

from agent.audio import Pcm16
from agent.vad.level import NoiseFloor, level_dbfs

EVEN_ODDS_DB = 9.0
"""This far above the floor a frame is as likely speech as not."""
SLOPE_DB = 2.0
"""Another 2 dB change the odds by a factor of e."""
LOWEST_FLOOR_DBFS = -70.0


class EnergyDetector:
    """Compares each frame's level with the noise floor."""

    def __init__(self) -> None:
        self._floor = NoiseFloor()

    @property
    def noise_floor_dbfs(self) -> float | None:
        """Level of the room without speech; any thread may ask."""
        return self._floor.dbfs

    def probability(self, pcm: Pcm16) -> float:
        """Probability in [0, 1] that `pcm`, shape (512,), holds speech; 0 until the room is known."""
        level = level_dbfs(pcm)
        self._floor.hear(level)
        if self._floor.dbfs is None:
            return 0.0
        above_db = level - max(self._floor.dbfs, LOWEST_FLOOR_DBFS)
        return 1.0 / (1.0 + math.exp((EVEN_ODDS_DB - above_db) / SLOPE_DB))

    def reset(self) -> None:
        """Nothing is carried from frame to frame but the noise floor, and the room has not changed."""
