"""The device as others see and control it over MQTT: its applied state, its commands, its place in Home Assistant.

    mqtt thread ──▶ receive ─┬─ homeassistant/status ─▶ announcer
                             └─ …/cmd/… ──────────────▶ desk (threads `control`, `microphone`) ─▶ device

Put together and owned by `app.py`.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent import __version__
from agent.config.commanded import Applied, value_at
from agent.config.keywords import keyword_rules
from agent.config.layers import models_dir, state_dir
from agent.config.settings import AutoSettings, ScriptedSettings, Settings
from agent.messages import Info, State, identity
from agent.messages.identity import Machine
from agent.models.catalogue import load_catalogue
from agent.models.languages import languages_of
from agent.models.selection import format_for
from agent.models.store import Store
from agent.mqtt.client import MqttSink
from agent.mqtt.command_calibrate import Calibrator
from agent.mqtt.command_handlers import ControlledDevice, Parts, as_mapping
from agent.mqtt.command_threads import ControlDesk
from agent.mqtt.commands import Doorkeeper
from agent.mqtt.delivery import Inbox, Incoming, Outgoing, Replay, SeqRange
from agent.mqtt.discovery_announcer import Announcer
from agent.mqtt.discovery_entities import DeviceFacts
from agent.mqtt.discovery_metrics import absent_metrics
from agent.mqtt.outcome import Later, Outcome
from agent.worker import Worker

_OF_A_MODEL: Final = frozenset({"model", "initial_prompt"})
CLOSE_S: Final = 2.0
KEEP_S: Final = 10.0
"""How often to look for files that were deleted from the state folder."""


@dataclass(frozen=True, slots=True)
class Self:
    """What does not change while the agent runs."""

    device_id: str
    machine: Machine
    source: str
    """In words."""


class Remote:
    """Owned by the main thread, which calls `open` once, `tick` about once a second, and `close`.

    Args:
        me: Who we are.
        settings: What is in force: what the configuration says, with what commands have changed before.
        applied: Where changes are kept.
        parts: What commands reach.
        restart: Ends the agent, to be started again.
        options: Of the command line, for another `edgescribe` with the same settings.
        on_failure: Is told if a thread that obeys commands fails.
    """

    def __init__(
        self,
        me: Self,
        *,
        settings: Settings,
        applied: Applied,
        parts: Parts,
        restart: Callable[[], None],
        options: Sequence[str],
        on_failure: Callable[[Worker], None],
    ) -> None:
        self._me = me
        self._parts = parts
        self._restart = restart
        self._applied = applied
        self._keep_at_s = 0.0
        self._mqtt: MqttSink | None = None
        self._announcer: Announcer | None = None
        self._absent = absent_metrics(state_dir(settings), settings.telemetry.host_root)
        self._store = Store(models_dir(settings), load_catalogue())
        commands = settings.commands
        self._door = Doorkeeper(me.device_id, commands.allow, commands.groups, settings.discovery.prefix)
        self._birth_topic = f"{settings.discovery.prefix}/status"
        self._device = ControlledDevice(settings, applied, parts, self)
        self._desk = ControlDesk(me.device_id, self._door, self._device.obey, self._post)
        self._workers = (
            Worker("control", self._desk.run, on_failure),
            Worker("microphone", self._desk.run_microphone, on_failure),
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
        return Inbox((*self._door.filters, *births), self._receive)

    def open(self, mqtt: MqttSink | None) -> None:
        """Announce the device, and obey from now on. What is announced goes out before anything that is sent later."""
        self._mqtt = mqtt
        if mqtt:
            self._announcer = Announcer(
                self.settings.discovery, mqtt, state_dir(self.settings), serial=identity.serial()
            )
            self._announcer.announce(self._facts())
        for worker in self._workers:
            worker.start()

    def reconfigured(self, settings: Settings) -> None:
        """The configuration was read anew, and `settings` are in force now. Called by the holder of `changing`."""
        self._device.settings = settings
        self.applied()

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
        """Obey no longer."""
        self._desk.close()
        self._calibrator.close()
        until_s = time.monotonic() + CLOSE_S
        for worker in self._workers:
            worker.join(max(0.0, until_s - time.monotonic()))

    def _receive(self, incoming: Incoming) -> None:
        """Called from the thread `mqtt`."""
        if incoming.topic != self._birth_topic:
            self._desk.put(incoming)
        elif incoming.payload == b"online" and not incoming.retained and self._announcer:
            self._announcer.born()

    def _post(self, outgoing: Outgoing) -> None:
        if self._mqtt:
            self._mqtt.post(outgoing)

    # What commands do beyond the device (controls.device.Surroundings); called from its threads.

    def applied(self) -> None:
        """Tell what is in force now; called from any thread that has changed it."""
        with self._telling:  # so that what is told last, and stays with the broker, is what came last
            self._parts.publisher.send(self.state())
            self._parts.publisher.send(self.info())
            if self._announcer:
                self._announcer.announce(self._facts())

    def purge(self) -> int:
        """Delete what waits for the broker, on disk or for the engine; what the engine has will be told to nobody."""
        return self._parts.forget() + (self._mqtt.purge() if self._mqtt else 0)

    def replay(self, wanted: SeqRange) -> Replay:
        """Send transcripts again."""
        return self._mqtt.replay(wanted) if self._mqtt else Replay(0, (wanted,), None)

    def calibrate(self) -> Outcome | Later:
        """Measure, with the settings of this agent and the language that is in force."""
        in_force = {
            "state_dir": state_dir(self.settings),
            "engine.language": value_at(self.settings, "engine.language"),
        }
        overrides = [part for key, value in in_force.items() for part in ("--set", f"{key}={value}")]
        return self._calibrator.begin((*self._options, *overrides))

    def restart(self) -> None:
        """End, to be started again."""
        self._restart()

    def portrait(self) -> dict[str, Any]:
        """What tells this device from its neighbours."""
        return {"device": self._me.device_id, "name": self._name, "source": self._me.source} | (
            {"hardware": self._me.machine.hardware} if self._me.machine.hardware else {}
        )

    # What the device says of itself.

    @property
    def _name(self) -> str:
        return self.settings.device.name or self._me.device_id

    @property
    def _in_force(self) -> Settings:
        return self._parts.governed.overlay(self.settings)

    @property
    def _model(self) -> str:
        return str(value_at(self._in_force, "engine.model") or self._in_force.engine.kind)

    def state(self) -> State:
        """The applied values of what can be set."""
        governed = self._parts.governed
        in_force = as_mapping(governed.overlay(self.settings))
        return State.model_validate({"listening": self._device.listening, **in_force, "governor": governed.state})

    def info(self) -> Info:
        """What the device is."""
        machine = self._me.machine
        return Info(
            id=self._me.device_id,
            name=self._name,
            agent=__version__,
            boot_id=machine.boot_id,
            hardware=machine.hardware,
            os=machine.os,
            kernel=machine.kernel,
            arch=machine.arch,
            python=machine.python,
            engine=self._in_force.engine.kind,
            model=self._model,
            source=self._me.source,
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
            device_id=self._me.device_id,
            name=self._name,
            agent=__version__,
            hardware=self._me.machine.hardware,
            models=tuple(dict.fromkeys((*installed, self._model))),
            languages=(str(value_at(settings, "engine.language")),) if scripted else languages_of(self._model),
            commands=frozenset(settings.commands.allow) - (_OF_A_MODEL if scripted else frozenset()),
            telemetry_interval_s=settings.telemetry.interval_s,
            publishes_text=settings.publish.privacy == "full",
            keywords=tuple(rule.name for rule in keyword_rules(keywords)),
            absent=self._absent,
        )
