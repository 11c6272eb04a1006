"""A cursor over a mapped file that never reads beyond its end."""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.errors import ModelError
from agent.models.files import read_error


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
