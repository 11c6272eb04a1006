"""Decodes a file, a pipe or standard input: by libsndfile, or by PyAV for formats that libsndfile does not know."""

import os
import re
import shlex
import shutil
import stat
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
import soundfile

from agent.audio.containers import Stream, behind_damage, size_of, streams
from agent.audio.frames import SAMPLE_RATE_HZ, PcmFloat
from agent.errors import SourceError
from agent.install import extras

if TYPE_CHECKING:
    from av.container import InputContainer

SUPPORTED: Final = "WAV, FLAC, OGG and MP3 can be read"
STDIN: Final = Path("-")
RATES_HZ: Final = range(1_000, 768_001)
_BLOCK_S: Final = 0.5
"""Sound decoded at a time."""
_BLOCK_SAMPLES: Final = 1 << 22
"""The limit of a block for files with a thousand channels."""
_MOST_FAILURES: Final = 100
"""After so many failures in a row a decoder is abandoned."""
_TOLERANCE_S: Final = 0.25
"""So much may be missing at the ends of a sound recording: decoders have a delay."""
_ENDLESS_FACTOR: Final = 64
"""Bit rates of MPEG audio range from 8 to 448 kbit/s: no estimate of a length is further off."""
_TAG_BYTES: Final = 4_096
_LENIENT_PYAV: Final = 19
"""Major version from which PyAV opens files whose tags are not UTF-8 by default."""
_NO_LENGTH: Final = 1 << 62
"""libsndfile's number of samples if it does not know it; or more."""
_OTHER_FORMATS: Final = {
    name: re.compile(pattern, re.DOTALL)
    for name, pattern in {
        "MP4 (M4A)": rb"....ftyp",
        "WebM or Matroska": rb"\x1a\x45\xdf\xa3",
        "AAC": rb"\xff[\xf0\xf1\xf8\xf9]|ADIF",
        "WMA": rb"\x30\x26\xb2\x75",
        "AMR": rb"#!AMR",
        "AC-3": rb"\x0b\x77",
        "AVI": rb"RIFF....AVI ",
        "Ogg with Speex": rb"OggS.{20,60}Speex",
        "Ogg with FLAC": rb"OggS.{20,60}\x7fFLAC",
    }.items()
}


@dataclass(frozen=True, slots=True)
class Block:
    """Some of the sound, as it was decoded."""

    rate_hz: int
    samples: PcmFloat
    """Shape (n, channels); in [-1, 1], except if the file holds floating-point numbers."""
    from_float: bool
    """True if the file holds floating-point numbers, which may be of any size."""


