"""The device's view of itself: puts together who looks at the machine and the stages, and who tells of it."""

import time
from collections.abc import Callable

from agent.config import Settings
from agent.listen import Listener
from agent.publishing.publisher import Publisher
from agent.publishing.reporting import Surveyor, TelemetryReporter
from agent.settings.sources import state_dir
from agent.sinks import Sink
from agent.sinks.mqtt import MqttSink
from agent.telemetry.conditions import pull_codes
from agent.telemetry.counters import Counters
from agent.telemetry.exposition import exposition
from agent.telemetry.host import Host
from agent.telemetry.prometheus import PrometheusServer
from agent.telemetry.vitals import Vitals, VitalsWatch
from agent.top.telling import TopSink
from agent.transcriber import Transcriber
from agent.wire.telemetry import TelemetryMessage
from agent.worker import Worker


class Monitor:
    """Owned by the main thread, which calls `open` once, `tick` about once a second, and `close`.

    Raises:
        ConfigError: nobody can listen where the settings say.
    """

    def __init__(
        self,
        settings: Settings,
        device_id: str,
        *,
        counters: Counters,
        listener: Listener,
        transcriber: Transcriber,
        publisher: Publisher,
        on_failure: Callable[[Worker], None],
    ) -> None:
        self._settings = settings
        self._counters = counters
        self._transcriber = transcriber
        self._publisher = publisher
        self._started_s = time.monotonic()
        self._watch = VitalsWatch(settings.telemetry.host_root)
        self._reporter = TelemetryReporter(settings.telemetry, device_id, self._surveyor(), counters, listener)
        self._mqtt: MqttSink | None = None
        self._top = self._offer_top(device_id, listener, on_failure) if settings.top.enabled else None
        self._prometheus = self._listen_for_prometheus(on_failure) if settings.prometheus.enabled else None

    @property
    def vitals(self) -> Vitals:
        """Temperature, power and memory as they were at the last tick; any thread may ask."""
        return self._watch.latest

    def open(self, mqtt: MqttSink | None) -> None:
        """From now on there is a link to tell of."""
        self._mqtt = mqtt

    @property
    def sinks(self) -> list[Sink]:
        """Who else is to be told what is published."""
        return [self._top] if self._top else []

    def change_interval(self, interval_s: float) -> None:
        """Send telemetry every `interval_s` seconds from now on; any thread may ask for it."""
        self._reporter.change_interval(interval_s)

    def tick(self) -> None:
        """Look, and tell what is due."""
        self._publisher.conditions("mqtt_", self._mqtt.conditions if self._mqtt else ())
        self._reporter.tick(self._watch.tick(), self._publisher, self._mqtt)
        self._publisher.conditions("pull_", pull_codes(self._settings.telemetry.host_root))

    def close(self) -> list[str]:
        """Answer nobody any more; return the names of threads that have not ended."""
        return ["prometheus"] if self._prometheus and not self._prometheus.close() else []

    def _listen_for_prometheus(self, on_failure: Callable[[Worker], None]) -> PrometheusServer:
        surveyor = self._surveyor()  # of its own: CPU load is that since the scrape before

        def render() -> str:
            return exposition(surveyor.snapshot(self._mqtt, self._publisher.problems))

        return PrometheusServer(self._settings.prometheus, render, on_failure)

    def _offer_top(self, device_id: str, listener: Listener, on_failure: Callable[[Worker], None]) -> TopSink:
        surveyor = self._surveyor()

        def survey() -> TelemetryMessage:
            return surveyor.snapshot(self._mqtt, self._publisher.problems).message()

        return TopSink(
            self._settings,
            device_id,
            listener=listener,
            transcriber=self._transcriber,
            publisher=self._publisher,
            survey=survey,
            on_failure=on_failure,
        )

    def _surveyor(self) -> Surveyor:
        host = Host(state_dir(self._settings), self._settings.telemetry.host_root)
        return Surveyor(host, self._watch, self._counters, self._transcriber, self._started_s)
