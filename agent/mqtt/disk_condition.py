"""What can be wrong with the disk, as seen by whoever has to store something."""

import errno
import os
from enum import StrEnum
from pathlib import Path
from typing import Final

from agent.errors import SinkError

_PROBE_BYTES: Final = 4_096


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
    """The disk does not do its duty for now."""

    def __init__(self, condition: Condition, reason: str) -> None:
        super().__init__(f"{condition}: {reason}")
        self.condition = condition
        self.reason = reason


def condition_of(error: OSError) -> Condition:
    """What an error of the file system means for us."""
    if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return Condition.READ_ONLY
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Condition.DISK_FULL
    return Condition.IO_ERROR


def probe(folder: Path) -> Condition:
    """Find out why writing fails by writing a little: SQLite calls a read-only remount an I/O error as well."""
    path = folder / "outbox.probe"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.write(handle, bytes(_PROBE_BYTES))
            os.fsync(handle)
        finally:
            os.close(handle)
            path.unlink()
    except OSError as error:
        return condition_of(error)
    return Condition.IO_ERROR
