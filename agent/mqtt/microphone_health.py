"""What `health` and telemetry say of the microphone."""

import threading
from typing import Final

from agent.audio.microphone import Microphone
from agent.audio.monitor import AudioMonitor
from agent.errors import DeviceEndless, DeviceStalled, DeviceUnavailable
from agent.mqtt.publisher import Publisher
from agent.telemetry.counters import Counters

_STATUS: Final = {
    DeviceUnavailable.code: "no {}: waiting for it",
    DeviceStalled.code: "{} hangs: waiting for it",
    DeviceEndless.code: "{} delivers audio faster than real time: waiting for it",
}


class MicrophoneHealth:
    """Publishes and counts the state of `microphone`, and what `monitor` finds in its sound.

    `is_recording`: a recording in place of a microphone may be as silent or as loud as it likes.
    """

    def __init__(
        self,
        microphone: Microphone,
        monitor: AudioMonitor,
        publisher: Publisher,
        counters: Counters,
        *,
        is_recording: bool,
    ) -> None:
        self._microphone = microphone
        self._monitor = monitor
        self._publisher = publisher
        self._counters = counters
        self._is_recording = is_recording
        self._lock = threading.Lock()
        self._was_absent = False
        microphone.on_change = self.update

    def status(self, name: str) -> str:
        """Return why nothing comes from the source called `name`, for `systemctl status`; empty if it is well."""
        trouble = self._microphone.trouble
        return _STATUS[trouble.code].format(name) if trouble else ""

    def update(self) -> None:
        """Publish the state of the microphone; called at each change, by any thread, and about once a second."""
        with self._lock:
            trouble = self._microphone.trouble
            if trouble and not self._was_absent:
                self._counters.add("losses")
            self._was_absent = trouble is not None
            self._publisher.conditions("mic_", (trouble.code,) if trouble else ())
            condition = self._monitor.condition
            self._counters.sound = condition
            if not self._is_recording:
                # While nothing comes, the sound before is of no interest.
                heard = self._microphone.listening and not trouble
                self._publisher.conditions("audio_", condition.codes if heard else ())
