"""A microphone that may go and come back: the only place where a lost device is retried."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from agent.audio import Source
from agent.audio.frames import AudioFrame
from agent.audio.silence import missed_samples, silence_behind
from agent.errors import DeviceUnavailable

FIRST_RETRY_S: Final = 0.25
LONGEST_RETRY_S: Final = 2.0
"""Short enough to capture within five seconds of the microphone's return; opening an absent device costs nothing."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MicrophoneEvents:
    """What a microphone tells beside sound. Called from the capture threads: to be quick, and to raise nothing."""

    absent: Callable[[DeviceUnavailable], None] = lambda _error: None
    """It is not there, hangs, or was lost; said once for each of these until it is back."""
    back: Callable[[], None] = lambda: None
    """Sound comes again."""
    trying: Callable[[], None] = lambda: None
    """It is looked for once more: a sign of life while there is no sound."""
    overrun: Callable[[], None] = lambda: None
    """Sound was lost because it was not fetched in time."""


class ReconnectingSource:
    """Opens a source again whenever it is lost, for ever (see `Source`).

    Positions go on counting through an absence: the first frame afterwards stands where the clock says that it is.
    After a second without sound one silent frame behind a gap is delivered, which ends an utterance that was under way.

    Args:
        open_source: Opens the device anew; raises `DeviceUnavailable` if it is not there.
        wait_at_start: Whether a device that is absent from the beginning is waited for. If not, the constructor raises.
        events: Who wants to know.
        clock_ns: Monotonic, that of `AudioFrame.captured_ns`.

    Raises:
        DeviceUnavailable: there is no such device, and `wait_at_start` is False.
    """

    live = True

    def __init__(
        self,
        open_source: Callable[[], Source],
        *,
        wait_at_start: bool,
        events: MicrophoneEvents | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._open_source = open_source
        self._events = events or MicrophoneEvents()
        self._clock_ns = clock_ns
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._retry_s = FIRST_RETRY_S
        self._trouble: type[DeviceUnavailable] | None = None
        """Why there is no sound; None while there is."""
        self._offset: int | None = 0
        """Added to the positions of the source that is open; None until its first frame after an absence."""
        self._last: AudioFrame | None = None
        self._silenced = False
        """Whether the silent frame of this absence was delivered."""
        self._inner = None if wait_at_start else open_source()

    def read(self) -> AudioFrame | None:
        """Wait for the next frame, through as many absences as it takes (see `Source.read`).

        Raises:
            SourceError: what the device delivers is not usable; to try again would not help.
        """
        while not self._closed.is_set():
            try:
                inner = self._inner or self._reopen()
                frame = inner.read() if inner else None
            except DeviceUnavailable as error:
                self._lost(error)
                if (silence := self._silence()) is not None:
                    return silence
                continue
            if frame is None:
                return None
            self._found()
            return self._in_line(frame)
        return None

    def close(self) -> None:
        """Release the device and stop waiting for it; idempotent."""
        self._closed.set()
        with self._lock:
            if self._inner:
                self._inner.close()

    def _reopen(self) -> Source | None:
        """Open the device again; None if we were closed meanwhile."""
        opened = self._open_source()
        with self._lock:
            if self._closed.is_set():
                opened.close()
                return None
            self._inner = opened
        return opened

    def _lost(self, error: DeviceUnavailable) -> None:
        """Let go of the device, say so once for each kind of trouble, and wait a little."""
        if self._trouble is not type(error):
            self._trouble = type(error)
            log.warning("%s; trying again until it is there", error)
            self._events.absent(error)
        with self._lock:
            inner, self._inner = self._inner, None
        if inner:
            inner.close()
        self._offset = None
        self._closed.wait(self._retry_s)
        self._events.trying()
        self._retry_s = min(LONGEST_RETRY_S, 2 * self._retry_s)

    def _silence(self) -> AudioFrame | None:
        """What ends an utterance under way; None if it may still go on, or there is none."""
        if self._last is None or self._silenced or self._closed.is_set():
            return None
        silence = silence_behind(self._last)
        if silence.captured_ns > self._clock_ns():
            return None
        self._last, self._silenced = silence, True
        return silence

    def _found(self) -> None:
        self._retry_s = FIRST_RETRY_S
        self._silenced = False
        if self._trouble:
            self._trouble = None
            log.info("the microphone is back")
            self._events.back()

    def _in_line(self, frame: AudioFrame) -> AudioFrame:
        """Give the frame its position since the beginning, absences included."""
        resumed = self._offset is None
        if self._offset is None:
            self._offset = self._after_absence(frame) - frame.position
        self._last = replace(frame, position=frame.position + self._offset, resumed=resumed)
        return self._last

    def _after_absence(self, frame: AudioFrame) -> int:
        if self._last is None:
            return 0
        return self._last.end + max(0, missed_samples(self._last, frame))
