"""The last few measurements of something, for percentiles that follow the present."""

import math
from collections import deque


class Window:
    """Keeps the last `size` values. Not thread-safe: its owner guards it."""

    def __init__(self, size: int = 64) -> None:
        self._values: deque[float] = deque(maxlen=size)

    def add(self, value: float) -> None:
        """Remember `value`; the oldest one is forgotten when the window is full."""
        self._values.append(value)

    def p50(self) -> float | None:
        """The median, as `p95`."""
        return self._percentile(0.5)

    def p95(self) -> float | None:
        """The 95th percentile by nearest rank; None before the first value."""
        return self._percentile(0.95)

    def _percentile(self, share: float) -> float | None:
        if not self._values:
            return None
        ordered = sorted(self._values)
        return ordered[math.ceil(share * len(ordered)) - 1]
