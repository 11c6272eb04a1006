"""Which message goes next, which one goes when room runs out, and what is to be written. Pure: time is an argument.

put ─▶ HELD      strict: not on the medium yet
         ▼
       PROMPT    replies and the like: of no use later, the first to go for room  ┐
       LIVE      transcripts of the last 60 s                                     ├▶ IN_FLIGHT ─▶ acknowledged
       BACKLOG   older ones, or of an earlier boot: slowly, on their own topic    │      │
       REPLAY    delivered, and wanted once more: after the backlog               ┘      ▼
         ▲ requeue ◀──────────────────────────────────────────────────────────────── DEFERRED
"""

import itertools
import random
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final, NamedTuple

from agent.config.settings import OutboxSettings
from agent.mqtt.delivery import Outgoing, PublishResult, Replay, SeqRange

LIVE_S: Final = 60.0
"""A transcript that leaves later than this belongs to the backlog: an hour-old "heater on" must not turn it on."""
DEFERRED_S: Final = 900.0
"""A message that the broker does not let us publish is tried again after this time, or with the next connection."""
BACKLOG_DELAY_S: Final = 30.0
"""The backlog starts uniform(0, this) seconds after a connection, so that a fleet does not speak all at once."""
BACKLOG_INTERVAL_S: Final = 0.2
"""Five messages a second."""
GRACE_S: Final = 2.0
"""How long a message waits in memory for its acknowledgement, and a deletion for company."""
MEMORY_BYTES: Final = 8 << 20
"""Room in memory for messages that no disk takes."""
CHUNK: Final = 64
"""Messages a commit: a small log finds room on a full disk."""
OVERHEAD_BYTES: Final = 256
"""Room that a message takes besides its payload, roughly."""
DEAD_LETTERS: Final = 100
"""Refused messages that are kept; the oldest go first."""
_QUOTA_PAUSE_S: Final = (1.0, 60.0)
_REPLAYABLE_MESSAGES: Final = 256
_REPLAYABLE_BYTES: Final = 256 << 10
_REPLAY_KEY: Final = 1 << 62
"""Keys of replays begin here: no message of the outbox has one of them."""


class Lane(Enum):
    """Where a message stands."""

    HELD = auto()
    PROMPT = auto()
    LIVE = auto()
    BACKLOG = auto()
    REPLAY = auto()
    DEFERRED = auto()
    IN_FLIGHT = auto()
    CONDEMNED = auto()
    """To go for room, as soon as the disk has deleted it; it is not handed out meanwhile."""


_WAITING: Final = frozenset({Lane.PROMPT, Lane.LIVE, Lane.BACKLOG, Lane.DEFERRED})
"""The limits count these."""


@dataclass(slots=True, eq=False)
class QueueEntry:
    """A message in the queue. Most payloads lie on disk only."""

    key: int
    size_bytes: int
    accepted_s: float
    """Monotonic time of this boot; negative for a message that is older than the boot."""
    life_s: float
    """Seconds after which it is worth nothing any more."""
    home: Lane
    """Where it lines up: PROMPT, LIVE, BACKLOG or REPLAY."""
    message: Outgoing | None = None
    """The message itself: until it is stored, and in flight."""
    stored: bool = False
    maybe_stored: bool = False
    """Whether it was given to the disk, though the disk has not answered."""
    replayable: bool = True
    """Whether it may be sent again once it was delivered."""
    lane: Lane | None = None
    due_s: float = 0.0
    """When a deferred message may go."""


class Batch(NamedTuple):
    """The work of one commit."""

    new: dict[int, Outgoing]
    gone: tuple[int, ...]
    refused: dict[int, Outgoing]


