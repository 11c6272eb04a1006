"""The outbox: keeps messages until the broker has acknowledged them.

    put ─▶ in memory ──── acknowledged within 2 s: never written (`balanced`)
               │
               ▼ thread `outbox`: batches, one sync each
             SQLite ────▶ take ─▶ sink ─▶ acknowledged: deleted with the next batch

With `strict`, `put` returns when the message is on the medium, and nothing leaves before. A disk that fails does not
stop delivery: messages stay in memory, `conditions` says why, and the disk is tried again. With `memory` there is
neither a thread nor a disk.
"""

import contextlib
import itertools
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.config.settings import OutboxSettings
from agent.mqtt.delivery import Outgoing, PublishResult, Replay, SeqRange
from agent.mqtt.outbox_queue import CHUNK, Batch, Lane, OutboxQueue, QueueEntry
from agent.mqtt.outbox_store import Clock, Condition, OutboxStore, StorageDown, system_clock
from agent.mqtt.sequence import Sequence, runtime_dir
from agent.worker import Worker

_PATIENCE_S: Final = 10.0
"""How long `put` waits for a disk that does not answer (`strict`)."""
_UNREADABLE_S: Final = 30.0
_CLOSE_S: Final = 10.0


class Outbox:
    """Live messages go first, each kind in order. Bounded and counted. This one lives as long as the process.

    The sink's thread calls `take`, `due_in_s`, `acknowledge` and `requeue`; any thread calls the rest. Nothing is put
    after `close`. Without `replayable` no delivered message is kept.
    """

    def __init__(
        self,
        settings: OutboxSettings,
        *,
        clock: Clock | None = None,
        chance: random.Random | None = None,
        replayable: bool = True,
    ) -> None:
        self._clock = clock or system_clock()
        self._changed = threading.Condition()
        """Guards the queue; notified when a message is put, admitted or forgotten."""
        chance = chance or random.Random()  # noqa: S311 - jitter, not a secret
        self._queue = OutboxQueue(settings, chance, replayable=replayable)
        self._numbers = itertools.count(1)

    @property
    def _now_s(self) -> float:
        return self._clock().monotonic_s

    def next_seq(self) -> int:
        """Return the number for the next transcript, which must be put: a missing number is a lost transcript."""
        return next(self._numbers)

    def put(self, outgoing: Outgoing) -> bool:
        """Keep `outgoing`; False if an older message had to go to make room. Never blocks on the network."""
        with self._changed:
            dropped = self._queue.dropped
            self._queue.put(outgoing, self._now_s)
            return self._queue.dropped == dropped

    def take(self) -> Outgoing | None:
        """Hand out the oldest message that may go; None if none may go now. Only to be called while connected."""
        with self._changed:
            entry = self._queue.take(self._now_s)
            return self._queue.hand_out(entry, entry.message) if entry and entry.message else None

    def due_in_s(self) -> float:
        """Seconds until `take` may have something, if nothing else happens: the backlog is sent slowly."""
        with self._changed:
            return self._queue.due_in_s(self._now_s)

    def acknowledge(self, message: Outgoing, result: PublishResult) -> None:
        """End the flight of a message that was taken; others are ignored."""
        with self._changed:
            if message.key is not None:
                self._queue.acknowledge(message.key, result, self._now_s)

    def requeue(self) -> None:
        """Hand out again, in order, what was taken and not acknowledged: the connection was lost."""
        with self._changed:
            self._queue.requeue()

    def purge(self) -> int:
        """Forget everything that is not in flight, uncounted; return how many messages that were.

        Delivered messages that could have been sent again are forgotten as well.
        """
        with self._changed:
            count = self._queue.purge(self._now_s)
            self._changed.notify_all()
            return count

    def replay(self, wanted: SeqRange) -> Replay:
        """Send delivered transcripts again, marked, at the backlog's pace and after it.

        Only the last few are still here, in memory. Replays are neither `pending` nor ever `dropped`.
        """
        with self._changed:
            return self._queue.replay(wanted, self._now_s)

    @property
    def pending(self) -> int:
        """Messages that are not acknowledged yet, those in flight included."""
        with self._changed:
            return self._queue.pending

    @property
    def dropped(self) -> int:
        """Messages that were given up, since the start."""
        with self._changed:
            return self._queue.dropped

    @property
    def size_bytes(self) -> int:
        """Room that the waiting messages take, in memory or on disk, roughly."""
        with self._changed:
            return self._queue.waiting_bytes

    @property
    def conditions(self) -> tuple[str, ...]:
        """What is wrong with the storage, as codes for `health`."""
        return ()

    def close(self) -> int:
        """Let go of the storage; idempotent. Return how many messages are lost with it: what is on disk is not."""
        return self.pending


