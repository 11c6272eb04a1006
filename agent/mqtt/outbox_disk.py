"""The database and its troubles: how much room there is, what is wrong, and when to try again."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from agent.config.settings import OutboxSettings
from agent.mqtt.disk_condition import Condition, StorageDown, condition_of
from agent.mqtt.outbox_repair import discard_damaged, mend, rescue
from agent.mqtt.outbox_store import PAGE_BYTES, Store
from agent.mqtt.state_folder import Claim
from agent.mqtt.stored_message import Batch, Header, Letter

log = logging.getLogger(__name__)

_RETRY_S: Final = 10.0
_CHECK_S: Final = 10.0
_REMEMBERED_S: Final = 3_600.0
"""How long a damaged or deleted database stays in `health`: a card that does that once does it again."""
_LEAST_BYTES: Final = 16 * PAGE_BYTES
_HARDLY_ANY_BYTES: Final = 1 << 20


class Disk:
    """Used by one thread at a time, but for `read` and what only looks. `StorageDown` is noted before it is raised."""

    def __init__(self, path: Path, settings: OutboxSettings, on_change: Callable[[], None], claim: Claim) -> None:
        self._store = Store(path)
        self._claim = claim
        self._settings = settings
        self._on_change = on_change
        self.suspect = False
        """Whether the database is to be checked, and mended if need be."""
        self._failure: Condition | None = None
        self._retry_at_s = 0.0
        self._check_at_s = 0.0
        self._damaged_until_s = float("-inf")
        self._deleted_until_s = float("-inf")
        self._stalled = False
        self._crowded = False
        self._tried = False
        self._opened = False
        self._told: tuple[str, ...] = ()
        self.room_bytes = settings.max_bytes
        """What the database may grow to."""

    @property
    def down(self) -> bool:
        """Whether writing failed, and was not tried again with success yet."""
        return self._failure is not None

    def conditions(self, now_s: float) -> tuple[str, ...]:
        """What is wrong, as codes in alphabetical order."""
        found = {self._failure} if self._failure else set()
        if self._crowded:
            found.add(Condition.DISK_FULL)
        if self._stalled:
            found.add(Condition.STALLED)
        if now_s < self._damaged_until_s:
            found.add(Condition.CORRUPT)
        if now_s < self._deleted_until_s:
            found.add(Condition.DELETED)
        return tuple(sorted(found))

    def due_in_s(self, now_s: float) -> float:
        """Seconds until `tend` has something to do."""
        return max(0.0, (self._retry_at_s if self.down else self._check_at_s) - now_s)

    def open(self, now_s: float) -> list[Header]:
        """Open the database, mend it if need be, and return what is in it."""
        with self._noting(now_s):
            late, self._tried = self._tried, True
            self._measure(now_s)
            if not self._opens():
                self._mend(now_s)
            if late and not self._opened:
                # The first attempt failed, and keys were given meanwhile: what is stored is older.
                self._store.make_room_below(1)
            self._opened = True
            return self._store.headers()

    def _opens(self) -> bool:
        try:
            self._store.open(self.room_bytes)
            self._store.headers()
        except StorageDown as down:
            if down.condition is not Condition.CORRUPT:
                raise
            return False
        return True

    def _mend(self, now_s: float) -> None:
        self.damage_found(now_s)
        mend(self._store, self.room_bytes)

    def tend(self, now_s: float) -> list[Header] | None:
        """Do what is due. What is in the database, if it was opened or mended; else None."""
        headers = None
        if not self._store.is_open:
            headers = self.open(now_s)
        with self._noting(now_s):
            deleted = self._store.is_deleted
            if deleted:
                self._deleted_until_s = now_s + _REMEMBERED_S
            self._claim.renew()
            if deleted:
                rescue(self._store, self.room_bytes)
                headers = self._store.headers()
            if self.suspect:
                self._mend(now_s)
                self.suspect = False
                headers = self._store.headers()
            if now_s >= self._check_at_s:
                self._measure(now_s)
                self._store.limit(self.room_bytes)
                self._store.shrink()
            if self.down:
                self._store.touch()
                self._failure = None
        self._tell(now_s)
        return headers

    def write(self, batch: Batch, now_s: float) -> None:
        """Do everything in one commit; it is on the medium on return."""
        with self._noting(now_s):
            self._store.write(batch)
            self._stalled = False
        self._tell(now_s)

    def checkpoint(self) -> None:
        """Make the room of the log usable again, if possible."""
        with contextlib.suppress(StorageDown):
            self._store.checkpoint()

    def read(self, key: int) -> Letter | None:
        """A message; None if it is not there, or damaged."""
        try:
            return self._store.read(key)
        except StorageDown as down:
            self.suspect = self.suspect or down.condition is Condition.CORRUPT
            raise

    def headers(self) -> list[Header]:
        """All messages without their payloads."""
        return self._store.headers()

    def next_seq(self, now_s: float) -> int | None:
        """The number after the highest that was stored; None if that cannot be known."""
        try:
            return self._store.next_seq()
        except StorageDown as down:
            if down.condition is Condition.CORRUPT:
                self.damage_found(now_s)
            return None

    def note_next_seq(self, next_seq: int) -> None:
        """Remember the number to go on with in a database that may be new."""
        self._store.note_next_seq(next_seq)

    def wipe(self) -> None:
        """Forget what the broker refused, and leave nothing deleted behind in the file."""
        self._store.wipe()

    def stalled(self, now_s: float) -> None:
        """Somebody has waited for too long."""
        self._stalled = True
        self._tell(now_s)

    def damage_found(self, now_s: float) -> None:
        """A message or a page was not what it should be."""
        self._damaged_until_s = now_s + _REMEMBERED_S
        self._tell(now_s)

    def close(self) -> None:
        """Let go of the database."""
        self._store.close()

    def _measure(self, now_s: float) -> None:
        """Find out how much room there is: a share of what is free, what the database has already included."""
        self._check_at_s = now_s + _CHECK_S
        folder = self._store.path.parent
        try:
            disk = os.statvfs(folder)
            if disk.f_flag & os.ST_RDONLY:
                raise StorageDown(Condition.READ_ONLY, f"{folder} is mounted read-only")
            own_bytes = self._store.path.stat().st_size if self._store.path.exists() else 0
            free_bytes = disk.f_bavail * disk.f_frsize + own_bytes
            share_bytes = int(free_bytes * self._settings.max_free_pct / 100)
            self.room_bytes = max(_LEAST_BYTES, min(self._settings.max_bytes, share_bytes))
            self._crowded = self.room_bytes < min(_HARDLY_ANY_BYTES, self._settings.max_bytes)
            if self._crowded:
                discard_damaged(self._store.path, keep=0)
        except OSError as error:
            raise StorageDown(condition_of(error), error.strerror or str(error)) from error

    @contextlib.contextmanager
    def _noting(self, now_s: float) -> Iterator[None]:
        try:
            yield
        except StorageDown as down:
            again = self.suspect
            if down.condition is Condition.CORRUPT:
                self.suspect = True
                self.damage_found(now_s)
            self._failure = down.condition
            # What is damaged is mended at once; what could not be mended has to wait like the rest.
            self._retry_at_s = now_s + (0.0 if self.suspect and not again else _RETRY_S)
            self._tell(now_s)
            raise

    def _tell(self, now_s: float) -> None:
        if (conditions := self.conditions(now_s)) == self._told:
            return
        if conditions:
            waiting = "; messages wait in memory until it works again" if self.down else ""
            log.warning(f"outbox: {', '.join(conditions)} at {self._store.path.parent}{waiting}")
        else:
            log.info(f"outbox: {self._store.path.parent} works again")
        self._told = conditions
        self._on_change()