class SoundFile:
    """A recording, from its first sample to its last one.

    `path` may be `-` for standard input. A pipe is first read to its end, into a temporary file.

    Raises:
        SourceError: no such file, a folder, a device, not audio, or empty.
    """

    def __init__(self, path: Path) -> None:
        self.name = "standard input" if path == STDIN else str(path)
        self.problems: list[str] = []
        """Why some of the sound was not read; complete after the last block."""
        try:
            self._file = _open(path)
        except OSError as error:
            raise SourceError(f"cannot read {self.name}: {str(error.strerror).lower()} ({SUPPORTED})") from error
        self._blocks = self._decode()
        try:
            self.first = self._begin()
            """The first block."""
        except BaseException:
            self.close()
            raise

    def preview(self) -> Iterator[Block]:
        """Yield the recording in advance; before `blocks`."""
        yield from self._decode()
        self.problems.clear()

    def blocks(self) -> Iterator[Block]:
        """Yield the recording; to be called once."""
        return chain([self.first], self._blocks)

    def close(self) -> None:
        """Close the file; idempotent, but not while a block is being read."""
        self._blocks.close()
        self._file.close()

    def _begin(self) -> Block:
        status = os.fstat(self._file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise SourceError(f"{self.name} is no file and no pipe: {SUPPORTED}")
        if not status.st_size:
            raise SourceError(f"{self.name} is empty: {SUPPORTED}")
        first = next(self._blocks, None)
        if first is None:
            raise SourceError(f"{self.name} holds no sound: {'; '.join(self.problems) or SUPPORTED}")
        return first

    def _decode(self) -> Generator[Block, None, None]:
        try:
            for number, stream in enumerate(streams(self._file.fileno())):
                try:
                    yield from self._stream(stream)
                except (soundfile.SoundFileError, SourceError) as error:
                    if number:
                        self.problems.append(f"what begins at byte {stream.start} cannot be read: {_reason(error)}")
                    elif isinstance(error, SourceError):
                        raise
                    else:
                        yield from self._with_pyav(_reason(error))
                        return
        except OSError as error:
            self.problems.append(f"it cannot be read to its end: {str(error.strerror).lower()}")

    def _stream(self, stream: Stream) -> Iterator[Block]:
        """Decode one recording of the file. Raises SoundFileError for an unknown format."""
        rate_hz, got, announced, damage = SAMPLE_RATE_HZ, 0, stream.announced, ""
        part: Stream | None = stream
        while part:
            window, failure = _Window(self._file.fileno(), part), ""
            try:
                with _ForwardOnly(window) as file:
                    rate_hz = self._checked_rate(file)
                    if not stream.endless and announced is None and file.frames < _NO_LENGTH:
                        announced = file.frames
                    for samples, problem in _reads(file):
                        failure = failure or problem
                        if len(samples):
                            got += len(samples)
                            yield Block(rate_hz, samples, file.subtype in {"FLOAT", "DOUBLE"})
            except soundfile.SoundFileError as error:
                if part is stream:
                    raise
                failure = _reason(error)
            if window.error:
                raise window.error
            damage = damage or failure
            part = behind_damage(self._file.fileno(), part, window.file_position) if failure else None
        if damage or not stream.is_hint:
            self.problems += filter(None, [stream.shortage or _problem(rate_hz, got, announced, damage)])

    def _checked_rate(self, file: soundfile.SoundFile) -> int:
        rate_hz = int(file.samplerate)
        if rate_hz not in RATES_HZ:
            limits = f"at {RATES_HZ[0]} to {RATES_HZ[-1]} Hz"
            raise SourceError(f"{self.name} has a sampling rate of {rate_hz} Hz: {SUPPORTED}, {limits}")
        return rate_hz

    def _with_pyav(self, complaint: str) -> Iterator[Block]:
        """Decode the file with FFmpeg's libraries; `complaint` is libsndfile's."""
        try:
            import av  # noqa: PLC0415 - an extra, and 40 MB
        except ImportError:
            raise SourceError(self._unknown(complaint)) from None
        rate_hz, got, damage = SAMPLE_RATE_HZ, 0, ""
        announced: int | None = None
        lenient = int(av.__version__.partition(".")[0]) >= _LENIENT_PYAV
        options: dict[str, Any] = {} if lenient else {"metadata_errors": "ignore"}
        try:
            with av.open(_Window(self._file.fileno(), Stream()), "r", **options) as container:
                announced = _announced(container)
                for block in _frames(container):
                    rate_hz, got = block.rate_hz, got + len(block.samples)
                    yield block
        except av.FFmpegError as error:
            if not got:
                raise SourceError(f"{self.name} is not a sound file, or damaged: {complaint} ({SUPPORTED})") from None
            damage = str(error.strerror).lower()
        self.problems += filter(None, [_problem(rate_hz, got, announced, damage)])

    def _unknown(self, complaint: str) -> str:
        """Return the remedy for a file that libsndfile does not know, without PyAV."""
        head = os.pread(self._file.fileno(), 128, 0)
        kind = next((name for name, pattern in _OTHER_FORMATS.items() if pattern.match(head)), None)
        if kind is None:
            return f"{self.name} is not a sound file, or damaged: {complaint} ({SUPPORTED})"
        return (
            f"{self.name} is {kind}: convert it (`ffmpeg -i {shlex.quote(self.name)} -ac 1 -ar 16000 sound.wav`), "
            f"or install PyAV ({extras.missing('faster-whisper')})"
        )


def _problem(rate_hz: int, got: int, announced: int | None, damage: str) -> str:
    """Return how much of a recording is missing; empty if it is whole.

    Args:
        rate_hz: Its sampling rate.
        got: Samples of each channel that were decoded.
        announced: Samples of each channel in its header; None if unknown.
        damage: Why a decoder failed; empty if it did not.
    """
    if announced is not None and got < announced:
        read_s, announced_s = got / rate_hz, announced / rate_hz
        if damage or read_s < announced_s - _TOLERANCE_S:
            return f"it is cut off or damaged: of {announced_s:.1f} s only {read_s:.1f} s can be read"
    return f"some of it cannot be read: {damage}" if damage and got != announced else ""


class _ForwardOnly(soundfile.SoundFile):  # type: ignore[misc]  # soundfile is not typed
    """A file that is read from start to end.

    After each read of a file that can seek, soundfile seeks to where it already is. In an MP3 that discards the data
    that a frame borrows from the one before (the bit reservoir): each block would begin with a hole.
    """

    def seekable(self) -> bool:
        return False


class _Window:
    """A stream as a file object for libsndfile and PyAV. C calls the methods, so they do not raise."""

    def __init__(self, fd: int, stream: Stream) -> None:
        self._fd = fd
        self._stream = stream
        self._position = 0
        length = len(stream.head) + max(0, size_of(fd, stream.end) - stream.start)
        self._length = length * _ENDLESS_FACTOR + (1 << 20) if stream.endless else length
        self.error: OSError | None = None
        """Why the file could not be read."""

    @property
    def file_position(self) -> int:
        """Position of the next bytes in the file."""
        return self._stream.start + max(0, self._position - len(self._stream.head))

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def read(self, count: int) -> bytes:
        data = self._stream.head[self._position : self._position + count]
        self._position += len(data)
        if len(data) < count:
            more = self._from_file(count - len(data))
            self._position += len(more)
            data += more
        return data

    def _from_file(self, count: int) -> bytes:
        start, end = self.file_position, self._stream.end
        if self._stream.endless and self._position >= self._length - _TAG_BYTES:
            return bytes(max(0, min(count, self._length - self._position)))  # libmpg123 looks for a tag there
        try:
            return os.pread(self._fd, count if end is None else max(0, min(count, end - start)), start)
        except OSError as error:
            self.error = error
            return b""


def _reads(file: soundfile.SoundFile) -> Iterator[tuple[PcmFloat, str]]:
    """Yield the next samples, shape (n, channels), and why they end early, or an empty text; to the end of the file."""
    length = max(1, min(int(file.samplerate * _BLOCK_S), _BLOCK_SAMPLES // file.channels))
    failures = 0
    while failures < _MOST_FAILURES:
        block: PcmFloat = np.full((length, file.channels), np.nan, np.float32)
        try:
            samples, failure = file.read(out=block), ""
        except soundfile.SoundFileError as error:
            # soundfile does not return the number of samples that were decoded before the failure.
            missing = np.isnan(block[:, 0])
            samples, failure = block[: int(np.argmax(missing)) if missing.any() else length], _reason(error)
        if not len(samples) and not failure:
            return
        failures = 0 if len(samples) else failures + 1
        yield samples, failure


def _frames(container: "InputContainer") -> Iterator[Block]:
    """Yield the sound of a container of PyAV; raises FFmpegError."""
    from av import AudioResampler  # noqa: PLC0415 - see above

    if not container.streams.audio:
        return
    stream = container.streams.audio[0]
    resampler, form = AudioResampler(format="flt"), ("", "", 0)
    for frame in container.decode(stream):
        if form != (form := (frame.format.name, frame.layout.name, frame.sample_rate)):
            resampler = AudioResampler(format="flt")
        for piece in resampler.resample(frame):
            samples = np.asarray(piece.to_ndarray(), np.float32).reshape(-1, len(piece.layout.channels))
            yield Block(piece.sample_rate, samples, from_float=stream.codec_context.name.startswith("pcm_f"))


def _announced(container: "InputContainer") -> int | None:
    """Return how many samples a container announces; FFmpeg estimates the length of others by their size."""
    stream = container.streams.audio[0] if container.streams.audio else None
    if stream and "mp4" in container.format.name and stream.duration and stream.time_base:
        return int(stream.duration * stream.time_base * stream.rate)
    if stream and "matroska" in container.format.name and container.duration and len(container.streams) == 1:
        return container.duration * stream.rate // 1_000_000
    return None


def _open(path: Path) -> BinaryIO:
    """Open a file; of a pipe, a copy of all its content."""
    file: BinaryIO = os.fdopen(os.dup(0), "rb", 0) if path == STDIN else path.open("rb", 0)
    mode = os.fstat(file.fileno()).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return file
    with file, tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(file, copy)
        copy.flush()
        return os.fdopen(os.dup(copy.fileno()), "rb", 0)


def _reason(error: Exception) -> str:
    """Return the complaint of libsndfile, without its prefix (which names a descriptor) and its full stop."""
    text = getattr(error, "error_string", str(error))
    return str(text).removeprefix("Error :").strip().rstrip(".").lower()
