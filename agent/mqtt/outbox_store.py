"""The outbox on disk: messages in SQLite, and the troubles that a disk can have.

`synchronous=FULL` syncs the log at every commit; with `NORMAL`, real power cuts lost up to all acknowledged rows. The
connection holds the database exclusively, so that the WAL index lies in the memory of this process: shared memory on a
failing card would end it with SIGBUS. `max_page_count`, a small `wal_autocheckpoint` and `journal_size_limit` keep room
for deleting when the disk is full (https://sqlite.org/pragma.html). Each row has a check sum: SQLite notices a damaged
page, not a flipped bit.
"""

import contextlib
import errno
import fcntl
import itertools
import logging
import os
import sqlite3
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from agent.config.settings import OutboxSettings
from agent.config.state_file import sync
from agent.errors import ConfigError, SinkError
from agent.mqtt.delivery import Outgoing
from agent.mqtt.outbox_queue import CHUNK, DEAD_LETTERS, Clock, QueueEntry, Stamp, entry_of
from agent.mqtt.sequence import MAX_SEQ, is_possible

log = logging.getLogger(__name__)

DAMAGED_KEPT: Final = 2
"""Damaged databases kept for inspection; the oldest go first."""
PAGE_BYTES: Final = 4_096
_MIN_PAGES: Final = 16
_MANY_PAGES: Final = 256
_FORMAT: Final = 1
"""`user_version` of the database; 0 is a new one."""
_RETRY_S: Final = 10.0
_CHECK_S: Final = 10.0
_REMEMBERED_S: Final = 3_600.0
"""How long a damaged or deleted database stays in `health`: a card that does that once does it again."""
_HARDLY_ANY_BYTES: Final = 1 << 20

_TABLES: Final = """
CREATE TABLE message (key INTEGER PRIMARY KEY, topic TEXT NOT NULL, late_topic TEXT, qos INTEGER NOT NULL,
    retained INTEGER NOT NULL, content_type TEXT NOT NULL, schema TEXT NOT NULL, expiry_s INTEGER, seq INTEGER,
    boot_id TEXT NOT NULL, monotonic_s REAL NOT NULL, wall_s REAL NOT NULL, synced INTEGER NOT NULL,
    check_sum INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE TABLE dead_letter AS SELECT * FROM message WHERE 0;
CREATE TABLE number (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 1;
"""
# The payload comes last: the columns before it can be read without reading it.
_ROWS: Final = "SELECT * FROM message"
_VALUES: Final = "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_IMPOSSIBLE_VALUE: Final = (ValueError, TypeError, OverflowError)
"""Raised by values that the outbox never stored: the page they lie in is damaged."""


class Condition(StrEnum):
    """A code in `health`."""

    DISK_FULL = "outbox_disk_full"
    """The disk is full, or so nearly that the outbox has hardly any room."""
    READ_ONLY = "outbox_read_only"
    """The disk cannot be written: messages wait in memory."""
    IO_ERROR = "outbox_io_error"
    """The disk fails: messages wait in memory."""
    STALLED = "outbox_stalled"
    """The disk did not answer for so long that messages went on without it."""
    CORRUPT = "outbox_corrupt"
    """The database was damaged within the last hour, and mended or begun anew."""
    DELETED = "outbox_deleted"
    """The database, or its folder, was deleted or replaced within the last hour under the running agent."""


class StorageDown(SinkError):  # noqa: N818 - reads as a condition, and the outbox waits for it to pass
    """The disk does not work for now."""

    def __init__(self, condition: Condition, reason: str) -> None:
        super().__init__(f"{condition}: {reason}")
        self.condition = condition


