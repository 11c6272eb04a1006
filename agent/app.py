"""The composition root: puts the stages together, starts them from the far end to the near one, stops them in reverse.

    [capture] ──frames──▶ [listen] ──utterances──▶ [transcribe] ──▶ publisher ──▶ sinks (thread `mqtt`)
     source                vad, segmenter           engine
    [main] signals, telemetry, watchdog, what failed

Stopping means closing the source; the rest follows by itself, stage by stage.
"""

import logging
import sys
import threading

from agent import __version__, identity
from agent.audio import AudioFrame
from agent.capture import capture
from agent.channel import Channel, Overflow
from agent.config import AlsaSettings, ScriptedSettings, Settings
from agent.errors import AgentError, SinkError
from agent.listen import Listener
from agent.outbox.memory import MemoryOutbox
from agent.publisher import Publisher
from agent.reporting import TelemetryReporter
from agent.segmenter import Ended, Paused, Resumed, SegmenterEvent
from agent.settings_sources import state_dir
from agent.sinks import Sink
from agent.sinks.mqtt import MqttSink
from agent.sinks.stdout import StdoutSink
from agent.sources.factory import create_source
from agent.sources.reconnecting import MicrophoneEvents
from agent.stages import ENGINE_NICE, concrete_engine, create_segmenter, load_engine
from agent.systemd import Notifier
from agent.telemetry.counters import Counters
from agent.telemetry.host import Host
from agent.transcriber import Transcriber
from agent.vad.factory import create_detector
from agent.wire import Info, State
from agent.worker import Worker

log = logging.getLogger(__name__)

FRAMES_CAPACITY = 256
"""Eight seconds of sound, should the listener be held up."""
UTTERANCES_CAPACITY = 16
"""At most 16 times 20 s of speech, 10 MB, should the engine fall behind."""
TICK_S = 1.0
DRAIN_S = 20.0
"""What waits when the agent is stopped is still transcribed, for at most this long (the unit allows 30 s in all)."""
FAREWELL_S = 5.0


