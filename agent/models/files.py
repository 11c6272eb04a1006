"""Files that appear whole or not at all."""

import errno
import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

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
