"""An outbox that lives as long as the process."""

import random
import threading
from typing import Final

from agent.mqtt.delivered import Delivered
from agent.mqtt.delivery import Entry, Fate, Outgoing, Replay, SeqRange
from agent.mqtt.message_age import Clock, system_clock
from agent.mqtt.outbox_queue import DeliveryQueue, stub_of

_DAY_S: Final = 86_400


class MemoryOutbox:
    """Holds at most `limit` waiting messages in memory, plus the few that are on their way (the in-flight window).

    Numbers begin at 1 whenever the process starts. Without `replayable` nothing that was delivered is kept.
    """

    def __init__(
        self,
        limit: int,
        *,
        max_bytes: int = 16 << 20,
        max_age_s: int = 7 * _DAY_S,
        clock: Clock | None = None,
        chance: random.Random | None = None,
        replayable: bool = True,
    ) -> None:
        self._max_age_s = max_age_s
        self._clock = clock or system_clock()
        self._lock = threading.Lock()
        delivered = Delivered.of(max_age_s, replayable=replayable)
        chance = chance or random.Random()  # noqa: S311 - jitter, not a secret
        self._queue = DeliveryQueue(limit, max_bytes, chance, delivered)
        self._letters: dict[int, Outgoing] = {}
        self._last_key = 0
        self._last_seq = 0

    def next_seq(self) -> int:
        """The number for the next transcript."""
        with self._lock:
            self._last_seq += 1
            return self._last_seq

    def put(self, outgoing: Outgoing) -> bool:
        """Keep `outgoing`; False if an older message had to go to make room."""
        with self._lock:
            self._last_key += 1
            self._letters[self._last_key] = outgoing
            self._queue.add(stub_of(self._last_key, outgoing, self._max_age_s))
            return not self._forget(self._queue.make_room())

    def take(self) -> Entry | None:
        """Hand out the oldest message that may go; None if none may go now."""
        with self._lock:
            now_s = self._clock().monotonic_s
            self._forget(self._queue.expire(now_s))
            if (turn := self._queue.take(now_s)) is None:
                return None
            if again := self._queue.delivered.entry(turn.key):
                return again
            outgoing = self._letters[turn.key]
            self._queue.delivered.handed(turn.key, outgoing)
            return Entry(turn.key, outgoing.replayed(self._max_age_s) if turn.late else outgoing)

    def due_in_s(self) -> float:
        """Seconds until `take` may have something, if nothing else happens."""
        with self._lock:
            return self._queue.due_in_s(self._clock().monotonic_s)

    def settle(self, key: int, fate: Fate) -> None:
        """What became of a message that was taken."""
        with self._lock:
            if self._queue.settle(key, fate, self._clock().monotonic_s):
                self._forget([key])

    def rewind(self) -> None:
        """Hand out again, in order, what was taken and not settled."""
        with self._lock:
            self._queue.rewind()

    def purge(self) -> int:
        """Forget everything that is not on its way; return how many messages that were."""
        with self._lock:
            return self._forget(self._queue.clear())

    def replay(self, wanted: SeqRange) -> Replay:
        """Send what of `wanted` was delivered and is still here again."""
        with self._lock:
            return self._queue.delivered.ask(wanted, self._clock().monotonic_s)

    @property
    def pending(self) -> int:
        """Messages that are not settled yet."""
        with self._lock:
            return len(self._queue)

    @property
    def dropped(self) -> int:
        """Messages that were given up."""
        with self._lock:
            return self._queue.dropped

    @property
    def size_bytes(self) -> int:
        """Memory that the waiting messages take, roughly."""
        with self._lock:
            return self._queue.waiting_bytes

    @property
    def conditions(self) -> tuple[str, ...]:
        """Nothing is ever wrong with memory."""
        return ()

    def close(self) -> int:
        """Nothing to let go of, and everything to be lost."""
        return self.pending

    def _forget(self, keys: list[int]) -> int:
        for key in keys:
            del self._letters[key]
        return len(keys)
