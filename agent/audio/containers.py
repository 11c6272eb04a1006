"""Finds the sound in a file. The length in a header is a hint: killed recorders write it wrong, or not at all.

A file may hold several recordings one behind the other (`cat a.mp3 b.mp3`, chained Ogg). Decoders stop at the end of
the first one, and at the length in its header. So this module finds each recording and corrects its header.

MPEG audio (MP2 and MP3) is walked frame by frame. No other way shows its length, and where it is damaged. libmpg123
believes the length in a Xing frame; without one, it estimates the length from the first frame. It stops where the
sampling rate or the number of channels changes, and writes about damage to standard error.

Formats: RIFF and RF64 (EBU Tech 3306), AIFF, Sony Wave64, Apple CAF, AU, FLAC (RFC 9639), Ogg (RFC 3533), ID3
(https://id3.org), APEv2, MPEG audio (ISO/IEC 11172-3 and 13818-3), Xing and Info frames
(http://gabriel.mp3-tech.org/mp3infotag.html).
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from struct import Struct
from typing import Final

_TAGS: Final = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3")
"""The first bytes of tags."""
_SCAN_BYTES: Final = 1 << 20
_OVERLAP_BYTES: Final = 64
"""No pattern is longer."""
_HEAD_BYTES: Final = 16 << 20
"""No header is longer."""
_PIECE_BYTES: Final = 0x7FFF_0000
"""The most sound behind one header: 32-bit lengths are safe up to here."""
_UNKNOWN_BYTES: Final = 0x7FFF_0000
"""Recorders write this or more for an unknown length: sox 0x7FFFF000, arecord 0x80000000, ffmpeg 0xFFFFFFFF."""
_U32, _U32_BE, _U64, _U64_BE = Struct("<I"), Struct(">I"), Struct("<Q"), Struct(">Q")

_OGG: Final = re.compile(rb"OggS\x00[\x02\x06]", re.DOTALL)
_OGG_PAGE: Final = re.compile(rb"OggS\x00", re.DOTALL)
_PAGE_BYTES: Final = 65_307
"""No page of Ogg is longer."""
_FLAC: Final = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22", re.DOTALL)
_STREAMINFO_BYTES: Final = 42
"""The marker, the header of the first block, and that block."""
_FLAC_FRAME: Final = re.compile(rb"\xff[\xf8\xf9][\x10-\xff]", re.DOTALL)
_CONTAINER: Final = re.compile(rb"(?:RIFF|RF64|BW64|RIFX|FORM)....(?:WAVE|AIFF|AIFC)", re.DOTALL)
_CHUNK: Final = re.compile(rb"[A-Za-z_][A-Za-z0-9_ ]{3}")


@dataclass(frozen=True, slots=True)
class Stream:
    """One of the recordings in a file: `head`, then the file's bytes from `start` to `end`."""

    head: bytes = b""
    start: int = 0
    end: int | None = None
    """None: to the end of the file."""
    announced: int | None = None
    """Expected samples of each channel; None if the decoder reads the number itself, or if it is unknown."""
    is_hint: bool = False
    """True if `announced` may be wrong in a sound file; it then counts only where there is damage."""
    shortage: str = ""
    """The missing part, if it is known without decoding; else empty."""
    endless: bool = False
    """True if the decoder must not estimate the length from the size."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a container is divided into chunks: name, size, data."""

    first: int
    """Position of the first chunk."""
    size: Struct
    """Format of the size of a chunk."""
    sound: bytes = b"data"
    """Name of the chunk with the sound."""
    skip: int = 0
    """Bytes in that chunk before the sound."""
    name_bytes: int = 4
    inclusive: int = 0
    """Bytes of name and size, if the size counts them too."""
    align: int = 2

    def chunk(self, fd: int, position: int) -> tuple[bytes, int, int]:
        """Return the first four letters of the name, the position of the data, and its length."""
        body = position + self.name_bytes + self.size.size
        header = os.pread(fd, body - position, position)
        return header[:4], body, max(0, self.size.unpack_from(header, self.name_bytes)[0] - self.inclusive)


