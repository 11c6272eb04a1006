"""The composition root: builds the parts, starts them from the last stage to the first, and stops them in reverse.

microphone ─▶ [listen] ─▶ [transcribe] ─▶ publisher ─▶ sinks: stdout, broker (thread `mqtt`), `edgescribe top`
[main] signals, health, governor, commands; ends when the source ends, a signal comes, or a stage fails
"""

import logging
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from agent.asr.loading import as_commanded, concrete_engine, load_as_commanded, load_engine
from agent.asr.pipeline import Pipeline
from agent.config.commanded import Applied
from agent.config.layers import state_dir
from agent.config.settings import Settings, WavSettings
from agent.errors import AgentError, SourceError
from agent.governor.runner import Governed, GovernorRunner
from agent.governor.spool import create_spool
from agent.messages import identity
from agent.mqtt.client import MqttClient, open_outbox, undelivered
from agent.mqtt.health import HealthMonitor
from agent.mqtt.publisher import Publisher
from agent.mqtt.remote import Remote
from agent.mqtt.stdout import StdoutSink
from agent.systemd import Notifier
from agent.telemetry.counters import Counters
from agent.telemetry.naming import broker_name, engine_name
from agent.terminal.publisher import TopSink
from agent.worker import Worker

log = logging.getLogger(__name__)

TICK_S: Final = 1.0
DRAIN_S: Final = 20.0
"""For the utterances that wait when the agent is stopped (the unit allows 30 s in all)."""
FAREWELL_S: Final = 5.0
RESTART_STATUS: Final = 75
"""EX_TEMPFAIL. The unit restarts after every status but 78, and counts this one as success."""


