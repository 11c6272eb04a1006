"""The device as others see and control it over MQTT: commands, applied state, Home Assistant.

mqtt thread ──▶ receive ─┬─ homeassistant/status ─▶ announcer
                         └─ …/cmd/… ──────────────▶ dispatcher ─▶ execute
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Final

from agent import __version__
from agent.asr import Engine
from agent.asr.pipeline import Pipeline
from agent.config.commanded import LISTENING, Applied, Reload, plan_reload, value_at
from agent.config.keywords import keyword_rules
from agent.config.layers import models_dir, state_dir
from agent.config.settings import AutoSettings, ScriptedSettings, Settings
from agent.config.tunables import COMMANDED, Tunable
from agent.errors import EngineError, ModelError, SourceError
from agent.governor.runner import Governed
from agent.governor.spool import Spool
from agent.log import set_level
from agent.messages import Info, State, identity
from agent.messages.privacy import PublishPolicy
from agent.models.catalogue import load_catalogue
from agent.models.languages import languages_of
from agent.models.selection import format_for
from agent.models.store import Store
from agent.mqtt.client import MqttClient
from agent.mqtt.command_calibrate import Calibrator
from agent.mqtt.command_dispatcher import CommandDispatcher
from agent.mqtt.command_handlers import (
    changed_settings,
    label,
    replay_outcome,
    transcribe_golden_utterance,
    values_in_force,
)
from agent.mqtt.commands import Arguments, CommandError, CommandValidator, Outcome, ReplayArguments, SwitchArguments
from agent.mqtt.delivery import Inbox, Incoming, Outgoing, Replay, SeqRange
from agent.mqtt.discovery import Announcer, DeviceFacts
from agent.mqtt.publisher import Publisher
from agent.telemetry.naming import source_name
from agent.telemetry.snapshot import absent_metrics
from agent.worker import Worker

log = logging.getLogger(__name__)

SWAP_S: Final = 120.0
"""For the waiting utterances, before a command gives up exchanging the engine."""
CLOSE_S: Final = 2.0
KEEP_S: Final = 10.0
"""How often to look for files that were deleted from the state folder."""
_OF_A_MODEL: Final = frozenset({"model", "initial_prompt"})
_NOT_STORED: Final = "; it could not be stored yet"


class Remote:
    """Executes commands, keeps the settings in force, and publishes them.

    The main thread calls `open` and `start` once, `tick` about once a second, and `close`. The dispatcher's threads
    call `execute`, and the thread `reload` calls `reload`.

    Args:
        device_id: Topic level of the device.
        settings: In force at the start: the configuration with earlier commands.
        applied: Stores what commands change.
        pipeline, publisher, spool: Reached by commands.
        load_engine: Raises ModelError or EngineError.
        governed: The governor's changes to the settings.
        restart: Ends the agent; systemd starts it again.
        options: Command line options that lead another `edgescribe` to the same settings.
        on_failure: Receives a thread that failed.
    """

    def __init__(
        self,
        device_id: str,
        settings: Settings,
        applied: Applied,
        *,
        pipeline: Pipeline,
        publisher: Publisher,
        spool: Spool,
        load_engine: Callable[[Settings], Engine],
        governed: Governed,
        restart: Callable[[], None],
        options: Sequence[str],
        on_failure: Callable[[Worker], None],
    ) -> None:
        self.changing = threading.Lock()
        """Held by every thread that changes `settings`, from reading them until the change is in force. Otherwise two
        engines could be loaded at once, and `settings` could name the other one."""
        self._device_id = device_id
        self._machine = identity.describe()
        self._applied = applied
        self._pipeline = pipeline
        self._publisher = publisher
        self._spool = spool
        self._load_engine = load_engine
        self._governed = governed
        self._options = options
        self._mqtt: MqttClient | None = None
        self._announcer: Announcer | None = None
        self._telling = threading.Lock()
        self._keep_at_s = 0.0
        self._absent = absent_metrics(state_dir(settings), settings.telemetry.host_root)
        self._store = Store(models_dir(settings), load_catalogue())
        self._calibrator = Calibrator()
        commands, prefix = settings.commands, settings.discovery.prefix
        self._birth_topic = f"{prefix}/status"
        self._validator = CommandValidator(device_id, commands.allow, commands.groups, prefix)
        self._apply(settings)
        self._dispatcher = CommandDispatcher(device_id, self._validator, self.execute, self._post, on_failure)
        self._handlers: Mapping[str, Callable[[Any], Outcome]] = {
            "listen": lambda switch: self._listen(switch, on=switch.value),
            "mute": lambda switch: self._listen(switch, on=not switch.value),
            **{tunable.command: partial(self._set, tunable) for tunable in COMMANDED},
            "restart": lambda _: Outcome("restarting", then=restart),
            "identify": lambda _: self._identify(),
            "calibrate": lambda _: self._calibrate(),
            "replay": self._replay,
            "golden_utterance": lambda _: transcribe_golden_utterance(pipeline.transcriber),
        }

    @property
    def inbox(self) -> Inbox:
        """The topics that the MQTT client subscribes to."""
        births = () if self.settings.discovery.mode == "off" else (self._birth_topic,)
        return Inbox((*self._validator.filters, *births), self._receive)

    def open(self, mqtt: MqttClient | None) -> None:
        """Announce the device. The announcement goes out before all later messages."""
        self._mqtt = mqtt
        if mqtt:
            folder = state_dir(self.settings)
            self._announcer = Announcer(self.settings.discovery, mqtt, folder, serial=identity.serial())
            self._announcer.announce(self._facts())

    def start(self) -> None:
        """Execute commands from now on; called once the first `state` is sent.

        An earlier command could send its `state` first, and the first `state` would then replace it.
        """
        self._dispatcher.start()

    def tick(self) -> None:
        """Send the announcements that are due, and restore deleted files."""
        if self._announcer:
            self._announcer.tick()
        if (now_s := time.monotonic()) >= self._keep_at_s:
            self._keep_at_s = now_s + KEEP_S
            self._applied.keep()
            if self._announcer:
                self._announcer.keep()

    def close(self) -> None:
        """Accept no more commands, and finish the ones under way."""
        self._dispatcher.close()
        self._calibrator.close()
        self._dispatcher.join(CLOSE_S)

    def _receive(self, incoming: Incoming) -> None:
        """Called from the thread `mqtt`."""
        if incoming.topic != self._birth_topic:
            self._dispatcher.put(incoming)
        elif incoming.payload == b"online" and not incoming.retained and self._announcer:
            self._announcer.born()

    def _post(self, outgoing: Outgoing) -> None:
        if self._mqtt:
            self._mqtt.post(outgoing)

    # Changing the settings in force.

    def execute(self, name: str, arguments: Arguments) -> Outcome:
        """Execute a command of the table `commands.ARGUMENTS`."""
        try:
            return self._handlers[name](arguments)
        except CommandError as error:
            return Outcome(str(error), error.code)

    def reload(self, wanted: Callable[[], Settings]) -> Reload:
        """Put in force the settings that `wanted` reads, as far as a reload can.

        Raises:
            AgentError: as `wanted` or the engine does; then everything stays as it was.
        """
        with self.changing:
            reload = plan_reload(self.settings, wanted())
            if reload.engine:
                self._pipeline.transcriber.exchange(self._load_engine(self._governed.overlay(reload.settings)))
            set_level(reload.settings.log.level)
            self._apply(reload.settings)
            self.publish_state()
            return reload

    def _apply(self, settings: Settings) -> None:
        """Hand the settings of `config/tunables.py` to the stages, except those of the engine and the log.

        `HealthMonitor` looks at `telemetry.interval_s` itself.
        """
        self._pipeline.segmenter.threshold = settings.vad.threshold
        self._publisher.policy = PublishPolicy.of(settings.publish)
        self.settings = settings
        """In force by the configuration and commands, without the governor. Any thread may read."""

    def _set(self, tunable: Tunable, arguments: Any) -> Outcome:
        value = arguments.value
        with self.changing:
            wanted = changed_settings(self.settings, tunable, value, self._configured_model)
            if tunable.engine:
                self._exchange_engine(wanted)
            self._apply(wanted)
            stored = self._applied.remember(tunable.key, value)
            self.publish_state()
        msg = f"the {label(tunable)} is {'set' if tunable.platform == 'text' else value}"
        return Outcome(msg if stored else msg + _NOT_STORED, result={"value": value})

    def _exchange_engine(self, wanted: Settings) -> None:
        """Load an engine, and let it take over between two utterances.

        Raises:
            CommandError: it cannot be loaded, or the transcriber had no time for the exchange.
        """
        try:
            engine = self._load_engine(self._governed.overlay(wanted))
        except (ModelError, EngineError) as error:
            raise CommandError("unavailable", str(error)) from error
        try:
            self._pipeline.transcriber.exchange(engine, SWAP_S)
        except EngineError as error:
            raise CommandError("busy", str(error)) from error

    def _listen(self, switch: SwitchArguments, *, on: bool) -> Outcome:
        """Open or close the microphone, without waiting for `changing`: a device is muted at once."""
        source = self._pipeline.source
        if on:
            try:
                source.on()
            except SourceError as error:
                return Outcome(str(error), "failed")
        else:
            source.off()
        stored = self._applied.remember(LISTENING, on)
        purged = {"purged": self._purge()} if switch.purge and not on else {}
        self.publish_state()
        msg = "listening" if on else "mute: the microphone is closed"
        return Outcome(msg if stored else msg + _NOT_STORED, result={"value": switch.value, **purged})

    # The other commands.

    def _purge(self) -> int:
        """Delete the waiting utterances and messages; return their number. The engine's result is not published."""
        waiting = self._pipeline.transcriber.forget()  # first: from now on the engine's results are dropped
        return waiting + self._spool.purge() + (self._mqtt.purge() if self._mqtt else 0)

    def _identify(self) -> Outcome:
        info = self.info()
        facts = {"device": info.id, "name": info.name, "source": info.source, "hardware": info.hardware}
        known = {name: value for name, value in facts.items() if value}
        log.info(f"identify: {', '.join(f'{name} {value}' for name, value in known.items())}")
        return Outcome("see the log", result=known)

    def _replay(self, arguments: ReplayArguments) -> Outcome:
        wanted = SeqRange(arguments.first, arguments.last)
        return replay_outcome(self._mqtt.replay(wanted) if self._mqtt else Replay(0, (wanted,), None))

    def _calibrate(self) -> Outcome:
        """Measure with the settings of this agent, and the language in force."""
        language = value_at(self.settings, "engine.language")
        values = {"state_dir": state_dir(self.settings), "engine.language": language}
        overrides = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
        return self._calibrator.measure((*self._options, *overrides))

    # The description of the device.

    def publish_state(self) -> None:
        """Publish the settings in force; called from any thread that has changed them."""
        with self._telling:  # the broker keeps the last message, which must be the latest one
            self._publisher.send(self.state())
            self._publisher.send(self.info())
            if self._announcer:
                self._announcer.announce(self._facts())

    def state(self) -> State:
        """Return the applied values."""
        values = values_in_force(self._governed.overlay(self.settings))
        listening = self._pipeline.source.listening
        return State.model_validate({"listening": listening, **values, "governor": self._governed.state})

    def info(self) -> Info:
        """Return the description of the device."""
        settings = self._governed.overlay(self.settings)
        return Info(
            id=self._device_id,
            name=settings.device.name or self._device_id,
            agent=__version__,
            **asdict(self._machine),
            engine=settings.engine.kind,
            model=str(value_at(settings, "engine.model") or settings.engine.kind),
            source=source_name(settings),
        )

    @property
    def _configured_model(self) -> object:
        """The model of the configuration: a path there may be commanded as well."""
        return self._applied.configured("engine.model")

    def _facts(self) -> DeviceFacts:
        settings, engine, info = self.settings, self.settings.engine, self.info()
        scripted = isinstance(engine, ScriptedSettings | AutoSettings)  # `auto` was resolved long ago
        installed: tuple[str, ...] = ()
        if not isinstance(engine, ScriptedSettings | AutoSettings):
            installed = tuple(model.name for model in self._store.installed(format_for(engine)))
            own = self._configured_model
            if isinstance(own, str) and own not in self._store.catalogue:  # a path, which a command may choose again
                installed += (own,)
        keywords = settings.publish.keywords if settings.publish.privacy != "off" else ()
        return DeviceFacts(
            device_id=info.id,
            name=info.name,
            agent=info.agent,
            hardware=info.hardware,
            models=tuple(dict.fromkeys((*installed, info.model))),
            languages=(str(value_at(settings, "engine.language")),) if scripted else languages_of(info.model),
            commands=frozenset(settings.commands.allow) - (_OF_A_MODEL if scripted else frozenset()),
            telemetry_interval_s=settings.telemetry.interval_s,
            publishes_text=settings.publish.privacy == "full",
            keywords=tuple(rule.name for rule in keyword_rules(keywords)),
            absent=self._absent,
        )