class StoredOutbox(Outbox):
    """The outbox of a state folder.

    `on_change` is called whenever `conditions` have changed, from any thread; it must not wait for anything.
    `memory_folder` outlives this process but not the boot; default: `$RUNTIME_DIRECTORY`, else `$XDG_RUNTIME_DIR`.

    Raises:
        ConfigError: another agent uses the folder, or we may not write to it.
    """

    def __init__(
        self,
        settings: OutboxSettings,
        folder: Path,
        on_failure: Callable[[Worker], None],
        *,
        on_change: Callable[[], None] = lambda: None,
        memory_folder: Path | None = None,
        clock: Clock | None = None,
        chance: random.Random | None = None,
        replayable: bool = True,
    ) -> None:
        super().__init__(settings, clock=clock, chance=chance, replayable=replayable)
        self._strict = settings.mode == "strict"
        self._closed = False
        self._unread, self._purge_unread = True, False
        self._unnoted = False
        """Whether there may be numbers that the database was not told (`strict`)."""
        self._writing = threading.RLock()
        # The store has a lock of its own: neither that nor `_writing` is waited for while `_changed` is held.
        self._store = OutboxStore(folder, settings, on_change, self._clock)
        now = self._clock()
        self._synced = now.synced
        with contextlib.suppress(StorageDown):
            self._take_stock(self._store.tend(reread=True) or [])
        self._sequence = Sequence(
            folder,
            memory_folder or runtime_dir(os.environ),
            now.boot_id,
            stored_next=self._store.next_seq(),
            counter="database" if self._strict else "memory",
        )
        if self._sequence.damaged:
            self._store.damage_found()
        self._compare_numbers()  # before the first number makes the note in the folder a mere bound
        self._worker = Worker("outbox", self._run, on_failure)
        self._worker.start()

    def next_seq(self) -> int:
        """Return the number for the next transcript, which must be put: a missing number is a lost transcript."""
        return self._sequence.next()

    def put(self, outgoing: Outgoing) -> bool:
        """Keep `outgoing`; False if an older message had to go to make room.

        With `strict` it is on the medium on return, unless `conditions` says that the medium does not work.
        """
        with self._changed:
            dropped = self._queue.dropped
            entry = self._queue.put(outgoing, self._now_s)
            self._changed.notify_all()
            if entry.lane is Lane.HELD:
                wait = not self._store.down
                if wait and not self._changed.wait_for(lambda: entry.lane is not Lane.HELD, _PATIENCE_S):
                    self._store.stalled()
                self._release()
            return self._queue.dropped == dropped

    def _release(self) -> None:
        """Let go unwritten what waits for a disk that takes nothing for now."""
        with self._changed:
            for message in self._queue.release(self._now_s):
                if message.seq is not None:
                    self._sequence.used(message.seq)
                    self._unnoted = True
            self._changed.notify_all()

    def take(self) -> Outgoing | None:
        """Hand out the oldest message that may go; None if none may go now."""
        while True:
            with self._changed:
                if (entry := self._queue.take(self._now_s)) is None:
                    return None
                message = entry.message
            try:
                message = message or self._store.read(entry.key)
            except StorageDown:  # let others pass, and come back to it when the disk was looked at
                with self._changed:
                    self._queue.defer(entry, self._now_s + _UNREADABLE_S)
                    self._changed.notify_all()
                return None
            with self._changed:
                if message:
                    return self._queue.hand_out(entry, message)
                self._queue.acknowledge(entry.key, PublishResult.EXPIRED, self._now_s)
            self._store.damage_found()

    def purge(self) -> int:
        """Forget everything that is not in flight, refused messages too; return how many messages that were.

        What lies on a disk that could not be read since the start goes as soon as it can.
        """
        with self._changed:
            self._purge_unread, self._unnoted = self._unread, True
            count = super().purge()
        with self._writing, contextlib.suppress(StorageDown):
            self.flush()
            self._store.wipe()
        return count

    @property
    def conditions(self) -> tuple[str, ...]:
        """What is wrong with the disk, as codes for `health`."""
        return self._store.conditions

    def close(self) -> int:
        """Write what is left, note where to go on, and let others in; idempotent. Return what no disk took."""
        with self._changed:
            again, self._closed = self._closed, True
            self._changed.notify_all()
        # Where the disk hangs, whatever it has not taken is lost, and touching it would hang us as well.
        if not again and self._worker.join(_CLOSE_S):
            self.flush()
            self._sequence.close()
            self._store.close()
        with self._changed:
            return self._queue.unsaved

    # The writing side: one thread at a time, holding `_writing`.

    def _run(self) -> None:
        while self._await_work():
            self._write(everything=False)

    def _await_work(self) -> bool:
        with self._changed:
            while not self._closed and (wait_s := self._work_in_s()) > 0:
                self._changed.wait(wait_s)
            return not self._closed

    def _work_in_s(self) -> float:
        tend_s = self._store.due_in_s(self._now_s)
        return tend_s if self._store.down else min(tend_s, self._queue.write_in_s(self._now_s))

    def flush(self) -> None:
        """Write all that is not on disk yet, as far as the disk lets us."""
        self._write(everything=True)

    def _write(self, *, everything: bool) -> None:
        """Tend the disk, and write if it is time for that."""
        with self._writing:
            with contextlib.suppress(StorageDown):
                while not self._is_resting and self._tend(everything=everything) and self._commit():
                    everything = True  # where a batch is due, the rest may as well come along
            if self._store.down:
                self._release()

    @property
    def _is_resting(self) -> bool:
        """Whether the disk failed, and is not to be tried again yet."""
        return self._store.down and self._store.due_in_s(self._now_s) > 0 and not self._closed

    def _tend(self, *, everything: bool) -> bool:
        """Do what the disk needs; True if it is time to write."""
        synced = self._clock().synced  # from then on it is known how old the messages of earlier boots are
        entries = self._store.tend(late=self._unread, reread=synced and not self._synced)
        self._synced = synced
        self._sequence.renew()
        with self._changed:
            self._queue.max_bytes = self._store.room_bytes * 3 // 4  # pages are never quite full
            self._queue.make_room(self._now_s)
            if entries is not None:
                self._take_stock(entries)
            due = self._queue.write_in_s(self._now_s) <= 0
        if entries is not None or self._unnoted:
            self._compare_numbers()
        return everything or due

    def _take_stock(self, entries: list[QueueEntry]) -> None:
        self._queue.take_stock(entries, self._now_s, discard=self._purge_unread)
        self._unread = self._purge_unread = False

    def _compare_numbers(self) -> None:
        """Let the folder's note and the database know the same next number, as far as that matters."""
        stored = self._store.next_seq()
        self._sequence.at_least(stored or 1)
        with contextlib.suppress(StorageDown):
            if self._strict and stored != self._sequence.next_seq:
                self._store.note_next_seq(self._sequence.next_seq)
            self._unnoted = False

    def _batch(self) -> Batch:
        with self._changed:
            return self._queue.batch()

    def _commit(self) -> bool:
        """Write one batch; True if there is more to write."""
        if not any(batch := self._batch()):
            return False
        try:
            self._store.write(batch)
        except StorageDown as down:
            if down.condition is not Condition.DISK_FULL:
                raise
            self._make_room_on_disk(len(batch.new) + CHUNK)
            batch = self._batch()
            self._store.write(batch)
        with self._changed:
            self._queue.written(batch, self._now_s)
            self._changed.notify_all()
            return self._queue.has_work

    def _make_room_on_disk(self, count: int) -> None:
        """Delete the oldest messages; if not even that works, they stay."""
        self._store.checkpoint()
        with self._changed:
            stored = self._queue.condemn(count)
        deleted = False
        try:
            self._store.write(Batch({}, tuple(stored), {}))
            deleted = True
        finally:
            with self._changed:
                self._queue.end_condemned(self._now_s, deleted=deleted)


def create_outbox(
    settings: OutboxSettings,
    folder: Path,
    on_failure: Callable[[Worker], None],
    on_change: Callable[[], None] = lambda: None,
    *,
    replayable: bool = True,
) -> Outbox:
    """Open the outbox that the settings ask for in the state folder `folder`.

    Raises:
        ConfigError: another agent uses the folder, or we may not write to it.
    """
    if settings.mode == "memory":
        return Outbox(settings, replayable=replayable)
    return StoredOutbox(settings, folder, on_failure, on_change=on_change, replayable=replayable)