def lock_folder(path: Path) -> int | None:
    """Keep other agents out of a state folder until the returned descriptor of the lock file `path` is closed.

    Return None if the disk is full or read-only: then two agents could not spoil anything.

    Raises:
        ConfigError: another agent holds it, or this process may not use it.
    """
    handle = None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(handle, 0)
        os.pwrite(handle, b"%d\n" % os.getpid(), 0)
    except OSError as error:
        if handle is not None and isinstance(error, BlockingIOError):
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise ConfigError(
                f"state_dir: {path.parent} is in use by another edgescribe (process {holder}): stop that one, or set"
                " state_dir to a folder of its own"
            ) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}:
            raise ConfigError(
                f"state_dir: cannot write to {path.parent} ({error.strerror}): make it a folder that belongs to the"
                " user of the service"
            ) from error
        log.debug(f"outbox: cannot lock {path} ({error.strerror})")
    return handle


class OutboxStore:
    """The database in a state folder.

    Methods raise `StorageDown` when the disk fails. One thread at a time writes; `read`, `conditions` and `stalled` may
    be called from any thread.

    Raises:
        ConfigError: another agent uses the folder, or this process may not write to it.
    """

    def __init__(self, folder: Path, settings: OutboxSettings, clock: Clock) -> None:
        self.lock = threading.RLock()
        """Held while the database is used; hold it to do several things in one go."""
        self.room_bytes = settings.max_bytes
        """The database may grow to this size."""
        self._path = folder / "outbox.db"
        self._settings = settings
        self._clock = clock
        self._lock_path = folder / "outbox.lock"
        self._lock_handle = lock_folder(self._lock_path)
        self._db: sqlite3.Connection | None = None
        self._files: tuple[tuple[int, int] | None, ...] = ()
        self._synced = False
        self._suspect = False
        self._failure: Condition | None = None
        self._retry_at_s = self._check_at_s = 0.0
        self._until_s: dict[Condition, float] = {}
        self._told: tuple[str, ...] = ()

    # Conditions.

    @property
    def conditions(self) -> tuple[str, ...]:
        """Troubles of the disk, as codes for `health` in alphabetical order."""
        now_s = self._clock().monotonic_s
        found = {condition for condition, until_s in tuple(self._until_s.items()) if now_s < until_s}
        if self._failure:
            found.add(self._failure)
        return tuple(sorted(found))

    @property
    def down(self) -> bool:
        """Whether writing failed, and was not tried again with success yet."""
        return self._failure is not None

    def due_in_s(self) -> float:
        """Seconds until `tend` has something to do."""
        due_s = self._retry_at_s if self.down else 0.0 if self._suspect else self._check_at_s
        return max(0.0, due_s - self._clock().monotonic_s)

    def stalled(self) -> None:
        """Note that the disk did not answer a message in time; the next commit ends that."""
        self._until_s[Condition.STALLED] = float("inf")
        self._tell()

    def damage_found(self) -> None:
        """Note that a message or a page is not as it was written."""
        self._remember(Condition.CORRUPT)

    def _remember(self, condition: Condition) -> None:
        self._until_s[condition] = self._clock().monotonic_s + _REMEMBERED_S
        self._tell()

    def _failed(self, down: StorageDown) -> None:
        if down.condition is Condition.CORRUPT and not self._suspect:
            self._suspect = True  # mended at once; if that fails, it has to wait like the rest
            self.damage_found()
            return
        self._failure = down.condition
        self._retry_at_s = self._clock().monotonic_s + _RETRY_S
        self._tell()

    def _tell(self) -> None:
        if (conditions := self.conditions) == self._told:
            return
        self._told = conditions
        if conditions:
            waiting = "; messages wait in memory until it works again" if self.down else ""
            log.warning(f"outbox: {', '.join(conditions)} at {self._path.parent}{waiting}")
        else:
            log.info(f"outbox: {self._path.parent} works again")

    # Using the database.

    def tend(self, *, late: bool = False) -> list[QueueEntry] | None:
        """Do the work that is due: open, mend, measure. Return the stored messages if they, or their ages, may be new.

        Where the database is opened `late`, keys were given meanwhile; the stored messages are older than those.
        """
        with self.lock:
            try:
                with self._translated():
                    synced = self._clock().synced  # from then on the ages of messages of earlier boots are known
                    news = self._tend() or late or (synced and not self._synced)
                    if late:
                        self._move_below(1)
                    entries = self._entries() if news else None
            except StorageDown as down:
                self._failed(down)
                if self.down:
                    raise
                return self.tend(late=late)
            self._synced = synced
            self._tell()
            return entries

    def _tend(self) -> bool:
        deleted = self._db if self._found() != self._files else None
        if deleted:
            self._remember(Condition.DELETED)
        self._renew_lock()
        news = bool(deleted) or self._suspect or not self._db
        if deleted:
            self._rescue(deleted)
        if self._suspect:
            self.damage_found()
            self._mend()
            self._suspect = False
        elif not self._db:
            self._measure()
            self._open()
        if self._clock().monotonic_s >= self._check_at_s:
            self._measure()
            self._shrink()
        if self.down:
            with self._using() as db:
                db.execute("INSERT OR REPLACE INTO number VALUES ('touched', abs(random() >> 1))")
            self._failure = None
        return news

    def _renew_lock(self) -> None:
        """Lock the folder again if the lock file was deleted."""
        if self._lock_handle is None or _identity(self._lock_path) == _identity(self._lock_handle):
            return
        try:
            fresh = lock_folder(self._lock_path)
        except ConfigError as error:
            raise StorageDown(Condition.READ_ONLY, str(error)) from error
        os.close(self._lock_handle)
        self._lock_handle = fresh

    def _entries(self) -> list[QueueEntry]:
        """All messages, oldest first, without their payloads."""
        now, max_age_s = self._clock(), self._settings.max_age_s
        columns = "key, length(payload), late_topic, expiry_s, boot_id, monotonic_s, wall_s, synced"
        entries = []
        with self._using() as db:
            for key, size, topic, expiry_s, *stamp in db.execute(f"SELECT {columns} FROM message ORDER BY key"):  # noqa: S608 - a constant
                accepted = Stamp(*stamp)
                try:
                    accepted_s, this_boot = now.monotonic_s - accepted.age_s(now), accepted.boot_id == now.boot_id
                    entry = entry_of(key, size, accepted_s, topic, expiry_s, max_age_s, this_boot=this_boot)
                except TypeError:  # damaged: the check sum fails when it is read
                    entry = entry_of(key, size, now.monotonic_s, None, None, max_age_s)
                entry.stored = True
                entries.append(entry)
        return entries

    def read(self, key: int) -> Outgoing | None:
        """Return one message, its age told by this boot's clock; None if it is absent or not as it was written."""
        try:
            with self._using() as db:
                row = db.execute(f"{_ROWS} WHERE key = ?", (key,)).fetchone()
                return _message_of(row, self._clock()) if row and _is_intact(row) else None
        except StorageDown as down:
            self._suspect = self._suspect or down.condition is Condition.CORRUPT
            raise

    def write(self, new: dict[int, Outgoing], gone: tuple[int, ...], refused: dict[int, Outgoing]) -> None:
        """Store `new`, delete `gone` and keep `refused` aside, in one transaction; it is on disk on return."""
        now = self._clock()
        try:
            with self._using() as db, db:
                db.execute("BEGIN IMMEDIATE")
                # Deletions first: they make the room that the rest needs.
                db.executemany("DELETE FROM message WHERE key = ?", [(key,) for key in gone])
                _insert(db, "message", [_row_of(key, message, now) for key, message in new.items()])
                _note_used(db, max((message.seq or 0 for message in new.values()), default=0))
                if refused:
                    _insert(db, "dead_letter", [_row_of(key, message, now) for key, message in refused.items()])
                    newest = "SELECT rowid FROM dead_letter ORDER BY rowid DESC LIMIT ?"
                    db.execute(f"DELETE FROM dead_letter WHERE rowid NOT IN ({newest})", (DEAD_LETTERS,))  # noqa: S608 - a constant
        except StorageDown as down:
            self._failed(down)
            raise
        self._until_s.pop(Condition.STALLED, None)
        self._tell()

    def next_seq(self) -> int | None:
        """The number after the highest that was ever stored; None if that cannot be known."""
        try:
            with self._using() as db:
                return _next_seq(db)
        except StorageDown as down:
            if down.condition is Condition.CORRUPT:
                self.damage_found()
            return None

    def note_next_seq(self, next_seq: int) -> None:
        """Remember the number to go on with."""
        with self._using() as db:
            db.execute("INSERT OR REPLACE INTO number VALUES ('next_seq', ?)", (next_seq,))

    def _move_below(self, key: int) -> None:
        """Give all messages keys below `key`, in the same order: they were stored before it was given."""
        with self._using() as db:
            low, high = db.execute("SELECT min(key), max(key) FROM message").fetchone()
            if high is not None and high >= key:
                # Far enough that no new key meets an old one on the way.
                db.execute("UPDATE message SET key = key - ?", (high - min(low, key) + 1,))

    def checkpoint(self) -> None:
        """Bring the log into the database, if possible, so that its room can be used again."""
        with contextlib.suppress(StorageDown), self._using() as db:
            db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    def wipe(self) -> None:
        """Delete the dead letters, and overwrite the remains of deleted messages in the files."""
        with self._using() as db:
            db.execute("DELETE FROM dead_letter")
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close the database and let other agents in; idempotent."""
        self._disconnect()
        handle, self._lock_handle = self._lock_handle, None
        if handle is not None:
            os.close(handle)

    # Opening and mending.

    def _open(self) -> None:
        """Open or create the database, readable for its owner only."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        existed = self._path.exists()
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        self._path.chmod(0o600)
        db = _connect(self._path)
        try:
            _prepare(db, self.room_bytes)
        except sqlite3.Error:
            db.close()
            raise
        self._db, self._files = db, self._found()
        if not existed:
            sync(self._path.parent)

    def _disconnect(self) -> None:
        with self.lock:
            db, self._db = self._db, None
            if db is not None:
                with contextlib.suppress(sqlite3.Error):
                    db.close()

    def _mend(self) -> None:
        """Open the database again if it is sound; else begin a new one with all that can be read.

        A reading error may be a loose contact: the whole file is checked before it is given up.
        """
        self._disconnect()
        try:
            with self._translated():
                self._open()
                with self._using() as db:
                    if db.execute("PRAGMA quick_check(1)").fetchall() == [("ok",)]:
                        self._entries()
                        return
        except StorageDown as down:
            if down.condition is not Condition.CORRUPT:
                raise
        self._disconnect()
        aside = self._set_aside()
        self._open()
        with contextlib.closing(_connect(aside)) as old:
            saved = self._copy(old)
        log.warning(f"outbox: {self._path} was damaged; saved {saved} messages and set it aside as {aside.name}")

    def _rescue(self, old: sqlite3.Connection) -> None:
        """Write the files again that were deleted or replaced: the open connection still reads and writes them."""
        files = self._files
        if self._found()[0] == files[0]:  # it has lost its log only
            with self._using() as db:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._disconnect()
            self._open()
            return
        if self._found()[0]:
            self._set_aside()
        Path(f"{self._path}-wal").unlink(missing_ok=True)  # of the deleted database
        self._db = None
        try:
            with self._translated():
                self._open()
                saved = self._copy(old)
        except StorageDown:
            self._disconnect()
            self._db, self._files = old, files
            raise
        old.close()  # SQLite leaves files alone that have taken the place of its own
        log.warning(f"outbox: {self._path} was deleted or replaced; saved {saved} messages and wrote it again")

    def _copy(self, old: sqlite3.Connection) -> int:
        """Copy every message that can be read; return how many those were."""
        with contextlib.suppress(sqlite3.Error, *_IMPOSSIBLE_VALUE):
            if number := _next_seq(old):
                self.note_next_seq(number)
        saved, rows = 0, _readable(old)
        while chunk := list(itertools.islice(rows, CHUNK)):
            with self._using() as db, db:
                db.execute("BEGIN IMMEDIATE")
                _insert(db, "message", chunk)
                _note_used(db, max(row[8] or 0 for row in chunk))
            saved += len(chunk)
        return saved

    def _set_aside(self) -> Path:
        # A wall clock may stand still or go back: a number keeps them apart, and in order.
        last = max((int(found.name.split("-")[1]) for found in self._damaged()), default=0)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        aside = self._path.with_name(f"{self._path.name}.corrupt-{last + 1:04d}-{stamp}")
        self._path.replace(aside)
        with contextlib.suppress(FileNotFoundError):
            Path(f"{self._path}-wal").replace(f"{aside}-wal")
        self._discard_damaged(DAMAGED_KEPT)
        return aside

    def _damaged(self) -> list[Path]:
        """Oldest first."""
        return sorted(self._path.parent.glob(f"{self._path.name}.corrupt-[0-9][0-9][0-9][0-9]-*Z"))

    def _discard_damaged(self, keep: int) -> None:
        aside = self._damaged()
        for old in aside[: len(aside) - keep]:
            old.unlink(missing_ok=True)
            Path(f"{old}-wal").unlink(missing_ok=True)

    def _found(self) -> tuple[tuple[int, int] | None, ...]:
        """The identities of the database and of its log."""
        return _identity(self._path), _identity(Path(f"{self._path}-wal"))

    def _measure(self) -> None:
        """Find out how much room there is: a share of the free disk, the database itself included."""
        self._check_at_s = self._clock().monotonic_s + _CHECK_S
        disk = os.statvfs(self._path.parent)
        if disk.f_flag & os.ST_RDONLY:
            raise StorageDown(Condition.READ_ONLY, f"{self._path.parent} is mounted read-only")
        own_bytes = self._path.stat().st_size if self._path.exists() else 0
        share_bytes = int((disk.f_bavail * disk.f_frsize + own_bytes) * self._settings.max_free_pct / 100)
        self.room_bytes = max(_MIN_PAGES * PAGE_BYTES, min(self._settings.max_bytes, share_bytes))
        if self.room_bytes < min(_HARDLY_ANY_BYTES, self._settings.max_bytes):
            self._until_s[Condition.DISK_FULL] = float("inf")
            self._discard_damaged(0)
        else:
            self._until_s.pop(Condition.DISK_FULL, None)

    def _shrink(self) -> None:
        """Set the limit, and give free pages back to the disk, if they are many and more than half of all."""
        with self._using() as db:
            db.execute(f"PRAGMA max_page_count = {self.room_bytes // PAGE_BYTES}")
            (free,) = db.execute("PRAGMA freelist_count").fetchone()
            (pages,) = db.execute("PRAGMA page_count").fetchone()
            if free > max(_MANY_PAGES, pages // 2):
                # Each step frees one page, and `execute` takes one step of a statement without a result.
                db.executescript("PRAGMA incremental_vacuum")

    @contextlib.contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with self.lock, self._translated():
            if self._db is None:
                raise StorageDown(Condition.IO_ERROR, f"{self._path} is not open")
            yield self._db

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn errors of SQLite and of the file system into `StorageDown`."""
        try:
            yield
        except sqlite3.Error as error:
            raise StorageDown(self._diagnose(error), str(error)) from error
        except OSError as error:
            raise StorageDown(_condition_of(error), error.strerror or str(error)) from error
        except _IMPOSSIBLE_VALUE as error:
            raise StorageDown(Condition.CORRUPT, str(error)) from error

    def _diagnose(self, error: sqlite3.Error) -> Condition:
        """Result codes: https://sqlite.org/rescode.html; the low byte is the primary one."""
        match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF:
            case sqlite3.SQLITE_FULL:
                return Condition.DISK_FULL
            case sqlite3.SQLITE_READONLY:
                return Condition.READ_ONLY
            case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_BUSY | sqlite3.SQLITE_NOMEM:
                return _probe(self._path.parent)
            case _:  # corrupt, not a database, no such table, another format
                return Condition.CORRUPT


def _identity(file: Path | int) -> tuple[int, int] | None:
    """Device and inode of a file; None if it is not there."""
    try:
        status = os.stat(file)  # noqa: PTH116 - or a descriptor
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1.0)
    db.text_factory = lambda content: content.decode(errors="replace")  # the check sum tells
    return db


