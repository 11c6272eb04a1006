"""The outbox on disk: keeps messages until the broker has acknowledged them.

    put ─▶ in memory ──── acknowledged within 2 s: never written (`balanced`)
               │
               ▼ thread `outbox`: batches, one sync each
             SQLite ────▶ take ─▶ sink ─▶ acknowledged: deleted with the next batch

With `strict`, `put` returns when the message is on the disk, and no message leaves before. A disk that fails does not
stop delivery: messages stay in memory, `conditions` says why, and the disk is tried again. With `memory` there is no
thread and no disk.
"""

import contextlib
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.config.settings import OutboxSettings
from agent.mqtt.delivery import Outgoing
from agent.mqtt.outbox_queue import CHUNK, Clock, Lane, Outbox, QueueEntry
from agent.mqtt.outbox_store import Condition, OutboxStore, StorageDown
from agent.mqtt.sequence import Sequence, runtime_dir
from agent.worker import Worker

_PATIENCE_S: Final = 10.0
"""How long `put` waits for a disk that does not answer (`strict`)."""
_UNREADABLE_S: Final = 30.0
_CLOSE_S: Final = 10.0


class StoredOutbox(Outbox):
    """The outbox of a state folder.

    `memory_folder` outlives this process but not the boot; default: `$RUNTIME_DIRECTORY`, else `$XDG_RUNTIME_DIR`.

    Raises:
        ConfigError: another agent uses the folder, or this process may not write to it.
    """

    def __init__(
        self,
        settings: OutboxSettings,
        folder: Path,
        on_failure: Callable[[Worker], None],
        *,
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
        self._store = OutboxStore(folder, settings, self._clock)
        """Has a lock of its own. A thread that holds `_changed` never waits for it, or for `_writing`."""
        with contextlib.suppress(StorageDown):
            self._take_entries(self._store.tend())
        self._sequence = Sequence(
            folder,
            memory_folder or runtime_dir(os.environ),
            self._clock().boot_id,
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

    def _hold(self, entry: QueueEntry) -> None:
        """Wait until the message is on disk, unless `conditions` says that the disk does not work."""
        if not self._store.down and not self._changed.wait_for(lambda: entry.lane is not Lane.HELD, _PATIENCE_S):
            self._store.stalled()
        self._release()

    def _release(self) -> None:
        """Let held messages go without the disk, which takes none for now."""
        with self._changed:
            for entry in self._lanes[Lane.HELD].copy():
                self._move(entry, entry.home)
                if entry.message and entry.message.seq is not None:
                    self._sequence.used(entry.message.seq)
                    self._unnoted = True
            self.make_room()
            self._changed.notify_all()

    def _load(self, entry: QueueEntry) -> Outgoing | None:
        try:
            message = self._store.read(entry.key)
        except StorageDown:  # let others pass, and come back to it when the disk was looked at
            with self._changed:
                self._move(entry, Lane.DEFERRED, self._now_s + _UNREADABLE_S)
                self._changed.notify_all()
            return None
        with self._changed:
            if message:
                entry.message = message
                return message
            self._drop(entry)
        self._store.damage_found()
        return None

    def purge(self) -> int:
        """Forget everything that is not in flight, refused messages too; return how many messages those were.

        Messages on a disk that could not be read since the start are deleted as soon as the disk works.
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
        """Troubles of the disk, as codes for `health`."""
        return self._store.conditions

    def close(self) -> int:
        """Write the rest, note the next number, and release the folder; idempotent. Return how many no disk took."""
        with self._changed:
            again, self._closed = self._closed, True
            self._changed.notify_all()
        # If the disk hangs, unsaved messages are lost, and a call to the disk would hang this thread as well.
        if not again and self._worker.join(_CLOSE_S):
            self.flush()
            self._sequence.close()
            self._store.close()
        with self._changed:
            return len(self._unsaved)

    # The writing side: one thread at a time, holding `_writing`.

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (wait_s := self._work_in_s()) > 0:
                    self._changed.wait(wait_s)
                if self._closed:
                    return
            self._write(everything=False)

    def _work_in_s(self) -> float:
        tend_s = self._store.due_in_s()
        return tend_s if self._store.down else min(tend_s, self.write_in_s())

    def flush(self) -> None:
        """Write all that is not on disk yet, as far as the disk allows."""
        self._write(everything=True)

    def _write(self, *, everything: bool) -> None:
        """Tend the disk, and write if it is time for that, unless the disk failed and rests."""
        with self._writing:
            with contextlib.suppress(StorageDown):
                while self._closed or not self._store.down or self._store.due_in_s() <= 0:
                    due = self._tend()
                    if not (due or everything) or not self._commit():
                        break
                    everything = True  # where a batch is due, the rest may as well come along
            if self._store.down:
                self._release()

    def _tend(self) -> bool:
        """Do what the disk needs; True if it is time to write."""
        entries = self._store.tend(late=self._unread)
        self._sequence.renew()
        with self._changed:
            self.max_bytes = self._store.room_bytes * 3 // 4  # pages are never quite full
            self.make_room()
            self._take_entries(entries)
            due = self.write_in_s() <= 0
        if entries is not None or self._unnoted:
            self._compare_numbers()
        return due

    def _take_entries(self, entries: list[QueueEntry] | None) -> None:
        if entries is not None:
            self.take_stock(entries, discard=self._purge_unread)
            self._unread = self._purge_unread = False

    def _compare_numbers(self) -> None:
        """Bring the note in the folder and, with `strict`, the database to the same next number."""
        stored = self._store.next_seq()
        self._sequence.at_least(stored or 1)
        with contextlib.suppress(StorageDown):
            if self._strict and stored != self._sequence.next_seq:
                self._store.note_next_seq(self._sequence.next_seq)
            self._unnoted = False

    def _commit(self) -> bool:
        """Write one batch; True if there is more to write."""
        batch = self.batch()
        if not any(batch):
            return False
        try:
            self._store.write(*batch)
        except StorageDown as down:
            if down.condition is not Condition.DISK_FULL:
                raise
            self._make_room_on_disk(len(batch[0]) + CHUNK)
            batch = self.batch()
            self._store.write(*batch)
        return self.written(*batch)

    def _make_room_on_disk(self, count: int) -> None:
        """Delete the oldest messages; if not even that works, they stay."""
        self._store.checkpoint()
        stored = self.condemn(count)
        deleted = False
        try:
            self._store.write({}, tuple(stored), {})
            deleted = True
        finally:
            self.end_condemned(deleted=deleted)


def create_outbox(
    settings: OutboxSettings, folder: Path, on_failure: Callable[[Worker], None], *, replayable: bool = True
) -> Outbox:
    """Open the outbox that the settings ask for in the state folder `folder`.

    Raises:
        ConfigError: another agent uses the folder, or this process may not write to it.
    """
    if settings.mode == "memory":
        return Outbox(settings, replayable=replayable)
    return StoredOutbox(settings, folder, on_failure, replayable=replayable)
