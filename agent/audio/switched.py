"""A source that can be muted: the device is closed, and opened again, while the capture thread goes on waiting."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from agent.audio import Source
from agent.audio.frames import AudioFrame
from agent.audio.silence import GAP_SAMPLES, missed_samples, silence_behind

_BEAT_S: Final = 5.0


class SwitchedSource:
    """Reads from a source while it is on (see `Source`); while it is off there is none, and `read` waits.

    On switching off, one silent frame behind a gap is delivered, which ends an utterance that was under way. Positions
    go on counting. A recording begins anew when it is switched on again. `on` and `off` may be called from any thread.

    Args:
        open_source: Opens the device anew; raises `SourceError` if that cannot be done.
        live: Whether sound is lost that is not fetched in time.
        listening: Whether it is on from the start; then the constructor raises what `open_source` does.
        on_wait: Called every few seconds from `read` while it is off: a sign of life.
    """

    def __init__(
        self,
        open_source: Callable[[], Source],
        *,
        live: bool,
        listening: bool = True,
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        self.live = live
        self._open_source = open_source
        self._on_wait = on_wait
        self._changed = threading.Condition()
        self._closed = False
        self._inner = open_source() if listening else None
        self._reading: Source | None = None
        self._offset: int | None = None
        self._last: AudioFrame | None = None

    @property
    def listening(self) -> bool:
        """Whether it is on."""
        return self._inner is not None

    def read(self) -> AudioFrame | None:
        """Wait for the next frame, for as long as it is switched off (see `Source.read`).

        Raises:
            SourceError: what the device delivers is not usable.
        """
        while True:
            inner = self._current()
            if inner is None and self._reading is not None and not self._closed:
                self._reading = None
                if self._last is not None:
                    self._last = silence_behind(self._last)
                    return self._last
            if inner is None:
                if self._closed:
                    return None
                continue
            if inner is not self._reading:
                self._reading, self._offset = inner, None
            frame = inner.read()
            if inner is self._inner:
                return None if frame is None else self._in_line(frame)

    def _current(self) -> Source | None:
        """The source to read from; None if there is none now, after a while or because of a change."""
        with self._changed:
            if self._inner is None and self._reading is None and not self._closed:
                self._changed.wait(_BEAT_S)
                self._on_wait()
            return None if self._closed else self._inner

    def on(self) -> None:
        """Open the device, if it is not.

        Raises:
            SourceError: it cannot be opened; the source stays switched off.
        """
        with self._changed:
            if self._inner is None and not self._closed:
                self._inner = self._open_source()
            self._changed.notify_all()

    def off(self) -> None:
        """Close the device; nothing of it is delivered after that."""
        with self._changed:
            inner, self._inner = self._inner, None
            self._changed.notify_all()
        if inner:
            inner.close()

    def close(self) -> None:
        """Release the device and end `read`; idempotent."""
        with self._changed:
            self._closed = True
            inner = self._inner
            self._changed.notify_all()
        if inner:
            inner.close()

    def _in_line(self, frame: AudioFrame) -> AudioFrame:
        """Give the frame its position since the beginning, pauses included."""
        resumed = frame.resumed
        if self._offset is None:
            self._offset = self._after_pause(frame) - frame.position
            resumed = True
        self._last = replace(frame, position=frame.position + self._offset, resumed=resumed)
        return self._last

    def _after_pause(self, frame: AudioFrame) -> int:
        if self._last is None:
            return frame.position
        return self._last.end + max(GAP_SAMPLES, missed_samples(self._last, frame))
