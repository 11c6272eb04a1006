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
"""Channels that have nothing to do with each other give a mix with the mean of their power over their number. A mix
with a tenth of that was cancelled."""
_MOST_CANCELLED: Final = 0.1
"""Share of the sound that may be cancelled."""
_MOST_CLIPPED: Final = 0.01
"""Share of the samples that may be beyond full scale without harm to the words. Above it, the sound is scaled down."""
_CLIPPED_WHEN_SCALED: Final = 0.001


class WavSource:
    """Reads a file in blocks, takes a channel or mixes all of them, resamples to 16 kHz and hands it on in frames.

    With `pace = "realtime"` a frame is delivered at the moment when its last sample would have been captured, reckoned
    from the first `read` without drift. Flat out nothing waits, and the frames and their capture times follow the same
    reckoning. There is silence before and behind the recording (`audio.frames_of`).

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
        # After a wait for several frames, the following ones are late, and are not waited for.
        wait_s = early_ns / NS_PER_S + (ready - 1) * FRAME_SAMPLES / SAMPLE_RATE_HZ if early_ns > 0 else 0.0
        if self.live and self._closed.wait(wait_s):
            return None
        return replace(frame, captured_ns=due_ns)

    def close(self) -> None:
        """Let go of the file; wakes a `read` that is waiting."""
        self._closed.set()
        with self._reading:
            self._recording.close()


class Recording:
    """A file as one channel of 16 kHz.

    Raises:
        SourceError: it cannot be read, or has no such channel.
    """

    def __init__(self, settings: WavSettings) -> None:
        self._file = SoundFile(settings.path)
        self._mixer = _Mixer(settings.channel, _full_scale(self._file))
        if (settings.channel or 1) > self._file.channels:
            self._file.close()
            raise SourceError(
                f"{self._file.name} has no channel {settings.channel}: choose one from 1 to {self._file.channels}"
            )

    def chunks(self) -> Iterator[Pcm16]:
        """Yield the sound in pieces of shape (n,); to be called once."""
        rate_hz, resampler = SAMPLE_RATE_HZ, None
        for block in self._file.blocks():
            if block.rate_hz != rate_hz:
                yield _converted(np.zeros(0, np.float32), resampler, last=True)
                rate_hz, resampler = block.rate_hz, _resampler(block.rate_hz)
            yield _converted(self._mixer.take(block), resampler)
        yield _converted(np.zeros(0, np.float32), resampler, last=True)

    def check(self) -> None:
        """Complain, behind the last chunk, if not all of the sound could be read as it was meant.

        Raises:
            SourceError: some of it is missing or spoilt.
        """
        if problems := [*self._file.problems, *self._mixer.problems()]:
            raise SourceError(f"{self._file.name}: {'; '.join(problems)}")
        if warning := self._mixer.warning:
            log.warning(f"{self._file.name}: {warning}")

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class _Mixer:
    """Takes one channel out of several, or the mean of all of them; and notes what that does to the sound."""

    def __init__(self, channel: int | None, full_scale: float) -> None:
        self._channel = channel
        self._full_scale = full_scale
        self._no_numbers = 0
        self._peak = 0.0
        """Of the samples that were stored as floating-point numbers."""
        self._audible_blocks = 0
        self._cancelled_blocks = 0
        self._power = np.zeros(1)
        """Of each channel."""

    def take(self, block: Block) -> PcmFloat:
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
            self._compare(samples, mix)
        return mix

    def _compare(self, samples: PcmFloat, mix: PcmFloat) -> None:
        power = np.einsum("ij,ij->j", samples, samples) / len(samples)
        self._power = self._power + power if len(power) == len(self._power) else power
        mean_power = float(power.mean())
        if mean_power > _AUDIBLE:
            self._audible_blocks += 1
            self._cancelled_blocks += float(np.dot(mix, mix)) / len(mix) < _CANCELLED * mean_power / len(power)

    def problems(self) -> list[str]:
        """What is wrong with the sound that was taken so far."""
        found = []
        if self._cancelled_blocks > _MOST_CANCELLED * self._audible_blocks:
            found.append(
                f"its {len(self._power)} channels cancel each other when they are mixed: choose one with "
                f"source.channel (or `transcribe --channel`), such as {int(self._power.argmax()) + 1}"
            )
        if self._no_numbers:
            found.append(f"{self._no_numbers} samples are no numbers (NaN or infinity) and count as silence")
        return found

    @property
    def warning(self) -> str:
        """What was done about samples beyond full scale; empty where there were none."""
        if self._peak <= 1.0:
            return ""
        remedy = f"they were divided by {self._full_scale:g}" if self._full_scale > 1.0 else "they were clipped"
        return f"its samples reach {self._peak:g}, and full scale is 1: {remedy}"


def _full_scale(file: SoundFile) -> float:
    """Return what to divide floating-point samples by, a power of 2, where too many for clipping are beyond 1."""
    if not file.from_float:
        return 1.0
    counts = np.zeros(129, np.int64)
    for block in file.preview():
        exponents = np.frexp(block.samples[np.isfinite(block.samples)])[1]
        counts += np.bincount(exponents.clip(0, 127), minlength=129)
    beyond = counts[::-1].cumsum()[::-1] / max(1, counts.sum())  # share of the samples from 2 ** (index - 1) on
    if beyond[1] <= _MOST_CLIPPED:
        return 1.0
    return float(2.0 ** (int(np.argmax(beyond <= _CLIPPED_WHEN_SCALED)) - 1))


def _converted(samples: PcmFloat, resampler: soxr.ResampleStream | None, *, last: bool = False) -> Pcm16:
    """Return int16 samples at 16 kHz: exact for what was 16-bit."""
    if resampler:
        samples = resampler.resample_chunk(samples, last=last)
    scaled: PcmFloat = np.rint(samples * np.float32(FULL_SCALE))
    return scaled.clip(-FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def _resampler(rate_hz: int) -> soxr.ResampleStream | None:
    return None if rate_hz == SAMPLE_RATE_HZ else soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
