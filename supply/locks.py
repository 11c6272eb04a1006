"""Reads lock files: pip's requirements with hashes, from `uv pip compile --generate-hashes --universal`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker
from packaging.utils import canonicalize_name

from supply.errors import SupplyError
from supply.target import Target


@dataclass(frozen=True, slots=True)
class Locked:
    """One release, and its accepted files."""

    name: str
    """Normalised."""
    version: str
    marker: str
    """The environments that need it (PEP 508); empty for all."""
    sha256: frozenset[str]
    """Of each file of the release, wheels and source."""

    def requirement(self) -> str:
        """Return the line of a requirements file, without its marker."""
        return " ".join([f"{self.name}=={self.version}", *(f"--hash=sha256:{one}" for one in sorted(self.sha256))])


def read_lock(path: Path) -> tuple[Locked, ...]:
    """Read a lock file.

    Raises:
        SupplyError: it does not exist, or has an entry without a version or a hash.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SupplyError(f"{path}: {error.strerror}: make it with `make lock`") from error
    return tuple(_entries(text, path))


def needed(locked: tuple[Locked, ...], target: Target) -> tuple[Locked, ...]:
    """Return the entries of a lock that the target needs."""
    environment = target.environment
    return tuple(one for one in locked if not one.marker or Marker(one.marker).evaluate(environment))


def _entries(text: str, path: Path) -> Iterator[Locked]:
    for line in text.replace("\\\n", " ").splitlines():
        words = line.split("#", 1)[0].strip()
        if not words:
            continue
        head, *hashes = words.split("--hash=sha256:")
        pinned = re.fullmatch(r"([\w.-]+)==([\w.+!-]+)\s*(?:;\s*(.*))?", head.strip())
        if pinned is None or not hashes:
            raise SupplyError(f"{path}: {head.strip()!r} has no version or no hash: make it anew with `make lock`")
        name, version, marker = pinned.groups()
        yield Locked(canonicalize_name(name), version, marker or "", frozenset(one.strip() for one in hashes))