def _prepare(db: sqlite3.Connection, max_bytes: int) -> None:
    for pragma in (
        "locking_mode = EXCLUSIVE",  # before WAL: then there is no shared memory
        f"page_size = {PAGE_BYTES}",
        "auto_vacuum = INCREMENTAL",
        "journal_mode = WAL",
        "synchronous = FULL",
        "secure_delete = FAST",
        "wal_autocheckpoint = 32",
        f"journal_size_limit = {64 * PAGE_BYTES}",
        "temp_store = MEMORY",
        f"max_page_count = {max_bytes // PAGE_BYTES}",
    ):
        db.execute(f"PRAGMA {pragma}")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version not in {0, _FORMAT}:
        raise sqlite3.NotSupportedError(f"its format is {version}, not {_FORMAT}")
    if version == 0:
        db.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")


def _insert(db: sqlite3.Connection, table: str, rows: list[tuple[Any, ...]]) -> None:
    db.executemany(f"INSERT OR REPLACE INTO {table} {_VALUES}", rows)


def _next_seq(db: sqlite3.Connection) -> int | None:
    """The number after the highest that was ever stored; None if none was. `ValueError` if it cannot be one."""
    row = db.execute("SELECT value FROM number WHERE name = 'next_seq'").fetchone()
    if row is None:
        return None
    if not is_possible(row[0]):
        raise ValueError(f"no transcript has the number {row[0]}")
    return int(row[0])


