"""A microphone as a source, through libasound."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from agent.audio import SAMPLE_RATE_HZ, AudioFrame
from agent.channel import Channel
from agent.config import AlsaSettings
from agent.errors import DeviceUnavailable
from agent.sources.alsa_pcm import AlsaPcm, Chunk
from agent.sources.framer import Framer, PcmFormat, RateGuard
from agent.worker import Worker

STALL_S = 5.0
POLL_S = 0.2
BACKLOG_FRAMES = 128
"""Four seconds: more than a capture thread that does nothing but read and put will ever let pile up."""


class Pcm(Protocol):
    """An open device, see `alsa_pcm.AlsaPcm`. Used by one thread only."""

    format: PcmFormat

    def read(self, timeout_s: float) -> Chunk:
        """Return what was captured; empty if nothing came within `timeout_s`."""

    def close(self) -> None:
        """Release the device."""


class AlsaSource:
    """Reads a microphone in a thread of its own and hands out frames (see `Source`).

    The thread is there because a read inside libasound may never return (alsa-project/alsa-lib#321), whatever was
    asked of it: `read` here notices the stall, and `close` abandons a thread that hangs, which then releases the
    device as soon as libasound lets go of it.

    Args:
        settings: Which device.
        on_overrun: Told of each overrun, with the seconds that were lost; called from that thread.
        open_pcm: Opens the device.
        clock_ns: Monotonic.
        stall_s: Silence after which the device counts as lost.

    Raises:
        ConfigError: pyalsaaudio is not installed.
        DeviceUnavailable: there is no such device, or it is busy.
        SourceError: it delivers samples in a form that we do not understand.
    """

    live = True

    def __init__(
        self,
        settings: AlsaSettings,
        on_overrun: Callable[[float], None] = lambda _lost_s: None,
        *,
        open_pcm: Callable[[str], Pcm] = AlsaPcm,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        stall_s: float = STALL_S,
    ) -> None:
        self.xruns = 0
        """Overruns so far: the sound was not fetched in time."""
        self._name = settings.device
        self._on_overrun = on_overrun
        self._clock_ns = clock_ns
        self._stall_s = stall_s
        self._pcm = open_pcm(settings.device)
        self._framer = Framer(self._pcm.format)
        self._guard = RateGuard()
        self._frames: Channel[AudioFrame] = Channel(BACKLOG_FRAMES)
        self._closing = threading.Event()
        self._heard_ns = clock_ns()
        self._worker = Worker("alsa", self._capture, lambda _: None)
        self._worker.start()

    def read(self) -> AudioFrame | None:
        """Wait for the next frame (see `Source.read`); a device that is silent for 5 s counts as lost."""
        while not self._closing.is_set():
            frame = self._frames.get(POLL_S)
            if frame is not None and not self._closing.is_set():
                self._heard_ns = self._clock_ns()
                return frame
            if self._frames.closed and not self._closing.is_set():
                self._worker.join(POLL_S)
                raise self._worker.failure or DeviceUnavailable(f'the microphone "{self._name}" was lost')
            if self._clock_ns() - self._heard_ns > self._stall_s * 1e9:
                raise DeviceUnavailable(
                    f'the microphone "{self._name}" has delivered nothing for {self._stall_s:g} s: replug it, '
                    "or see what else uses it (`fuser -v /dev/snd/*`)"
                )
        return None

    def close(self) -> None:
        """Stop capturing; returns within a second even if libasound hangs."""
        self._closing.set()
        self._frames.close()
        self._worker.join(2 * POLL_S)

    def _capture(self) -> None:
        """The thread: read, cut, put, until closed or broken."""
        try:
            while not self._closing.is_set():
                self._take(self._pcm.read(POLL_S))
        finally:
            self._frames.close()
            self._pcm.close()

    def _take(self, chunk: Chunk) -> None:
        """Cut a chunk into frames and queue them."""
        now_ns = self._clock_ns()
        if chunk.overrun:
            self.xruns += 1
            self._framer.overrun()
        if not chunk.data:
            return
        lost_before = self._framer.lost_samples
        frames = self._framer.push(chunk.data, now_ns)
        self._guard.check(len(chunk.data) / self._pcm.format.bytes_per_s, now_ns)
        if lost := self._framer.lost_samples - lost_before:
            self._on_overrun(lost / SAMPLE_RATE_HZ)
        for frame in frames:
            self._frames.put(frame)
