"""MPEG audio (MP2 and MP3) frame by frame: the only way to know how long it is, and what in it is damaged.

libmpg123 believes the length in a Xing frame, and estimates one from the first frame where there is none. It stops
where the sampling rate or the number of channels changes, and writes about damage to standard error.

Formats: ISO/IEC 11172-3 and 13818-3; Xing and Info frames (http://gabriel.mp3-tech.org/mp3infotag.html).
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from struct import Struct
from typing import Final

from agent.audio.stream import TAGS, Stream, find

_SYNC: Final = re.compile(rb"\xff[\xe2-\xff][\x10-\xef]", re.DOTALL)
_XING: Final = re.compile(rb"\xff[\xe2-\xff][\x10-\xef].(?:\x00{9}|\x00{17}|\x00{32})(?:Xing|Info)", re.DOTALL)
_RIGHT_BYTES: Final = 2_048
"""A Xing frame that is further off tells the length of another recording."""
_XING_FIELDS: Final = Struct(">III")
"""Flags, frames, bytes."""
_KBITS: Final = {
    "1.2": (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    "1.3": (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    "2.2": (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bit rates by version and layer, from the number 1 in a header on."""
_VERSIONS: Final = {3: ("1", 1), 2: ("2", 2), 0: ("2", 4)}
"""By the number in a header: the version, and what divides its sampling rates; the last is 2.5."""
_LAYERS: Final = {2: "2", 1: "3"}
_RATES_HZ: Final = (44_100, 48_000, 32_000)


@dataclass(frozen=True, slots=True)
class _Frame:
    """What a header says."""

    size_bytes: int
    samples: int
    """Of each channel."""
    form: bytes
    """What a decoder needs to be the same in all frames: version, layer, sampling rate, and whether it is mono."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Frames of one form, one behind the other."""

    start: int
    end: int
    frames: int
    samples: int
    """Of each channel, in all frames."""


def mpeg_streams(fd: int, start: int, end: int) -> Iterator[Stream]:
    """Yield the recordings between `start` and `end`. Raises OSError."""
    runs = list(_runs(fd, start, end))
    if not runs:
        yield Stream(start=start)
        return
    for run, following in zip(runs, [*runs[1:], None], strict=True):
        stream = _stream(fd, run)
        damage = _damage(fd, run.end, following.start) if following else _damage(fd, run.end, end, may_pad=True)
        yield replace(stream, shortage="; ".join(filter(None, [damage, stream.shortage])))


def _runs(fd: int, start: int, end: int) -> Iterator[_Run]:
    position = start
    while (begin := _next_frame(fd, position, end)) is not None:
        position, frames, samples, form = begin, 0, 0, b""
        while (frame := _frame_at(fd, position, end)) and (not frames or _continues(fd, position, frame, form)):
            frames, samples, form = frames + 1, samples + frame.samples, frame.form
            position += frame.size_bytes
        yield _Run(begin, position, frames, samples)


def _continues(fd: int, position: int, frame: _Frame, form: bytes) -> bool:
    """Whether `frame` belongs to the frames before it, which have `form`."""
    return frame.form == form and not _XING.match(os.pread(fd, 64, position))


def _next_frame(fd: int, start: int, end: int) -> int | None:
    """Return the position of the next frame that is followed by one of its form, or by the end."""
    for position in find(fd, _SYNC, start, end):
        frame = _frame_at(fd, position, end)
        if frame:
            behind = position + frame.size_bytes
            following = _frame_at(fd, behind, end)
            if behind == end or (following and following.form == frame.form):
                return position
    return None


def _frame_at(fd: int, position: int, end: int) -> _Frame | None:
    """Return the frame at `position`; None where there is none, or not all of it."""
    header = os.pread(fd, 4, position).ljust(4, b"\0")
    version, divisor = _VERSIONS.get(header[1] >> 3 & 3, ("", 1))
    layer, bit_rate, rate = _LAYERS.get(header[1] >> 1 & 3), header[2] >> 4, header[2] >> 2 & 3
    if not (_SYNC.match(header) and version and layer and 0 < bit_rate < 15 and rate < 3):  # noqa: PLR2004 - reserved
        return None
    samples = 1_152 if version == "1" or layer == "2" else 576
    kbits = _KBITS["2.2" if version == "2" else f"1.{layer}"][bit_rate - 1]
    size_bytes = samples * kbits * 125 * divisor // _RATES_HZ[rate] + (header[2] >> 1 & 1)
    if position + size_bytes > end:
        return None
    return _Frame(size_bytes, samples, bytes((header[1] & 0xFE, header[2] & 0x0C, header[3] & 0xC0 == 0xC0)))  # noqa: PLR2004 - mono


def _stream(fd: int, run: _Run) -> Stream:
    """Return `run` for libmpg123. A Xing frame that does not tell its length is blotted out."""
    data = os.pread(fd, 128, run.start)
    xing = _XING.match(data)
    if not xing:
        return Stream(start=run.start, end=run.end, announced=run.samples, endless=True)
    flags, frames, size_bytes = _XING_FIELDS.unpack_from(data.ljust(128), xing.end())
    knows_frames, knows_bytes = flags & 1, flags & 2
    right_size = not knows_bytes or abs(size_bytes - (run.end - run.start)) < _RIGHT_BYTES
    if knows_frames and frames in {run.frames - 1, run.frames} and right_size:
        return Stream(start=run.start, end=run.end)
    is_short = knows_frames and frames > run.frames
    shortage = f"its header announces {frames} frames, and {run.frames} are there" if is_short else ""
    head = data[: xing.end() - 4] + bytes(4)
    return Stream(head, run.start + len(head), run.end, run.samples, shortage=shortage, endless=True)


def _damage(fd: int, start: int, end: int, *, may_pad: bool = False) -> str:
    """Say what between frames is no frame: nothing where it is a tag, or zeros that pad the end."""
    data = os.pread(fd, min(end - start, 1 << 20), start)
    if not data or data.startswith(TAGS) or (may_pad and not any(data)):
        return ""
    return f"{end - start} bytes at byte {start} are damaged or cut off"