class App:
    """One run of the agent, from the first frame to the last message.

    The constructor finds out whether it can work at all (model, microphone), before anything is announced.

    Raises:
        AgentError: it cannot; see the tree in `errors.py`.
    """

    def __init__(self, settings: Settings, notifier: Notifier) -> None:
        self._engine_settings = concrete_engine(settings)
        self._settings = settings = settings.model_copy(update={"engine": self._engine_settings})
        self._notifier = notifier
        self._device_id = identity.device_id(settings.device.id)
        self._machine = identity.describe()
        self._wake = threading.Event()
        self._stop_wanted = False
        self._failed: Worker | None = None
        self._counters = Counters()
        self._publisher = Publisher(self._counters, self._machine.boot_id)

        engine = load_engine(settings)
        self._source = create_source(settings.source, self._microphone_events())
        overflow = Overflow.DROP_OLDEST if self._source.live else Overflow.WAIT
        self._frames: Channel[AudioFrame] = Channel(FRAMES_CAPACITY, overflow)
        self._transcriber = Transcriber(engine, self._publisher, UTTERANCES_CAPACITY, overflow)
        self._listener = Listener(
            self._frames,
            create_detector(settings.vad),
            create_segmenter(settings),
            on_event=self._heard,
            on_end=self._transcriber.close,
        )
        # From the far end to the near one: who receives stands before who sends.
        self._workers = [
            Worker("transcribe", self._transcriber.run, self._on_failure, nice=ENGINE_NICE),
            Worker("listen", self._listener.run, self._on_failure),
            Worker("capture", self._capture, self._on_failure),
        ]

    def run(self) -> int:
        """Work until the source ends, `stop` is called, or a stage fails; return the exit status.

        Raises:
            AgentError: what made a stage fail; or SinkError, if messages could not be delivered at the end.
        """
        mqtt, sinks = self._open_sinks()
        telemetry = TelemetryReporter(
            self._settings.telemetry,
            self._device_id,
            Host(state_dir(self._settings)),
            self._counters,
            self._listener,
            mqtt,
        )
        self._publisher.open(sinks, self._info(), self._state())
        for worker in self._workers:
            worker.start()
        log.info(f"listening to {self._source_name} as {self._device_id}, with {self._engine_name}")
        self._notifier.ready(f"listening to {self._source_name}")
        while self._working:
            self._wake.wait(TICK_S)
            telemetry.tick(self._publisher.send)
            self._publisher.repeat_speaking()
            self._notifier.watchdog()
        return self._shut_down(sinks)

    def stop(self) -> None:
        """Ask `run` to end in good order; may be called from a signal handler."""
        self._stop_wanted = True
        self._wake.set()

    @property
    def _working(self) -> bool:
        return not self._failed and not self._stop_wanted and any(worker.alive for worker in self._workers)

    # The stages, as they are wired.

    def _capture(self) -> None:
        capture(self._source, self._frames)

    def _heard(self, event: SegmenterEvent) -> None:
        match event:
            case Paused(utterance):
                self._transcriber.draft(utterance)
            case Resumed():
                self._transcriber.withdraw()
            case Ended(utterance):
                self._transcriber.submit(utterance)
            case _:
                pass
        self._publisher.heard(event)

    def _microphone_events(self) -> MicrophoneEvents:
        publisher = self._publisher
        return MicrophoneEvents(publisher.microphone_absent, publisher.microphone_back, publisher.overrun)

    def _open_sinks(self) -> tuple[MqttSink | None, list[Sink]]:
        sinks: list[Sink] = []
        mqtt = None
        if self._settings.stdout.enabled:
            sinks.append(StdoutSink(self._device_id, sys.stdout))
        if self._settings.mqtt.enabled:
            outbox = MemoryOutbox(self._settings.mqtt.queue_limit)
            mqtt = MqttSink(self._settings.mqtt, self._device_id, outbox, self._on_failure)
            sinks.append(mqtt)
        return mqtt, sinks

    # The end.

    def _on_failure(self, worker: Worker) -> None:
        self._failed = worker
        self._wake.set()

    def _shut_down(self, sinks: list[Sink]) -> int:
        self._notifier.stopping()
        self._source.close()
        survivors = [worker.name for worker in reversed(self._workers) if not worker.join(DRAIN_S)]
        undelivered = sum(sink.close(FAREWELL_S) for sink in sinks)
        if self._failed and self._failed.failure:
            raise self._failed.failure
        if survivors:
            raise AgentError(
                f"{' and '.join(survivors)} did not stop within {DRAIN_S:.0f} s; what was under way is lost"
            )
        if undelivered:
            messages = "1 message" if undelivered == 1 else f"{undelivered} messages"
            raise SinkError(f"{messages} could not be delivered: is there a broker at {self._broker_name}?")
        return 0

    # What the device says of itself.

    @property
    def _source_name(self) -> str:
        source = self._settings.source
        return f"microphone {source.device}" if isinstance(source, AlsaSettings) else str(source.path)

    @property
    def _engine_name(self) -> str:
        engine = self._engine_settings
        return engine.kind if isinstance(engine, ScriptedSettings) else f"{engine.kind} {engine.model}"

    @property
    def _broker_name(self) -> str:
        return f"{self._settings.mqtt.host}:{self._settings.mqtt.effective_port}"

    def _info(self) -> Info:
        engine, machine = self._engine_settings, self._machine
        return Info(
            id=self._device_id,
            name=self._settings.device.name or self._device_id,
            agent=__version__,
            boot_id=machine.boot_id,
            hardware=machine.hardware,
            os=machine.os,
            kernel=machine.kernel,
            arch=machine.arch,
            python=machine.python,
            engine=engine.kind,
            model="scripted" if isinstance(engine, ScriptedSettings) else engine.model,
            source=self._source_name,
        )

    def _state(self) -> State:
        engine = self._engine_settings
        return State(
            listening=True,
            engine=engine.kind,
            model="scripted" if isinstance(engine, ScriptedSettings) else engine.model,
            language=engine.language,
            vad_threshold=self._settings.vad.threshold,
        )
