"""A recording as a source: WAV, FLAC, OGG or MP3, paced like a microphone or flat out."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr

from agent.audio import FRAME_SAMPLES, FULL_SCALE, SAMPLE_RATE_HZ, AudioFrame, Pcm16, PcmFloat
from agent.config import WavSettings
from agent.errors import SourceError

SUPPORTED = "WAV, FLAC, OGG and MP3 can be read"
RATES_HZ = range(1_000, 768_001)
BLOCK_S = 0.5
"""How much is decoded at a time."""


class _ForwardOnly(soundfile.SoundFile):  # type: ignore[misc]  # soundfile is not typed
    """A file that is read from start to end.

    soundfile seeks to where it already is after every read of a file that can be sought. In an MP3 that throws away
    what a frame borrows from the one before (the bit reservoir): every block would begin with a hole.
    """

    def seekable(self) -> bool:
        return False


class WavSource:
    """Reads a file in blocks, mixes it down to mono, resamples it to 16 kHz and hands it on in frames.

    With `pace = "realtime"` a frame is delivered at the moment when its last sample would have been captured, reckoned
    from the first `read` without drift. Flat out nothing waits, and the frames and their capture times follow the same
    reckoning.

    Raises (constructor and `read`):
        SourceError: no such file, a folder, not audio, empty, or damaged.
    """

    def __init__(self, settings: WavSettings, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.live = settings.pace == "realtime"
        self._path = settings.path
        self._clock = clock
        self._file = _open(settings.path)
        self._resampler = _resampler(self._file.samplerate)
        self._block_frames = max(1, int(self._file.samplerate * BLOCK_S))
        self._ready: deque[Pcm16] = deque()
        self._rest = np.zeros(0, np.int16)
        self._ended = False
        self._position = 0
        self._epoch_ns: int | None = None
        self._reading = threading.Lock()
        self._closed = threading.Event()

    @property
    def duration_s(self) -> float:
        """Length of the recording in seconds, as its header tells."""
        return float(self._file.frames / self._file.samplerate)

    def read(self) -> AudioFrame | None:
        """Wait for the next frame (see `Source.read`)."""
        if self._epoch_ns is None:
            self._epoch_ns = self._clock()
        with self._reading:
            while not (self._ready or self._ended or self._closed.is_set()):
                self._decode()
            if self._closed.is_set() or not self._ready:
                return None
            pcm = self._ready.popleft()
        position, self._position = self._position, self._position + FRAME_SAMPLES
        due_ns = self._epoch_ns + self._position * 1_000_000_000 // SAMPLE_RATE_HZ
        if self.live and self._closed.wait(max(0, due_ns - self._clock()) / 1e9):
            return None
        return AudioFrame(pcm, position, due_ns)

    def close(self) -> None:
        """Let go of the file; wakes a `read` that is waiting."""
        self._closed.set()
        with self._reading:
            self._file.close()

    def _decode(self) -> None:
        """Take in another block; at the end of the file pad the last frame with zeros."""
        try:
            block: PcmFloat = self._file.read(self._block_frames, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise SourceError(f"{self._path} is damaged: {_reason(error)}") from error
        self._ended = not len(block)
        mono = np.nan_to_num(block.mean(axis=1, dtype=np.float32))
        if self._resampler:
            mono = self._resampler.resample_chunk(mono, last=self._ended)
        pcm = np.concatenate([self._rest, _to_pcm16(mono)])
        if self._ended:
            pcm = np.pad(pcm, (0, -len(pcm) % FRAME_SAMPLES))
        whole = len(pcm) - len(pcm) % FRAME_SAMPLES
        self._ready.extend(pcm[:whole].reshape(-1, FRAME_SAMPLES))
        self._rest = pcm[whole:]


def _to_pcm16(samples: PcmFloat) -> Pcm16:
    """From float32 in [-1, 1] to int16: exact for what was 16-bit, clipped beyond full scale."""
    scaled: PcmFloat = np.rint(samples * np.float32(FULL_SCALE))
    return scaled.clip(-FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def _resampler(rate_hz: int) -> soxr.ResampleStream | None:
    return None if rate_hz == SAMPLE_RATE_HZ else soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")


def _open(path: Path) -> soundfile.SoundFile:
    """Open a sound file, or say in one line why it cannot be read."""
    try:
        with path.open("rb") as raw:
            if not path.stat().st_size:
                raise SourceError(f"{path} is empty: {SUPPORTED}")
            # By descriptor: then the contents decide what it is, and not the name.
            file = _ForwardOnly(os.dup(raw.fileno()), closefd=True)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {str(error.strerror).lower()} ({SUPPORTED})") from error
    except soundfile.SoundFileError as error:
        raise SourceError(f"{path} is not a sound file, or damaged: {_reason(error)} ({SUPPORTED})") from error
    if not file.frames or file.samplerate not in RATES_HZ:
        what = f"has a sampling rate of {file.samplerate} Hz" if file.frames else "holds no sound"
        file.close()
        raise SourceError(f"{path} {what}: {SUPPORTED}, at {RATES_HZ[0]} to {RATES_HZ[-1]} Hz")
    return file


def _reason(error: soundfile.SoundFileError) -> str:
    """What libsndfile complains of, without its prefix (which names a descriptor) and its full stop."""
    text = getattr(error, "error_string", str(error))
    return text.removeprefix("Error :").strip().rstrip(".").lower()
