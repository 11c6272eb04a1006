"""A damaged database: look twice, then set it aside and save what can be read.

A reading error may be a loose contact: the file is opened again and checked before it is given up.
"""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agent.mqtt import stored_message
from agent.mqtt.disk_condition import Condition, StorageDown, condition_of
from agent.mqtt.outbox_store import PAGE_BYTES, Store, first_page, number_in
from agent.mqtt.stored_message import Batch, Letter

log = logging.getLogger(__name__)

KEPT: Final = 2
"""Damaged databases kept for those who want to look into them; the oldest go first."""
_MARK: Final = ".corrupt-"
_CHUNK: Final = 64


def mend(store: Store, max_bytes: int) -> bool:
    """Open the database again if it is sound; else begin a new one with what can be read. True if it was sound.

    Raises:
        StorageDown: the disk takes neither.
    """
    with store.lock:  # nobody must see a database that is half filled
        store.close()
        try:
            store.open(max_bytes)
            if store.is_sound():
                return True
        except StorageDown as down:
            if down.condition is not Condition.CORRUPT:
                raise
        store.close()
        damaged = _set_aside(store.path)
        _regain_first_page(damaged)
        store.open(max_bytes)
        with contextlib.closing(sqlite3.connect(damaged, isolation_level=None)) as old:
            saved = _salvage(old, store)
    log.warning(f"outbox: {store.path} was damaged; saved {saved} messages and set it aside as {damaged.name}")
    return False


def rescue(store: Store, max_bytes: int) -> None:
    """Begin a new database in the place of one that was deleted or replaced, with all that it held.

    Raises:
        StorageDown: the disk takes none.
    """
    with store.lock:
        if store.is_replaced:
            _set_aside(store.path)
        saved = store.begin_anew(max_bytes, _salvage)
    log.warning(f"outbox: {store.path} was deleted or replaced; saved {saved} messages and wrote it again")


def discard_damaged(path: Path, keep: int = KEPT) -> None:
    """Delete the oldest of the damaged databases that were set aside from `path`.

    Raises:
        OSError: the disk is read-only or broken.
    """
    aside = _damaged(path)
    for old in aside[: len(aside) - keep]:
        old.unlink(missing_ok=True)
        Path(f"{old}-wal").unlink(missing_ok=True)


def _damaged(path: Path) -> list[Path]:
    """Oldest first."""
    return sorted(found for found in path.parent.glob(f"{path.name}{_MARK}*") if not found.name.endswith("-wal"))


def _set_aside(path: Path) -> Path:
    # A wall clock may stand still or go back: a number keeps them apart, and in order.
    last = max((int(found.name.removeprefix(f"{path.name}{_MARK}")[:4]) for found in _damaged(path)), default=0)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = path.with_name(f"{path.name}{_MARK}{last + 1:04d}-{stamp}")
    try:
        path.replace(aside)
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}-wal").replace(f"{aside}-wal")
        discard_damaged(path)
    except OSError as error:
        raise StorageDown(condition_of(error), error.strerror or str(error)) from error
    return aside


def _regain_first_page(damaged: Path) -> None:
    """Without its first page nothing of a database can be read, and what belongs there is known."""
    with contextlib.closing(sqlite3.connect(damaged)) as db:
        try:
            db.execute("SELECT name FROM sqlite_master").fetchall()
        except sqlite3.Error:
            pass
        else:
            return
    with contextlib.suppress(OSError), damaged.open("r+b") as file:
        file.write(first_page(damaged.stat().st_size // PAGE_BYTES))


def _salvage(old: sqlite3.Connection, store: Store) -> int:
    """Copy what can still be read; return how many messages that were."""
    saved = 0
    with contextlib.suppress(sqlite3.Error, TypeError, ValueError):
        if number := number_in(old):
            store.note_next_seq(number)
    chunk: list[Letter] = []
    for letter in _readable(old):
        chunk.append(letter)
        if len(chunk) == _CHUNK:
            store.write(Batch(new=tuple(chunk)))
            saved += len(chunk)
            chunk.clear()
    store.write(Batch(new=tuple(chunk)))
    return saved + len(chunk)


def _readable(db: sqlite3.Connection) -> Iterator[Letter]:
    """Messages from the oldest until it hurts, then from the newest until it hurts."""
    seen: set[int] = set()
    for order in ("ASC", "DESC"):
        with contextlib.suppress(sqlite3.Error, TypeError, ValueError):
            for (key,) in db.execute(f"SELECT key FROM message ORDER BY key {order}"):  # noqa: S608 - constants
                if key in seen:
                    break
                seen.add(key)
                with contextlib.suppress(sqlite3.Error, TypeError, ValueError):
                    if letter := stored_message.fetch(db, key):
                        yield letter
