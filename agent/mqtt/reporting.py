"""What the device says about itself: trouble at once, telemetry on its schedule."""

import random
import time
from datetime import UTC, datetime
from typing import Protocol

from agent.config.settings import TelemetrySettings
from agent.mqtt.client import MqttSink
from agent.mqtt.publisher import Publisher
from agent.segmenter import Listener
from agent.telemetry.conditions import CODES, HostConditions
from agent.telemetry.counters import Counters
from agent.telemetry.host import Host
from agent.telemetry.schedule import TelemetrySchedule
from agent.telemetry.snapshot import Snapshot
from agent.telemetry.vitals import Vitals, VitalsWatch


class Queue(Protocol):
    """The engine's queue; any thread may ask."""

    @property
    def waiting(self) -> int:
        """Utterances in it."""


class Surveyor:
    """Makes snapshots. Each thread that wants some has its own, since CPU load is measured from one to the next."""

    def __init__(self, host: Host, watch: VitalsWatch, counters: Counters, queue: Queue, started_s: float) -> None:
        self._host = host
        self._watch = watch
        self._counters = counters
        self._queue = queue
        self._started_s = started_s

    def snapshot(self, mqtt: MqttSink | None, problems: tuple[str, ...]) -> Snapshot:
        """This moment."""
        counters = self._counters
        return Snapshot(
            at=datetime.now(UTC),
            up_s=time.monotonic() - self._started_s,
            host=self._host.read().with_power(self._watch.latest.power),
            audio=counters.audio(),
            asr=counters.asr(self._queue.waiting),
            mqtt=mqtt.stats if mqtt else None,
            heard_s=counters.heard_s,
            speech_s=counters.speech_s,
            rtfs=counters.rtfs(),
            latencies_s=counters.latencies_s(),
            problems=problems,
        )


class TelemetryReporter:
    """Owned by the main thread, which calls `tick` about once a second."""

    def __init__(
        self,
        settings: TelemetrySettings,
        device_id: str,
        surveyor: Surveyor,
        counters: Counters,
        listener: Listener,
    ) -> None:
        self._surveyor = surveyor
        self._conditions = HostConditions(settings.hot_c)
        self._counters = counters
        self._listener = listener
        self._heard_s = 0.0
        chance = random.Random()  # noqa: S311 - jitter, not a secret
        self._schedule = TelemetrySchedule(settings.interval_s, device_id, time.monotonic(), chance)

    def change_interval(self, interval_s: float) -> None:
        """Report every `interval_s` seconds from now on; any thread may ask for it."""
        self._schedule.change_interval(interval_s, time.monotonic())

    def tick(self, vitals: Vitals, publisher: Publisher, mqtt: MqttSink | None) -> None:
        """Say what is wrong with the machine, and send telemetry if it is due."""
        codes = self._conditions.codes(vitals)
        for code in CODES:
            (publisher.problem if code in codes else publisher.resolve)(code)
        self._collect()
        if self._schedule.due(time.monotonic()):
            publisher.send(self._surveyor.snapshot(mqtt, publisher.problems).message())

    def _collect(self) -> None:
        """Bring over what only the listener knows."""
        heard_s = self._listener.counters.heard_s
        self._counters.heard(heard_s - self._heard_s)
        self._heard_s = heard_s
        if (floor := self._listener.noise_floor_dbfs) is not None:
            self._counters.noise_floor(floor)
