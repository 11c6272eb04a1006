"""The last stretch of sound, addressed by position."""

from collections import deque

import numpy as np

from agent.audio import Pcm16


class Tape:
    """Contiguous samples from position `start` to `end`: grows at its end, is cut off at its start.

    Used from one thread. What is appended is kept as it is (no copy), and must not be written to afterwards.
    """

    def __init__(self) -> None:
        self.start = 0
        """Position of the first sample that is still there."""
        self.end = 0
        """Position just behind the last sample."""
        self._pieces: deque[Pcm16] = deque()

    @property
    def empty(self) -> bool:
        """True if there is not a sample."""
        return self.start == self.end

    def append(self, pcm: Pcm16) -> None:
        """Add samples, shape (n,), at the end."""
        self._pieces.append(pcm)
        self.end += len(pcm)

    def drop_before(self, position: int) -> None:
        """Forget what lies before `position` (at most everything)."""
        position = min(position, self.end)
        while self._pieces and self.start + len(self._pieces[0]) <= position:
            self.start += len(self._pieces.popleft())
        if position > self.start:
            self._pieces[0] = self._pieces[0][position - self.start :]
            self.start = position

    def read(self, start: int, end: int) -> Pcm16:
        """Copy the samples from `start` to `end`, both within the tape."""
        if not self.start <= start <= end <= self.end:
            msg = f"samples {start} to {end} are not on a tape from {self.start} to {self.end}"
            raise ValueError(msg)
        if start == end:
            return np.zeros(0, np.int16)
        return np.concatenate(self._pieces)[start - self.start : end - self.start]

    def restart(self, position: int) -> None:
        """Forget everything and go on at `position`."""
        self._pieces.clear()
        self.start = self.end = position
