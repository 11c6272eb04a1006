"""An outbox that outlives crashes and power cuts: messages wait in memory for a moment, then in SQLite.

    put ─▶ in memory ──── acknowledged within 2 s: never written (`balanced`)
               │
               ▼ thread `outbox`: batches, one sync each
             SQLite ────▶ take ─▶ sink ─▶ acknowledged: deleted with the next batch

With `strict`, `put` returns when the message is on the medium, and nothing leaves before. A disk that fails stops
nobody: messages stay in memory, `conditions` says why, and the disk is tried again.
"""

import contextlib
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.config.settings import OutboxSettings
from agent.mqtt.delivery import Entry, Fate, Outgoing, Replay, SeqRange
from agent.mqtt.disk_condition import Condition, StorageDown
from agent.mqtt.message_age import Clock, Stamp, system_clock
from agent.mqtt.outbox_desk import CHUNK, Desk, rebased
from agent.mqtt.outbox_disk import Disk
from agent.mqtt.sequence import Keeper, Sequence
from agent.mqtt.state_folder import Claim, runtime_dir
from agent.mqtt.stored_message import Batch
from agent.worker import Worker

_PATIENCE_S: Final = 10.0
"""How long `put` waits for a disk that does not answer (`strict`)."""
_UNREADABLE_S: Final = 30.0
_CLOSE_S: Final = 10.0


