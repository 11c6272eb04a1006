"""An outbox that lives as long as the process."""

import threading
from collections import deque

from agent.delivery import Entry, Outgoing


class MemoryOutbox:
    """Holds at most `limit` waiting messages in memory, plus the few that are on their way (the in-flight window)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._waiting: deque[Entry] = deque()
        self._taken: dict[int, Entry] = {}
        self._next_key = 1
        self._dropped = 0

    def put(self, outgoing: Outgoing) -> bool:
        """Keep `outgoing`; False if an older message had to go to make room."""
        with self._lock:
            self._waiting.append(Entry(self._next_key, outgoing))
            self._next_key += 1
            excess = max(0, len(self._waiting) - self._limit)
            for _ in range(excess):
                self._waiting.popleft()
            self._dropped += excess
            return not excess

    def take(self) -> Entry | None:
        """Hand out the oldest message that is not on its way; None if there is none."""
        with self._lock:
            if not self._waiting:
                return None
            entry = self._waiting.popleft()
            self._taken[entry.key] = entry
            return entry

    def settle(self, key: int, *, delivered: bool) -> None:
        """Forget a message that was taken; one that was not delivered counts as dropped."""
        with self._lock:
            if self._taken.pop(key, None) and not delivered:
                self._dropped += 1

    def rewind(self) -> None:
        """Hand out again, in order, what was taken and not settled."""
        with self._lock:
            # Keys grow with age, and a dict keeps its order of insertion only: sort, whatever order they were taken in.
            self._waiting.extendleft(self._taken[key] for key in sorted(self._taken, reverse=True))
            self._taken.clear()

    @property
    def pending(self) -> int:
        """Messages that are not settled yet."""
        with self._lock:
            return len(self._waiting) + len(self._taken)

    @property
    def dropped(self) -> int:
        """Messages that were given up."""
        with self._lock:
            return self._dropped

    def close(self) -> None:
        """Nothing to let go of."""
