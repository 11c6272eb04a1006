"""From what a sound card delivers to frames of 512 samples at 16 kHz: pure, fed with bytes and the time."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import soxr
from numpy.typing import NDArray

from agent.audio import FRAME_SAMPLES, SAMPLE_RATE_HZ, AudioFrame, Pcm16
from agent.errors import SourceError

NS_PER_S: Final = 1_000_000_000
SAMPLE_BYTES: Final = {"S16_LE": 2, "S24_3LE": 3, "S32_LE": 4}
"""ALSA's names of the sample formats that are understood, and how many bytes a sample takes."""

CLOCK_FOLLOWS: Final = 0.001
"""How far one late chunk moves our idea of the card's clock. Arrivals are late by the load of the machine, while
crystals differ by 100 ppm at most: a thousandth follows the latter to within 4 ms and hardly notices the former."""


@dataclass(frozen=True, slots=True)
class PcmFormat:
    """How a device delivers its samples."""

    rate_hz: int
    channels: int
    sample: str
    """A key of `SAMPLE_BYTES`."""

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return SAMPLE_BYTES[self.sample] * self.channels

    @property
    def bytes_per_s(self) -> int:
        """Bytes of one second of sound."""
        return self.frame_bytes * self.rate_hz


class Framer:
    """Takes the first channel, resamples it, and cuts it into `AudioFrame`s with positions and capture times.

    Positions count what was lost: after `overrun` the next chunk's arrival tells how much time is missing, and the
    position jumps by that. An incomplete frame before a gap is filled up with zeros.
    """

    def __init__(self, source: PcmFormat) -> None:
        self.lost_samples = 0
        """Samples (at 16 kHz) that were never delivered, as far as the clock tells."""
        self._source = source
        self._resampler = self._new_resampler()
        self._rest = np.zeros(0, np.int16)
        self._position = 0
        self._end_ns: int | None = None
        self._overrun = False

    def overrun(self) -> None:
        """Some sound was lost; what comes next does not continue what was before."""
        self._overrun = True

    def push(self, data: bytes, now_ns: int) -> list[AudioFrame]:
        """Return the frames that `data`, which arrived at `now_ns` by the monotonic clock, completes.

        Every chunk starts with a whole frame, as ALSA counts in frames: an odd tail is cut off, so that a lost byte
        never shifts all that follows (larsimmisch/pyalsaaudio#31).
        """
        whole = len(data) - len(data) % self._source.frame_bytes
        arrived = whole // self._source.frame_bytes
        frames = self._close_gap(arrived, now_ns) if self._overrun else []
        self._follow_clock(arrived, now_ns)
        pcm = first_channel(data[:whole], self._source)
        if self._resampler:
            pcm = self._resampler.resample_chunk(pcm)
        self._rest = np.concatenate([self._rest, pcm])
        while len(self._rest) >= FRAME_SAMPLES:
            frames.append(self._cut())
        return frames

    def _close_gap(self, arrived: int, now_ns: int) -> list[AudioFrame]:
        """Fill up the frame that was begun, and move the position on by what the clock says was lost."""
        self._overrun = False
        self._resampler = self._new_resampler()
        if self._end_ns is None:
            return []
        resumed_ns = now_ns - arrived * NS_PER_S // self._source.rate_hz
        lost = max(0, (resumed_ns - self._end_ns) * SAMPLE_RATE_HZ // NS_PER_S)
        self.lost_samples += lost
        self._end_ns = max(resumed_ns, self._end_ns)
        frames = []
        if len(self._rest):
            padding = FRAME_SAMPLES - len(self._rest)
            self._rest = np.pad(self._rest, (0, padding))
            frames.append(self._cut())
            lost = max(0, lost - padding)
        self._position += lost
        return frames

    def _follow_clock(self, arrived: int, now_ns: int) -> None:
        """Reckon when the last sample was captured: never later than now, and steadily rather than by arrivals."""
        if self._end_ns is None:
            self._end_ns = now_ns
            return
        reckoned_ns = self._end_ns + arrived * NS_PER_S // self._source.rate_hz
        self._end_ns = min(now_ns, reckoned_ns + int((now_ns - reckoned_ns) * CLOCK_FOLLOWS))

    def _cut(self) -> AudioFrame:
        pcm, self._rest = self._rest[:FRAME_SAMPLES], self._rest[FRAME_SAMPLES:]
        position, self._position = self._position, self._position + FRAME_SAMPLES
        return AudioFrame(pcm, position, (self._end_ns or 0) - len(self._rest) * NS_PER_S // SAMPLE_RATE_HZ)

    def _new_resampler(self) -> soxr.ResampleStream | None:
        if self._source.rate_hz == SAMPLE_RATE_HZ:
            return None
        return soxr.ResampleStream(self._source.rate_hz, SAMPLE_RATE_HZ, 1, dtype="int16")


def first_channel(data: bytes, source: PcmFormat) -> Pcm16:
    """The first channel of interleaved samples, as int16; of longer samples the upper 16 bits."""
    if source.sample == "S16_LE":
        # A copy: what is handed on must not hold on to the other channels.
        return np.frombuffer(data, "<i2").reshape(-1, source.channels)[:, 0].astype(np.int16)
    width = SAMPLE_BYTES[source.sample]
    octets: NDArray[np.uint8] = np.frombuffer(data, np.uint8).reshape(-1, source.channels, width)[:, 0, -2:]
    return np.ascontiguousarray(octets).view("<i2")[:, 0].astype(np.int16)


class RateGuard:
    """Notices a device that delivers more sound than there is time.

    A FIFO behind ALSA's `file` plug-in does so for ever once its writer has gone: it gives the same stale bytes again
    and again, as fast as they are read.
    """

    def __init__(self, allowed_surplus_s: float = 3.0, tolerated_rate: float = 1.2) -> None:
        self._allowed_surplus_s = allowed_surplus_s
        """More than a pipe (2 s) or a sound card (1 s) can have kept back for us."""
        self._tolerated_rate = tolerated_rate
        self._surplus_s = 0.0
        self._last_ns: int | None = None

    def check(self, delivered_s: float, now_ns: int) -> None:
        """Take note of `delivered_s` seconds of sound that arrived at `now_ns`.

        Raises:
            SourceError: too much for too long.
        """
        elapsed_s = (now_ns - self._last_ns) / NS_PER_S if self._last_ns is not None else 0.0
        self._last_ns = now_ns
        self._surplus_s = max(0.0, self._surplus_s + delivered_s - elapsed_s * self._tolerated_rate)
        if self._surplus_s > self._allowed_surplus_s:
            raise SourceError(
                "the device delivers sound much faster than real time, as a FIFO does when its writer has gone: "
                "start the writer again, or choose another device"
            )