class App:
    """One run of the agent, from the first frame to the last message.

    `read_again` reads the settings for a reload. `options` of the command line let another `edgescribe` read them.
    The constructor loads the model and opens the microphone, before the device is announced.

    Raises:
        AgentError: the agent cannot work; see the tree in `errors.py`.
    """

    def __init__(
        self,
        settings: Settings,
        notifier: Notifier,
        read_again: Callable[[], Settings] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self._notifier = notifier
        self._read_again = read_again or (lambda: settings)
        self._wake = threading.Event()
        self._stop_wanted = False
        self._reload_wanted = False
        self._exit_status = 0
        self._failed: Worker | None = None
        self._reloading: Worker | None = None
        self._counters = Counters()
        self._governed = Governed()
        self._applied = Applied(state_dir(settings))
        self._load_engine = partial(load_engine, on_loss=lambda _reason: self._counters.add("engine_restarts"))
        configured = settings.model_copy(update={"engine": concrete_engine(settings)})
        engine, self._settings = load_as_commanded(configured, self._applied, self._load_engine)
        self._device_id = identity.device_id(settings.device.id)
        self._outbox = open_outbox(self._settings, self._on_failure)
        next_seq = self._outbox.next_seq if self._outbox else None
        self._publisher = Publisher(self._counters, identity.boot_id(), next_seq)
        self._spool = create_spool(self._settings)
        self._pipeline = Pipeline(
            self._settings,
            engine,
            listening=self._applied.listening,
            recipient=self._publisher,
            on_event=self._publisher.heard,
            on_overrun=lambda: self._counters.add("xruns"),
            keep=self._spool.put,
            on_failure=self._on_failure,
        )
        self._remote = Remote(
            self._device_id,
            self._settings,
            self._applied,
            pipeline=self._pipeline,
            publisher=self._publisher,
            spool=self._spool,
            load_engine=self._load_engine,
            governed=self._governed,
            restart=self.restart,
            options=options,
            on_failure=self._on_failure,
        )
        self._health = HealthMonitor(
            self._device_id,
            lambda: self._remote.settings,
            notifier,
            pipeline=self._pipeline,
            publisher=self._publisher,
            counters=self._counters,
            on_failure=self._on_failure,
        )
        self._top = self._create_top() if self._settings.top.enabled else None
        self._governor = self._create_governor() if self._pipeline.source.live else None

    def run(self) -> int:
        """Work until the source ends, `stop` is called, or a stage fails; return the exit status.

        Raises:
            AgentError: a stage failed with it; or SinkError, if messages could not be delivered at the end.
        """
        self._mqtt = self._health.mqtt = self._connect()
        if self._governor:
            self._governor.open()
        self._remote.open(self._mqtt)
        stdout = StdoutSink(self._device_id, sys.stdout) if self._settings.stdout.enabled else None
        sinks = [sink for sink in (stdout, self._mqtt, self._top) if sink]
        self._publisher.open(sinks, self._remote.info(), self._remote.state())
        self._remote.start()
        assist = None
        if self._settings.assist.enabled:
            from agent.wyoming import open_assist  # noqa: PLC0415 - it needs an optional package

            assist = open_assist(self._settings, self._pipeline.transcriber, self._remote.state, self._on_failure)
        self._pipeline.start()
        log.info(f"{self._health.activity} as {self._device_id}, with {engine_name(self._settings)}")
        self._notifier.ready(self._health.activity)
        while self._working:
            self._wake.wait(TICK_S)
            self._wake.clear()
            self._start_reload()
            self._health.tick()
            if self._governor:
                self._governor.tick(self._health.vitals)
            self._remote.tick()
            self._publisher.repeat_speaking()
            self._publisher.conditions("outbox_", self._outbox.conditions if self._outbox else ())
        if assist:
            assist.close()
        if self._governor:
            self._governor.close()
        self._notifier.stopping()
        self._remote.close()
        left = self._pipeline.close(DRAIN_S)
        connected = bool(self._mqtt and self._mqtt.connected)
        lost = sum(sink.close(FAREWELL_S) for sink in sinks)
        left += self._health.close()
        self._raise_trouble(left, lost, connected=connected)
        return self._exit_status

    def stop(self) -> None:
        """Make `run` end in good order; a signal handler may call it."""
        self._stop_wanted = True
        self._wake.set()

    def reload(self) -> None:
        """Make `run` read the settings again; a signal handler may call it."""
        self._reload_wanted = True
        self._wake.set()

    def restart(self) -> None:
        """Make `run` end in good order, with the status for which systemd starts the agent again."""
        self._exit_status = RESTART_STATUS
        self.stop()

    @property
    def _working(self) -> bool:
        """False once a recording has ended and its messages are delivered, the agent is stopped, or a stage failed."""
        # A damaged recording ends like others: the words before the damage are still transcribed.
        is_recording = isinstance(self._settings.source, WavSettings)
        is_damaged = is_recording and self._failed and isinstance(self._failed.failure, SourceError)
        if (self._failed and not is_damaged) or self._stop_wanted:
            return False
        return self._pipeline.alive or bool(self._mqtt and self._mqtt.delivering)

    def _raise_trouble(self, left: list[str], lost: int, *, connected: bool) -> None:
        """Raise the reason why this run was not a success; `left` are threads that did not end.

        Raises:
            AgentError: there is one.
        """
        if self._failed and self._failed.failure:
            raise self._failed.failure
        if left:
            raise AgentError(f"{' and '.join(left)} did not stop within {DRAIN_S:.0f} s; their work is lost")
        # A stopped service sends its messages at the next start. The end of a recording is the last chance.
        kept = self._outbox.pending if self._outbox and not self._stop_wanted else 0
        if lost or kept:
            raise undelivered(lost, kept, broker_name(self._settings), connected=connected)

    # Building the parts.

    def _connect(self) -> MqttClient | None:
        if not self._outbox:
            return None
        inbox = self._remote.inbox
        return MqttClient(self._settings.mqtt, self._device_id, self._outbox, self._on_failure, inbox=inbox)

    def _create_top(self) -> TopSink:
        snapshot = self._health.snapshots()
        return TopSink(
            self._settings,
            self._device_id,
            listener=self._pipeline.listener,
            transcriber=self._pipeline.transcriber,
            publisher=self._publisher,
            survey=lambda: snapshot().message(),
            on_failure=self._on_failure,
        )

    def _create_governor(self) -> GovernorRunner:
        return GovernorRunner(
            self._governed,
            settings=lambda: self._remote.settings,
            changing=self._remote.changing,
            load_engine=self._load_engine,
            transcriber=self._pipeline.transcriber,
            recipient=self._publisher,
            spool=self._spool,
            conditions=self._publisher.conditions,
            applied=self._remote.publish_state,
            on_failure=self._on_failure,
        )

    # Reload, and failures.

    def _start_reload(self) -> None:
        """Start one reload at a time, in a thread: loading an engine takes longer than the watchdog waits."""
        if self._reload_wanted and not (self._reloading and self._reloading.alive):
            self._reload_wanted = False
            self._reloading = Worker("reload", self._reload, self._on_failure)
            self._reloading.start()

    def _reload(self) -> None:
        """Read the settings again, and tell systemd when it begins and ends. Wrong settings are not applied."""
        self._notifier.reloading()
        status = "reloaded"
        try:
            log.info(f"reloaded: {self._remote.reload(self._wanted)}")
        except AgentError as error:
            status = "not reloaded: the settings are wrong, see the log"
            log.error(f"not reloaded, what was in force stays so: {error}")  # noqa: TRY400 - a sentence, no traceback
        finally:
            self._notifier.ready(status)

    def _wanted(self) -> Settings:
        settings = self._read_again()
        return as_commanded(settings.model_copy(update={"engine": concrete_engine(settings)}), self._applied)

    def _on_failure(self, worker: Worker) -> None:
        self._failed = worker
        self._wake.set()