def _note_used(db: sqlite3.Connection, seq: int) -> None:
    if seq:
        db.execute(
            "INSERT INTO number VALUES ('next_seq', ?) ON CONFLICT DO UPDATE SET value ="
            " iif(typeof(value) = 'integer' AND value <= ?, max(value, excluded.value), excluded.value)",
            (seq + 1, MAX_SEQ),
        )


def _readable(db: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    """Rows from the oldest until it hurts, then from the newest until it hurts."""
    seen: set[int] = set()
    for order in ("ASC", "DESC"):
        with contextlib.suppress(sqlite3.Error, *_IMPOSSIBLE_VALUE):
            for row in db.execute(f"{_ROWS} ORDER BY key {order}"):
                if row[0] in seen:
                    break
                seen.add(row[0])
                if _is_intact(row):
                    yield row


def _row_of(key: int, message: Outgoing, now: Stamp) -> tuple[Any, ...]:
    accepted = now.at(message.accepted_s)
    head = (
        *(message.topic, message.backlog_topic, message.qos, int(message.retained), message.content_type),
        *(message.schema, message.expiry_s, message.seq),
        *(accepted.boot_id, accepted.monotonic_s, accepted.wall_s, int(accepted.synced)),
    )
    return (key, *head, _check_sum(head, message.payload), message.payload)


def _is_intact(row: tuple[Any, ...]) -> bool:
    _, *head, check_sum, payload = row
    return isinstance(payload, bytes) and _check_sum(tuple(head), payload) == check_sum


def _message_of(row: tuple[Any, ...], now: Stamp) -> Outgoing:
    key, topic, late_topic, qos, retained, content_type, schema, expiry_s, seq, *stamp, _, payload = row
    accepted_s = now.monotonic_s - Stamp(*stamp).age_s(now)
    return Outgoing(
        *(topic, payload, qos, bool(retained), content_type, schema, expiry_s, accepted_s, late_topic, seq), key=key
    )


def _check_sum(head: tuple[Any, ...], payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(repr(head).encode()))


def _condition_of(error: OSError) -> Condition:
    if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return Condition.READ_ONLY
    return Condition.DISK_FULL if error.errno in {errno.ENOSPC, errno.EDQUOT} else Condition.IO_ERROR


def _probe(folder: Path) -> Condition:
    """Find out why writing fails by writing a little: SQLite calls a read-only remount an I/O error as well."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PAGE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return _condition_of(error)
    return Condition.IO_ERROR
