"""Reads and writes JSON files of the state folder.

A write is complete or has no effect. A read trusts no content: a bad card, another program or a person may have
changed it.
"""

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any, Final

_MOST_BYTES: Final = 16 << 20


def read_json(path: Path) -> Any:
    """Return the document in the file at `path`. All of its numbers are finite.

    Raises:
        OSError: it is absent, or cannot be read.
        ValueError: it is not JSON, too large, or nested too deeply.
    """
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        msg = f"larger than {_MOST_BYTES} bytes"
        raise ValueError(msg)
    return parse_json(content)


def parse_json(content: bytes) -> Any:
    """Return the document in `content`. All of its numbers are finite.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(content, parse_float=_finite, parse_constant=_finite)
    except RecursionError as error:
        msg = "nested too deeply"
        raise ValueError(msg) from error


def write_json(path: Path, document: object, *, mode: int = 0o600, indent: int | None = None) -> None:
    """Write `document` to `path`, folders included. A power cut leaves the old file or the new one.

    Raises:
        OSError: the disk is full, read-only or broken.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(path, json.dumps(document, indent=indent) + "\n", mode)


def write_whole(path: Path, text: str, mode: int) -> None:
    """Write `text` to `path`. A power cut leaves the old file or the new one. Others can never read a secret.

    Raises:
        OSError: there is no such folder, or the disk is full, read-only or broken.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        new.unlink(missing_ok=True)  # a crash may have left it, with another owner
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        new.replace(path)
        sync(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Make the content of a file, or the names in a folder, survive a power cut (fsync(2)).

    Raises:
        OSError: the disk is broken.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        msg = f"{text[:20]} is no number"
        raise ValueError(msg)
    return number
