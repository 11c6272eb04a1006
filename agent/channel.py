"""The bounded queue between two stages."""

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")


class Overflow(Enum):
    """The policy of a full channel."""

    DROP_OLDEST = "drop_oldest"
    """For live sound: the newest matters most, and the microphone cannot wait. Drops are counted."""
    WAIT = "wait"
    """For files that are read at full speed: the reader can wait, and must lose no item."""


class Channel(Generic[T]):
    """A bounded first-in first-out queue from one stage to the next.

    The upstream stage calls `put`, the downstream stage iterates. Any thread may call `close`, usually the upstream
    stage. After `close` the queued items can still be read, then iteration ends; `put` returns False and keeps no item.
    `on_drop` is called with each dropped item, in the thread of the `put` that needed the room.
    """

    def __init__(
        self,
        capacity: int,
        overflow: Overflow = Overflow.DROP_OLDEST,
        on_drop: Callable[[T], None] | None = None,
    ) -> None:
        if capacity < 1:
            msg = f"a channel needs room for at least one item, not {capacity}"
            raise ValueError(msg)
        self.closed = False
        """True after `close`, even if items are still queued."""
        self.dropped = 0
        """How many items were dropped to make room."""
        self._items: deque[T] = deque()
        self._ahead: deque[T] = deque()
        self._capacity = capacity
        self._overflow = overflow
        self._on_drop = on_drop
        self._changed = threading.Condition()
        self._rouse_at = 1

    def put(self, item: T) -> bool:
        """Queue `item`; False if the channel is closed. Never blocks under `DROP_OLDEST`."""
        with self._changed:
            if self._overflow is Overflow.WAIT:
                self._changed.wait_for(lambda: self.closed or len(self._items) < self._capacity)
            if self.closed:
                return False
            victim = self._items.popleft() if len(self._items) >= self._capacity else None
            self.dropped += victim is not None
            self._items.append(item)
            if len(self._items) >= self._rouse_at:
                self._changed.notify_all()
        if victim is not None and self._on_drop:
            self._on_drop(victim)
        return True

    def put_first(self, item: T) -> bool:
        """Let `item` be read before all queued items; False if the channel is closed.

        Such an item needs no room in the queue, and is never dropped.
        """
        with self._changed:
            if self.closed:
                return False
            self._ahead.append(item)
            self._changed.notify_all()
            return True

    def get(self, timeout_s: float | None = None, rouse_at: int = 1) -> T | None:
        """Return the oldest item; None if no item came within `timeout_s`, or the channel is closed and empty.

        If it has to wait, it sleeps until `rouse_at` items are queued, the channel is closed, or the time is over: to
        wake a thread costs more than to handle an item.
        """
        with self._changed:
            self._rouse_at = min(rouse_at, self._capacity)
            self._changed.wait_for(lambda: self.closed or self._ahead or self._items, timeout_s)
            if not self._ahead and not self._items:
                return None
            self._changed.notify_all()
            return (self._ahead or self._items).popleft()

    def __iter__(self) -> Iterator[T]:
        while (item := self.get()) is not None:
            yield item

    def take(self, limit: int, wanted: Callable[[T], bool]) -> list[T]:
        """Remove and return the oldest items up to the first that is not `wanted`, at most `limit`; do not wait."""
        with self._changed:
            items: list[T] = []
            while len(items) < limit and not self._ahead and self._items and wanted(self._items[0]):
                items.append(self._items.popleft())
            self._changed.notify_all()
            return items

    def take_out(self, wanted: Callable[[T], bool]) -> list[T]:
        """Remove and return the queued items that are `wanted`, in order."""
        with self._changed:
            taken, left = list[T](), deque[T]()
            for item in self._items:
                (taken if wanted(item) else left).append(item)
            self._items = left
            self._changed.notify_all()
            return taken

    def snapshot(self) -> tuple[T, ...]:
        """Return the queued items, the oldest first."""
        with self._changed:
            return tuple(self._items)

    def close(self) -> None:
        """End the flow; idempotent."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        with self._changed:
            return len(self._items)


class Window:
    """Keeps the last `size` values. Not thread-safe: its owner guards it."""

    def __init__(self, size: int = 64) -> None:
        self._values: deque[float] = deque(maxlen=size)

    def add(self, value: float) -> None:
        """Remember `value`; a full window forgets the oldest one."""
        self._values.append(value)

    def p50(self) -> float | None:
        """Return the median, as `p95`."""
        return self._percentile(0.5)

    def p95(self) -> float | None:
        """Return the 95th percentile by nearest rank; None before the first value."""
        return self._percentile(0.95)

    def _percentile(self, share: float) -> float | None:
        if not self._values:
            return None
        return sorted(self._values)[math.ceil(share * len(self._values)) - 1]