_LAYOUTS: Final = {
    b"RIFF": _Layout(12, _U32),
    b"RF64": _Layout(12, _U32),
    b"BW64": _Layout(12, _U32),
    b"RIFX": _Layout(12, _U32_BE),
    b"FORM": _Layout(12, _U32_BE, b"SSND", skip=8),
    b"riff": _Layout(40, _U64, name_bytes=16, inclusive=24, align=8),
    b"caff": _Layout(8, _U64_BE, skip=4, align=1),
}


def streams(fd: int) -> Iterator[Stream]:
    """Yield the recordings in the file with the descriptor `fd`, in order.

    Raises:
        OSError: the file cannot be read.
    """
    start = _behind_id3(fd)
    magic = os.pread(fd, 4, start)
    if magic in _LAYOUTS:
        yield from _containers(fd, start)
    elif magic in {b".snd", b"dns."}:
        yield _au(fd, start, _U32_BE if magic == b".snd" else _U32)
    elif magic == b"OggS":
        yield from (_ogg(fd, first, end) for first, end in _parts(fd, start, _OGG, None))
    elif magic == b"fLaC":
        yield from (_flac(fd, first, end) for first, end in _parts(fd, start, _FLAC, _before_tags(fd)))
    elif magic[:1] == b"\xff" and magic[1:2] >= b"\xe2":
        yield from _mpeg_streams(fd, start, size_of(fd, _before_tags(fd)))
    else:
        yield Stream()


def behind_damage(fd: int, stream: Stream, position: int) -> Stream | None:
    """Return the rest of `stream` behind `position`, if its decoder stops at damage; None if there is no rest."""
    if not stream.head.startswith(b"fLaC"):
        return None
    start = next(_find(fd, _FLAC_FRAME, max(position, stream.start + 1), stream.end), None)
    only_streaminfo = stream.head[:4] + b"\x80" + stream.head[5:]
    return None if start is None else replace(stream, head=only_streaminfo, start=start)


def _parts(fd: int, start: int, pattern: re.Pattern[bytes], end: int | None) -> Iterator[tuple[int, int | None]]:
    """Divide the file from `start` to `end` where `pattern` is found."""
    starts = [start, *(position for position in _find(fd, pattern, start, end) if position > start)]
    return zip(starts, [*starts[1:], end], strict=True)


def _behind_id3(fd: int) -> int:
    """Return the position behind the ID3v2 tags at the start of the file."""
    position = 0
    while (tag := os.pread(fd, 10, position)).startswith(b"ID3") and tag[9:]:
        position += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
    return position


def _before_tags(fd: int) -> int | None:
    """Return the position of the ID3v1 and APEv2 tags at the end of the file; None if there are none."""
    size = end = os.fstat(fd).st_size
    if os.pread(fd, 3, max(0, end - 128)) == b"TAG":
        end -= 128
    footer = os.pread(fd, 32, max(0, end - 32))
    if footer.startswith(b"APETAGEX"):
        has_header = bool(footer[23] & 0x80)
        end -= _U32.unpack_from(footer, 12)[0] + 32 * has_header
    return max(0, end) if end < size else None


# One header, then the sound.


def _ogg(fd: int, start: int, end: int | None) -> Stream:
    """Check that the last page is complete."""
    tail = max(start, size_of(fd, end) - 2 * _PAGE_BYTES)
    page = max(_find(fd, _OGG_PAGE, tail, end), default=start)
    header = os.pread(fd, 27 + 255, page).ljust(27 + 255, b"\0")
    page_end = page + 27 + header[26] + sum(header[27 : 27 + header[26]])
    return Stream(start=start, end=end, shortage="it is cut off in a page" if page_end > size_of(fd, end) else "")


