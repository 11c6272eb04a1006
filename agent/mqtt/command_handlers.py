"""What each command does to the running device."""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from pydantic import ValidationError

from agent.asr import Engine
from agent.asr.transcriber import Transcriber
from agent.audio.switched import SwitchedSource
from agent.config.commanded import LISTENING, Applied, value_at, with_value
from agent.config.settings import Settings
from agent.errors import EngineError, ModelError, SourceError
from agent.governor.runner import Governed
from agent.models.catalogue import load_catalogue
from agent.models.languages import knows
from agent.mqtt.command_golden import listen_to_it
from agent.mqtt.command_replay import outcome_of
from agent.mqtt.commands import (
    Calibrate,
    Command,
    GoldenUtterance,
    Identify,
    Listen,
    Mute,
    Replay,
    Restart,
    SetInitialPrompt,
    SetLanguage,
    SetMinConfidence,
    SetModel,
    SetVadThreshold,
)
from agent.mqtt.delivery import Replay as SentAgain
from agent.mqtt.delivery import SeqRange
from agent.mqtt.outcome import Later, Outcome
from agent.mqtt.publisher import Publisher
from agent.segmenter import Segmenter

log = logging.getLogger(__name__)

SWAP_S: Final = 120.0
"""For the utterances that wait before an engine can be exchanged."""
_FORGETFUL: Final = "; it could not be stored yet"


@dataclass(frozen=True, slots=True)
class Parts:
    """What a device is made of, as far as commands reach it."""

    source: SwitchedSource
    segmenter: Segmenter
    transcriber: Transcriber
    forget: Callable[[], int]
    """Deletes the utterances that have no words yet, on disk or for the engine; returns how many."""
    publisher: Publisher
    load_engine: Callable[[Settings], Engine]
    """Raises ModelError or EngineError."""
    governed: Governed = field(default_factory=Governed)
    """What the governor makes of the settings at the moment."""


class Surroundings(Protocol):
    """What a command does beyond the parts. Implemented by the composition root."""

    def applied(self) -> None:
        """Something has changed and is in force: tell the world."""

    def purge(self) -> int:
        """Delete what was said until now and has not left; return how many messages and utterances that were."""

    def restart(self) -> None:
        """End, to be started again."""

    def replay(self, wanted: SeqRange) -> SentAgain:
        """Send transcripts again that were delivered."""

    def calibrate(self) -> Outcome | Later:
        """Measure what suits this device."""

    def portrait(self) -> dict[str, Any]:
        """What tells this device from its neighbours."""


