"""Atomic writes, digests, one-line errors, and a reader that never reads beyond the end of a mapped file."""

import errno
import hashlib
import mmap
import os
import shutil
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from agent.config.state_file import sync
from agent.errors import ModelError

_MODE = 0o644
"""Everyone may read a model: the service runs as another user than the one that pulled it."""


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; it replaces `path` if the block succeeds, and is deleted if it fails.

    Raises:
        ModelError: it cannot be written (no space left, no permission, no such folder).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with writing(path):
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fchmod(file.fileno(), _MODE)
                os.fsync(file.fileno())
            temporary.replace(path)
            sync(path.parent)
    finally:
        # A read-only file system refuses to delete even a file that does not exist.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn each OSError of the block into a ModelError about `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise ModelError(
                f"{path}: cannot be written by this user: check the owner of its folder, or use sudo"
            ) from error
        free_mb = shutil.disk_usage(nearest_folder(path.parent)).free // 10**6
        raise ModelError(f"{path}: cannot be written ({error.strerror or error}; {free_mb} MB free there)") from error


def nearest_folder(folder: Path) -> Path:
    """Return `folder`, or the nearest folder above it that exists and that this user may see."""
    here = folder.absolute()
    return next(path for path in (here, *here.parents) if os.path.isdir(path))  # noqa: PTH112 - never raises


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        ModelError: it cannot be read.
    """
    with looking(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def looking(path: object = None) -> Iterator[None]:
    """Turn each OSError of the block into a ModelError; usable as a decorator too.

    `pathlib` returns False for an absent file, but raises for a file that this user may not see.

    Args:
        path: The file for the message, if the error does not name one.
    """
    try:
        yield
    except OSError as error:
        place = error.filename or path or "the models"
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise ModelError(f"{place}: cannot be read ({error.strerror or error})") from error
        raise ModelError(
            f"{place}: cannot be read by this user: check owner and mode, of its folders too, or use sudo; the service"
            " cannot read below /home"
        ) from error


def mismatch(subject: object, found: str, expected: str) -> ModelError:
    """Return the one-line error for a wrong digest of `subject`."""
    return ModelError(
        f"{subject}: digest is {found[:12]}…, expected {expected[:12]}…; damaged or tampered with, not used"
    )


@dataclass(slots=True)
class Reader:
    """Reads little-endian values one after the other, and checks each read against the size of the file."""

    data: NDArray[np.uint8]
    """The file, memory-mapped: only the pages in use are in memory."""
    source: str
    """The file's name, for messages."""
    offset: int = 0
    """Bytes from the start of the file."""

    @property
    def remaining_bytes(self) -> int:
        """Bytes between the cursor and the end."""
        return len(self.data) - self.offset

    def view(self, size_bytes: int) -> NDArray[np.uint8]:
        """Return the next bytes without a copy, shape (size_bytes,), and move on.

        Raises:
            ModelError: the file ends before.
        """
        if not 0 <= size_bytes <= self.remaining_bytes:
            raise ModelError(f"{self.source}: cut short or damaged at byte {self.offset}; fetch it again")
        start, self.offset = self.offset, self.offset + size_bytes
        return self.data[start : self.offset]

    def take(self, size_bytes: int) -> bytes:
        """Return a copy of the next bytes, and move on.

        Raises:
            ModelError: the file ends before.
        """
        return self.view(size_bytes).tobytes()

    def integers(self, layout: str) -> tuple[int, ...]:
        """Return the next integers, in a layout of `struct`.

        Raises:
            ModelError: the file ends before.
        """
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}")))


def open_reader(path: Path) -> Reader:
    """Map `path` into memory, with the cursor at its start.

    Raises:
        ModelError: it cannot be opened, or is empty.
    """
    try:
        with looking(path), path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise ModelError(f"{path}: empty; fetch it again") from error
    return Reader(np.frombuffer(mapped, np.uint8), str(path))
