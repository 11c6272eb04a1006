"""The source of the agent: open, muted, or absent. Only this module retries a lost device."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from agent.audio import Source
from agent.audio.frames import FRAME_SAMPLES, LONGEST_FILLED_GAP, NS_PER_S, SAMPLE_RATE_HZ, AudioFrame
from agent.config.settings import SourceSettings, WavSettings
from agent.errors import DeviceUnavailable

FIRST_RETRY_S: Final = 0.25
LONGEST_RETRY_S: Final = 2.0
"""Short enough to capture within five seconds of the microphone's return; opening an absent device is cheap."""
BEAT_S: Final = 5.0
"""How often a muted microphone gives a sign of life."""
GAP_SAMPLES: Final = LONGEST_FILLED_GAP + 1
"""An utterance ends at a gap of this length."""

log = logging.getLogger(__name__)


class Microphone:
    """Reads a microphone, or a recording in its place, through mutes and absences (see `Source`).

    - Open: frames come. Only the listen thread calls `read`.
    - Muted: the device is closed, and `read` waits. Any thread may call `on` and `off`. A recording starts again when
      it is switched on.
    - Absent: the device was lost, or is not there yet. `read` opens it again and again until it is back.

    Positions go on counting through both, by the clock. A mute, and an absence of a second, deliver one silent frame
    after a gap, which ends an utterance in progress.

    Args:
        open_source: Opens the device; raises `DeviceUnavailable` if it is not there.
        live: Whether sound that is not read in time is lost.
        listening: False to start muted.
        wait_at_start: Whether to wait for a device that is absent when it is switched on.
        clock_ns: Monotonic, the clock of `AudioFrame.captured_ns`.

    Raises:
        SourceError: the source cannot be opened, and `wait_at_start` is False.
    """

    def __init__(
        self,
        open_source: Callable[[], Source],
        *,
        live: bool = True,
        listening: bool = True,
        wait_at_start: bool = False,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.live = live
        self.alive_s: float | None = None
        """Monotonic time of the last sign of life: a frame, or an attempt to get one. None before the first."""
        self.trouble: DeviceUnavailable | None = None
        """Why it is absent; None while it is open or muted."""
        self.on_change: Callable[[], None] = lambda: None
        """Called after each change of state, by the thread that changed it; set it before the first `read`."""
        self._open_source = open_source
        self._wait_at_start = wait_at_start
        self._clock_ns = clock_ns
        self._changed = threading.Condition()
        self._closed = False
        self._muted = not listening
        self._was_muted = False
        """True after a mute, until `read` has noticed it."""
        self._source = open_source() if listening and not wait_at_start else None
        self._reading: Source | None = None
        """The source of `read`, which reads it to its end after a mute."""
        self._retry_s = FIRST_RETRY_S
        self._offset: int | None = None
        """Added to the positions of `_reading`; None until its first frame."""
        self._last: AudioFrame | None = None
        self._silenced = False
        """True if `_last` is the silent frame of this mute or absence."""

    @property
    def listening(self) -> bool:
        """Return whether it is not muted."""
        return not self._muted

    def read(self, ready: int = 1) -> AudioFrame | None:
        """Wait for the next frame, through mutes and absences (see `Source.read`).

        Raises:
            SourceError: the device delivers no usable sound; another attempt would not help.
        """
        while self._reading or not self._closed:
            self.alive_s = time.monotonic()
            try:
                if self._reading is None:
                    self._reading, self._offset = self._opened(), None
                frame = self._reading.read(ready) if self._reading else None
            except DeviceUnavailable as error:
                self._lost(error)
            else:
                if frame is not None:
                    return self._found(frame)
                if self._reading and self._reading is self._source:
                    return None
                self._reading = None
            if (silence := self._silence()) is not None:
                return silence
        return None

    def on(self) -> None:
        """Listen, if it is muted.

        Raises:
            SourceError: the source cannot be opened, and `wait_at_start` is False; it stays muted.
        """
        with self._changed:
            if self._muted and not self._closed:
                if not self._wait_at_start:
                    self._source = self._open_source()
                self._muted = False
                self._changed.notify_all()
        self.on_change()

    def off(self) -> None:
        """Mute: close the device. `read` still delivers the sound from before."""
        with self._changed:
            source, self._source = self._source, None
            self._muted = self._was_muted = True
            self.trouble = None
            self._changed.notify_all()
        if source:
            source.close()
        self.on_change()

    def close(self) -> None:
        """Release the device and end `read`; idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._source:
            self._source.close()

    def _opened(self) -> Source | None:
        """Return the source, opened if necessary; None while it is muted, after a change or `BEAT_S`."""
        with self._changed:
            if self._muted and not self._closed and not self._was_muted:
                self._changed.wait(BEAT_S)
            if self._muted or self._closed or self._was_muted:
                return None
            if self._source:
                return self._source
        source = self._open_source()  # may take seconds: a mute does not wait for it
        with self._changed:
            if not (self._muted or self._closed or self._was_muted or self._source):
                self._source = source
                return source
        source.close()
        return None

    def _lost(self, error: DeviceUnavailable) -> None:
        """Close the device, log each kind of trouble once, and wait before the next attempt."""
        with self._changed:
            lost, self._reading = self._reading, None
            if self._muted or lost is not self._source:
                return
            self._source = None
            is_news = type(error) is not type(self.trouble)
            self.trouble = error
        if lost:
            lost.close()
        if is_news:
            log.warning("%s; retrying until it is there", error)
            self.on_change()
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._was_muted, self._retry_s)
        self._retry_s = min(LONGEST_RETRY_S, 2 * self._retry_s)

    def _silence(self) -> AudioFrame | None:
        """Return the frame that ends an utterance in progress; None if it may go on, or before the first frame."""
        was_muted, self._was_muted = self._was_muted, False
        if self._last is None or self._silenced:
            return None
        captured_ns = self._last.captured_ns + (GAP_SAMPLES + FRAME_SAMPLES) * NS_PER_S // SAMPLE_RATE_HZ
        if not was_muted and (self._closed or captured_ns > self._clock_ns()):
            return None
        self._silenced = True
        pcm = np.zeros(FRAME_SAMPLES, np.int16)
        self._last = AudioFrame(pcm, self._last.end + GAP_SAMPLES, captured_ns, resumed=True)
        return self._last

    def _found(self, frame: AudioFrame) -> AudioFrame:
        """Return `frame` with its position since the beginning, mutes and absences included."""
        self._retry_s, self._silenced = FIRST_RETRY_S, False
        if self.trouble:
            self.trouble = None
            log.info("the microphone is back")
            self.on_change()
        resumed = self._offset is None
        if self._offset is None:
            self._offset = _next_position(self._last, frame) - frame.position if self._last else 0
        self._last = replace(frame, position=frame.position + self._offset, resumed=resumed)
        return self._last


def _next_position(last: AudioFrame, frame: AudioFrame) -> int:
    """Return the position of `frame`, by the clock, but not before the end of `last`."""
    missed = (frame.captured_ns - last.captured_ns) * SAMPLE_RATE_HZ // NS_PER_S - len(frame.pcm)
    return last.end + max(0, missed)


def open_source(
    settings: SourceSettings, *, listening: bool = True, on_overrun: Callable[[], None] = lambda: None
) -> Microphone:
    """Open the source of the settings; muted if `listening` is False.

    `on_overrun` is called when a sound card was not read in time.

    Raises:
        ConfigError: a microphone needs libasound, which is not installed.
        DeviceUnavailable: there is no such microphone, and the settings do not say to wait for it.
        SourceError: the file does not exist or is not audio.
    """
    if isinstance(settings, WavSettings):
        from agent.audio.wav import WavSource  # noqa: PLC0415 - a microphone needs no decoder

        return Microphone(lambda: WavSource(settings), live=settings.pace == "realtime", listening=listening)
    from agent.audio.alsa import AbandonedThreads, AlsaSource  # noqa: PLC0415 - a recording needs no libasound

    abandoned = AbandonedThreads()
    return Microphone(
        lambda: AlsaSource(settings, on_overrun, abandoned),
        listening=listening,
        wait_at_start=settings.when_missing == "wait",
    )
