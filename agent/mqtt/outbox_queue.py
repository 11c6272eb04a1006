"""The outbox in memory: choose the message to send next, the message to drop when full, and the work of the disk.

put ─▶ HELD      strict: not on disk yet
         ▼
       PROMPT    replies and the like: useless later, dropped first if full       ┐
       LIVE      transcripts of the last 60 s                                     ├▶ IN_FLIGHT ─▶ acknowledged
       BACKLOG   older ones, or of an earlier boot: slowly, on their own topic    │      │
       REPLAY    delivered, and requested once more: after the backlog            ┘      ▼
         ▲ requeue ◀──────────────────────────────────────────────────────────────── DEFERRED
"""

import itertools
import random
import threading
import time
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Final

from agent.config.settings import OutboxSettings
from agent.messages import identity
from agent.mqtt.delivery import Outgoing, PublishResult, Replay, SeqRange

LIVE_S: Final = 60.0
"""Later a transcript belongs to the backlog: an hour-old "heater on" must not turn the heater on."""
DEFERRED_S: Final = 900.0
"""A message that the broker does not allow is tried again after this time, or with the next connection."""
BACKLOG_DELAY_S: Final = 30.0
"""The backlog starts uniform(0, this) seconds after a connection, so that a fleet does not send all at once."""
BACKLOG_INTERVAL_S: Final = 0.2
"""Five messages a second."""
GRACE_S: Final = 2.0
"""A message waits this long in memory for its acknowledgement. A deletion waits this long, to share a commit."""
MEMORY_BYTES: Final = 8 << 20
"""Room in memory for messages that no disk takes."""
CHUNK: Final = 64
"""Messages per commit. The log of a small commit still fits on a nearly full disk."""
OVERHEAD_BYTES: Final = 256
"""Room that a message takes besides its payload, roughly."""
DEAD_LETTERS: Final = 100
"""Refused messages that are kept; the oldest go first."""
_QUOTA_PAUSE_S: Final = (1.0, 60.0)
_REPLAYABLE_MESSAGES: Final = 256
_REPLAYABLE_BYTES: Final = 256 << 10
_REPLAY_KEY: Final = 1 << 62
"""First key of a replay. The keys of other messages stay below it."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """An instant on every clock of the machine."""

    boot_id: str
    """The boot that `monotonic_s` counts in (random(4))."""
    monotonic_s: float
    """Seconds since an arbitrary point near the boot; never jumps, and starts anew with every boot."""
    wall_s: float
    """Seconds since 1970 (UTC). A guess, unless `synced`."""
    synced: bool
    """Whether the wall clock was synchronised."""

    def at(self, monotonic_s: float) -> "Stamp":
        """The instant of the same boot at which the monotonic clock showed `monotonic_s`."""
        return Stamp(self.boot_id, monotonic_s, self.wall_s + monotonic_s - self.monotonic_s, self.synced)

    def age_s(self, now: "Stamp") -> float:
        """Return the seconds from this instant to `now`; if they are unknown, return fewer, never more.

        Within a boot, use the monotonic clock: the wall clock may jump. Across boots, use the wall clocks if both were
        synchronised, but at least the time since the boot. So a wrong clock can keep a message for too long, but never
        drop one too early.
        """
        if self.boot_id == now.boot_id:
            return max(0.0, now.monotonic_s - self.monotonic_s)
        wall_s = now.wall_s - self.wall_s if self.synced and now.synced else 0.0
        return max(now.monotonic_s, wall_s)


Clock = Callable[[], Stamp]
"""Tells the time. Injected, so that tests can make it jump."""


def system_clock() -> Clock:
    """Return the machine's own clocks; they ask the kernel once a second whether they are synchronised."""
    boot_id = identity.boot_id()
    synced, ask_at_s = False, float("-inf")

    def now() -> Stamp:
        nonlocal synced, ask_at_s
        monotonic_s = time.monotonic()
        if monotonic_s >= ask_at_s:
            synced, ask_at_s = identity.time_synced(), monotonic_s + 1.0
        return Stamp(boot_id, monotonic_s, time.time(), synced)

    return now


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
    """Waits for the disk to delete it, and is then dropped to make room. It is not sent meanwhile."""


_WAITING: Final = frozenset({Lane.PROMPT, Lane.LIVE, Lane.BACKLOG, Lane.DEFERRED})
"""The limits count these."""


