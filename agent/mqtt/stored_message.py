"""Messages as rows of a table, each with a check sum: SQLite notices a damaged page, not a flipped bit."""

import math
import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent.mqtt.delivery import Outgoing
from agent.mqtt.message_age import Stamp

COLUMNS: Final = (
    "key, topic, late_topic, qos, retained, content_type, schema, expiry_s, seq, boot_id, monotonic_s, wall_s, synced,"
    " check_sum, payload"
)
"""The payload comes last: what stands before it can be read without reading it."""
TABLE: Final = """
CREATE TABLE message (key INTEGER PRIMARY KEY, topic TEXT NOT NULL, late_topic TEXT, qos INTEGER NOT NULL,
    retained INTEGER NOT NULL, content_type TEXT NOT NULL, schema TEXT NOT NULL, expiry_s INTEGER, seq INTEGER,
    boot_id TEXT NOT NULL, monotonic_s REAL NOT NULL, wall_s REAL NOT NULL, synced INTEGER NOT NULL,
    check_sum INTEGER NOT NULL, payload BLOB NOT NULL);
"""
_HEADER: Final = "key, length(payload), late_topic, expiry_s, boot_id, monotonic_s, wall_s, synced"
_MARKS: Final = ", ".join("?" * (COLUMNS.count(",") + 1))


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as it is stored."""

    key: int
    outgoing: Outgoing
    accepted: Stamp


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of a stored message without its payload."""

    key: int
    size_bytes: int
    late_topic: str | None
    expiry_s: int | None
    accepted: Stamp


@dataclass(frozen=True, slots=True)
class Batch:
    """What one commit does: first `new` is written, then `dead` moves aside and `gone` is deleted."""

    new: tuple[Letter, ...] = ()
    gone: tuple[int, ...] = ()
    dead: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.new or self.gone or self.dead)


def insert(db: sqlite3.Connection, letters: Sequence[Letter]) -> None:
    """Write messages."""
    rows = [_row_of(letter) for letter in letters]
    db.executemany(f"INSERT OR REPLACE INTO message ({COLUMNS}) VALUES ({_MARKS})", rows)  # noqa: S608 - constants


def fetch(db: sqlite3.Connection, key: int) -> Letter | None:
    """Read a message; None if it is not there, or no longer what it was."""
    row = db.execute(f"SELECT {COLUMNS} FROM message WHERE key = ?", (key,)).fetchone()  # noqa: S608 - constants
    return None if row is None else _letter_of(row)


def headers(db: sqlite3.Connection) -> list[Header]:
    """All messages, oldest first, without their payloads."""
    rows = db.execute(f"SELECT {_HEADER} FROM message ORDER BY key")  # noqa: S608 - constants
    return [_header_of(key, size_bytes, *rest) for key, size_bytes, *rest in rows]


def _header_of(key: int, size_bytes: int, late_topic: Any, expiry_s: Any, boot_id: Any, *clocks: Any) -> Header:
    """A row without its payload. Where it makes no sense, the check sum will tell when the message is read."""
    monotonic_s, wall_s, synced = clocks
    sane = isinstance(expiry_s, int | None) and math.isfinite(_seconds(monotonic_s) + _seconds(wall_s))
    if not sane:
        return Header(key, size_bytes, None, None, Stamp("", 0.0, 0.0, synced=False))
    return Header(key, size_bytes, late_topic, expiry_s, Stamp(boot_id, monotonic_s, wall_s, bool(synced)))


def _seconds(column: Any) -> float:
    return column if isinstance(column, float) else math.nan


def _row_of(letter: Letter) -> tuple[Any, ...]:
    outgoing, accepted = letter.outgoing, letter.accepted
    head = (
        *(outgoing.topic, outgoing.late_topic, outgoing.qos, int(outgoing.retained), outgoing.content_type),
        *(outgoing.schema, outgoing.expiry_s, outgoing.seq),
        *(accepted.boot_id, accepted.monotonic_s, accepted.wall_s, int(accepted.synced)),
    )
    return (letter.key, *head, _check_sum(head, outgoing.payload), outgoing.payload)


def _letter_of(row: tuple[Any, ...]) -> Letter | None:
    key, *head, check_sum, payload = row
    if not isinstance(payload, bytes) or _check_sum(tuple(head), payload) != check_sum:
        return None
    topic, late_topic, qos, retained, content_type, schema, expiry_s, seq, boot_id, mono_s, wall_s, synced = head
    outgoing = Outgoing(topic, payload, qos, bool(retained), content_type, schema, expiry_s, mono_s, late_topic, seq)
    return Letter(key, outgoing, Stamp(boot_id, mono_s, wall_s, bool(synced)))


def _check_sum(head: tuple[Any, ...], payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(repr(head).encode()))
