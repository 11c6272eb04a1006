"""A board that gets warm, and slower: first-order thermal model of a Raspberry Pi 4 in a closed case."""

import math
import random
from dataclasses import dataclass
from typing import Final

from governor_speech import HOUR_S

_COLDEST_C: Final = 23.0
_WARMEST_C: Final = 31.0
_WARMEST_H: Final = 16.0
_STEP_C: Final = 0.487
"""The sensor of the BCM2711 tells multiples of that."""
_NOISE_C: Final = 0.4


@dataclass(frozen=True, slots=True)
class Board:
    """What kind of board; a Raspberry Pi 4 without a fan."""

    idle_w: float = 2.7
    """Of the whole board, as measured by many."""
    busy_w: float = 6.0
    """With the engine's threads at work at full clock."""
    k_per_w: float = 10.5
    """From chip to room, in a closed case: 50 °C when idle, and more than 80 °C after minutes of work."""
    j_per_k: float = 26.0
    """With the above, a time constant of four and a half minutes."""
    soft_c: float = 80.0
    """From here on the firmware takes the clock back …"""
    hard_c: float = 85.0
    """… to `slowest` here. https://www.raspberrypi.com/documentation/computers/raspberry-pi.html#frequency-management-and-thermal-control"""
    slowest: float = 0.4
    """600 of 1,500 MHz."""


def ambient_c(at_s: float) -> float:
    """Of the room, that follows the day; `at_s` counts from midnight."""
    middle_c, swing_c = (_WARMEST_C + _COLDEST_C) / 2, (_WARMEST_C - _COLDEST_C) / 2
    return middle_c + swing_c * math.cos(2 * math.pi * (at_s / HOUR_S - _WARMEST_H) / 24)


class Chip:
    """Its temperature and clock."""

    def __init__(self, board: Board, at_s: float, chance: random.Random) -> None:
        self._board = board
        self._chance = chance
        self.temp_c = ambient_c(at_s) + board.idle_w * board.k_per_w

    @property
    def clock(self) -> float:
        """Share of the full clock."""
        board = self._board
        share = (self.temp_c - board.soft_c) / (board.hard_c - board.soft_c)
        return 1.0 - (1.0 - board.slowest) * min(1.0, max(0.0, share))

    @property
    def throttled(self) -> bool:
        """As the firmware says."""
        return self.clock < 1.0

    def advance(self, at_s: float, seconds: float, *, busy: bool) -> None:
        """Let `seconds` pass from `at_s` on, at most a few."""
        board = self._board
        power_w = board.idle_w + (board.busy_w - board.idle_w) * self.clock * busy
        final_c = ambient_c(at_s) + power_w * board.k_per_w
        self.temp_c += (final_c - self.temp_c) * -math.expm1(-seconds / (board.k_per_w * board.j_per_k))

    def reading_c(self) -> float:
        """What the sensor says: noisy, and in steps."""
        return _STEP_C * round((self.temp_c + self._chance.gauss(0.0, _NOISE_C)) / _STEP_C)
