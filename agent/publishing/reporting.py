"""Telemetry on its schedule: reads the machine and the counters when a message is due."""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime

from agent.config import TelemetrySettings
from agent.listen import Listener
from agent.sinks.mqtt import MqttSink
from agent.telemetry.counters import Counters
from agent.telemetry.host import Host
from agent.telemetry.schedule import TelemetrySchedule
from agent.telemetry.snapshot import telemetry_message
from agent.wire import Message


class TelemetryReporter:
    """Owned by the main thread, which calls `tick` about once a second."""

    def __init__(
        self,
        settings: TelemetrySettings,
        device_id: str,
        host: Host,
        counters: Counters,
        listener: Listener,
        mqtt: MqttSink | None,
    ) -> None:
        self._host = host
        self._counters = counters
        self._listener = listener
        self._mqtt = mqtt
        self._started_s = time.monotonic()
        self._heard_s = 0.0
        chance = random.Random()  # noqa: S311 - jitter, not a secret
        self._schedule = TelemetrySchedule(settings.interval_s, device_id, self._started_s, chance)

    def change_interval(self, interval_s: float) -> None:
        """Report every `interval_s` seconds from now on; any thread may ask for it."""
        self._schedule.change_interval(interval_s, time.monotonic())

    def tick(self, send: Callable[[Message], None]) -> None:
        """Send a message if one is due."""
        now_s = time.monotonic()
        if not self._schedule.due(now_s):
            return
        self._collect()
        up_s = now_s - self._started_s
        mqtt = self._mqtt.stats if self._mqtt else None
        send(telemetry_message(self._host.read(), self._counters, mqtt, now=datetime.now(UTC), up_s=up_s))

    def _collect(self) -> None:
        """Bring over what only the listener knows."""
        heard_s = self._listener.counters.heard_s
        self._counters.heard(heard_s - self._heard_s)
        self._heard_s = heard_s
        if (floor := self._listener.noise_floor_dbfs) is not None:
            self._counters.noise_floor(floor)
