"""Turns the bytes of a sound card into frames of 512 samples at 16 kHz. Pure: fed with bytes and the time."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import soxr
from numpy.typing import NDArray

from agent.audio.frames import FRAME_SAMPLES, NS_PER_S, SAMPLE_RATE_HZ, AudioFrame, Pcm16
from agent.errors import DeviceEndless

SAMPLE_BYTES: Final = {"U8": 1, "S16_LE": 2, "S24_3LE": 3, "S24_LE": 4, "S32_LE": 4}
"""The supported sample formats, by ALSA's names, and the bytes of a sample."""
CLOCK_FOLLOWS: Final = 0.001
"""Share of a chunk's lateness by which the estimate of the card's clock moves. A busy machine delays arrivals, while
crystals differ by 100 ppm at most: a thousandth follows the crystal to within 4 ms, and averages the delays out."""
MOST_SURPLUS_S: Final = 3.0
"""More than the backlog of a pipe (2 s) or a sound card (1 s)."""
TOLERATED_RATE: Final = 1.2
BURST_S: Final = 0.5
BURST_ENDS_NS: Final = 3 * NS_PER_S // 10
"""A device delivers its backlog in much less time; an endless device is noticed by then."""
MOST_FOLLOWED_NS: Final = NS_PER_S // 5
LOST_NS: Final = NS_PER_S // 2
LOST_AFTER_NS: Final = 2 * NS_PER_S
"""If each chunk of two seconds is more than half a second late, sound was lost without an overrun, as a sound server or
a USB hub loses it. A device that is late only for want of CPU time catches up sooner."""
_NEVER: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class PcmFormat:
    """The form in which a device delivers samples."""

    rate_hz: int
    channels: int
    sample: str
    """A key of `SAMPLE_BYTES`."""

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of each channel."""
        return SAMPLE_BYTES[self.sample] * self.channels

    @property
    def bytes_per_s(self) -> int:
        """Bytes of one second of sound."""
        return self.frame_bytes * self.rate_hz


class Framer:
    """Takes the n-th channel, resamples it, and cuts it into `AudioFrame`s with positions and capture times.

    Positions count lost sound too: after `overrun`, the arrival of the next chunk shows how much time is missing, and
    the position jumps by that. An incomplete frame before a gap is filled with zeros.
    """

    def __init__(self, source: PcmFormat, channel: int = 1) -> None:
        self._source = source
        self._channel = channel
        self._resampler = self._new_resampler()
        self._rest = np.zeros(0, np.int16)
        self._position = 0
        self._end_ns: int | None = None
        self._overrun = False
        self._least_late_ns = _NEVER
        self._watched_ns = 0

    def overrun(self) -> None:
        """Note that sound was lost: the next chunk does not continue the one before."""
        self._overrun = True

    def push(self, data: bytes, now_ns: int) -> list[AudioFrame]:
        """Return the frames that `data`, which arrived at `now_ns` by the monotonic clock, completes.

        Each chunk starts with a whole frame, as ALSA counts in frames. An odd tail is cut off, so a lost byte never
        shifts the following samples (larsimmisch/pyalsaaudio#31).
        """
        whole = len(data) - len(data) % self._source.frame_bytes
        duration_ns = whole // self._source.frame_bytes * NS_PER_S // self._source.rate_hz
        frames = self._close_gap(duration_ns, now_ns) if self._overrun or self._lost(duration_ns, now_ns) else []
        self._follow_clock(duration_ns, now_ns)
        pcm = one_channel(data[:whole], self._source, self._channel)
        if self._resampler:
            pcm = self._resampler.resample_chunk(pcm)
        self._rest = np.concatenate([self._rest, pcm])
        while len(self._rest) >= FRAME_SAMPLES:
            frames.append(self._cut())
        return frames

    def _lost(self, duration_ns: int, now_ns: int) -> bool:
        """Return whether sound is missing although the device reported no overrun."""
        if self._end_ns is None:
            return False
        self._least_late_ns = min(self._least_late_ns, now_ns - self._end_ns - duration_ns)
        self._watched_ns += duration_ns
        if self._watched_ns < LOST_AFTER_NS:
            return False
        lost = self._least_late_ns > LOST_NS
        self._least_late_ns, self._watched_ns = _NEVER, 0
        return lost

    def _close_gap(self, duration_ns: int, now_ns: int) -> list[AudioFrame]:
        """Complete the frame that was begun, and move the position on by the loss that the clock shows."""
        self._overrun = False
        self._resampler = self._new_resampler()
        if self._end_ns is None:
            return []
        resumed_ns = now_ns - duration_ns
        lost = max(0, (resumed_ns - self._end_ns) * SAMPLE_RATE_HZ // NS_PER_S)
        self._end_ns = max(resumed_ns, self._end_ns)
        frames = []
        if len(self._rest):
            padding = FRAME_SAMPLES - len(self._rest)
            self._rest = np.pad(self._rest, (0, padding))
            frames.append(self._cut())
            lost = max(0, lost - padding)
        self._position += lost
        return frames

    def _follow_clock(self, duration_ns: int, now_ns: int) -> None:
        """Estimate when the last sample was captured: never later than now, and steadily, not by arrivals."""
        if self._end_ns is None:
            self._end_ns = now_ns
            return
        estimated_ns = self._end_ns + duration_ns
        late_ns = min(now_ns - estimated_ns, MOST_FOLLOWED_NS)
        self._end_ns = min(now_ns, estimated_ns + int(late_ns * CLOCK_FOLLOWS))

    def _cut(self) -> AudioFrame:
        pcm, self._rest = self._rest[:FRAME_SAMPLES], self._rest[FRAME_SAMPLES:]
        position, self._position = self._position, self._position + FRAME_SAMPLES
        return AudioFrame(pcm, position, (self._end_ns or 0) - len(self._rest) * NS_PER_S // SAMPLE_RATE_HZ)

    def _new_resampler(self) -> soxr.ResampleStream | None:
        if self._source.rate_hz == SAMPLE_RATE_HZ:
            return None
        return soxr.ResampleStream(self._source.rate_hz, SAMPLE_RATE_HZ, 1, dtype="int16")


def one_channel(data: bytes, source: PcmFormat, channel: int = 1) -> Pcm16:
    """Return the n-th channel of interleaved samples, shape (n,), int16; of longer samples the upper 16 bits."""
    if source.sample == "S16_LE":
        # A copy: a view would keep the other channels in memory.
        return np.frombuffer(data, "<i2").reshape(-1, source.channels)[:, channel - 1].astype(np.int16)
    if source.sample == "U8":
        unsigned = np.frombuffer(data, np.uint8).reshape(-1, source.channels)[:, channel - 1]
        return (unsigned.astype(np.int16) - 128) << 8
    width = SAMPLE_BYTES[source.sample]
    upper = slice(1, 3) if source.sample == "S24_LE" else slice(width - 2, width)
    octets: NDArray[np.uint8] = np.frombuffer(data, np.uint8).reshape(-1, source.channels, width)[:, channel - 1, upper]
    return np.ascontiguousarray(octets).view("<i2")[:, 0].astype(np.int16)


class RateGuard:
    """Notices a device that delivers sound faster than real time.

    A FIFO behind ALSA's `file` plug-in does so after its writer has gone: it repeats the same stale bytes, as fast as
    they are read.
    """

    def __init__(self) -> None:
        self._surplus_s = 0.0
        self._last_ns: int | None = None
        self._burst_ns: int | None = None

    def check(self, delivered_s: float, now_ns: int) -> None:
        """Count `delivered_s` seconds of sound that arrived at `now_ns`.

        Raises:
            DeviceEndless: too much for too long.
        """
        elapsed_s = (now_ns - self._last_ns) / NS_PER_S if self._last_ns is not None else 0.0
        self._last_ns = now_ns
        self._surplus_s = max(0.0, self._surplus_s + delivered_s - elapsed_s * TOLERATED_RATE)
        if self._surplus_s <= BURST_S:
            self._burst_ns = None
        elif self._burst_ns is None:
            self._burst_ns = now_ns
        if self._surplus_s > MOST_SURPLUS_S:
            raise DeviceEndless(
                "the microphone delivers sound much faster than real time, as a FIFO does when its writer has gone: "
                "start the writer again, or choose another device"
            )

    def suspicious(self, now_ns: int) -> bool:
        """Return whether a burst has begun that may turn out to be endless: its sound should not be used yet."""
        return self._burst_ns is not None and now_ns - self._burst_ns < BURST_ENDS_NS
