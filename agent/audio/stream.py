"""A recording in a file, as a decoder is to see it."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

TAGS: Final = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3")
"""What a tag begins with."""
_SCAN_BYTES: Final = 1 << 20
_OVERLAP_BYTES: Final = 64
"""No pattern is longer."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One of the recordings in a file: `head`, then the file's bytes from `start` to `end`."""

    head: bytes = b""
    start: int = 0
    end: int | None = None
    """None: to the end of the file."""
    announced: int | None = None
    """Samples of each channel that there should be, where the decoder is not shown the number."""
    is_hint: bool = False
    """True if `announced` may be wrong without a fault, and tells only how much is missing where there is damage."""
    shortage: str = ""
    """What is missing, where that is known without decoding."""
    endless: bool = False
    """True if the decoder must not estimate the length from the size."""


def size_of(fd: int, end: int | None = None) -> int:
    """Return `end`, or the size of the file."""
    return os.fstat(fd).st_size if end is None else end


def find(fd: int, pattern: re.Pattern[bytes], start: int, end: int | None = None) -> Iterator[int]:
    """Yield the positions of `pattern` from `start` to `end`."""
    behind = start
    while data := os.pread(fd, _SCAN_BYTES + _OVERLAP_BYTES, start):
        for match in pattern.finditer(data):
            position = start + match.start()
            if end is not None and position >= end:
                return
            if position >= behind:
                behind = position + 1
                yield position
        start += _SCAN_BYTES