@dataclass(slots=True, order=True, kw_only=True)
class QueueEntry:
    """A message in the queue. Most payloads lie on disk only. A lane is sorted by `due_s`, then by age."""

    due_s: float = 0.0
    """When a deferred message may go."""
    key: int
    """The smaller, the older the message."""
    size_bytes: int = field(compare=False)
    accepted_s: float = field(compare=False)
    """Monotonic time of this boot; negative for a message that is older than the boot."""
    life_s: float = field(compare=False)
    """The message expires after so many seconds."""
    home: Lane = field(compare=False)
    """Where it lines up: PROMPT, LIVE, BACKLOG or REPLAY."""
    message: Outgoing | None = field(default=None, compare=False)
    """The message itself: until it is stored, and in flight."""
    stored: bool = field(default=False, compare=False)
    maybe_stored: bool = field(default=False, compare=False)
    """Whether a commit with it has begun. It may be on disk, even if that commit failed."""
    replayable: bool = field(default=True, compare=False)
    """Whether it may be sent again after its delivery."""
    lane: Lane | None = field(default=None, compare=False)


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

    A transcript can wait in the backlog, so it lives for `max_age_s`, not for its expiry. One of an earlier boot
    goes to the backlog at once, because nothing tells how long the machine was off.
    """
    if backlog_topic is None:
        life_s, home = max_age_s if expiry_s is None else min(expiry_s, max_age_s), Lane.PROMPT
    else:
        life_s, home = max_age_s, Lane.LIVE if this_boot else Lane.BACKLOG
    size_bytes = payload_bytes + OVERHEAD_BYTES
    return QueueEntry(key=key, size_bytes=size_bytes, accepted_s=accepted_s, life_s=life_s, home=home)


class Outbox:
    """Keeps messages in memory until the broker has acknowledged them. Bounded and counted.

    Live messages go first, each kind in order. Any thread may call it, but `take`, `due_in_s`, `acknowledge` and
    `requeue` belong to the thread `mqtt`. Do not put anything after `close`. The last 256 delivered transcripts (at
    most 256 KiB) can be sent again, unless `replayable` is False.
    """

    def __init__(
        self,
        settings: OutboxSettings,
        *,
        clock: Clock | None = None,
        chance: random.Random | None = None,
        replayable: bool = True,
    ) -> None:
        self.max_bytes = settings.max_bytes
        """Room for waiting messages; may be changed at any time."""
        self.dropped = 0
        """Messages given up since the start: for room, expired, refused or lost."""
        self.size_bytes = 0
        """Room that the waiting messages take, in memory or on disk, roughly."""
        self._changed = threading.Condition()
        """Guards the queue; notified when a message is put, stored, released or forgotten."""
        self._settings = settings
        self._clock = clock or system_clock()
        self._chance = chance or random.Random()  # noqa: S311 - jitter, not a secret
        self._replayable = replayable
        self._numbers = itertools.count(1)
        self._last_key = 0
        self._entries: dict[int, QueueEntry] = {}
        self._lanes: dict[Lane, list[QueueEntry]] = {lane: [] for lane in Lane}
        self._backlog_at_s: float | None = None
        self._pause_until_s = float("-inf")
        self._pause_s = _QUOTA_PAUSE_S[0]
        self._delivered: dict[int, Outgoing] = {}
        self._replay_keys = itertools.count(_REPLAY_KEY)
        self._unsaved: dict[int, QueueEntry] = {}
        self._unsaved_bytes = 0
        self._gone: set[int] = set()
        self._refused: dict[int, Outgoing] = {}
        self._delete_at_s = float("inf")

    @property
    def _now_s(self) -> float:
        return self._clock().monotonic_s

    @property
    def pending(self) -> int:
        """Messages that are not acknowledged yet, those in flight included; replays do not count."""
        with self._changed:
            return len(self._entries) - self._replaying

    @property
    def _replaying(self) -> int:
        in_flight = sum(entry.home is Lane.REPLAY for entry in self._lanes[Lane.IN_FLIGHT])
        return len(self._lanes[Lane.REPLAY]) + in_flight

    @property
    def conditions(self) -> tuple[str, ...]:
        """Troubles of the storage, as codes for `health`."""
        return ()

    def next_seq(self) -> int:
        """Return the number for the next transcript, which must be put: a missing number is a lost transcript."""
        return next(self._numbers)

    def put(self, message: Outgoing) -> bool:
        """Keep `message`; False if an older one had to go to make room. Never blocks on the network."""
        with self._changed:
            dropped = self.dropped
            self._last_key += 1
            message = replace(message, key=self._last_key)
            entry = entry_of(
                self._last_key,
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
            self.make_room()
            self._changed.notify_all()
            if entry.lane is Lane.HELD:
                self._hold(entry)
            return self.dropped == dropped

    def _hold(self, entry: QueueEntry) -> None:
        """Wait until the disk has taken `entry` (`strict`)."""

    # Handing out.

    def take(self) -> Outgoing | None:
        """Hand out the oldest live message, else the oldest of the backlog if it may go, else a replay.

        Return None if no message may go now. Call it only while connected.
        """
        with self._changed:
            if self.due_in_s() > 0:
                return None
            fast = [self._lanes[lane][0] for lane in (Lane.PROMPT, Lane.LIVE) if self._lanes[lane]]
            if fast:
                entry = min(fast)
            else:
                entry = (self._lanes[Lane.BACKLOG] or self._lanes[Lane.REPLAY])[0]
                self._backlog_at_s = self._now_s + BACKLOG_INTERVAL_S
            self._move(entry, Lane.IN_FLIGHT)
        message = entry.message or self._load(entry)
        is_late = entry.home in {Lane.BACKLOG, Lane.REPLAY}
        return message.replayed(self._settings.max_age_s) if message and is_late else message

    def _load(self, entry: QueueEntry) -> Outgoing | None:
        """Return the message of an entry whose payload is not in memory; None if it cannot go now."""
        return entry.message

    def due_in_s(self) -> float:
        """Seconds until `take` may have a message, unless one is put; infinity if none waits."""
        with self._changed:
            now_s = self._now_s
            self._refresh(now_s)
            pause_s = max(0.0, self._pause_until_s - now_s)
            if self._lanes[Lane.PROMPT] or self._lanes[Lane.LIVE]:
                return pause_s
            if self._lanes[Lane.BACKLOG] or self._lanes[Lane.REPLAY]:
                if self._backlog_at_s is None:
                    self._backlog_at_s = now_s + self._chance.uniform(0.0, BACKLOG_DELAY_S)
                return max(pause_s, self._backlog_at_s - now_s)
            if self._lanes[Lane.DEFERRED]:
                return max(pause_s, self._lanes[Lane.DEFERRED][0].due_s - now_s)
            return float("inf")

    def _refresh(self, now_s: float) -> None:
        """Drop expired messages, bring back those that were deferred for long enough, move late ones to the backlog."""
        for lane in (Lane.PROMPT, Lane.LIVE, Lane.BACKLOG):
            entries = self._lanes[lane]
            while entries and now_s - entries[0].accepted_s >= entries[0].life_s:
                self._drop(entries[0])
        deferred, live = self._lanes[Lane.DEFERRED], self._lanes[Lane.LIVE]
        while deferred and deferred[0].due_s <= now_s:
            self._move(deferred[0], deferred[0].home)
        while live and now_s - live[0].accepted_s > LIVE_S:
            live[0].home = Lane.BACKLOG
            self._move(live[0], Lane.BACKLOG)

    def acknowledge(self, message: Outgoing, result: PublishResult) -> None:
        """Note the end of an attempt to publish a message that was taken; ignore any other message."""
        with self._changed:
            now_s = self._now_s
            if result is PublishResult.DELIVERED:
                self._pause_s = _QUOTA_PAUSE_S[0]
            elif result is PublishResult.BUSY and now_s >= self._pause_until_s:  # else it answers an earlier message
                self._pause_until_s = now_s + self._pause_s
                self._pause_s = min(2 * self._pause_s, _QUOTA_PAUSE_S[1])
            entry = None if message.key is None else self._entries.get(message.key)
            if entry is None or entry.lane is not Lane.IN_FLIGHT:
                return
            if result is PublishResult.BUSY:
                self._move(entry, entry.home)
            elif entry.home is Lane.REPLAY:
                self._forget(entry)
            elif result is PublishResult.DEFERRED:
                self._move(entry, Lane.DEFERRED, now_s + DEFERRED_S)
            else:
                self._finish(entry, result)

    def _finish(self, entry: QueueEntry, result: PublishResult) -> None:
        message = entry.message
        self.dropped += result is not PublishResult.DELIVERED
        self._forget(entry)
        if result is PublishResult.REFUSED and message and self._settings.mode != "memory":
            self._refused[entry.key] = message
            self._delete_soon()
            if len(self._refused) > DEAD_LETTERS:
                del self._refused[next(iter(self._refused))]
        elif result is PublishResult.DELIVERED and message and self._replayable and entry.replayable:
            self._remember(message)

    def requeue(self) -> None:
        """Return messages in flight and deferred ones to their lanes, in order, after a lost connection."""
        with self._changed:
            self._backlog_at_s = None
            for entry in [*self._lanes[Lane.IN_FLIGHT], *self._lanes[Lane.DEFERRED]]:
                self._move(entry, entry.home)

    def purge(self) -> int:
        """Forget all messages that are not in flight, and return their number. They do not count as dropped.

        Delivered messages that could be sent again are forgotten as well.
        """
        with self._changed:
            pending = self.pending
            self._delivered.clear()
            self._refused.clear()
            for entry in tuple(self._entries.values()):
                if entry.lane is Lane.IN_FLIGHT and entry.home is not Lane.REPLAY:
                    entry.replayable = False
                else:
                    self._forget(entry)
            self._changed.notify_all()
            return pending - self.pending

    def close(self) -> int:
        """Release the storage; idempotent. Return the number of messages that are lost, because no disk has them."""
        return self.pending

    # Room.

    def make_room(self) -> None:
        """Drop messages until the limits are met: first replies and the like, then the oldest transcripts."""
        while self._is_full and (entry := self._first_to_go()):
            self._drop(entry)
        while self._unsaved_bytes > MEMORY_BYTES:
            oldest = next((entry for entry in self._unsaved.values() if entry.lane in _WAITING), None)
            if oldest is None:
                break
            self._drop(oldest)

    @property
    def _is_full(self) -> bool:
        waiting = sum(len(self._lanes[lane]) for lane in _WAITING)
        return waiting > self._settings.max_messages or self.size_bytes > self.max_bytes

    def _first_to_go(self) -> QueueEntry | None:
        if prompt := self._lanes[Lane.PROMPT]:
            return prompt[0]
        lanes = (self._lanes[lane] for lane in (Lane.BACKLOG, Lane.LIVE, Lane.DEFERRED))
        return min((lane[0] for lane in lanes if lane), key=lambda entry: entry.key, default=None)

    def condemn(self, count: int) -> list[int]:
        """Choose the first messages to go when room runs out; return the keys of those that are on disk."""
        with self._changed:
            condemned = self._lanes[Lane.CONDEMNED]
            while len(condemned) < count and (entry := self._first_to_go()):
                self._move(entry, Lane.CONDEMNED)
            return [entry.key for entry in condemned if entry.stored]

    def end_condemned(self, *, deleted: bool) -> None:
        """Drop the condemned messages if the disk has deleted them; otherwise return them to their lanes."""
        with self._changed:
            for entry in self._lanes[Lane.CONDEMNED].copy():
                if deleted:
                    self._drop(entry)
                else:
                    self._move(entry, entry.home)

    def _drop(self, entry: QueueEntry) -> None:
        self.dropped += 1
        self._forget(entry)

    def _forget(self, entry: QueueEntry) -> None:
        self._move(entry, None)
        del self._entries[entry.key]
        if self._unsaved.pop(entry.key, None):
            self._unsaved_bytes -= entry.size_bytes
        if entry.stored or entry.maybe_stored:
            self._gone.add(entry.key)
            self._delete_soon()

    def _move(self, entry: QueueEntry, lane: Lane | None, due_s: float = 0.0) -> None:
        if entry.lane is not None:
            del self._lanes[entry.lane][bisect_left(self._lanes[entry.lane], entry)]
            self.size_bytes -= entry.size_bytes if entry.lane in _WAITING else 0
        entry.lane, entry.due_s = lane, due_s
        if lane is not None:
            insort(self._lanes[lane], entry)
            self.size_bytes += entry.size_bytes if lane in _WAITING else 0
        if entry.stored and lane is not Lane.IN_FLIGHT:
            entry.message = None

    # The disk.

    def write_in_s(self) -> float:
        """Seconds until a batch is due, infinity if there is none."""
        if self._lanes[Lane.HELD]:
            return 0.0
        oldest = next((entry.accepted_s for entry in self._unsaved.values()), float("inf"))
        return max(0.0, min(oldest + GRACE_S, self._delete_at_s) - self._now_s)

    def batch(self) -> tuple[dict[int, Outgoing], tuple[int, ...], dict[int, Outgoing]]:
        """Return the work of the next commit: messages to store, keys to delete, refused messages to keep."""
        with self._changed:
            oldest = tuple(itertools.islice(self._unsaved.values(), CHUNK))
            for entry in oldest:
                entry.maybe_stored = True
            new = {entry.key: entry.message for entry in oldest if entry.message}
            return new, tuple(self._gone), dict(self._refused)

    def written(self, new: Iterable[int], gone: Iterable[int], refused: Iterable[int]) -> bool:
        """Note that a batch, by its keys, is on disk; True if there is more to write."""
        with self._changed:
            for key in new:
                if entry := self._unsaved.pop(key, None):
                    self._unsaved_bytes -= entry.size_bytes
                    entry.stored = True
                    self._move(entry, entry.home if entry.lane is Lane.HELD else entry.lane, entry.due_s)
            self._gone.difference_update(gone)
            for key in refused:
                self._refused.pop(key, None)
            if not (self._gone or self._refused):
                self._delete_at_s = float("inf")
            self.make_room()
            self._changed.notify_all()
            return bool(self._unsaved or self._gone or self._refused)

    def _delete_soon(self) -> None:
        self._delete_at_s = min(self._delete_at_s, self._now_s + GRACE_S)

    def take_stock(self, stored: list[QueueEntry], *, discard: bool = False) -> None:
        """Compare with the disk: count lost messages, add new ones (or delete them, if `discard`), note their age."""
        with self._changed:
            keys = {entry.key for entry in stored}
            if discard:
                self._gone |= keys
                self._delete_soon()
            for entry in tuple(self._entries.values()):
                if entry.stored and entry.lane in _WAITING and entry.key not in keys:
                    self._drop(entry)
            for entry in stored:
                if known := self._entries.get(entry.key):
                    known.accepted_s = entry.accepted_s
                elif entry.key not in self._gone:
                    self._entries[entry.key] = entry
                    self._move(entry, entry.home)
            self._last_key = max([self._last_key, *keys])
            self._gone &= keys
            self.make_room()

    # Replays.

    def replay(self, wanted: SeqRange) -> Replay:
        """Send delivered transcripts of `wanted` again, marked, oldest first, after the backlog and at its pace.

        Send none while an earlier replay waits. Replays do not count as `pending` or `dropped`.
        """
        with self._changed:
            oldest_s = self._now_s - self._settings.max_age_s
            here = sorted(seq for seq, message in self._delivered.items() if message.accepted_s > oldest_s)
            available = SeqRange(here[0], here[-1]) if here else None
            found = [seq for seq in here if wanted.first <= seq <= wanted.last]
            missing = tuple(_gaps(wanted, found))
            if waiting := self._replaying:
                return Replay(0, missing, available, still_waiting=waiting)
            for seq in found:
                key, accepted_s = next(self._replay_keys), self._delivered[seq].accepted_s
                entry = QueueEntry(key=key, size_bytes=0, accepted_s=accepted_s, life_s=0.0, home=Lane.REPLAY)
                entry.message = replace(self._delivered[seq], key=key)
                self._entries[key] = entry
                self._move(entry, Lane.REPLAY)
            return Replay(len(found), missing, available)

    def _remember(self, message: Outgoing) -> None:
        if message.seq is None or message.backlog_topic is None:  # a number without words
            return
        delivered = self._delivered
        delivered.pop(message.seq, None)
        delivered[message.seq] = message
        while len(delivered) > _REPLAYABLE_MESSAGES or self._delivered_bytes > _REPLAYABLE_BYTES:
            del delivered[next(iter(delivered))]

    @property
    def _delivered_bytes(self) -> int:
        return sum(len(message.payload) + OVERHEAD_BYTES for message in self._delivered.values())


def _gaps(wanted: SeqRange, found: Iterable[int]) -> Iterator[SeqRange]:
    """Yield the parts of `wanted` that are not in `found`, which goes up."""
    first = wanted.first
    for seq in found:
        if seq > first:
            yield SeqRange(first, seq - 1)
        first = seq + 1
    if first <= wanted.last:
        yield SeqRange(first, wanted.last)
