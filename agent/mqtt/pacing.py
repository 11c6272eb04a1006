"""How fast the backlog may leave, and when a broker that is full may be asked again. Pure: time and chance come in."""

import random
from typing import Final

REPLAY_DELAY_S: Final = 30.0
"""The backlog starts uniform(0, this) seconds after a connection, so that a fleet does not speak all at once."""
REPLAY_INTERVAL_S: Final = 0.2
"""Five messages a second."""
_PAUSE_S: Final = (1.0, 60.0)


class ReplayPace:
    """When the next message of the backlog may go."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._next_s: float | None = None

    def connection_lost(self) -> None:
        """The next connection begins with a delay of its own."""
        self._next_s = None

    def due_in_s(self, now_s: float) -> float:
        """Seconds until the next one may go, 0 if it may go now. The first call after a loss starts the delay."""
        if self._next_s is None:
            self._next_s = now_s + self._chance.uniform(0.0, REPLAY_DELAY_S)
        return max(0.0, self._next_s - now_s)

    def spend(self, now_s: float) -> None:
        """One has gone."""
        self._next_s = now_s + REPLAY_INTERVAL_S


class QuotaPause:
    """Leaves a broker alone that says `quota exceeded`: 1 s, then twice as long each time, up to a minute."""

    def __init__(self) -> None:
        self._until_s = float("-inf")
        self._wait_s = _PAUSE_S[0]

    def refused(self, now_s: float) -> None:
        """The broker had no room for a message."""
        if now_s < self._until_s:  # an answer to what was on its way already
            return
        self._until_s = now_s + self._wait_s
        self._wait_s = min(2 * self._wait_s, _PAUSE_S[1])

    def accepted(self) -> None:
        """The broker took a message."""
        self._wait_s = _PAUSE_S[0]

    def due_in_s(self, now_s: float) -> float:
        """Seconds until it may be asked again, 0 if it may be asked now."""
        return max(0.0, self._until_s - now_s)
