"""Files that appear whole or not at all, and a cursor over a mapped file that never reads beyond its end."""

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
"""Model files are public: the service runs as another user than the one that pulled them."""


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that takes its place when the block ends well, and vanishes when not.

    Raises:
        ModelError: it cannot be written (no space left, no permission, no such folder).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), _MODE)
            os.fsync(file.fileno())
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        # A read-only file system refuses to remove even what is not there.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_error(path: Path, error: OSError) -> ModelError:
    """One line for a file that could not be written."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return ModelError(f"{path}: cannot be written by this user: check the owner of its folder, or use sudo")
    free_mb = shutil.disk_usage(nearest_folder(path.parent)).free // 10**6
    return ModelError(f"{path}: cannot be written ({error.strerror or error}; {free_mb} MB free there)")


def nearest_folder(folder: Path) -> Path:
    """`folder`, or the nearest above it that exists, and that this user may see."""
    here = folder.absolute()
    return next(path for path in (here, *here.parents) if os.path.isdir(path))  # noqa: PTH112 - never raises


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise read_error(path, error) from error


def read_error(path: object, error: OSError) -> ModelError:
    """One line for a file or folder that could not be read or looked into."""
    if error.errno not in (errno.EACCES, errno.EPERM):
        return ModelError(f"{path}: cannot be read ({error.strerror or error})")
    return ModelError(
        f"{path}: cannot be read by this user: check owner and mode, of its folders too, or use sudo; the service sees"
        " nothing below /home"
    )


@contextmanager
def looking() -> Iterator[None]:
    """Let what goes wrong while files are looked at be a ModelError; a decorator as well.

    `pathlib` itself makes False of a file that is absent, and raises for one that this user may not see.
    """
    try:
        yield
    except OSError as error:
        raise read_error(error.filename or "the models", error) from error


def mismatch(what: object, found: str, expected: str) -> ModelError:
    """One line for a digest that is not the expected one."""
    return ModelError(f"{what}: digest is {found[:12]}…, expected {expected[:12]}…; damaged or tampered with, not used")


@dataclass(slots=True)
class Reader:
    """Reads little-endian values one after the other; each read is checked against the size of the file."""

    data: NDArray[np.uint8]
    """The file, memory-mapped: pages are read as they are used."""
    source: str
    """Names the file in messages."""
    offset: int = 0
    """Bytes from the start of the file."""

    @property
    def remaining_bytes(self) -> int:
        """Bytes between the cursor and the end."""
        return len(self.data) - self.offset

    def skip(self, size_bytes: int) -> int:
        """Move on by `size_bytes` and return where the cursor was.

        Raises:
            ModelError: that is beyond the end, or backwards.
        """
        if not 0 <= size_bytes <= self.remaining_bytes:
            raise ModelError(f"{self.source}: cut short or damaged at byte {self.offset}; fetch it again")
        start, self.offset = self.offset, self.offset + size_bytes
        return start

    def take(self, size_bytes: int) -> bytes:
        """Return the next bytes.

        Raises:
            ModelError: the file ends before.
        """
        start = self.skip(size_bytes)
        return self.data[start : start + size_bytes].tobytes()

    def integers(self, layout: str) -> tuple[int, ...]:
        """Return what `struct` finds by `layout` (integers only), little-endian.

        Raises:
            ModelError: the file ends before.
        """
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}")))


def open_reader(path: Path) -> Reader:
    """Map `path` and put the cursor at its start.

    Raises:
        ModelError: it cannot be opened or is empty.
    """
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise read_error(path, error) from error
    except ValueError as error:
        raise ModelError(f"{path}: empty; fetch it again") from error
    return Reader(np.frombuffer(mapped, np.uint8), str(path))
