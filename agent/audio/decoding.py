"""From a file, a pipe or standard input to samples: by libsndfile, or by PyAV where libsndfile cannot."""

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
from agent.audio.frames import PcmFloat
from agent.errors import SourceError
from agent.install import extras

if TYPE_CHECKING:
    from av.container import InputContainer

SUPPORTED: Final = "WAV, FLAC, OGG and MP3 can be read"
STDIN: Final = Path("-")
RATES_HZ: Final = range(1_000, 768_001)
_BLOCK_S: Final = 0.5
"""How much is decoded at a time."""
_BLOCK_SAMPLES: Final = 1 << 22
"""The same as a limit for files with a thousand channels."""
_MOST_FAILURES: Final = 100
"""So many failures in a row, and a decoder is given up."""
_TOLERANCE_S: Final = 0.25
"""So much is missing at the ends of a recording without a fault: decoders have a delay."""
_ENDLESS_FACTOR: Final = 64
"""Bit rates of MPEG audio range from 8 to 448 kbit/s: no estimate of a length is further off."""
_TAG_BYTES: Final = 4_096
_LENIENT_PYAV: Final = 19  # opens files whose tags are not UTF-8 without being asked to
_NO_LENGTH: Final = 1 << 62
"""libsndfile's number of samples where it does not know it; or more."""
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
    """Shape (n, channels); in [-1, 1], except where the file holds floating-point numbers."""
    from_float: bool
    """True if the file holds floating-point numbers."""


class SoundFile:
    """A recording, from its first sample to its last one.

    `path` may be `-` for standard input. A pipe is first read to its end, into a temporary file.

    Raises:
        SourceError: no such file, a folder, a device, not audio, or empty.
    """

    def __init__(self, path: Path) -> None:
        self.name = "standard input" if path == STDIN else str(path)
        self.problems: list[str] = []
        """Why some of the sound was not read; complete behind the last block."""
        try:
            self._file = _open(path)
        except OSError as error:
            raise SourceError(f"cannot read {self.name}: {str(error.strerror).lower()} ({SUPPORTED})") from error
        self._blocks = self._decode()
        try:
            self._first = self._begin()
        except BaseException:
            self.close()
            raise

    @property
    def channels(self) -> int:
        """How many channels the recording has."""
        return int(self._first.samples.shape[1])

    @property
    def from_float(self) -> bool:
        """Whether the file holds floating-point numbers, which may be of any size."""
        return self._first.from_float

    def preview(self) -> Iterator[Block]:
        """Yield the recording in advance; before `blocks`."""
        yield from self._decode()
        self.problems.clear()

    def blocks(self) -> Iterator[Block]:
        """Yield the recording; to be called once."""
        return chain([self._first], self._blocks)

    def close(self) -> None:
        """Let go of the file; idempotent, but not while a block is being read."""
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
        """Decode one recording of the file. Raises SoundFileError where libsndfile does not know what it is."""
        fd, progress = self._file.fileno(), _Progress()
        following: Stream | None = stream
        while following:
            window = _Window(fd, following)
            try:
                failure = yield from self._with_libsndfile(window, following, progress)
            except soundfile.SoundFileError as error:
                if following is stream:
                    raise
                failure = _reason(error)
            if window.error:
                raise window.error
            progress.damage = progress.damage or failure
            following = behind_damage(fd, following, window.file_position) if failure else None
        if progress.damage or not stream.is_hint:
            self.problems += filter(None, [stream.shortage or progress.problem])

    def _with_libsndfile(self, window: "_Window", stream: Stream, progress: "_Progress") -> Generator[Block, None, str]:
        """Yield what can be decoded; return why some of it could not, or an empty text."""
        first_failure, failures = "", 0
        with _ForwardOnly(window) as file:
            if file.samplerate not in RATES_HZ:
                limits = f"at {RATES_HZ[0]} to {RATES_HZ[-1]} Hz"
                raise SourceError(f"{self.name} has a sampling rate of {file.samplerate} Hz: {SUPPORTED}, {limits}")
            progress.rate_hz, progress.announced = file.samplerate, stream.announced
            if not stream.endless and stream.announced is None and file.frames < _NO_LENGTH:
                progress.announced = file.frames
            while failures < _MOST_FAILURES:
                samples, failure = _read(file)
                first_failure = first_failure or failure
                if not len(samples) and not failure:
                    break
                failures = 0 if len(samples) else failures + 1
                if len(samples):
                    progress.got += len(samples)
                    yield Block(file.samplerate, samples, file.subtype in {"FLOAT", "DOUBLE"})
        return first_failure

    def _with_pyav(self, complaint: str) -> Iterator[Block]:
        try:
            import av  # noqa: PLC0415 - an extra, and 40 MB
        except ImportError:
            raise SourceError(self._unknown(complaint)) from None
        progress = _Progress()
        try:
            yield from _by_pyav(_Window(self._file.fileno(), Stream()), progress)
        except av.FFmpegError as error:
            if not progress.got:
                raise SourceError(f"{self.name} is not a sound file, or damaged: {complaint} ({SUPPORTED})") from None
            progress.damage = str(error.strerror).lower()
        self.problems += filter(None, [progress.problem])

    def _unknown(self, complaint: str) -> str:
        """Say what to do with a file that libsndfile does not know, where there is no PyAV."""
        head = os.pread(self._file.fileno(), 128, 0)
        kind = next((name for name, pattern in _OTHER_FORMATS.items() if pattern.match(head)), None)
        if kind is None:
            return f"{self.name} is not a sound file, or damaged: {complaint} ({SUPPORTED})"
        return (
            f"{self.name} is {kind}: convert it (`ffmpeg -i {shlex.quote(self.name)} -ac 1 -ar 16000 sound.wav`), "
            f"or install PyAV ({extras.missing('faster-whisper')})"
        )


