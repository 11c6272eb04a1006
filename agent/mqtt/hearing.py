"""What `health` and telemetry say of the microphone."""

import threading
from collections.abc import Callable
from typing import Final

from agent.audio.monitor import AudioMonitor
from agent.audio.reconnecting import MicrophoneEvents
from agent.errors import DeviceEndless, DeviceStalled, DeviceUnavailable
from agent.mqtt.publisher import Publisher
from agent.telemetry.counters import Counters

_TROUBLES: Final = {
    DeviceUnavailable.code: "no {}: waiting for it",
    DeviceStalled.code: "{} hangs: waiting for it",
    DeviceEndless.code: "{} delivers sound that nobody made: waiting for it",
}


class Hearing:
    """Between a source and those who want to know how it is.

    Args:
        publisher, counters: Where it is told and counted.
        monitor: Listens to the sound itself.
        live: Whether it is a microphone. A recording may be as silent or as loud as it likes.
        alive: A sign of life of the capture stage.
    """

    def __init__(
        self,
        publisher: Publisher,
        counters: Counters,
        monitor: AudioMonitor,
        alive: Callable[[], None],
        *,
        live: bool,
    ) -> None:
        self._publisher = publisher
        self._counters = counters
        self._monitor = monitor
        self._live = live
        self._lock = threading.Lock()
        self._absent = ""
        self._listening = True
        self._alive = alive
        self._openings = 0

    def anew(self) -> MicrophoneEvents:
        """For a source that is about to be opened, to call from its threads.

        What an earlier one lacked is past, and what it still tells counts for nothing: it may hang while it is closed.
        """
        with self._lock:
            self._openings += 1
            opening = self._openings
        self._back(opening)
        return MicrophoneEvents(
            absent=lambda error: self._lost(opening, error),
            back=lambda: self._back(opening),
            trying=self._alive,
            overrun=lambda: self._counters.add("xruns"),
        )

    def trouble(self, name: str) -> str:
        """Why nothing comes from the source called `name`, for `systemctl status`; empty if nothing is amiss."""
        return _TROUBLES[self._absent].format(name) if self._absent and self._listening else ""

    def tick(self, *, listening: bool) -> None:
        """Say what is wrong with the sound; called about once a second. Of a device that is closed, nothing is."""
        condition = self._monitor.condition
        self._counters.sound = condition
        with self._lock:
            self._listening = listening
            absent = (self._absent,) if self._absent and listening else ()
            self._publisher.conditions("mic_", absent)
            if self._live:
                # Where nothing comes any more, what was wrong with it is of no interest.
                self._publisher.conditions("audio_", condition.codes if listening and not absent else ())

    def _lost(self, opening: int, error: DeviceUnavailable) -> None:
        """Nothing comes; why, the source has logged."""
        with self._lock:
            if opening != self._openings:
                return
            if not self._absent:
                self._counters.add("losses")
            self._absent = error.code
            self._publisher.conditions("mic_", (error.code,))

    def _back(self, opening: int) -> None:
        with self._lock:
            if opening != self._openings:
                return
            self._absent = ""
            self._publisher.conditions("mic_", ())
