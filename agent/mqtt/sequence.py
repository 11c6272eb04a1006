"""The number of the next transcript: counted through restarts and power cuts, never used twice.

Three notes hold the next number (docs/decisions/0004-outbox.md):
- the outbox's database, exact if every message was committed before it left (`strict`);
- `sequence.json` in the state folder: exact after a clean stop, else a bound above every used number. It is written
  once in 64 numbers, so that a healthy link wears out no SD card;
- a file in memory (`$RUNTIME_DIRECTORY`), exact until the machine reboots: it outlives a crash of this process.
"""

import contextlib
import logging
import os
import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from agent.config.state_file import read_json, write_json

log = logging.getLogger(__name__)

BLOCK: Final = 64
"""Numbers reserved at a time; the longest gap that a power cut can leave in `balanced`."""
MAX_SEQ: Final = 1 << 53
_FILE: Final = "sequence.json"

Counter = Literal["database", "memory"]
"""The note that knows the next number exactly after a crash."""


@dataclass(frozen=True, slots=True)
class Note:
    """The content of `sequence.json`."""

    next_seq: int
    exact: bool
    """After a clean stop this is the next number; else no number from here on is used."""
    counter: Counter | None
    """The note that may know better; None if none does."""


def resume(note: Note | None, in_memory: int | None, stored: int | None) -> int:
    """Return the next number, from the next numbers of the three notes, as far as they can be read."""
    least = max(1, in_memory or 1, stored or 1)
    known = {"database": stored, "memory": in_memory, None: None}
    if note is None or (not note.exact and known[note.counter] is not None):
        return least
    return max(least, note.next_seq)


class Sequence:
    """Counts. A disk that cannot be written does not stop it: then a power cut may make it repeat numbers.

    They still differ in their `boot_id`.
    """

    def __init__(
        self, folder: Path, runtime_dir: Path | None, boot_id: str, *, stored_next: int | None, counter: Counter
    ) -> None:
        self._path = folder / _FILE
        self._boot_id = boot_id
        self._lock = threading.Lock()
        self._memory = _open_memory(runtime_dir, folder) if runtime_dir else None
        self._counter = None if counter == "memory" and self._memory is None else counter
        in_memory = self._read_memory()
        self.damaged = False
        """Whether `sequence.json` was damaged, and is begun anew."""
        note = None
        try:
            note = read_note(self._path)
        except ValueError as error:
            self.damaged = True
            log.warning(f"outbox: {self._path} is damaged ({error}); taking the next number from its other copies")
        self._next = resume(note, in_memory, stored_next)
        self._bound = self._next  # the first number reserves a block: a run without numbers changes no note
        self._noted = in_memory or 1

    @property
    def next_seq(self) -> int:
        """The number that `next` will give."""
        with self._lock:
            return self._next

    def next(self) -> int:
        """Give the next number, and note it in memory if that note counts."""
        with self._lock:
            seq = self._next
            if self._counter == "memory":
                self._note(seq)  # before the disk is told of a mere bound
            if seq >= self._bound:
                self._bound = seq + BLOCK
                self._write(self._bound, exact=False)
            self._next = seq + 1
            return seq

    def at_least(self, next_seq: int) -> None:
        """Go on from `next_seq` if that is higher: the disk could be read only now."""
        with self._lock:
            self._next = max(self._next, next_seq)

    def used(self, seq: int) -> None:
        """Note in memory that `seq` is used, though the database should know it, and does not."""
        with self._lock:
            self._note(seq)

    def renew(self) -> None:
        """Write the note in the folder again if it was deleted."""
        with self._lock:
            if not self._path.exists():
                self._write(self._bound, exact=self._bound == self._next)

    def close(self) -> None:
        """Note the exact next number."""
        with self._lock:
            self._write(self._next, exact=True)
            if self._memory is not None:
                os.close(self._memory)
                self._memory = None

    def _note(self, seq: int) -> None:
        if self._memory is not None and seq >= self._noted:
            self._noted = seq + 1
            with contextlib.suppress(OSError):
                os.pwrite(self._memory, f"{self._boot_id} {self._noted:20d}\n".encode(), 0)

    def _write(self, next_seq: int, *, exact: bool) -> None:
        try:
            write_json(self._path, {"next": next_seq, "exact": exact, "keeper": self._counter})
        except OSError as error:
            # A full disk must not stop the counting; the outbox reports the disk.
            log.debug(f"outbox: cannot write {self._path} ({error.strerror})")

    def _read_memory(self) -> int | None:
        if self._memory is None:
            return None
        boot_id, _, number = os.pread(self._memory, 256, 0).decode(errors="replace").partition(" ")
        if boot_id != self._boot_id or not number.strip().isdecimal():
            return None
        return next_seq if is_possible(next_seq := int(number)) else None


def read_note(path: Path) -> Note | None:
    """Read `sequence.json`; None if there is none, or it cannot be read.

    Raises:
        ValueError: it is not as it was written.
    """
    try:
        document = read_json(path)
    except OSError:
        return None
    match document:
        case {"next": int(next_seq), "exact": bool(exact), "keeper": None | "database" | "memory" as counter}:
            if is_possible(next_seq):
                return Note(next_seq, exact, counter)
    raise ValueError("no next number in it")


def is_possible(next_seq: object) -> bool:
    """Whether it can be a next number: readers of JSON keep whole numbers up to 2⁵³ (RFC 8259, 6)."""
    return type(next_seq) is int and 0 < next_seq <= MAX_SEQ


def _open_memory(runtime_dir: Path, state_folder: Path) -> int | None:
    # Agents with other state folders use other names.
    path = runtime_dir / f"edgescribe-sequence-{zlib.crc32(str(state_folder.absolute()).encode()):08x}"
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        log.debug(f"outbox: cannot open {path} ({error.strerror})")
        return None


def runtime_dir(environment: Mapping[str, str]) -> Path | None:
    """Return a folder in memory that outlives this process: `$RUNTIME_DIRECTORY` (systemd), else `$XDG_RUNTIME_DIR`.

    systemd removes the first one when the service stops, unless the unit says `RuntimeDirectoryPreserve=restart`.
    """
    folder = environment.get("RUNTIME_DIRECTORY", "").split(":")[0] or environment.get("XDG_RUNTIME_DIR")
    return Path(folder) if folder else None