class ControlledDevice:
    """Obeys commands, and keeps the settings that are in force.

    `obey` is called from the thread `microphone` with commands to open or close it, from `control` with all others.

    Args:
        settings: What is in force: what the configuration says, with what commands have changed before.
        applied: Where changes are kept.
        parts, surroundings: What is controlled.
    """

    def __init__(self, settings: Settings, applied: Applied, parts: Parts, surroundings: Surroundings) -> None:
        self.settings = settings
        """What is in force. Any thread may read."""
        self.changing = threading.Lock()
        """Held by whoever changes what is in force, from reading it until the change is in it: commands, and a reload.
        Else two engines might be loaded at once, and the settings say one thing while another is done."""
        self._applied = applied
        self._parts = parts
        self._around = surroundings

    @property
    def listening(self) -> bool:
        """Whether the microphone is open. Any thread may ask."""
        return self._parts.source.listening

    @property
    def configured_model(self) -> object:
        """The model that the configuration names, commands left aside; None if there is none."""
        return self._applied.configured("engine.model")

    def obey(self, command: Command) -> Outcome | Later:
        """Do what `command` says, or say why not."""
        match command:
            case Listen(value=on, purge=purge):  # a device is muted at once, whatever else is being changed
                return self._listen(on=on, purge=purge, asked=on)
            case Mute(value=mute, purge=purge):
                return self._listen(on=not mute, purge=purge, asked=mute)
            case Restart() | Identify() | Replay() | Calibrate() | GoldenUtterance():
                return self._do(command)
            case _:
                with self.changing:
                    return self._change(command)

    def _change(self, command: Command) -> Outcome:
        match command:
            case SetModel(value=name):
                return self._tune("model", name)
            case SetLanguage(value=code):
                return self._tune("language", code)
            case SetInitialPrompt(value=words):
                return self._tune("initial_prompt", words)
            case SetVadThreshold(value=threshold):
                self._parts.segmenter.threshold = threshold
                return self._set("vad.threshold", threshold)
            case SetMinConfidence(value=confidence):
                publisher = self._parts.publisher
                publisher.policy = replace(publisher.policy, min_confidence=confidence)
                return self._set("publish.min_confidence", confidence)
            case _:
                return Outcome(f"nobody knows what {command.name} does", "not_available")

    def _do(self, command: Command) -> Outcome | Later:
        match command:
            case GoldenUtterance():
                return listen_to_it(self._parts.transcriber)
            case Restart():
                return Outcome("restarting", then=self._around.restart)
            case Identify():
                portrait = self._around.portrait()
                log.info("identify: somebody asks for this device: %s", portrait)
                return Outcome("see the log", result=portrait)
            case Replay(first=first, last=last):
                return outcome_of(self._around.replay(SeqRange(first, last)))
            case _:
                return self._around.calibrate()

    def _listen(self, *, on: bool, purge: bool, asked: bool) -> Outcome:
        if on:
            try:
                self._parts.source.on()
            except SourceError as error:
                return Outcome(str(error), "failed")
        else:
            self._parts.source.off()
        stored = self._applied.remember(LISTENING, on)
        purged = self._around.purge() if purge and not on else None
        self._around.applied()
        msg = "listening" if on else "mute: the microphone is closed"
        result = {"value": asked} | ({} if purged is None else {"purged": purged})
        return Outcome(msg if stored else msg + _FORGETFUL, result=result)

    def _set(self, key: str, value: object) -> Outcome:
        """The change at `key` is in force: keep it and tell the world."""
        self.settings = with_value(self.settings, key, value)
        stored = self._applied.remember(key, value)
        self._around.applied()
        name = key.rpartition(".")[2].replace("_", " ")
        msg = f"the {name} is set" if name == "initial prompt" else f"the {name} is {value}"
        return Outcome(msg if stored else msg + _FORGETFUL, result={"value": value})

    def _tune(self, field: str, value: str) -> Outcome:
        """Load an engine with another setting, and let it take over between two utterances."""
        wanted = self._with_engine(field, value)
        if isinstance(wanted, Outcome):
            return wanted
        try:
            engine = self._parts.load_engine(wanted)
        except (ModelError, EngineError) as error:
            return Outcome(str(error), "unavailable")
        try:
            self._parts.transcriber.exchange(engine, SWAP_S)
        except EngineError as error:
            return Outcome(str(error), "busy")
        return self._set(f"engine.{field}", value)

    def _with_engine(self, field: str, value: str) -> Settings | Outcome:
        """The settings with another value of the engine's `field`; or why there are none."""
        key = f"engine.{field}"
        if field == "model" and (refusal := self._foreign(value)):
            return refusal
        if value_at(self.settings, key) is None:
            return Outcome(f"the {self.settings.engine.kind} engine has no {field.replace('_', ' ')}", "unavailable")
        try:
            wanted = with_value(self.settings, key, value)
        except ValidationError:
            return Outcome(f"{value!r} is no {field.replace('_', ' ')} for this engine", "invalid")
        complaint = _contradiction(wanted)
        return Outcome(complaint, "unavailable") if complaint else wanted

    def _foreign(self, model: str) -> Outcome | None:
        """Why a command may not name this model: only the configuration may point into the file system."""
        if model == self.configured_model:
            return None
        if "/" in model or model.startswith("~"):
            return Outcome("a path is allowed only if it is the configured engine.model: name a model", "invalid")
        try:
            load_catalogue().find(model)
        except ModelError as error:
            return Outcome(str(error), "unavailable")
        return None


def _contradiction(settings: Settings) -> str | None:
    model, language = value_at(settings, "engine.model"), value_at(settings, "engine.language")
    if not isinstance(model, str) or not isinstance(language, str) or knows(model, language):
        return None
    return f"the model {model} does not know the language {language}: change the other one first"


def as_mapping(settings: Settings) -> Mapping[str, object]:
    """What `state` tells of the settings."""
    return {
        "engine": settings.engine.kind,
        "model": value_at(settings, "engine.model") or settings.engine.kind,
        "language": value_at(settings, "engine.language"),
        "vad_threshold": settings.vad.threshold,
        "min_confidence": settings.publish.min_confidence,
        "initial_prompt": value_at(settings, "engine.initial_prompt") or "",
        "privacy": settings.publish.privacy,
    }