def _flac(fd: int, start: int, end: int | None) -> Stream:
    """Remove the number of samples from STREAMINFO: libFLAC then reads all frames."""
    head = bytearray(os.pread(fd, _STREAMINFO_BYTES, start))
    if len(head) < _STREAMINFO_BYTES:
        return Stream(start=start, end=end)
    announced = int.from_bytes(head[21:26], "big") & 0xF_FFFF_FFFF
    head[21:26] = bytes([head[21] & 0xF0, 0, 0, 0, 0])
    return Stream(bytes(head), start + len(head), end, announced or None, is_hint=True)


def _au(fd: int, start: int, number: Struct) -> Stream:
    """Set the length to unknown."""
    head = os.pread(fd, 12, start).ljust(12, b"\xff")
    first, length = number.unpack_from(head, 4)[0], number.unpack_from(head, 8)[0]
    return Stream(head[:8] + b"\xff" * 4, start + 12, shortage=_shortage(length, size_of(fd) - start - first))


# Containers with chunks.


def _containers(fd: int, start: int) -> Iterator[Stream]:
    """Yield the sound of the container at `start`, and of those behind it."""
    following: int | None = start
    while following is not None:
        start, layout = following, _LAYOUTS[os.pread(fd, 4, following)]
        sound = _sound(fd, start, layout)
        if sound is None:
            yield Stream(start=start)
            return
        first, length, block_bytes = sound
        end = first + length
        if not any(_is_end(fd, layout, end + padding) for padding in {0, -length % layout.align}):
            yield from _pieces(fd, start, layout, first, length, block_bytes or 1)
            return
        following = next(_find(fd, _CONTAINER, end), None)
        yield Stream(start=start, end=following)


def _sound(fd: int, start: int, layout: _Layout) -> tuple[int, int, int] | None:
    """Find the sound of the container at `start`.

    Returns the position of its first byte, the length in the header, and the bytes that belong together: a sample of
    each channel, or a block of coded samples (0 if unknown). None if there is no sound.
    """
    position, real_length, block_bytes = start + layout.first, None, 0
    while position < min(size_of(fd) - layout.name_bytes - layout.size.size, start + _HEAD_BYTES):
        name, body, length = layout.chunk(fd, position)
        if name == layout.sound:
            length = max(0, length - layout.skip) if real_length is None else real_length
            return body + layout.skip, length, block_bytes
        if name == b"ds64":
            real_length = _U64.unpack(os.pread(fd, 8, body + 8).ljust(8, b"\xff"))[0]
        if name == b"fmt ":
            block_bytes = int.from_bytes(os.pread(fd, 2, body + 12), "big" if layout.size is _U32_BE else "little")
        position = body + length + -length % layout.align
    return None


def _is_end(fd: int, layout: _Layout, position: int) -> bool:
    """Return whether the file ends at `position`, or has only chunks, a tag, or another container there."""
    size = size_of(fd)
    while position + layout.name_bytes + layout.size.size <= size:
        beginning = os.pread(fd, 12, position)
        if beginning.startswith(_TAGS) or _CONTAINER.match(beginning):
            return True
        name, body, length = layout.chunk(fd, position)
        if not _CHUNK.match(name):
            return False
        position = body + length + -length % layout.align
    return position <= size + layout.align


