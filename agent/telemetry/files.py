"""Small files of /sys and /proc. What cannot be read, or is not what it should be, is None and never raises.

Not only files that are absent: sensors of sleeping blocks answer EAGAIN or EINVAL, and firmware answers with rubbish.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

_LONGEST: Final = 65_536


def text(path: Path) -> str | None:
    """The file's text without the white space and NUL bytes around it; None if it is empty as well."""
    try:
        with path.open("rb") as file:
            # The device tree ends its strings with a NUL byte.
            return file.read(_LONGEST).decode("ascii", errors="replace").strip("\0 \t\r\n") or None
    except (OSError, ValueError):  # ValueError: a NUL byte in a name that was read before
        return None


def number(path: Path) -> int | None:
    """The file's one whole number."""
    return whole(text(path))


def whole(word: str | None) -> int | None:
    """A decimal number."""
    try:
        return int(word) if word else None
    except ValueError:
        return None


def hexadecimal(word: str | None) -> int | None:
    """A hexadecimal number, with `0x` in front or without."""
    try:
        return int(word, 16) if word else None
    except ValueError:
        return None


def within(value: float | None, lowest: float, highest: float) -> float | None:
    """`value`, if it lies between what is possible."""
    return value if value is not None and lowest <= value <= highest else None


def named(folder: Path, pattern: str, name: str) -> Iterator[tuple[str, Path]]:
    """Folders that match `pattern`, in order, with what their file `name` says, in lower case."""
    try:
        found = sorted(folder.glob(pattern))
    except OSError:
        return
    for path in found:
        if label := text(path / name):
            yield label.lower(), path


def fields(path: Path) -> dict[str, list[str]]:
    """Lines such as `MemTotal:  3884360 kB` by their first word, without its colon; the last of a name counts."""
    lines = (line.split() for line in (text(path) or "").splitlines())
    return {words[0].rstrip(":"): words[1:] for words in lines if words}