@dataclass(slots=True)
class _Progress:
    """How much of a recording was decoded."""

    rate_hz: int = 0
    announced: int | None = None
    """Samples of each channel that there should be; None if that is not known."""
    got: int = 0
    """Samples of each channel that were decoded."""
    damage: str = ""
    """Why a decoder stumbled."""

    @property
    def problem(self) -> str:
        """What is missing; empty if nothing is."""
        if self.announced is not None and self.got < self.announced:
            read_s, announced_s = self.got / self.rate_hz, self.announced / self.rate_hz
            if self.damage or read_s < announced_s - _TOLERANCE_S:
                return f"it is cut off or damaged: of {announced_s:.1f} s only {read_s:.1f} s can be read"
        damaged = self.damage and self.got != self.announced
        return f"some of it cannot be read: {self.damage}" if damaged else ""


class _ForwardOnly(soundfile.SoundFile):  # type: ignore[misc]  # soundfile is not typed
    """A file that is read from start to end.

    soundfile seeks to where it already is after every read of a file that can be sought. In an MP3 that throws away
    what a frame borrows from the one before (the bit reservoir): every block would begin with a hole.
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
        """Where in the file the next bytes are."""
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


def _read(file: soundfile.SoundFile) -> tuple[PcmFloat, str]:
    """Return the next block, shape (n, channels), and why it was not decoded to its end, or an empty text."""
    length = max(1, min(int(file.samplerate * _BLOCK_S), _BLOCK_SAMPLES // file.channels))
    block: PcmFloat = np.full((length, file.channels), np.nan, np.float32)
    try:
        return file.read(out=block), ""
    except soundfile.SoundFileError as error:
        # soundfile does not say how many samples were decoded before the failure.
        missing = np.isnan(block[:, 0])
        return block[: int(np.argmax(missing)) if missing.any() else length], _reason(error)


def _by_pyav(window: _Window, progress: _Progress) -> Iterator[Block]:
    """Decode a file with FFmpeg's libraries; raises FFmpegError."""
    import av  # noqa: PLC0415 - see above

    version = int(av.__version__.partition(".")[0])
    options: dict[str, Any] = {} if version >= _LENIENT_PYAV else {"metadata_errors": "ignore"}
    with av.open(window, "r", **options) as container:
        if not container.streams.audio:
            return
        stream = container.streams.audio[0]
        progress.announced = _announced(container)
        resampler, form = av.AudioResampler(format="flt"), ("", "", 0)
        for frame in container.decode(stream):
            if form != (form := (frame.format.name, frame.layout.name, frame.sample_rate)):
                resampler = av.AudioResampler(format="flt")
            for piece in resampler.resample(frame):
                samples = np.asarray(piece.to_ndarray(), np.float32).reshape(-1, len(piece.layout.channels))
                progress.rate_hz = piece.sample_rate
                progress.got += len(samples)
                yield Block(piece.sample_rate, samples, from_float=stream.codec_context.name.startswith("pcm_f"))


def _announced(container: "InputContainer") -> int | None:
    """Return how many samples a container announces; FFmpeg estimates the length of others by their size."""
    stream = container.streams.audio[0]
    if "mp4" in container.format.name and stream.duration and stream.time_base:
        return int(stream.duration * stream.time_base * stream.rate)
    if "matroska" in container.format.name and container.duration and len(container.streams) == 1:
        return container.duration * stream.rate // 1_000_000
    return None


def _open(path: Path) -> BinaryIO:
    """Open a file; of a pipe, a copy of all that comes out of it."""
    file: BinaryIO = os.fdopen(os.dup(0), "rb", 0) if path == STDIN else path.open("rb", 0)
    mode = os.fstat(file.fileno()).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return file
    with file, tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(file, copy)
        copy.flush()
        return os.fdopen(os.dup(copy.fileno()), "rb", 0)


def _reason(error: Exception) -> str:
    """Return what libsndfile complains of, without its prefix (which names a descriptor) and its full stop."""
    text = getattr(error, "error_string", str(error))
    return str(text).removeprefix("Error :").strip().rstrip(".").lower()
