"""Looks at every part of the agent about once a second, and tells others: health, telemetry, Prometheus, systemd."""

import time
from collections.abc import Callable
from typing import Final

from agent.asr.engine_process import longest_inference_s
from agent.asr.pipeline import Pipeline
from agent.config.layers import state_dir
from agent.config.settings import Settings, WavSettings
from agent.mqtt.client import MqttClient
from agent.mqtt.publisher import Publisher
from agent.mqtt.reporting import MicrophoneHealth, TelemetryReporter
from agent.systemd import Notifier
from agent.telemetry.counters import Counters
from agent.telemetry.naming import source_name
from agent.telemetry.prometheus import exposition, prometheus_server
from agent.telemetry.snapshot import Host, Snapshot, take_snapshot
from agent.telemetry.tcp import TcpServer
from agent.telemetry.vitals import Vitals, VitalsWatch, pull_codes
from agent.telemetry.watchdog import Supervisor
from agent.worker import Worker


class HealthMonitor:
    """Owned by the main thread, which calls `tick` about once a second, and `close`.

    Args:
        device_id: Decides when telemetry is due.
        settings: Returns the settings in force.
        notifier: The way to systemd.
        pipeline, publisher, counters: The parts to look at.
        on_failure: Receives a thread that failed.

    Raises:
        ConfigError: the address of the Prometheus server cannot be used.
    """

    def __init__(
        self,
        device_id: str,
        settings: Callable[[], Settings],
        notifier: Notifier,
        *,
        pipeline: Pipeline,
        publisher: Publisher,
        counters: Counters,
        on_failure: Callable[[Worker], None],
    ) -> None:
        configured = settings()
        self.mqtt: MqttClient | None = None
        """The link to the broker, once there is one."""
        self._settings = settings
        self._host_root: Final = configured.telemetry.host_root
        self._interval_s = configured.telemetry.interval_s
        self._source_name = source_name(configured)
        self._pipeline = pipeline
        self._publisher = publisher
        self._counters = counters
        self._started_s = time.monotonic()
        self._watch = VitalsWatch(self._host_root)
        self._microphone = MicrophoneHealth(
            pipeline.source,
            pipeline.monitor,
            publisher,
            counters,
            is_recording=isinstance(configured.source, WavSettings),
        )
        self._reporter = TelemetryReporter(
            configured.telemetry, device_id, self.snapshots(), counters, pipeline.listener
        )
        self._supervisor = Supervisor(
            notifier,
            source=pipeline.source,
            listener=pipeline.listener,
            transcriber=pipeline.transcriber,
            inference_s=lambda duration_s: longest_inference_s(settings().engine, duration_s),
        )
        self._prometheus: TcpServer | None = None
        if configured.prometheus.enabled:
            snapshot = self.snapshots()
            self._prometheus = prometheus_server(configured.prometheus, lambda: exposition(snapshot()), on_failure)

    def snapshots(self) -> Callable[[], Snapshot]:
        """Return a function that takes snapshots. Each thread needs its own: CPU load counts from one to the next."""
        host = Host(state_dir(self._settings()), self._host_root)
        return lambda: take_snapshot(
            host.read(self._watch.latest),
            self._counters,
            waiting=self._pipeline.transcriber.waiting,
            started_s=self._started_s,
            mqtt=self.mqtt.stats if self.mqtt else None,
            problems=self._publisher.problems,
        )

    @property
    def vitals(self) -> Vitals:
        """Temperature, power and memory at the last tick. Any thread may read."""
        return self._watch.latest

    @property
    def activity(self) -> str:
        """The agent's activity, for people."""
        return f"listening to {self._source_name}" if self._pipeline.source.listening else "mute"

    def tick(self) -> None:
        """Publish every problem and the telemetry that is due; notify systemd."""
        publisher = self._publisher
        self._microphone.update()
        publisher.conditions("mqtt_", self.mqtt.conditions if self.mqtt else ())
        publisher.conditions("pull_", pull_codes(self._host_root))
        interval_s = self._settings().telemetry.interval_s
        if interval_s != self._interval_s:
            self._interval_s = interval_s
            self._reporter.change_interval(interval_s)
        self._reporter.tick(self._watch.tick(), publisher)
        self._supervisor.tick(self._status)
        publisher.conditions("stalled", ("stalled",) if self._supervisor.stalled else ())

    @property
    def _status(self) -> str:
        """The line for `systemctl status`."""
        problems = self._publisher.problems
        well = f"{self.activity}; {', '.join(problems)}" if problems else self.activity
        return self._microphone.status(self._source_name) or well

    def close(self) -> list[str]:
        """Stop the Prometheus server; return the names of threads that have not ended."""
        return ["prometheus"] if self._prometheus and not self._prometheus.close() else []
