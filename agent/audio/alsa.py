"""Reads a microphone, through libasound, in a thread of its own."""

import threading
import time
from collections.abc import Callable
from typing import Final

from agent.audio.framer import Framer, RateGuard
from agent.audio.frames import AudioFrame
from agent.audio.libasound import AlsaPcm
from agent.channel import Channel
from agent.config.settings import AlsaSettings
from agent.errors import DeviceStalled, DeviceUnavailable, SourceError
from agent.worker import Worker

STALL_S: Final = 4.0
"""Time without sound after which the device counts as lost."""
OPEN_S: Final = 3.0
"""A longer open never returns: its server (PulseAudio, PipeWire) or the writer of a FIFO hangs."""
POLL_S: Final = 0.2
"""How long the thread stays inside libasound."""
WAIT_S: Final = 0.5
"""How long `read` waits at a time; at rest frames come in groups of 0.2 s."""
BACKLOG_FRAMES: Final = 256
"""Eight seconds of sound for a listener that is late. Then the oldest frame is dropped, and leaves a gap."""
MOST_ABANDONED: Final = 3
HOPELESS_S: Final = 600.0


class AbandonedThreads:
    """The threads that hang inside libasound. Each ends as soon as libasound returns.

    A few do no harm: a device that is plugged in again works while the old one still hangs. Many would be a leak. After
    ten minutes only a new process helps.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._workers: list[Worker] = []
        self._full_since_s: float | None = None

    def add(self, worker: Worker) -> None:
        """Abandon a thread."""
        self._workers.append(worker)

    def check(self, device: str) -> None:
        """Check that one more thread may be started for `device`.

        Raises:
            DeviceStalled: too many threads hang now.
            SourceError: they have hung for too long.
        """
        self._workers = [worker for worker in self._workers if worker.alive]
        if len(self._workers) < MOST_ABANDONED:
            self._full_since_s = None
            return
        now_s = self._clock_s()
        self._full_since_s = now_s if self._full_since_s is None else self._full_since_s
        if now_s - self._full_since_s > HOPELESS_S:
            raise SourceError(f'the microphone "{device}" has hung for {HOPELESS_S / 60:.0f} minutes: start again')
        raise DeviceStalled(f'the microphone "{device}" hangs: restart what serves it, or replug it')


class AlsaSource:
    """Reads a microphone in a thread of its own and delivers frames (see `Source`).

    An open or a read inside libasound may never return (alsa-project/alsa-lib#321). So a thread makes these calls. The
    constructor and `read` notice a stall. `close` abandons a thread that hangs; the thread releases the device as soon
    as libasound returns.

    Args:
        settings: The device.
        on_overrun: Called for each overrun, from that thread.
        abandoned: The threads of earlier sources that hang.
        open_pcm: Opens a channel of the device.
        clock_ns: Monotonic.
        stall_s: Time without sound after which the device counts as lost.
        open_s: Time that it may take to open.

    Raises:
        ConfigError: there is no libasound.
        DeviceUnavailable: there is no such device, or it is busy, or hangs.
        SourceError: it has no such channel, or its sample format is not supported.
    """

    live = True

    def __init__(
        self,
        settings: AlsaSettings,
        on_overrun: Callable[[], None] = lambda: None,
        abandoned: AbandonedThreads | None = None,
        *,
        open_pcm: Callable[[str, int], AlsaPcm] = AlsaPcm,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        stall_s: float = STALL_S,
        open_s: float = OPEN_S,
    ) -> None:
        self.xruns = 0
        """Overruns so far: the sound was not read in time."""
        self._name = settings.device
        self._channel = settings.channel
        self._on_overrun = on_overrun
        self._abandoned = abandoned or AbandonedThreads()
        self._open_pcm = open_pcm
        self._clock_ns = clock_ns
        self._stall_s = stall_s
        self._silent_s = 0.0
        """Time of `read` without a frame. A clock would go on while this process is stopped or the machine sleeps."""
        self._frames: Channel[AudioFrame] = Channel(BACKLOG_FRAMES)
        self._closing = threading.Event()
        self._opened = threading.Event()
        """Set when the attempt to open is over."""
        self._is_open = False
        self._abandoned.check(self._name)
        self._worker = Worker("alsa", self._capture, lambda _: None)
        self._worker.start()
        if not self._opened.wait(open_s):
            self.close()
            raise DeviceStalled(
                f'the microphone "{self._name}" has not opened within {open_s:g} s: '
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
                    f'the microphone "{self._name}" has delivered no sound for {self._stall_s:g} s: replug it, '
                    "or see what else uses it (`fuser -v /dev/snd/*`)"
                )
        self._silent_s = 0.0
        return frame

    def close(self) -> None:
        """Stop capturing; returns within a second even if libasound hangs."""
        self._closing.set()
        self._frames.close()
        if not self._worker.join(2 * POLL_S):
            self._abandoned.add(self._worker)

    def _capture(self) -> None:
        """The thread: open, read, cut and put, until it is closed or the device fails."""
        try:
            pcm = self._open_pcm(self._name, self._channel)
            self._is_open = True
        finally:
            self._opened.set()
        framer, guard = Framer(pcm.format, self._channel), RateGuard()
        held: list[AudioFrame] = []  # the frames of a burst, until it has ended: a FIFO may repeat stale bytes
        try:
            while not self._closing.is_set():
                data, now_ns = pcm.read(POLL_S), self._clock_ns()
                if data is None:
                    self.xruns += 1
                    self._on_overrun()
                    framer.overrun()
                elif data:
                    held += framer.push(data, now_ns)
                    guard.check(len(data) / pcm.format.bytes_per_s, now_ns)
                if not guard.suspicious(now_ns):
                    for frame in held:
                        self._frames.put(frame)
                    held.clear()
        finally:
            self._frames.close()
            pcm.close()