class SqliteOutbox:
    """The outbox of one state folder; see `agent.mqtt.delivery.Outbox`.

    `on_change` is called whenever `conditions` have changed, from any thread; it must not wait for anything.
    Without `replayable` nothing that was delivered is kept.
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
        self._strict = settings.mode == "strict"
        self._max_age_s = settings.max_age_s
        self._clock = clock or system_clock()
        self._claim = Claim(folder)
        # Guards the desk and the flags. The disk has a lock of its own, and is never waited for while this is held.
        self._changed = threading.Condition()
        chance = chance or random.Random()  # noqa: S311 - jitter, not a secret
        self._desk = Desk(settings, chance, replayable=replayable)
        self._closed = False
        self._unread, self._purge_unread = True, False
        self._disk = Disk(folder / "outbox.db", settings, on_change, self._claim)
        self._writer = threading.Lock()
        now = self._clock()
        self._synced = now.synced
        with contextlib.suppress(StorageDown):
            self._desk.take_stock(self._disk.open(now.monotonic_s), now)
            self._unread = False
        memory = memory_folder or runtime_dir(os.environ)
        keeper = Keeper.DATABASE if self._strict else Keeper.MEMORY
        stored_next = self._disk.next_seq(now.monotonic_s)
        self._sequence = Sequence(folder, memory, now.boot_id, stored_next=stored_next, keeper=keeper)
        if self._sequence.damaged:
            self._disk.damage_found(now.monotonic_s)
        if self._strict and stored_next != self._sequence.next_seq:
            with contextlib.suppress(StorageDown):  # before the first number makes the note in the folder a mere bound
                self._disk.note_next_seq(self._sequence.next_seq)
        self._worker = Worker("outbox", self._run, on_failure)
        self._worker.start()

    def next_seq(self) -> int:
        """The number for the next transcript."""
        return self._sequence.next()

    def put(self, outgoing: Outgoing) -> bool:
        """Keep `outgoing`; False if an older message had to go to make room.

        With `strict` it is on the medium on return, unless `conditions` says that the medium does not work.
        """
        with self._changed:
            dropped = self._desk.queue.dropped
            key = self._desk.keep(outgoing, self._clock())
            self._changed.notify_all()
            wait = self._strict and not self._disk.down
            if wait and not self._changed.wait_for(lambda: not self._desk.is_untried(key), _PATIENCE_S):
                self._disk.stalled(self._clock().monotonic_s)
            self._admit_unwritten(key)
            return self._desk.queue.dropped == dropped

    def _admit_unwritten(self, key: int) -> None:
        if (seq := self._desk.admit(key, self._clock())) is not None:
            self._sequence.used(seq)

    def take(self) -> Entry | None:
        """Hand out the oldest message that may go; None if none may go now."""
        while True:
            with self._changed:
                now = self._clock()
                if (turn := self._desk.take(now)) is None:
                    return None
                if again := self._desk.queue.delivered.entry(turn.key):
                    return again
                letter = self._desk.fresh(turn.key)
            try:
                letter = letter or self._disk.read(turn.key)
            except StorageDown:
                self._not_readable(turn.key, now)
                return None
            if letter is None:
                self._damaged(turn.key, now)
                continue
            outgoing = rebased(letter, now)
            with self._changed:
                self._desk.queue.delivered.handed(turn.key, outgoing)
            return Entry(turn.key, outgoing.replayed(self._max_age_s) if turn.late else outgoing)

    def _not_readable(self, key: int, now: Stamp) -> None:
        """Let others pass, and come back to it when the disk was looked at."""
        with self._changed:
            self._desk.queue.park(key, now.monotonic_s + _UNREADABLE_S)
            self._changed.notify_all()

    def _damaged(self, key: int, now: Stamp) -> None:
        self._disk.damage_found(now.monotonic_s)
        with self._changed:
            self._desk.settle(key, Fate.EXPIRED, now)

    def due_in_s(self) -> float:
        """Seconds until `take` may have something, if nothing else happens."""
        with self._changed:
            return self._desk.queue.due_in_s(self._clock().monotonic_s)

    def settle(self, key: int, fate: Fate) -> None:
        """What became of a message that was taken."""
        with self._changed:
            self._desk.settle(key, fate, self._clock())

    def rewind(self) -> None:
        """Hand out again, in order, what was taken and not settled."""
        with self._changed:
            self._desk.queue.rewind()

    def purge(self) -> int:
        """Forget everything that is not on its way, refused messages too; return how many messages that were.

        What lies on a disk that could not be read since the start goes as soon as it can.
        """
        with self._changed:
            self._purge_unread = self._unread
            keys = self._desk.queue.clear()
            self._desk.forget(keys, self._clock())
        self.flush()
        with contextlib.suppress(StorageDown), self._writer:
            self._disk.wipe()
        return len(keys)

    def replay(self, wanted: SeqRange) -> Replay:
        """Send what of `wanted` was delivered and is still here again; the disk has no part in it."""
        with self._changed:
            return self._desk.queue.delivered.ask(wanted, self._clock().monotonic_s)

    @property
    def pending(self) -> int:
        """Messages that are not settled yet."""
        with self._changed:
            return len(self._desk.queue)

    @property
    def dropped(self) -> int:
        """Messages that were given up."""
        with self._changed:
            return self._desk.queue.dropped

    @property
    def size_bytes(self) -> int:
        """Room that the waiting messages take, roughly."""
        with self._changed:
            return self._desk.queue.waiting_bytes

    @property
    def conditions(self) -> tuple[str, ...]:
        """What is wrong with the disk, as codes for `health`."""
        return self._disk.conditions(self._clock().monotonic_s)

    def close(self) -> int:
        """Write what is left, note where to go on, and let others in; idempotent. Return what no disk took."""
        with self._changed:
            again, self._closed = self._closed, True
            self._changed.notify_all()
        # Where the disk hangs, whatever it has not taken is lost, and touching it would hang us as well.
        if not again and self._worker.join(_CLOSE_S):
            self.flush()
            self._sequence.close()
            self._disk.close()
            self._claim.release()
        with self._changed:
            return self._desk.only_in_memory

    # The writing side: one thread at a time, holding `_writer`.

    def _run(self) -> None:
        while self._await_work():
            self._write(everything=False)

    def _await_work(self) -> bool:
        with self._changed:
            while not self._closed and (wait_s := self._work_in_s()) > 0:
                self._changed.wait(wait_s)
            return not self._closed

    def _work_in_s(self) -> float:
        now_s = self._clock().monotonic_s
        wait_s = self._disk.due_in_s(now_s)
        if self._disk.down:
            return wait_s
        if self._disk.suspect or self._desk.untried:
            return 0.0
        return min(wait_s, self._desk.due_in_s(now_s))

    def flush(self) -> None:
        """Write whatever is not on disk yet, as far as the disk lets us."""
        self._write(everything=True)

    def _write(self, *, everything: bool) -> None:
        """Tend the disk, and write if it is time for that."""
        with self._writer:
            while self._round(self._clock(), everything=everything):
                everything = True  # where a batch is due, the rest may as well come along

    def _round(self, now: Stamp, *, everything: bool) -> bool:
        """Tend the disk and commit once; True if there is more to write."""
        resting = self._disk.down and self._disk.due_in_s(now.monotonic_s) > 0 and not self._closed
        if not resting:
            with contextlib.suppress(StorageDown):
                self._tend(now)
                return (everything or self._is_due(now)) and self._commit(now)
        self._give_up_waiting()
        return False

    def _tend(self, now: Stamp) -> None:
        headers = self._disk.tend(now.monotonic_s)
        self._sequence.renew()
        if headers is not None:
            stored_next = self._disk.next_seq(now.monotonic_s)
            self._sequence.at_least(stored_next or 1)
            if stored_next is None:
                self._disk.note_next_seq(self._sequence.next_seq)
        elif now.synced and not self._synced:
            headers = self._disk.headers()  # now it is known how old the messages of earlier boots are
        with self._changed:
            self._synced = now.synced
            self._desk.queue.max_bytes = self._disk.room_bytes * 3 // 4  # pages are never quite full
            if headers is not None:
                if self._purge_unread:
                    self._desk.discard(headers, now)
                self._desk.take_stock(headers, now)
                self._unread = self._purge_unread = False
            self._desk.make_room(now)

    def _is_due(self, now: Stamp) -> bool:
        with self._changed:
            return bool(self._desk.untried) or self._desk.due_in_s(now.monotonic_s) <= 0

    def _commit(self, now: Stamp) -> bool:
        if not (batch := self._batch()):
            return False
        try:
            self._disk.write(batch, now.monotonic_s)
        except StorageDown as down:
            if down.condition is not Condition.DISK_FULL:
                raise
            self._make_room_on_disk(len(batch.new) + CHUNK, now)
            batch = self._batch()
            self._disk.write(batch, now.monotonic_s)
        with self._changed:
            self._desk.written(batch, now)
            self._changed.notify_all()
            return self._desk.has_unwritten

    def _batch(self) -> Batch:
        with self._changed:
            return self._desk.batch()

    def _make_room_on_disk(self, count: int, now: Stamp) -> None:
        """Delete the oldest messages; if not even that works, they stay."""
        self._disk.checkpoint()
        with self._changed:
            self._desk.not_written()
            picked = self._desk.pick(count)
            stored = self._desk.stored(picked)
        try:
            self._disk.write(Batch(gone=stored), now.monotonic_s)
        except StorageDown:
            with self._changed:
                self._desk.queue.give_back(picked)
            raise
        with self._changed:
            self._desk.drop(picked)

    def _give_up_waiting(self) -> None:
        """The disk takes nothing for now: let go what waits for it."""
        with self._changed:
            self._desk.not_written()
            for key in self._desk.untried:
                self._admit_unwritten(key)
            self._changed.notify_all()
