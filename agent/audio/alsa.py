"""A microphone as a source, through libasound."""

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from agent.audio.framer import Framer, PcmFormat, RateGuard
from agent.audio.frames import AudioFrame
from agent.audio.libasound import AlsaPcm, Chunk
from agent.channel import Channel
from agent.config.settings import AlsaSettings
from agent.errors import DeviceStalled, DeviceUnavailable, SourceError
from agent.worker import Worker

STALL_S: Final = 4.0
"""Silence after which the device counts as lost."""
OPEN_S: Final = 3.0
"""An open that takes longer will not return: its server (PulseAudio, PipeWire) or a FIFO's writer hangs."""
POLL_S: Final = 0.2
"""How long the thread stays inside libasound."""
WAIT_S: Final = 0.5
"""How long `read` waits at a time; at rest frames come in groups of 0.2 s."""
BACKLOG_FRAMES: Final = 256
"""Eight seconds of sound, should the listener be held up; then the oldest is dropped, and its place is a gap."""
MOST_HANGING: Final = 3
HOPELESS_S: Final = 600.0


class Pcm(Protocol):
    """An open device, see `libasound.AlsaPcm`; tests have others. Used by one thread only."""

    format: PcmFormat

    def read(self, timeout_s: float) -> Chunk:
        """Return what was captured; empty if nothing came within `timeout_s`."""

    def close(self) -> None:
        """Release the device."""


class Hanging:
    """The threads of a device that libasound has not let go of; they end as soon as it does.

    A few are no harm, and a device that was plugged in again works while the old one still hangs. Many would be a leak;
    and what has not come back after ten minutes only a new process can cure.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._workers: list[Worker] = []
        self._full_since_s: float | None = None

    def add(self, worker: Worker) -> None:
        """Leave a thread behind."""
        self._workers.append(worker)

    def check(self, device: str) -> None:
        """Say whether another may be risked.

        Raises:
            DeviceStalled: not now.
            SourceError: they have hung for too long.
        """
        self._workers = [worker for worker in self._workers if worker.alive]
        if len(self._workers) < MOST_HANGING:
            self._full_since_s = None
            return
        now_s = self._clock_s()
        self._full_since_s = now_s if self._full_since_s is None else self._full_since_s
        if now_s - self._full_since_s > HOPELESS_S:
            raise SourceError(f'the microphone "{device}" has hung for {HOPELESS_S / 60:.0f} minutes: start again')
        raise DeviceStalled(f'the microphone "{device}" hangs: restart what serves it, or replug it')


class AlsaSource:
    """Reads a microphone in a thread of its own and hands out frames (see `Source`).

    The thread is there because neither an open nor a read inside libasound may ever return (alsa-project/alsa-lib#321),
    whatever was asked of it: the constructor and `read` notice the stall, and `close` abandons a thread that hangs,
    which then releases the device as soon as libasound lets go of it.

    Args:
        settings: Which device.
        on_overrun: Told of each overrun; called from that thread.
        hanging: The threads of earlier sources that were abandoned.
        open_pcm: Opens a channel of the device.
        clock_ns: Monotonic.
        stall_s: Silence after which the device counts as lost.
        open_s: How long it may take to open.

    Raises:
        ConfigError: there is no libasound.
        DeviceUnavailable: there is no such device, or it is busy, or hangs.
        SourceError: it has no such channel, or its samples are of no use.
    """

    live = True

    def __init__(
        self,
        settings: AlsaSettings,
        on_overrun: Callable[[], None] = lambda: None,
        hanging: Hanging | None = None,
        *,
        open_pcm: Callable[[str, int], Pcm] = AlsaPcm,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        stall_s: float = STALL_S,
        open_s: float = OPEN_S,
    ) -> None:
        self.xruns = 0
        """Overruns so far: the sound was not fetched in time."""
        self._name = settings.device
        self._channel = settings.channel
        self._on_overrun = on_overrun
        self._hanging = hanging or Hanging()
        self._open_pcm = open_pcm
        self._clock_ns = clock_ns
        self._stall_s = stall_s
        self._frames: Channel[AudioFrame] = Channel(BACKLOG_FRAMES)
        self._closing = threading.Event()
        self._opened = threading.Event()
        """Set when the attempt to open is over."""
        self._is_open = False
        self._hanging.check(self._name)
        self._worker = Worker("alsa", self._capture, lambda _: None)
        self._worker.start()
        self._await_opening(open_s)
        self._silent_s = 0.0
        """Waited for in vain. Not by the clock, which goes on while this process is stopped or the machine sleeps."""

    def _await_opening(self, limit_s: float) -> None:
        if not self._opened.wait(limit_s):
            self.close()
            raise DeviceStalled(
                f'the microphone "{self._name}" has not opened within {limit_s:g} s: '
                "restart what serves it (PulseAudio, PipeWire), or replug it"
            )
        if not self._is_open:
            raise self._failure()

    def _failure(self) -> Exception:
        """Return why the thread has ended."""
        self._worker.join(POLL_S)
        return self._worker.failure or DeviceUnavailable(f'the microphone "{self._name}" was lost')

    def read(self, ready: int = 1) -> AudioFrame | None:
        """Wait for the next frame (see `Source.read`); a device that is silent for 4 s counts as lost."""
        while (frame := self._frames.get(WAIT_S, ready)) is None:
            if self._closing.is_set():
                return None
            if self._frames.closed:
                raise self._failure()
            self._silent_s += WAIT_S
            if self._silent_s >= self._stall_s:
                raise DeviceStalled(
                    f'the microphone "{self._name}" has delivered nothing for {self._stall_s:g} s: replug it, '
                    "or see what else uses it (`fuser -v /dev/snd/*`)"
                )
        self._silent_s = 0.0
        return frame

    def close(self) -> None:
        """Stop capturing; returns within a second even if libasound hangs."""
        self._closing.set()
        self._frames.close()
        if not self._worker.join(2 * POLL_S):
            self._hanging.add(self._worker)

    def _capture(self) -> None:
        """The thread: open, read, cut, put, until closed or broken."""
        try:
            pcm = self._open_pcm(self._name, self._channel)
            self._is_open = True
        finally:
            self._opened.set()
        framer, guard = Framer(pcm.format, self._channel), RateGuard()
        held: list[AudioFrame] = []  # a burst is held back until it has ended: its sound may be none (see `RateGuard`)
        try:
            while not self._closing.is_set():
                chunk, now_ns = pcm.read(POLL_S), self._clock_ns()
                if chunk.overrun:
                    self.xruns += 1
                    self._on_overrun()
                    framer.overrun()
                if chunk.data:
                    held += framer.push(chunk.data, now_ns)
                    guard.check(len(chunk.data) / pcm.format.bytes_per_s, now_ns)
                if not guard.suspicious(now_ns):
                    for frame in held:
                        self._frames.put(frame)
                    held.clear()
        finally:
            self._frames.close()
            pcm.close()