def entry_of(
    key: int,
    payload_bytes: int,
    accepted_s: float,
    backlog_topic: str | None,
    expiry_s: int | None,
    max_age_s: int,
    *,
    this_boot: bool = True,
) -> QueueEntry:
    """Return the entry of a message.

    A transcript has the backlog to live in: not its expiry, its age counts. One of an earlier boot is late, however
    young it seems: it is unknown how long the machine was off.
    """
    if backlog_topic is None:
        life_s, home = max_age_s if expiry_s is None else min(expiry_s, max_age_s), Lane.PROMPT
    else:
        life_s, home = max_age_s, Lane.LIVE if this_boot else Lane.BACKLOG
    return QueueEntry(key, payload_bytes + OVERHEAD_BYTES, accepted_s, life_s, home)


class OutboxQueue:
    """Messages by key; the smaller the key, the older the message. Not thread-safe.

    Delivered transcripts may be sent again on request: the last 256 at most, 256 KiB, and none without `replayable`.
    """

    def __init__(self, settings: OutboxSettings, chance: random.Random, *, replayable: bool = True) -> None:
        self.max_bytes = settings.max_bytes
        """Room for waiting messages; may be changed at any time."""
        self.dropped = 0
        """Messages given up: for room, expired, refused or lost."""
        self.waiting_bytes = 0
        self.last_key = 0
        self._settings = settings
        self._chance = chance
        self._replayable = replayable
        self._entries: dict[int, QueueEntry] = {}
        self._lanes: dict[Lane, list[QueueEntry]] = {lane: [] for lane in Lane}
        self._backlog_at_s: float | None = None
        self._pause_until_s = float("-inf")
        self._pause_s = _QUOTA_PAUSE_S[0]
        self._delivered: dict[int, Outgoing] = {}
        self._delivered_bytes = 0
        self._replay_keys = itertools.count(_REPLAY_KEY)
        self._unsaved: dict[int, QueueEntry] = {}
        self._unsaved_bytes = 0
        self._gone: set[int] = set()
        self._refused: dict[int, Outgoing] = {}
        self._delete_at_s = float("inf")

    @property
    def pending(self) -> int:
        """Messages that are not acknowledged yet; replays do not count."""
        return len(self._entries) - self._replaying

    @property
    def _replaying(self) -> int:
        in_flight = sum(entry.home is Lane.REPLAY for entry in self._lanes[Lane.IN_FLIGHT])
        return len(self._lanes[Lane.REPLAY]) + in_flight

    def put(self, message: Outgoing, now_s: float) -> QueueEntry:
        """Add a message. With `strict` it is held until it is written or released."""
        self.last_key += 1
        message = replace(message, key=self.last_key)
        entry = entry_of(
            self.last_key,
            len(message.payload),
            message.accepted_s,
            message.backlog_topic,
            message.expiry_s,
            self._settings.max_age_s,
        )
        entry.message = message
        self._entries[entry.key] = entry
        if self._settings.mode != "memory":
            self._unsaved[entry.key] = entry
            self._unsaved_bytes += entry.size_bytes
        self._move(entry, Lane.HELD if self._settings.mode == "strict" else entry.home)
        self.make_room(now_s)
        return entry

    def release(self, now_s: float) -> list[Outgoing]:
        """Let the held messages go unwritten; return them."""
        held = self._lanes[Lane.HELD].copy()
        for entry in held:
            self._move(entry, entry.home)
        self.make_room(now_s)
        return [entry.message for entry in held if entry.message]

    # Handing out.

    def take(self, now_s: float) -> QueueEntry | None:
        """The oldest live message, else the oldest of the backlog if it may go, else a replay; it is in flight then."""
        self._expire(now_s)
        if self.due_in_s(now_s) > 0:
            return None
        fast = [lane[0] for lane in (self._lanes[Lane.PROMPT], self._lanes[Lane.LIVE]) if lane]
        if fast:
            entry = min(fast, key=_order)
        else:
            entry = (self._lanes[Lane.BACKLOG] or self._lanes[Lane.REPLAY])[0]
            self._backlog_at_s = now_s + BACKLOG_INTERVAL_S
        self._move(entry, Lane.IN_FLIGHT)
        return entry

    def hand_out(self, entry: QueueEntry, message: Outgoing) -> Outgoing:
        """The message of an entry that was taken, as it is to be published."""
        entry.message = message
        late = entry.home in {Lane.BACKLOG, Lane.REPLAY}
        return message.replayed(self._settings.max_age_s) if late else message

    def due_in_s(self, now_s: float) -> float:
        """Seconds until `take` may have something, if nothing else happens; infinity if nothing waits."""
        self._reorder(now_s)
        pause_s = max(0.0, self._pause_until_s - now_s)
        if self._lanes[Lane.PROMPT] or self._lanes[Lane.LIVE]:
            return pause_s
        if self._lanes[Lane.BACKLOG] or self._lanes[Lane.REPLAY]:
            if self._backlog_at_s is None:
                self._backlog_at_s = now_s + self._chance.uniform(0.0, BACKLOG_DELAY_S)
            return max(pause_s, self._backlog_at_s - now_s)
        if deferred := self._lanes[Lane.DEFERRED]:
            return max(pause_s, deferred[0].due_s - now_s)
        return float("inf")

    def _reorder(self, now_s: float) -> None:
        """Bring back what was deferred for long enough, and move what is no longer live."""
        deferred, live = self._lanes[Lane.DEFERRED], self._lanes[Lane.LIVE]
        while deferred and deferred[0].due_s <= now_s:
            self._move(deferred[0], deferred[0].home)
        while live and now_s - live[0].accepted_s > LIVE_S:
            live[0].home = Lane.BACKLOG
            self._move(live[0], Lane.BACKLOG)

    def acknowledge(self, key: int, result: PublishResult, now_s: float) -> None:
        """Note the end of an attempt to publish a message in flight; other keys are ignored."""
        if result is PublishResult.DELIVERED:
            self._pause_s = _QUOTA_PAUSE_S[0]
        elif result is PublishResult.BUSY and now_s >= self._pause_until_s:  # else it answers an earlier message
            self._pause_until_s = now_s + self._pause_s
            self._pause_s = min(2 * self._pause_s, _QUOTA_PAUSE_S[1])
        entry = self._entries.get(key)
        if entry is None or entry.lane is not Lane.IN_FLIGHT:
            return
        if result is PublishResult.BUSY:
            self._move(entry, entry.home)
        elif entry.home is Lane.REPLAY:
            self._forget(entry, now_s)
        elif result is PublishResult.DEFERRED:
            self.defer(entry, now_s + DEFERRED_S)
        else:
            self._finish(entry, result, now_s)

    def _finish(self, entry: QueueEntry, result: PublishResult, now_s: float) -> None:
        message = entry.message
        self.dropped += result is not PublishResult.DELIVERED
        if result is PublishResult.REFUSED and message and self._settings.mode != "memory":
            self._refused[entry.key] = message
            self._delete_soon(now_s)
            if len(self._refused) > DEAD_LETTERS:
                del self._refused[next(iter(self._refused))]
        self._forget(entry, now_s)
        if result is PublishResult.DELIVERED and message and self._replayable and entry.replayable:
            self._remember(message)

    def defer(self, entry: QueueEntry, until_s: float) -> None:
        """Set a message in flight aside until `until_s`."""
        self._move(entry, Lane.DEFERRED, until_s)

    def requeue(self) -> None:
        """The connection was lost: messages in flight and deferred ones line up again."""
        self._backlog_at_s = None
        for entry in [*self._lanes[Lane.IN_FLIGHT], *self._lanes[Lane.DEFERRED]]:
            self._move(entry, entry.home)

    def purge(self, now_s: float) -> int:
        """Forget everything that is not in flight, uncounted, and everything delivered; return the former's number."""
        pending = self.pending
        self._delivered.clear()
        self._delivered_bytes = 0
        for entry in tuple(self._entries.values()):
            if entry.lane is Lane.IN_FLIGHT and entry.home is not Lane.REPLAY:
                entry.replayable = False
            else:
                self._forget(entry, now_s)
        self._refused.clear()
        return pending - self.pending

    # Room.

    def make_room(self, now_s: float) -> None:
        """Give up as much as the limits ask for: what is of no use later first, then the oldest transcripts."""
        while (entry := self._first_to_go()) and self._is_full:
            self._drop(entry, now_s)
        while self._unsaved_bytes > MEMORY_BYTES:
            oldest = next((entry for entry in self._unsaved.values() if entry.lane in _WAITING), None)
            if oldest is None:
                break
            self._drop(oldest, now_s)

    @property
    def _is_full(self) -> bool:
        waiting = sum(len(self._lanes[lane]) for lane in _WAITING)
        return waiting > self._settings.max_messages or self.waiting_bytes > self.max_bytes

    def _first_to_go(self) -> QueueEntry | None:
        if prompt := self._lanes[Lane.PROMPT]:
            return prompt[0]
        lanes = (self._lanes[lane] for lane in (Lane.BACKLOG, Lane.LIVE, Lane.DEFERRED))
        return min((lane[0] for lane in lanes if lane), key=lambda entry: entry.key, default=None)

    def condemn(self, count: int) -> list[int]:
        """Choose the first messages to go when room runs out; return the keys of those that are on disk."""
        while len(self._lanes[Lane.CONDEMNED]) < count and (entry := self._first_to_go()):
            self._move(entry, Lane.CONDEMNED)
        return [entry.key for entry in self._lanes[Lane.CONDEMNED] if entry.stored]

    def end_condemned(self, now_s: float, *, deleted: bool) -> None:
        """Give the condemned messages up if the disk has deleted them; else they line up again."""
        for entry in self._lanes[Lane.CONDEMNED].copy():
            if deleted:
                self._drop(entry, now_s)
            else:
                self._move(entry, entry.home)

    def _expire(self, now_s: float) -> None:
        for lane in (Lane.PROMPT, Lane.LIVE, Lane.BACKLOG):
            entries = self._lanes[lane]
            while entries and now_s - entries[0].accepted_s >= entries[0].life_s:
                self._drop(entries[0], now_s)

    def _drop(self, entry: QueueEntry, now_s: float) -> None:
        self.dropped += 1
        self._forget(entry, now_s)

    def _forget(self, entry: QueueEntry, now_s: float) -> None:
        self._move(entry, None)
        del self._entries[entry.key]
        if self._unsaved.pop(entry.key, None):
            self._unsaved_bytes -= entry.size_bytes
        if entry.stored or entry.maybe_stored:
            self._gone.add(entry.key)
            self._delete_soon(now_s)

    def _move(self, entry: QueueEntry, lane: Lane | None, due_s: float = 0.0) -> None:
        if entry.lane is not None:
            del self._lanes[entry.lane][bisect_left(self._lanes[entry.lane], _order(entry), key=_order)]
            self.waiting_bytes -= entry.size_bytes if entry.lane in _WAITING else 0
        entry.lane, entry.due_s = lane, due_s
        if lane is not None:
            insort(self._lanes[lane], entry, key=_order)
            self.waiting_bytes += entry.size_bytes if lane in _WAITING else 0
        if entry.stored and lane is not Lane.IN_FLIGHT:
            entry.message = None

    # The disk.

    def write_in_s(self, now_s: float) -> float:
        """Seconds until a batch is due, infinity if there is nothing to write."""
        if self._lanes[Lane.HELD]:
            return 0.0
        oldest = next((entry.accepted_s for entry in self._unsaved.values()), float("inf"))
        return max(0.0, min(oldest + GRACE_S, self._delete_at_s) - now_s)

    def batch(self) -> Batch:
        """What to write next."""
        oldest = tuple(itertools.islice(self._unsaved.values(), CHUNK))
        for entry in oldest:
            entry.maybe_stored = True
        new = {entry.key: entry.message for entry in oldest if entry.message}
        return Batch(new, tuple(self._gone), dict(self._refused))

    def written(self, batch: Batch, now_s: float) -> None:
        """The batch is on disk."""
        for key in batch.new:
            if entry := self._unsaved.pop(key, None):
                self._unsaved_bytes -= entry.size_bytes
                entry.stored = True
                self._move(entry, entry.home if entry.lane is Lane.HELD else entry.lane, entry.due_s)
        self._gone.difference_update(batch.gone)
        for key in batch.refused:
            self._refused.pop(key, None)
        if not (self._gone or self._refused):
            self._delete_at_s = float("inf")
        self.make_room(now_s)

    @property
    def has_work(self) -> bool:
        """Whether there is something to write."""
        return bool(self._unsaved or self._gone or self._refused)

    def _delete_soon(self, now_s: float) -> None:
        self._delete_at_s = min(self._delete_at_s, now_s + GRACE_S)

    @property
    def unsaved(self) -> int:
        """Messages that no disk has."""
        return len(self._unsaved)

    def take_stock(self, stored: list[QueueEntry], now_s: float, *, discard: bool = False) -> None:
        """Compare with the disk: count what is lost, add what is new (or have it deleted), learn how old it is."""
        keys = {entry.key for entry in stored}
        if discard:
            self._gone |= keys
            self._delete_soon(now_s)
        for entry in tuple(self._entries.values()):
            if entry.stored and entry.lane in _WAITING and entry.key not in keys:
                self._drop(entry, now_s)
        for entry in stored:
            if known := self._entries.get(entry.key):
                known.accepted_s = entry.accepted_s
            elif entry.key not in self._gone:
                self._entries[entry.key] = entry
                self._move(entry, entry.home)
        self.last_key = max([self.last_key, *keys])
        self._gone &= keys
        self.make_room(now_s)

    # Replays.

    def replay(self, wanted: SeqRange, now_s: float) -> Replay:
        """Send delivered transcripts of `wanted` again, oldest first; none while an earlier replay has not gone."""
        oldest_s = now_s - self._settings.max_age_s
        here = sorted(seq for seq, message in self._delivered.items() if message.accepted_s > oldest_s)
        available = SeqRange(here[0], here[-1]) if here else None
        found = [seq for seq in here if wanted.first <= seq <= wanted.last]
        missing = tuple(_gaps(wanted, found))
        if waiting := self._replaying:
            return Replay(0, missing, available, still_waiting=waiting)
        for seq in found:
            key, message = next(self._replay_keys), self._delivered[seq]
            entry = QueueEntry(key, 0, message.accepted_s, float("inf"), Lane.REPLAY, replace(message, key=key))
            self._entries[key] = entry
            self._move(entry, Lane.REPLAY)
        return Replay(len(found), missing, available)

    def _remember(self, message: Outgoing) -> None:
        if message.seq is None or message.backlog_topic is None:  # a number without words
            return
        if earlier := self._delivered.pop(message.seq, None):
            self._delivered_bytes -= _size_bytes(earlier)
        self._delivered[message.seq] = message
        self._delivered_bytes += _size_bytes(message)
        while len(self._delivered) > _REPLAYABLE_MESSAGES or self._delivered_bytes > _REPLAYABLE_BYTES:
            self._delivered_bytes -= _size_bytes(self._delivered.pop(next(iter(self._delivered))))


def _size_bytes(message: Outgoing) -> int:
    return len(message.payload) + OVERHEAD_BYTES


def _order(entry: QueueEntry) -> tuple[float, int]:
    return entry.due_s, entry.key


def _gaps(wanted: SeqRange, found: Iterable[int]) -> Iterator[SeqRange]:
    """What of `wanted` is not in `found`, which goes up."""
    first = wanted.first
    for seq in found:
        if seq > first:
            yield SeqRange(first, seq - 1)
        first = seq + 1
    if first <= wanted.last:
        yield SeqRange(first, wanted.last)
