"""The device as others see and control it over MQTT: its applied state, its commands, its place in Home Assistant.

    mqtt thread ──▶ receive ─┬─ homeassistant/status ─▶ announcer
                             └─ …/cmd/… ──────────────▶ dispatcher (threads `control`, `microphone`) ─▶ device

Put together and owned by `app.py`.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from agent import __version__
from agent.asr import Engine
from agent.asr.transcriber import Transcriber
from agent.audio.microphone import Microphone
from agent.config.commanded import Applied, value_at
from agent.config.keywords import keyword_rules
from agent.config.layers import models_dir, state_dir
from agent.config.settings import AutoSettings, ScriptedSettings, Settings
from agent.errors import AgentError
from agent.governor.runner import Governed
from agent.messages import Info, State, identity
from agent.models.catalogue import load_catalogue
from agent.models.languages import languages_of
from agent.models.selection import format_for
from agent.models.store import Store
from agent.mqtt.client import MqttClient
from agent.mqtt.command_calibrate import Calibrator
from agent.mqtt.command_dispatcher import CommandDispatcher
from agent.mqtt.command_handlers import ControlledDevice, DeviceIdentity, in_force
from agent.mqtt.commands import CommandValidator, Later, Outcome
from agent.mqtt.delivery import Inbox, Incoming, Outgoing
from agent.mqtt.discovery import Announcer, DeviceFacts
from agent.mqtt.publisher import Publisher
from agent.systemd import Notifier
from agent.telemetry.snapshot import absent_metrics
from agent.worker import Worker

log = logging.getLogger(__name__)

_OF_A_MODEL: Final = frozenset({"model", "initial_prompt"})
CLOSE_S: Final = 2.0
KEEP_S: Final = 10.0
"""How often to look for files that were deleted from the state folder."""


class Remote:
    """Owned by the main thread, which calls `open` and `start` once, `tick` about once a second, and `close`.

    Args:
        who: Which device this is.
        settings: What is in force: what the configuration says, with what commands have changed before.
        applied: Where changes are kept.
        source, transcriber, publisher: The stages that commands reach.
        forget: Deletes the utterances that have no words yet; returns how many.
        load_engine: Raises ModelError or EngineError.
        governed: What the governor makes of the settings at the moment.
        apply: Puts settings in force, but for the engine.
        restart: Ends the agent, to be started again.
        options: Of the command line, for another `edgescribe` with the same settings.
        on_failure: Is told if a thread that executes commands fails.
    """

    def __init__(
        self,
        who: DeviceIdentity,
        *,
        settings: Settings,
        applied: Applied,
        source: Microphone,
        transcriber: Transcriber,
        forget: Callable[[], int],
        publisher: Publisher,
        load_engine: Callable[[Settings], Engine],
        governed: Governed,
        apply: Callable[[Settings], None],
        restart: Callable[[], None],
        options: Sequence[str],
        on_failure: Callable[[Worker], None],
    ) -> None:
        self._identity = who
        self._applied = applied
        self._publisher = publisher
        self._governed = governed
        self._keep_at_s = 0.0
        self._mqtt: MqttClient | None = None
        self._announcer: Announcer | None = None
        self._absent = absent_metrics(state_dir(settings), settings.telemetry.host_root)
        self._store = Store(models_dir(settings), load_catalogue())
        commands, prefix = settings.commands, settings.discovery.prefix
        self._validator = CommandValidator(who.device_id, commands.allow, commands.groups, prefix)
        self._birth_topic = f"{prefix}/status"
        self._device = ControlledDevice(
            who,
            settings,
            applied,
            source=source,
            transcriber=transcriber,
            forget=forget,
            load_engine=load_engine,
            apply=apply,
            tell=self.applied,
            calibrate=self._calibrate,
            restart=restart,
        )
        self._dispatcher = CommandDispatcher(who.device_id, self._validator, self._device.execute, self._post)
        self._workers = (
            Worker("control", self._dispatcher.run, on_failure),
            Worker("microphone", self._dispatcher.run_microphone, on_failure),
        )
        self._telling = threading.Lock()
        self._options = tuple(options)
        self._calibrator = Calibrator()

    @property
    def settings(self) -> Settings:
        """What is in force."""
        return self._device.settings

    @property
    def changing(self) -> threading.Lock:
        """To be held while what is in force is changed, see `ControlledDevice.changing`."""
        return self._device.changing

    @property
    def inbox(self) -> Inbox:
        """What the sink has to subscribe to."""
        births = () if self.settings.discovery.mode == "off" else (self._birth_topic,)
        return Inbox((*self._validator.filters, *births), self._receive)

    def open(self, mqtt: MqttClient | None) -> None:
        """Announce the device. What is announced goes out before anything that is sent later."""
        self._mqtt = self._device.mqtt = mqtt
        if mqtt:
            self._announcer = Announcer(
                self.settings.discovery, mqtt, state_dir(self.settings), serial=identity.serial()
            )
            self._announcer.announce(self._facts())

    def start(self) -> None:
        """Execute commands from now on.

        To be called once the first `state` is sent: a command before that could be overtaken by it.
        """
        for worker in self._workers:
            worker.start()

    def reload(self, notifier: Notifier, wanted: Callable[[], Settings]) -> None:
        """Put in force what can be of the settings that `wanted` reads: the work of the thread `reload` (SIGHUP).

        systemd is told when it begins and when it is over. If the new settings are wrong, the old ones stay in force.
        """
        notifier.reloading()
        status = "reloaded"
        try:
            log.info(f"reloaded: {self._device.reload(wanted)}")
        except AgentError as error:
            status = "not reloaded: the settings are wrong, see the log"
            log.error(f"not reloaded, what was in force stays so: {error}")  # noqa: TRY400 - a sentence, no traceback
        finally:
            notifier.ready(status)

    def tick(self) -> None:
        """Do what is due."""
        if self._announcer:
            self._announcer.tick()
        if (now_s := time.monotonic()) >= self._keep_at_s:
            self._keep_at_s = now_s + KEEP_S
            self._applied.keep()
            if self._announcer:
                self._announcer.keep()

    def close(self) -> None:
        """Execute no more commands."""
        self._dispatcher.close()
        self._calibrator.close()
        until_s = time.monotonic() + CLOSE_S
        for worker in self._workers:
            worker.join(max(0.0, until_s - time.monotonic()))

    def _receive(self, incoming: Incoming) -> None:
        """Called from the thread `mqtt`."""
        if incoming.topic != self._birth_topic:
            self._dispatcher.put(incoming)
        elif incoming.payload == b"online" and not incoming.retained and self._announcer:
            self._announcer.born()

    def _post(self, outgoing: Outgoing) -> None:
        if self._mqtt:
            self._mqtt.post(outgoing)

    def applied(self) -> None:
        """Tell what is in force now; called from any thread that has changed it."""
        with self._telling:  # so that what is told last, and stays with the broker, is what came last
            self._publisher.send(self.state())
            self._publisher.send(self.info())
            if self._announcer:
                self._announcer.announce(self._facts())

    def _calibrate(self) -> Outcome | Later:
        """Measure, with the settings of this agent and the language that is in force."""
        values = {
            "state_dir": state_dir(self.settings),
            "engine.language": value_at(self.settings, "engine.language"),
        }
        overrides = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
        return self._calibrator.begin((*self._options, *overrides))

    # What the device says of itself.

    @property
    def _in_force(self) -> Settings:
        return self._governed.overlay(self.settings)

    @property
    def _model(self) -> str:
        return str(value_at(self._in_force, "engine.model") or self._in_force.engine.kind)

    def state(self) -> State:
        """The applied values of what can be set."""
        values = in_force(self._in_force)
        return State.model_validate({"listening": self._device.listening, **values, "governor": self._governed.state})

    def info(self) -> Info:
        """What the device is."""
        machine = self._identity.machine
        return Info(
            id=self._identity.device_id,
            name=self._device.name,
            agent=__version__,
            boot_id=machine.boot_id,
            hardware=machine.hardware,
            os=machine.os,
            kernel=machine.kernel,
            arch=machine.arch,
            python=machine.python,
            engine=self._in_force.engine.kind,
            model=self._model,
            source=self._identity.source,
        )

    def _facts(self) -> DeviceFacts:
        settings, engine = self.settings, self.settings.engine
        scripted = isinstance(engine, ScriptedSettings | AutoSettings)  # `auto` was resolved long ago
        installed: tuple[str, ...] = ()
        if not isinstance(engine, ScriptedSettings | AutoSettings):
            installed = tuple(model.name for model in self._store.installed(format_for(engine)))
            own = self._device.configured_model
            if isinstance(own, str) and own not in self._store.catalogue:  # a path, which can be chosen again
                installed += (own,)
        keywords = settings.publish.keywords if settings.publish.privacy != "off" else ()
        return DeviceFacts(
            device_id=self._identity.device_id,
            name=self._device.name,
            agent=__version__,
            hardware=self._identity.machine.hardware,
            models=tuple(dict.fromkeys((*installed, self._model))),
            languages=(str(value_at(settings, "engine.language")),) if scripted else languages_of(self._model),
            commands=frozenset(settings.commands.allow) - (_OF_A_MODEL if scripted else frozenset()),
            telemetry_interval_s=settings.telemetry.interval_s,
            publishes_text=settings.publish.privacy == "full",
            keywords=tuple(rule.name for rule in keyword_rules(keywords)),
            absent=self._absent,
        )
