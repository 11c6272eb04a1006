"""What the device says about itself: trouble of machine and microphone at once, telemetry on its schedule."""

import hashlib
import random
import threading
import time
from collections.abc import Callable
from typing import Final

from agent.audio.microphone import Microphone
from agent.audio.monitor import AudioMonitor
from agent.config.settings import TelemetrySettings
from agent.errors import DeviceEndless, DeviceStalled, DeviceUnavailable
from agent.mqtt.publisher import Publisher
from agent.segmenter import Listener
from agent.telemetry.counters import Counters
from agent.telemetry.snapshot import Snapshot
from agent.telemetry.vitals import CODES, HostConditions, Vitals

_JITTER: Final = 0.1
_STATUS: Final = {
    DeviceUnavailable.code: "no {}: waiting for it",
    DeviceStalled.code: "{} hangs: waiting for it",
    DeviceEndless.code: "{} delivers audio faster than real time: waiting for it",
}


class TelemetrySchedule:
    """Due every `interval_s` seconds, give or take a tenth; the first time after a share of it that the id decides.

    So a fleet that starts together (after a power cut, say) does not speak in chorus, and drifts apart further. Pure:
    time and chance are arguments.
    """

    def __init__(self, interval_s: float, device_id: str, started_s: float, chance: random.Random) -> None:
        self._interval_s = interval_s
        self._chance = chance
        digest = hashlib.sha256(device_id.encode()).digest()
        phase = int.from_bytes(digest[:8]) / 2**64
        self.next_s = started_s + phase * interval_s
        """Monotonic time at which the next message is due."""

    def change_interval(self, interval_s: float, now_s: float) -> None:
        """Be due every `interval_s` seconds from now on."""
        self._interval_s = interval_s
        self.next_s = min(self.next_s, now_s + interval_s)

    def due(self, now_s: float) -> bool:
        """Tell whether a message is due at `now_s`; if so, the next one is planned. What was missed is not made up."""
        if now_s < self.next_s:
            return False
        self.next_s = now_s + self._interval_s * self._chance.uniform(1 - _JITTER, 1 + _JITTER)
        return True


class TelemetryReporter:
    """Owned by the main thread, which calls `tick` about once a second."""

    def __init__(
        self,
        settings: TelemetrySettings,
        device_id: str,
        snapshot: Callable[[], Snapshot],
        counters: Counters,
        listener: Listener,
    ) -> None:
        self._snapshot = snapshot
        self._conditions = HostConditions(settings.hot_c)
        self._counters = counters
        self._listener = listener
        self._heard_s = 0.0
        chance = random.Random()  # noqa: S311 - jitter, not a secret
        self._schedule = TelemetrySchedule(settings.interval_s, device_id, time.monotonic(), chance)

    def change_interval(self, interval_s: float) -> None:
        """Report every `interval_s` seconds from now on; any thread may ask for it."""
        self._schedule.change_interval(interval_s, time.monotonic())

    def tick(self, vitals: Vitals, publisher: Publisher) -> None:
        """Say what is wrong with the machine, and send telemetry if it is due."""
        codes = self._conditions.codes(vitals)
        for code in CODES:
            (publisher.problem if code in codes else publisher.resolve)(code)
        # Only the listener knows these.
        heard_s = self._listener.heard_s
        self._counters.add("heard_s", heard_s - self._heard_s)
        self._heard_s = heard_s
        if (floor := self._listener.noise_floor_dbfs) is not None:
            self._counters.noise_floor_dbfs = floor
        if self._schedule.due(time.monotonic()):
            publisher.send(self._snapshot().message())


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
