"""What is in memory, what is on disk, and what is to be written next. Time comes in; not thread-safe."""

import itertools
import random
from dataclasses import replace
from typing import Final

from agent.config.settings import OutboxSettings
from agent.mqtt.delivered import Delivered
from agent.mqtt.delivery import Fate, Outgoing
from agent.mqtt.message_age import Stamp
from agent.mqtt.outbox_queue import DeliveryQueue, Stub, Turn, life_s, stub_of
from agent.mqtt.stored_message import Batch, Header, Letter

GRACE_S: Final = 2.0
"""How long a message waits in memory for its acknowledgement, and a deletion for company."""
MEMORY_BYTES: Final = 8 << 20
"""Room in memory for what no disk takes."""
CHUNK: Final = 64
"""Messages a commit: a small log finds room on a full disk."""


class Desk:
    """Messages that come in, lie here or on disk, and go.

    A message is `fresh` while its payload is in memory. It is handed out as soon as it is admitted: at once, or, where
    it must not leave before it is on disk, when that has been tried.
    """

    def __init__(self, settings: OutboxSettings, chance: random.Random, *, replayable: bool = True) -> None:
        delivered = Delivered.of(settings.max_age_s, replayable=replayable)
        self.queue = DeliveryQueue(settings.max_messages, settings.max_bytes, chance, delivered)
        self.last_key = 0
        self._max_age_s = settings.max_age_s
        self._fresh: dict[int, Letter] = {}
        self._fresh_bytes = 0
        self._untried: dict[int, Stub] = {}
        self._writing: frozenset[int] = frozenset()
        self._gone: set[int] = set()
        self._dead: set[int] = set()
        self._delete_at_s = float("inf")

    def keep(self, outgoing: Outgoing, now: Stamp) -> int:
        """A new message, not admitted yet; return its key."""
        self.last_key += 1
        self._fresh[self.last_key] = Letter(self.last_key, outgoing, now.at(outgoing.accepted_s))
        self._fresh_bytes += len(outgoing.payload)
        self._untried[self.last_key] = stub_of(self.last_key, outgoing, self._max_age_s)
        while self._fresh_bytes > MEMORY_BYTES:
            oldest = next((key for key in self._fresh if self.queue.waits(key)), None)
            if oldest is None:
                break
            self.queue.drop(oldest)
            self.forget([oldest], now)
        return self.last_key

    def is_untried(self, key: int) -> bool:
        """Whether a message still waits to be admitted."""
        return key in self._untried

    @property
    def untried(self) -> tuple[int, ...]:
        """Messages that wait to be admitted."""
        return tuple(self._untried)

    def admit(self, key: int, now: Stamp) -> int | None:
        """From now on `key` may be handed out. Return its number, if it has one and was not admitted before."""
        if (stub := self._untried.pop(key, None)) is None:
            return None
        seq = self._fresh[key].outgoing.seq
        self.queue.add(stub)
        self.make_room(now)
        return seq

    def take(self, now: Stamp) -> Turn | None:
        """The message whose turn it is, if there is one."""
        self.forget(self.queue.expire(now.monotonic_s), now)
        return self.queue.take(now.monotonic_s)

    def fresh(self, key: int) -> Letter | None:
        """The message, if it is in memory."""
        return self._fresh.get(key)

    def settle(self, key: int, fate: Fate, now: Stamp) -> None:
        """What became of a message that was taken."""
        if not self.queue.settle(key, fate, now.monotonic_s):
            return
        if fate is Fate.REFUSED:
            self._dead.add(key)
            self._delete_soon(now)
        else:
            self.forget([key], now)

    def make_room(self, now: Stamp) -> None:
        """Keep to the limits."""
        self.forget(self.queue.make_room(), now)

    def forget(self, keys: list[int], now: Stamp) -> None:
        """Messages that the queue knows no more: delete what may be on disk of them."""
        for key in keys:
            if key not in self._fresh or key in self._writing:
                self._gone.add(key)
                self._delete_soon(now)
            self._release(key)

    def _delete_soon(self, now: Stamp) -> None:
        self._delete_at_s = min(self._delete_at_s, now.monotonic_s + GRACE_S)

    def _release(self, key: int) -> None:
        if letter := self._fresh.pop(key, None):
            self._fresh_bytes -= len(letter.outgoing.payload)

    def due_in_s(self, now_s: float) -> float:
        """Seconds until something is to be written, infinity if there is nothing."""
        oldest = next(iter(self._fresh.values()), None)
        write_at_s = float("inf") if oldest is None else oldest.outgoing.accepted_s + GRACE_S
        return max(0.0, min(write_at_s, self._delete_at_s) - now_s)

    def batch(self) -> Batch:
        """What to write next. Until `written` or `not_written` it is taken to be on disk or not, whichever is worse."""
        new = tuple(itertools.islice(self._fresh.values(), CHUNK))
        self._writing = frozenset(letter.key for letter in new)
        dead = tuple(key for key in self._dead if key in self._writing or key not in self._fresh)
        if not (self._gone or self._dead):
            self._delete_at_s = float("inf")
        return Batch(new, tuple(self._gone), dead)

    def discard(self, headers: list[Header], now: Stamp) -> None:
        """Let what is on disk be deleted, and never line up."""
        self._gone.update(header.key for header in headers)
        self._delete_soon(now)

    def not_written(self) -> None:
        """The batch was not written, and nothing of it is on disk."""
        self._writing = frozenset()

    def written(self, batch: Batch, now: Stamp) -> None:
        """The batch is on disk."""
        self._writing = frozenset()
        for letter in batch.new:
            self.admit(letter.key, now)
            self._release(letter.key)
        self._gone.difference_update(batch.gone)
        self._dead.difference_update(batch.dead)
        if not (self._gone or self._dead):
            self._delete_at_s = float("inf")

    @property
    def has_unwritten(self) -> bool:
        """Whether there is something to write."""
        return bool(self._fresh or self._gone or self._dead)

    @property
    def only_in_memory(self) -> int:
        """Messages that no disk has."""
        return len(self._fresh.keys() - self._dead)

    def pick(self, count: int) -> tuple[int, ...]:
        """The first messages to go when room runs out; to be dropped or given back."""
        return tuple(self.queue.pick(count))

    def stored(self, keys: tuple[int, ...]) -> tuple[int, ...]:
        """Those of `keys` that are on disk."""
        return tuple(key for key in keys if key not in self._fresh)

    def drop(self, keys: tuple[int, ...]) -> None:
        """Give up messages that are no longer on disk."""
        for key in keys:
            self.queue.drop(key)
            self._release(key)

    def take_stock(self, headers: list[Header], now: Stamp) -> None:
        """Compare with what is on disk: count what is lost, add what is new, and learn how old it is."""
        stored = {header.key for header in headers}
        for key in self.queue:
            if key not in stored and key not in self._fresh and self.queue.waits(key):
                self.queue.drop(key)
        known = {*self.queue, *self._gone, *self._dead, *self._fresh}
        for header in headers:
            if header.key in known:
                self.queue.redate(header.key, now.monotonic_s - header.accepted.age_s(now))
            else:
                self.queue.add(_stub_of(header, now, self._max_age_s))
        self.last_key = max([self.last_key, *stored])
        self._gone &= stored
        self.make_room(now)


def rebased(letter: Letter, now: Stamp) -> Outgoing:
    """The message, its age told by this boot's clock."""
    return replace(letter.outgoing, accepted_s=now.monotonic_s - letter.accepted.age_s(now))


def _stub_of(header: Header, now: Stamp, max_age_s: int) -> Stub:
    return Stub(
        header.key,
        header.size_bytes,
        now.monotonic_s - header.accepted.age_s(now),
        life_s(header.late_topic, header.expiry_s, max_age_s),
        can_be_late=header.late_topic is not None,
        of_this_boot=header.accepted.boot_id == now.boot_id,
    )
