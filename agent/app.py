"""The composition root: puts the stages together, starts them from the far end to the near one, stops them in reverse.

    microphone ──frames──▶ [listen] ──utterances──▶ [transcribe] ──▶ publisher ──▶ sinks (thread `mqtt`)
    (thread `alsa`)         vad, segmenter           engine
    [main] signals, telemetry, watchdog, what failed

Stopping means closing the source; the rest follows by itself, stage by stage.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence

from agent.asr import Engine
from agent.asr.engine_process import longest_inference_s
from agent.asr.loading import (
    ENGINE_NICE,
    as_commanded,
    concrete_engine,
    create_segmenter,
    load_as_commanded,
    load_engine,
)
from agent.asr.transcriber import Transcriber
from agent.audio.conditioner import create_conditioner
from agent.audio.frames import Pcm16
from agent.audio.microphone import open_source
from agent.audio.monitor import AudioMonitor
from agent.channel import Overflow
from agent.config.commanded import Applied
from agent.config.layers import state_dir
from agent.config.settings import Settings, WavSettings
from agent.config.types import AUTO
from agent.errors import AgentError, ConfigError, SourceError
from agent.governor.runner import Governed, GovernorRunner
from agent.governor.spool import create_spool
from agent.install import extras
from agent.log import set_level
from agent.messages import State, identity
from agent.messages.privacy import PublishPolicy
from agent.models.languages import languages_of
from agent.mqtt import Sink
from agent.mqtt.client import MqttClient, open_outbox, undelivered
from agent.mqtt.command_handlers import DeviceIdentity
from agent.mqtt.outbox import Outbox
from agent.mqtt.publisher import Publisher
from agent.mqtt.remote import Remote
from agent.mqtt.reporting import MicrophoneHealth, TelemetryReporter
from agent.mqtt.stdout import StdoutSink
from agent.segmenter import Listener
from agent.systemd import Notifier
from agent.telemetry.counters import Counters
from agent.telemetry.naming import broker_name, engine_name, source_name
from agent.telemetry.prometheus import exposition, prometheus_server
from agent.telemetry.snapshot import Host, Snapshot, take_snapshot
from agent.telemetry.tcp import TcpServer
from agent.telemetry.vitals import Vitals, VitalsWatch, pull_codes
from agent.telemetry.watchdog import Supervisor
from agent.terminal.publisher import TopSink
from agent.vad import create_detector
from agent.worker import Worker

log = logging.getLogger(__name__)


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
        self._reporter = TelemetryReporter(settings.telemetry, device_id, self._snapshots(), counters, listener)
        self._mqtt: MqttClient | None = None
        self._top: TopSink | None = None
        if settings.top.enabled:
            top_snapshot = self._snapshots()
            self._top = TopSink(
                settings,
                device_id,
                listener=listener,
                transcriber=transcriber,
                publisher=publisher,
                survey=lambda: top_snapshot().message(),
                on_failure=on_failure,
            )
        self._prometheus: TcpServer | None = None
        if settings.prometheus.enabled:
            snapshot = self._snapshots()
            self._prometheus = prometheus_server(settings.prometheus, lambda: exposition(snapshot()), on_failure)

    @property
    def vitals(self) -> Vitals:
        """Temperature, power and memory as they were at the last tick; any thread may ask."""
        return self._watch.latest

    def open(self, mqtt: MqttClient | None) -> None:
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
        self._reporter.tick(self._watch.tick(), self._publisher)
        self._publisher.conditions("pull_", pull_codes(self._settings.telemetry.host_root))

    def close(self) -> list[str]:
        """Answer nobody any more; return the names of threads that have not ended."""
        return ["prometheus"] if self._prometheus and not self._prometheus.close() else []

    def _snapshots(self) -> Callable[[], Snapshot]:
        """Return a function that takes snapshots, for one thread: a `Host` measures CPU load from read to read."""
        host = Host(state_dir(self._settings), self._settings.telemetry.host_root)
        return lambda: take_snapshot(
            host.read(self._watch.latest),
            self._counters,
            waiting=self._transcriber.waiting,
            started_s=self._started_s,
            mqtt=self._mqtt.stats if self._mqtt else None,
            problems=self._publisher.problems,
        )


def open_assist(
    settings: Settings, transcriber: Transcriber, state: Callable[[], State], on_failure: Callable[[Worker], None]
) -> TcpServer | None:
    """Serve Assist from now on, None if that is not wanted. `state` tells which model and language are in force.

    Raises:
        ConfigError: the extra is not installed, or the address cannot be listened on.
    """
    if not settings.assist.enabled:
        return None
    try:
        from agent.wyoming import Conversation, Offer, assist_server, words_in  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError(f"assist.enabled needs the package wyoming ({error}): {extras.missing('assist')}") from error

    def offer() -> Offer:
        now = state()
        codes = (now.language,) if now.language != AUTO else languages_of(now.model)
        return Offer(now.model, tuple(code for code in codes if code != AUTO))

    def listen(pcm: Pcm16) -> str:
        return words_in(pcm, create_detector(settings.vad), create_segmenter(settings), transcriber.probe)

    return assist_server(settings.assist, lambda: Conversation(offer, listen), on_failure)


UTTERANCES_CAPACITY = 16
"""At most 16 times 20 s of speech, 10 MB, should the engine fall behind."""
TICK_S = 1.0
DRAIN_S = 20.0
"""What waits when the agent is stopped is still transcribed, for at most this long (the unit allows 30 s in all)."""
FAREWELL_S = 5.0
RESTART_STATUS = 75
"""EX_TEMPFAIL. The unit restarts whatever the status but 78, and takes this one for a success."""


class App:
    """One run of the agent, from the first frame to the last message.

    `read_again` reads the settings anew, and `options` of the command line let another `edgescribe` do so.
    The constructor finds out whether it can work at all (model, microphone), before anything is announced.

    Raises:
        AgentError: it cannot; see the tree in `errors.py`.
    """

    def __init__(
        self,
        settings: Settings,
        notifier: Notifier,
        read_again: Callable[[], Settings] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self._governed = Governed()
        configured = settings.model_copy(update={"engine": concrete_engine(settings)})
        applied = Applied(state_dir(settings))
        engine, self._settings = load_as_commanded(configured, applied, self._load_engine)
        self._notifier = notifier
        self._device_id = identity.device_id(settings.device.id)
        self._machine = identity.describe()
        self._wake = threading.Event()
        self._stop_wanted = False
        self._reload_wanted = False
        self._exit_status = 0
        self._failed: Worker | None = None
        self._reloading: Worker | None = None
        self._counters = Counters()
        self._outbox = open_outbox(self._settings, self._on_failure)
        next_seq = self._outbox.next_seq if self._outbox else None
        policy = PublishPolicy.of(self._settings.publish)
        self._publisher = Publisher(self._counters, self._machine.boot_id, next_seq, policy)
        self._wire_stages(engine, listening=applied.listening)
        self._wire_oversight(applied, read_again or (lambda: self._settings), options)

    def _wire_stages(self, engine: Engine, *, listening: bool) -> None:
        """Source, listener and transcriber."""
        settings = self._settings
        monitor = AudioMonitor()
        self._source = open_source(settings.source, listening=listening, on_overrun=lambda: self._counters.add("xruns"))
        self._is_recording = isinstance(settings.source, WavSettings)
        self._microphone_health = MicrophoneHealth(
            self._source, monitor, self._publisher, self._counters, is_recording=self._is_recording
        )
        overflow = Overflow.DROP_OLDEST if self._source.live else Overflow.WAIT
        self._spool = create_spool(settings)
        self._transcriber = Transcriber(engine, self._publisher, UTTERANCES_CAPACITY, overflow, self._spool.put)
        self._segmenter = create_segmenter(settings)
        transcribes = self._publisher.policy.transcribes
        self._listener = Listener(
            self._source,
            create_detector(settings.vad),
            self._segmenter,
            [self._transcriber.heard, self._publisher.heard] if transcribes else [self._publisher.heard],
            on_end=self._transcriber.close,
            monitor=monitor,
            conditioner=create_conditioner(settings.sound),
        )
        # From the far end to the near one: who receives stands before who sends.
        self._workers = [
            Worker("transcribe", self._transcriber.run, self._on_failure, nice=ENGINE_NICE),
            Worker("listen", self._listener.run, self._on_failure),
        ]

    def _wire_oversight(self, applied: Applied, read_again: Callable[[], Settings], options: Sequence[str]) -> None:
        """What gives orders to the stages, and what watches them."""
        self._remote = Remote(
            DeviceIdentity(self._device_id, self._machine, source_name(self._settings)),
            settings=self._settings,
            applied=applied,
            source=self._source,
            transcriber=self._transcriber,
            forget=self._forget,
            publisher=self._publisher,
            load_engine=self._load_engine,
            governed=self._governed,
            apply=self._apply,
            restart=self.restart,
            options=options,
            on_failure=self._on_failure,
        )
        self._monitor = Monitor(
            self._settings,
            self._device_id,
            counters=self._counters,
            listener=self._listener,
            transcriber=self._transcriber,
            publisher=self._publisher,
            on_failure=self._on_failure,
        )
        self._governor_runner = self._governor() if self._source.live else None
        self._supervisor = Supervisor(
            self._notifier,
            source=self._source,
            listener=self._listener,
            transcriber=self._transcriber,
            inference_s=lambda duration_s: longest_inference_s(self._remote.settings.engine, duration_s),
        )
        self._read_again = read_again
        self._applied = applied

    def run(self) -> int:
        """Work until the source ends, `stop` is called, or a stage fails; return the exit status.

        Raises:
            AgentError: what made a stage fail; or SinkError, if messages could not be delivered at the end.
        """
        sinks: list[Sink] = [StdoutSink(self._device_id, sys.stdout)] if self._settings.stdout.enabled else []
        self._mqtt = self._connect(self._outbox) if self._outbox else None
        sinks += [self._mqtt] if self._mqtt else []
        sinks += self._monitor.sinks
        self._monitor.open(self._mqtt)
        if self._governor_runner:
            self._governor_runner.open()
        self._remote.open(self._mqtt)
        self._publisher.open(sinks, self._remote.info(), self._remote.state())
        self._remote.start()
        assist = open_assist(self._settings, self._transcriber, self._remote.state, self._on_failure)
        for worker in self._workers:
            worker.start()
        log.info(f"{self._doing} as {self._device_id}, with {engine_name(self._settings)}")
        self._notifier.ready(self._doing)
        while self._working:
            self._wake.wait(TICK_S)
            self._wake.clear()
            self._start_reload()
            self._microphone_health.update()
            self._monitor.tick()
            if self._governor_runner:
                self._governor_runner.tick(self._monitor.vitals)
            self._remote.tick()
            self._publisher.repeat_speaking()
            self._publisher.conditions("outbox_", self._outbox.conditions if self._outbox else ())
            self._supervisor.tick(self._status)
            self._publisher.conditions("stalled", ("stalled",) if self._supervisor.stalled else ())
        if assist:
            assist.close()
        if self._governor_runner:
            self._governor_runner.close()
        return self._shut_down(sinks)

    def stop(self) -> None:
        """Ask `run` to end in good order; may be called from a signal handler."""
        self._stop_wanted = True
        self._wake.set()

    def reload(self) -> None:
        """Ask for the settings to be read anew; may be called from a signal handler."""
        self._reload_wanted = True
        self._wake.set()

    def restart(self) -> None:
        """Ask `run` to end in good order, with a status that makes systemd start the agent again."""
        self._exit_status = RESTART_STATUS
        self.stop()

    @property
    def _working(self) -> bool:
        """Until the recording has ended, and the broker has what waits, or takes no more of it."""
        # A damaged recording ends like others: the words before the damage are still transcribed.
        is_damaged = self._is_recording and self._failed and isinstance(self._failed.failure, SourceError)
        if (self._failed and not is_damaged) or self._stop_wanted:
            return False
        return any(worker.alive for worker in self._workers) or bool(self._mqtt and self._mqtt.delivering)

    # The stages, as they are wired.

    def _connect(self, outbox: Outbox) -> MqttClient:
        return MqttClient(self._settings.mqtt, self._device_id, outbox, self._on_failure, inbox=self._remote.inbox)

    def _governor(self) -> GovernorRunner:
        return GovernorRunner(
            self._governed,
            settings=lambda: self._remote.settings,
            changing=self._remote.changing,
            load_engine=lambda settings: load_engine(settings, self._engine_lost),
            transcriber=self._transcriber,
            recipient=self._publisher,
            spool=self._spool,
            conditions=self._publisher.conditions,
            applied=self._remote.applied,
            on_failure=self._on_failure,
        )

    def _forget(self) -> int:
        """Delete what was said until now and has no words; return how many utterances that were."""
        waiting = self._transcriber.forget()  # first: what comes out of the engine from now on goes nowhere
        return waiting + self._spool.purge()

    def _load_engine(self, settings: Settings) -> Engine:
        return load_engine(self._governed.overlay(settings), self._engine_lost)

    def _engine_lost(self, reason: str) -> None:
        del reason  # the engine itself has logged it, and its utterance gets a second attempt
        self._counters.add("engine_restarts")

    # While it works.

    @property
    def _status(self) -> str:
        """For `systemctl status`."""
        problems = self._publisher.problems
        well = f"{self._doing}; {', '.join(problems)}" if problems else self._doing
        return self._microphone_health.status(source_name(self._settings)) or well

    @property
    def _doing(self) -> str:
        return f"listening to {source_name(self._settings)}" if self._source.listening else "mute"

    def _start_reload(self) -> None:
        """One at a time, in a thread of its own: to load another engine takes longer than the watchdog waits."""
        if self._reload_wanted and not (self._reloading and self._reloading.alive):
            self._reload_wanted = False
            self._reloading = Worker(
                "reload", lambda: self._remote.reload(self._notifier, self._wanted), self._on_failure
            )
            self._reloading.start()

    def _wanted(self) -> Settings:
        """The settings, read anew."""
        settings = self._read_again()
        return as_commanded(settings.model_copy(update={"engine": concrete_engine(settings)}), self._applied)

    def _apply(self, settings: Settings) -> None:
        """Put in force what a command or a reload has changed (`config/tunables.py`), but for the engine."""
        set_level(settings.log.level)
        self._segmenter.threshold = settings.vad.threshold
        self._publisher.policy = PublishPolicy.of(settings.publish)
        self._monitor.change_interval(settings.telemetry.interval_s)

    # The end.

    def _on_failure(self, worker: Worker) -> None:
        self._failed = worker
        self._wake.set()

    def _shut_down(self, sinks: list[Sink]) -> int:
        self._notifier.stopping()
        self._remote.close()
        self._source.close()
        until_s = time.monotonic() + DRAIN_S
        survivors = [
            worker.name for worker in reversed(self._workers) if not worker.join(max(0.0, until_s - time.monotonic()))
        ]
        self._transcriber.abandon()
        connected = bool(self._mqtt and self._mqtt.connected)
        lost = sum(sink.close(FAREWELL_S) for sink in sinks)
        survivors += self._monitor.close()
        if self._failed and self._failed.failure:
            raise self._failed.failure
        if survivors:
            raise AgentError(
                f"{' and '.join(survivors)} did not stop within {DRAIN_S:.0f} s; what was under way is lost"
            )
        # Who stops a service knows that messages may still wait; who plays a recording to its end wants to be told.
        kept = self._outbox.pending if self._outbox and not self._stop_wanted else 0
        if lost or kept:
            raise undelivered(lost, kept, broker_name(self._settings), connected=connected)
        return self._exit_status
