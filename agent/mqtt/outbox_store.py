"""Messages in SQLite: one connection, WAL, nothing acknowledged before it is on the medium.

`synchronous=FULL` syncs the log at every commit; with `NORMAL`, real power cuts lost up to all acknowledged rows. The
connection holds the database exclusively, so that the WAL index lives in our memory: shared memory on a failing card
would end the process with SIGBUS. `max_page_count`, a small `wal_autocheckpoint` and `journal_size_limit` keep room for
deleting when the disk is full (https://sqlite.org/pragma.html).
"""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Self

from agent.config.state_file import sync
from agent.mqtt import stored_message
from agent.mqtt.disk_condition import Condition, StorageDown, condition_of, probe
from agent.mqtt.sequence import MAX_SEQ, is_possible
from agent.mqtt.stored_message import Batch, Header, Letter

DEAD_LETTERS: Final = 100
"""Messages kept that the broker will never take; the oldest go first."""
PAGE_BYTES: Final = 4_096
_MIN_PAGES: Final = 16
_MANY_PAGES: Final = 256
_FORMAT: Final = 1
"""`user_version` of a database of ours; 0 is a new one."""

_TABLES: Final = """
CREATE TABLE dead_letter AS SELECT * FROM message WHERE 0;
CREATE TABLE number (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 1;
"""


