"""The bounded queue between two stages."""

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Final, Generic, TypeVar

T = TypeVar("T")

LONGEST_SLEEP_S: Final = 1.0
"""Who sleeps for several items looks after so long whether any are there: the flow may have stopped short of them."""


class Overflow(Enum):
    """What happens when the channel is full."""

    DROP_OLDEST = "drop_oldest"
    """For live sound: the newest matters most, and the microphone cannot wait. Drops are counted."""
    WAIT = "wait"
    """For files read flat out: the reader can wait, and nothing may be lost."""


class Channel(Generic[T]):
    """A bounded first-in first-out queue from one stage to the next.

    `put` is called by the upstream stage, iteration by the downstream one, `close` by whoever ends the flow (as a rule
    the upstream stage). After `close` what is queued can still be read, then iteration ends; `put` returns False and
    keeps nothing. `on_drop` is told of each item that was discarded, in the thread that put the next one.
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
        self._items: deque[T] = deque()
        self._ahead: deque[T] = deque()
        self._capacity = capacity
        self._overflow = overflow
        self._on_drop = on_drop
        self._changed = threading.Condition()
        self._closed = False
        self._dropped = 0
        self._rouse_at = 1

    def rouse_at(self, count: int) -> None:
        """Let a consumer that waits sleep on until `count` items are queued (at first: one) or the channel is closed.

        What is queued for a second is taken, however little it is: no more may come, as when a microphone is muted.
        Called by the consumer, where it can wait: every time a thread is woken costs more than looking at an item.
        """
        self._rouse_at = min(count, self._capacity)

    def put(self, item: T) -> bool:
        """Queue `item`; False if the channel is closed. Never blocks under `DROP_OLDEST`."""
        with self._changed:
            if self._overflow is Overflow.WAIT:
                self._changed.wait_for(lambda: self._closed or len(self._items) < self._capacity)
            if self._closed:
                return False
            victim = self._items.popleft() if len(self._items) >= self._capacity else None
            self._dropped += victim is not None
            self._items.append(item)
            if len(self._items) >= self._rouse_at:
                self._changed.notify_all()
        if victim is not None and self._on_drop:
            self._on_drop(victim)
        return True

    def put_first(self, item: T) -> bool:
        """Let `item` be read before all that is queued; False if the channel is closed.

        For what is no part of the flow: it neither waits behind that nor takes its room, and is never dropped.
        """
        with self._changed:
            if self._closed:
                return False
            self._ahead.append(item)
            self._changed.notify_all()
            return True

    def take_out(self, wanted: Callable[[T], bool]) -> list[T]:
        """Remove the queued items that are `wanted`, in order, and return them."""
        with self._changed:
            taken, left = list[T](), deque[T]()
            for item in self._items:
                (taken if wanted(item) else left).append(item)
            self._items = left
            self._changed.notify_all()
            return taken

    def snapshot(self) -> tuple[T, ...]:
        """What is queued at this moment, the oldest first."""
        with self._changed:
            return tuple(self._items)

    def get(self, timeout_s: float | None = None) -> T | None:
        """Return the oldest item; None if none came within `timeout_s`, or the channel is closed and empty."""
        with self._changed:
            if timeout_s is not None:
                self._changed.wait_for(self._readable, timeout_s)
            while timeout_s is None and not self._readable():
                self._changed.wait(LONGEST_SLEEP_S if self._rouse_at > 1 else None)
            if not self._ahead and not self._items:
                return None
            item = (self._ahead or self._items).popleft()
            self._changed.notify_all()
            return item

    def _readable(self) -> bool:
        return self._closed or bool(self._ahead or self._items)

    def take(self, limit: int, wanted: Callable[[T], bool]) -> list[T]:
        """Return the oldest items up to the first that is not `wanted`, at most `limit`, without waiting for any."""
        with self._changed:
            items: list[T] = []
            while len(items) < limit and not self._ahead and self._items and wanted(self._items[0]):
                items.append(self._items.popleft())
            if items:
                self._changed.notify_all()
            return items

    def __iter__(self) -> Iterator[T]:
        while (item := self.get()) is not None:
            yield item

    def close(self) -> None:
        """End the flow; idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        with self._changed:
            return len(self._items)

    @property
    def closed(self) -> bool:
        """True once `close` was called, even if items are still queued."""
        with self._changed:
            return self._closed

    @property
    def dropped(self) -> int:
        """How many items were discarded to make room."""
        with self._changed:
            return self._dropped


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