def _pieces(fd: int, start: int, layout: _Layout, first: int, length: int, block_bytes: int) -> Iterator[Stream]:
    """Yield the sound from `first` to the end of the file, which may still grow, with headers for its true length."""
    longest = (_PIECE_BYTES if layout.size.size == _U32.size else 1 << 62) // block_bytes * block_bytes
    head = bytearray(os.pread(fd, first - start, start).replace(b"ds64", b"JUNK", 1))
    if head.startswith((b"RF64", b"BW64")):
        head[:4] = b"RIFF"
    position, shortage = first, _shortage(length, size_of(fd) - first)
    while piece := min(longest, (size_of(fd) - position) // block_bytes * block_bytes):
        layout.size.pack_into(head, len(head) - layout.skip - layout.size.size, piece + layout.skip + layout.inclusive)
        yield Stream(bytes(head), position, position + piece, shortage=shortage)
        position += piece


def _shortage(announced_bytes: int, there_bytes: int) -> str:
    if there_bytes >= announced_bytes or announced_bytes >= _UNKNOWN_BYTES:
        return ""
    return f"its header announces {announced_bytes} bytes of sound, and {there_bytes} are there"


# MPEG audio.

_SYNC: Final = re.compile(rb"\xff[\xe2-\xff][\x10-\xef]", re.DOTALL)
_XING: Final = re.compile(rb"\xff[\xe2-\xff][\x10-\xef].(?:\x00{9}|\x00{17}|\x00{32})(?:Xing|Info)", re.DOTALL)
_RIGHT_BYTES: Final = 2_048
"""A Xing frame whose size differs by more has the length of another recording."""
_XING_FIELDS: Final = Struct(">III")
"""Flags, frames, bytes."""
_KBITS: Final = {
    "1.2": (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    "1.3": (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    "2.2": (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bit rates by version and layer, from the number 1 in a header on."""
_VERSIONS: Final = {3: ("1", 1), 2: ("2", 2), 0: ("2", 4)}
"""By the number in a header: the version, and the divisor of its sampling rates; the last is 2.5."""
_LAYERS: Final = {2: "2", 1: "3"}
_RATES_HZ: Final = (44_100, 48_000, 32_000)


@dataclass(frozen=True, slots=True)
class _Frame:
    """The content of a header."""

    size_bytes: int
    samples: int
    """Of each channel."""
    form: bytes
    """The part that is the same in all frames of a recording: version, layer, sampling rate, and mono or not."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Frames of one form, one behind the other."""

    start: int
    end: int
    frames: int
    samples: int
    """Of each channel, in all frames."""


def _mpeg_streams(fd: int, start: int, end: int) -> Iterator[Stream]:
    """Yield the recordings between `start` and `end`. Raises OSError."""
    runs = list(_runs(fd, start, end))
    if not runs:
        yield Stream(start=start)
    for run, following in zip(runs, [*runs[1:], None], strict=True):
        stream = _mpeg_stream(fd, run)
        damage = _damage(fd, run.end, following.start) if following else _damage(fd, run.end, end, may_pad=True)
        yield replace(stream, shortage="; ".join(filter(None, [damage, stream.shortage])))


def _runs(fd: int, start: int, end: int) -> Iterator[_Run]:
    position = start
    while (begin := _next_frame(fd, position, end)) is not None:
        position, frames, samples, form = begin, 0, 0, b""
        while frame := _frame_at(fd, position, end):
            if frames and (frame.form != form or _XING.match(os.pread(fd, 64, position))):
                break
            frames, samples, form = frames + 1, samples + frame.samples, frame.form
            position += frame.size_bytes
        yield _Run(begin, position, frames, samples)


def _next_frame(fd: int, start: int, end: int) -> int | None:
    """Return the position of the next frame that is followed by one of its form, or by the end."""
    for position in _find(fd, _SYNC, start, end):
        if frame := _frame_at(fd, position, end):
            behind = position + frame.size_bytes
            following = _frame_at(fd, behind, end)
            if behind == end or (following and following.form == frame.form):
                return position
    return None


def _frame_at(fd: int, position: int, end: int) -> _Frame | None:
    """Return the frame at `position`; None if there is none, or only a part of it."""
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


def _mpeg_stream(fd: int, run: _Run) -> Stream:
    """Return `run` for libmpg123. A Xing frame with another length is made unreadable."""
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
    """Describe bytes between frames that are no frame; empty for a tag, or for zeros that pad the end."""
    data = os.pread(fd, min(end - start, 1 << 20), start)
    if not data or data.startswith(_TAGS) or (may_pad and not any(data)):
        return ""
    return f"{end - start} bytes at byte {start} are damaged or cut off"


# Reading.


def size_of(fd: int, end: int | None = None) -> int:
    """Return `end`, or the size of the file."""
    return os.fstat(fd).st_size if end is None else end


def _find(fd: int, pattern: re.Pattern[bytes], start: int, end: int | None = None) -> Iterator[int]:
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