class Store:
    """The database. May be used from any thread; every method but `close` raises `StorageDown` when the disk fails."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.RLock()
        """Held while the database is used; hold it to do several things in one go."""
        self._db: sqlite3.Connection | None = None
        self._files: tuple[tuple[int, int] | None, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._db is not None

    def open(self, max_bytes: int) -> None:
        """Open or create the database, readable for its owner only."""
        with self.lock, self._translated():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            existed = self.path.exists()
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self.path.chmod(0o600)
            db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=1.0)
            try:
                self._prepare(db, max_bytes)
            except sqlite3.Error:
                db.close()
                raise
            self._db, self._files = db, self._found()
            if not existed:
                sync(self.path.parent)

    @property
    def is_deleted(self) -> bool:
        """Whether one of the open files is not where it was opened: it was deleted, or another took its place."""
        with self.lock, self._translated():
            return self._db is not None and self._found() != self._files

    @property
    def is_replaced(self) -> bool:
        """Whether another file is where the open database was."""
        with self.lock, self._translated():
            return self._found()[0] not in (None, self._files[0])

    def begin_anew(self, max_bytes: int, copy: Callable[[sqlite3.Connection, Self], int]) -> int:
        """Where the files were deleted, create them again; return how many messages `copy` saved.

        The open connection still reads and writes the deleted files.
        """
        with self._connection() as old:
            if self._found()[0] == self._files[0]:  # it has lost its log only
                old.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                self.close()
                self.open(max_bytes)
                return 0
            files, self._db = self._files, None
            Path(f"{self.path}-wal").unlink(missing_ok=True)  # of the deleted database
            try:
                self.open(max_bytes)
                copied = copy(old, self)
            except StorageDown:
                self.close()
                self._db, self._files = old, files
                raise
            old.close()  # SQLite leaves files alone that have taken the place of its own
            return copied

    def _found(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(_identity(path) for path in (self.path, Path(f"{self.path}-wal")))

    @staticmethod
    def _prepare(db: sqlite3.Connection, max_bytes: int) -> None:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")  # before WAL: then there is no shared memory
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = FAST")
        db.execute("PRAGMA wal_autocheckpoint = 32")
        db.execute(f"PRAGMA journal_size_limit = {64 * PAGE_BYTES}")
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute(f"PRAGMA max_page_count = {_pages(max_bytes)}")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version not in {0, _FORMAT}:
            msg = f"its format is {version}, not {_FORMAT}"
            raise sqlite3.NotSupportedError(msg)
        if version == 0:
            db.executescript(f"BEGIN IMMEDIATE; {stored_message.TABLE} {_TABLES} COMMIT;")

    def limit(self, max_bytes: int) -> None:
        """Let the database grow to `max_bytes`, and no further."""
        with self._connection() as db:
            db.execute(f"PRAGMA max_page_count = {_pages(max_bytes)}")

    def headers(self) -> list[Header]:
        """All messages, oldest first, without their payloads."""
        with self._connection() as db:
            return stored_message.headers(db)

    def next_seq(self) -> int | None:
        """The number after the highest that was ever stored; None if none was."""
        with self._connection() as db:
            return number_in(db)

    def read(self, key: int) -> Letter | None:
        """One message; None if it is not there, or no longer what it was."""
        with self._connection() as db:
            return stored_message.fetch(db, key)

    def write(self, batch: Batch) -> None:
        """Do everything in one transaction; it is on the medium on return."""
        with self._connection() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                self._apply(db, batch)
                db.execute("COMMIT")
            except sqlite3.Error:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @staticmethod
    def _apply(db: sqlite3.Connection, batch: Batch) -> None:
        # Deletions first: they make the room that the rest needs.
        db.executemany("DELETE FROM message WHERE key = ?", _keys(batch.gone))
        stored_message.insert(db, batch.new)
        highest = max((letter.outgoing.seq or 0 for letter in batch.new), default=0)
        if highest:
            db.execute(
                "INSERT INTO number VALUES ('next_seq', ?)"
                " ON CONFLICT DO UPDATE SET value = iif(typeof(value) = 'integer' AND value <= ?,"
                " max(value, excluded.value), excluded.value)",
                (highest + 1, MAX_SEQ),
            )
        db.executemany("INSERT INTO dead_letter SELECT * FROM message WHERE key = ?", _keys(batch.dead))
        if batch.dead:
            db.executemany("DELETE FROM message WHERE key = ?", _keys(batch.dead))
            db.execute(
                "DELETE FROM dead_letter"
                " WHERE rowid NOT IN (SELECT rowid FROM dead_letter ORDER BY rowid DESC LIMIT ?)",
                (DEAD_LETTERS,),
            )

    def note_next_seq(self, next_seq: int) -> None:
        """Remember a number for a database that is new."""
        with self._connection() as db:
            db.execute("INSERT OR REPLACE INTO number VALUES ('next_seq', ?)", (next_seq,))

    def make_room_below(self, key: int) -> None:
        """Move all messages below `key`, in the same order: they were stored before it was given."""
        with self._connection() as db:
            low, high = db.execute("SELECT min(key), max(key) FROM message").fetchone()
            if high is not None and high >= key:
                # Far enough that no new key meets an old one on the way.
                db.execute("UPDATE message SET key = key - ?", (high - min(low, key) + 1,))

    def checkpoint(self) -> None:
        """Bring the log into the database, so that its room can be used again."""
        with self._connection() as db:
            db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    def touch(self) -> None:
        """Write a little, to see whether that works."""
        with self._connection() as db:
            db.execute("INSERT OR REPLACE INTO number VALUES ('touched', abs(random() >> 1))")

    def shrink(self) -> None:
        """Give free pages back to the disk, if they are many and more than half of all."""
        with self._connection() as db:
            (free,) = db.execute("PRAGMA freelist_count").fetchone()
            (pages,) = db.execute("PRAGMA page_count").fetchone()
            if free > max(_MANY_PAGES, pages // 2):
                # Each step frees one page, and `execute` takes one step of a statement without a result.
                db.executescript("PRAGMA incremental_vacuum")

    def wipe(self) -> None:
        """Delete the dead letters, and overwrite what the files still hold of deleted messages."""
        with self._connection() as db:
            db.execute("DELETE FROM dead_letter")
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def is_sound(self) -> bool:
        """Check the whole structure; takes seconds on a slow card."""
        with self._connection() as db:
            return [row[0] for row in db.execute("PRAGMA quick_check(1)")] == ["ok"]

    def close(self) -> None:
        """Close the database, whatever state it is in."""
        with self.lock:
            db, self._db = self._db, None
            if db is not None:
                with contextlib.suppress(sqlite3.Error):
                    db.close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with self.lock, self._translated():
            if self._db is None:
                raise StorageDown(Condition.IO_ERROR, f"{self.path} is not open")
            yield self._db

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what SQLite and the file system raise into `StorageDown`."""
        try:
            yield
        except sqlite3.Error as error:
            raise StorageDown(self._diagnose(error), str(error)) from error
        except OSError as error:
            raise StorageDown(condition_of(error), error.strerror or str(error)) from error
        except (ValueError, TypeError, OverflowError) as error:
            # Rows that SQLite hands over in good faith, and that cannot be ours: the page they lie in is damaged.
            raise StorageDown(Condition.CORRUPT, str(error)) from error

    def _diagnose(self, error: sqlite3.Error) -> Condition:
        """Result codes: https://sqlite.org/rescode.html; the low byte is the primary one."""
        match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF:
            case sqlite3.SQLITE_FULL:
                return Condition.DISK_FULL
            case sqlite3.SQLITE_READONLY:
                return Condition.READ_ONLY
            case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_BUSY | sqlite3.SQLITE_NOMEM:
                return probe(self.path.parent)
            case _:  # corrupt, not a database, no such table, a format that is not ours
                return Condition.CORRUPT


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file; None if there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def number_in(db: sqlite3.Connection) -> int | None:
    """The number after the highest that was ever stored in `db`; None if none was.

    Raises:
        ValueError: it is none that was ever stored.
    """
    row = db.execute("SELECT value FROM number WHERE name = 'next_seq'").fetchone()
    if row is None:
        return None
    if not is_possible(row[0]):
        msg = f"no transcript has the number {row[0]}"
        raise ValueError(msg)
    return int(row[0])


def first_page(pages: int) -> bytes:
    """The first page of a database of ours that has so many: its header and its schema, which are always the same.

    Format: https://sqlite.org/fileformat2.html#the_database_header. The number of pages stands at 28; write-ahead
    logging is the 2 at 18 and 19.
    """
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.executescript(f"{stored_message.TABLE} {_TABLES}")
        page = bytearray(db.serialize()[:PAGE_BYTES])
    page[18:20] = b"\2\2"
    page[28:32] = pages.to_bytes(4, "big")
    return bytes(page)


def _pages(size_bytes: int) -> int:
    return max(_MIN_PAGES, size_bytes // PAGE_BYTES)


def _keys(keys: Sequence[int]) -> list[tuple[int]]:
    return [(key,) for key in keys]
