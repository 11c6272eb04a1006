"""Digests that were computed once: a file that has not changed since is not read again before every start.

Changed means another inode, modification time or size. Who can write into the store can also forge this, and could as
well replace the program; the ledger guards against damage and against files that came from elsewhere.
"""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from agent.config.state_file import read_json
from agent.errors import ModelError
from agent.models.files import atomic_write, digest_of, read_error, write_error

_FILE = "verified.json"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class _Entry:
    inode: int
    mtime_ns: int
    size_bytes: int
    sha256: str


_ENTRY = TypeAdapter(_Entry)


class Ledger:
    """Remembers digests in `root`/verified.json, and which user's own files are trusted.

    A ledger that cannot be read counts as empty, one that cannot be written costs only time: the next start computes
    again.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / _FILE

    def digest(self, path: Path, *, fresh: bool = False) -> str:
        """SHA-256 of `path`: as remembered if it has not changed since, else (and if `fresh`) computed.

        Raises:
            ModelError: it cannot be read.
        """
        entries = self._read("verified")
        before = _stat(path)
        known = _entry(entries.get(str(path)))
        if not fresh and known and (known.inode, known.mtime_ns, known.size_bytes) == before:
            return known.sha256
        sha256 = digest_of(path)
        if _stat(path) != before:
            raise ModelError(f"{path}: changed while it was read; try again when nobody writes to it")
        with suppress(ModelError):  # a store that the service may only read is fine
            self._write("verified", str(path), asdict(_Entry(*before, sha256)))
        return sha256

    def trusted(self, path: Path) -> str | None:
        """The digest under which a user's own file was first used; None if it never was."""
        found = self._read("trusted").get(str(path))
        return found if isinstance(found, str) else None

    def trust(self, path: Path, sha256: str) -> None:
        """Remember that a user's own file is the one with this digest.

        Raises:
            ModelError: the ledger cannot be written.
        """
        self._write("trusted", str(path), sha256)

    def _read(self, part: str) -> dict[str, Any]:
        try:
            document = read_json(self._path)
        except (OSError, ValueError):
            return {}
        found = document.get(part) if isinstance(document, dict) and document.get("version") == _VERSION else None
        return found if isinstance(found, dict) else {}

    def _write(self, part: str, key: str, value: object) -> None:
        trusted = {name: found for name, found in self._read("trusted").items() if isinstance(found, str)}
        verified = {
            name: found
            for name, found in self._read("verified").items()
            if _entry(found) and os.path.exists(name)  # noqa: PTH110 - never raises
        }
        parts: dict[str, dict[str, Any]] = {"verified": verified, "trusted": trusted}
        parts[part][key] = value
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self._path, error) from error
        with atomic_write(self._path) as file:
            file.write(json.dumps({"version": _VERSION, **parts}, indent=1).encode())


def _stat(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise read_error(path, error) from error
    return status.st_ino, status.st_mtime_ns, status.st_size


def _entry(found: object) -> _Entry | None:
    try:
        return _ENTRY.validate_python(found)
    except ValidationError:
        return None
