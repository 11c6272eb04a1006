"""A recording as a source: paced like a microphone, or as fast as it can be read."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import numpy as np
import soxr

from agent.audio.decoding import Block, SoundFile
from agent.audio.frames import (
    FRAME_SAMPLES,
    FULL_SCALE,
    NS_PER_S,
    SAMPLE_RATE_HZ,
    AudioFrame,
    Pcm16,
    PcmFloat,
    frames_of,
)
from agent.config.settings import WavSettings
from agent.errors import SourceError

log = logging.getLogger(__name__)

_AUDIBLE: Final = 1e-6
"""Mean square of a block, -60 dB, below which channels are not compared."""
_CANCELLED: Final = 0.1
"""The mix of unrelated channels has the mean of their power over their number. With a tenth of that it is cancelled."""
_MOST_CANCELLED: Final = 0.1
"""Share of the sound that may be cancelled."""
_MOST_CLIPPED: Final = 0.01
"""Share of the samples that may be beyond full scale without harm to the words. Above it, the sound is scaled down."""
_CLIPPED_WHEN_SCALED: Final = 0.001


class WavSource:
    """Reads a file in blocks, takes a channel or mixes all of them, resamples to 16 kHz and cuts frames.

    With `pace = "realtime"`, `read` delivers a frame when its last sample would have been captured, counted from the
    first `read` without drift. With `flat_out` it never waits; frames and capture times are the same. There is silence
    before and after the recording (`audio.frames_of`).

    Raises (constructor, and `read` behind the last frame):
        SourceError: no such file, not audio, no such channel; or not all of the sound could be read.
    """

    def __init__(self, settings: WavSettings, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.live = settings.pace == "realtime"
        self._clock = clock
        self._recording = Recording(settings)
        self._frames = frames_of(self._recording.chunks())
        self._ended = False
        self._epoch_ns: int | None = None
        self._reading = threading.Lock()
        self._closed = threading.Event()

    def read(self, ready: int = 1) -> AudioFrame | None:
        """Wait for the next frame (see `Source.read`)."""
        if self._epoch_ns is None:
            self._epoch_ns = self._clock()
        with self._reading:
            if self._closed.is_set() or self._ended:
                return None
            frame = next(self._frames, None)
        if frame is None:
            self._ended = True
            self._recording.check()
            return None
        due_ns = self._epoch_ns + frame.captured_ns
        early_ns = due_ns - self._clock()
        # After a wait for several frames, the following ones are late, and `read` does not wait for them.
        wait_s = early_ns / NS_PER_S + (ready - 1) * FRAME_SAMPLES / SAMPLE_RATE_HZ if early_ns > 0 else 0.0
        if self.live and self._closed.wait(wait_s):
            return None
        return replace(frame, captured_ns=due_ns)

    def close(self) -> None:
        """Close the file; wakes a `read` that is waiting."""
        self._closed.set()
        with self._reading:
            self._recording.close()


class Recording:
    """A file as one channel of 16 kHz: one of its channels, or the mean of all of them.

    Raises:
        SourceError: it cannot be read, or has no such channel.
    """

    def __init__(self, settings: WavSettings) -> None:
        self._file = SoundFile(settings.path)
        self._channel = settings.channel
        channels = self._file.first.samples.shape[1]
        if (settings.channel or 1) > channels:
            self._file.close()
            raise SourceError(f"{self._file.name} has no channel {settings.channel}: choose one from 1 to {channels}")
        self._full_scale = _full_scale(self._file)
        self._peak = 0.0
        """Of the floating-point samples."""
        self._no_numbers = 0
        """Samples that are NaN or infinity."""
        self._audible_blocks = 0
        self._cancelled_blocks = 0
        self._power = np.zeros(1)
        """Of each channel."""

    def chunks(self) -> Iterator[Pcm16]:
        """Yield the sound in pieces of shape (n,); to be called once."""
        rate_hz = SAMPLE_RATE_HZ
        converter: soxr.ResampleStream | None = None
        for block in self._file.blocks():
            if block.rate_hz != rate_hz:
                yield _converted(np.zeros(0, np.float32), converter, last=True)
                rate_hz, same = block.rate_hz, block.rate_hz == SAMPLE_RATE_HZ
                converter = None if same else soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
            yield _converted(self._one_channel(block), converter)
        yield _converted(np.zeros(0, np.float32), converter, last=True)

    def check(self) -> None:
        """Report, after the last chunk, if some of the sound could not be read as it was meant.

        Raises:
            SourceError: some of it is missing or damaged.
        """
        problems = list(self._file.problems)
        if self._cancelled_blocks > _MOST_CANCELLED * self._audible_blocks:
            problems.append(
                f"its {len(self._power)} channels cancel each other when they are mixed: choose one with "
                f"source.channel (or `transcribe --channel`), such as {int(self._power.argmax()) + 1}"
            )
        if self._no_numbers:
            problems.append(f"{self._no_numbers} samples are no numbers (NaN or infinity) and count as silence")
        if problems:
            raise SourceError(f"{self._file.name}: {'; '.join(problems)}")
        if self._peak > 1.0:
            scaled = f"they were divided by {self._full_scale:g}" if self._full_scale > 1.0 else "they were clipped"
            log.warning(f"{self._file.name}: its samples reach {self._peak:g}, and full scale is 1: {scaled}")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _one_channel(self, block: Block) -> PcmFloat:
        """Return one channel, shape (n,), in [-1, 1]."""
        samples = block.samples
        if block.from_float:
            finite = np.isfinite(samples)
            self._no_numbers += int(samples.size - np.count_nonzero(finite))
            samples = np.where(finite, samples, np.float32(0.0))
            self._peak = max(self._peak, float(np.abs(samples).max()))
            samples = samples / np.float32(self._full_scale)
        samples = samples.clip(-1.0, 1.0)
        channels = samples.shape[1]
        if self._channel:
            return samples[:, min(self._channel, channels) - 1]
        mix: PcmFloat = samples.mean(axis=1, dtype=np.float32)
        if channels > 1:
            power = np.einsum("ij,ij->j", samples, samples) / len(samples)
            self._power = self._power + power if len(power) == len(self._power) else power
            mean_power = float(power.mean())
            if mean_power > _AUDIBLE:
                self._audible_blocks += 1
                self._cancelled_blocks += float(np.dot(mix, mix)) / len(mix) < _CANCELLED * mean_power / channels
        return mix


def _full_scale(file: SoundFile) -> float:
    """Return the divisor of floating-point samples, a power of 2: more than 1 if too many for clipping are beyond 1."""
    if not file.first.from_float:
        return 1.0
    counts = np.zeros(129, np.int64)
    for block in file.preview():
        exponents = np.frexp(block.samples[np.isfinite(block.samples)])[1]
        counts += np.bincount(exponents.clip(0, 127), minlength=129)
    beyond = counts[::-1].cumsum()[::-1] / max(1, counts.sum())  # share of the samples from 2 ** (index - 1) on
    if beyond[1] <= _MOST_CLIPPED:
        return 1.0
    return float(2.0 ** (int(np.argmax(beyond <= _CLIPPED_WHEN_SCALED)) - 1))


def _converted(samples: PcmFloat, converter: soxr.ResampleStream | None, *, last: bool = False) -> Pcm16:
    """Return int16 samples at 16 kHz: exact for 16-bit input."""
    if converter:
        samples = converter.resample_chunk(samples, last=last)
    scaled: PcmFloat = np.rint(samples * np.float32(FULL_SCALE))
    return scaled.clip(-FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
