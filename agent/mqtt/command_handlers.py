"""What each command, and a reload, does to the running device."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import soundfile
from pydantic import ValidationError
from ulid import ULID

from agent.asr import Engine
from agent.asr.transcriber import Transcriber
from agent.audio.frames import SAMPLE_RATE_HZ, Utterance
from agent.audio.microphone import Microphone
from agent.config.commanded import LISTENING, Applied, Reload, plan_reload, value_at, with_value
from agent.config.settings import Settings
from agent.config.tunables import COMMANDED, Tunable
from agent.errors import EngineError, ModelError, SourceError
from agent.messages.identity import Machine
from agent.messages.presentation import score
from agent.models.catalogue import load_catalogue
from agent.models.languages import knows
from agent.mqtt.client import MqttClient
from agent.mqtt.commands import (
    Command,
    GoldenUtterance,
    Identify,
    Later,
    Listen,
    Mute,
    Outcome,
    Replay,
    Restart,
    Set,
)
from agent.mqtt.delivery import Replay as SentAgain
from agent.mqtt.delivery import SeqRange

log = logging.getLogger(__name__)

SWAP_S: Final = 120.0
"""For the utterances that wait before an engine can be exchanged."""
GOOD_SCORE: Final = 0.8
TIMEOUT_S: Final = 60.0
_RECORDING: Final = Path(__file__).parents[1] / "clips" / "demo.flac"
_START_S: Final = 4.7
_SPOKEN_UNTIL_S: Final = 7.5
_END_S: Final = 7.7
SENTENCE: Final = "Please hold while we try to connect you."
"""From `clips/demo.tsv`, where its times are, too; here with a little room around it, as a segmenter would leave."""
_FORGETFUL: Final = "; it could not be stored yet"


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """What does not change while the agent runs."""

    device_id: str
    machine: Machine
    source: str
    """In words."""


class ControlledDevice:
    """Executes commands, and keeps the settings that are in force.

    `execute` is called from the thread `microphone` with commands to open or close it, from `control` with all others,
    and `reload` from the thread `reload`.

    Args:
        identity: Which device this is.
        settings: What is in force: what the configuration says, with what commands have changed before.
        applied: Where changes are kept.
        source, transcriber: The stages that commands reach.
        forget: Deletes the utterances that have no words yet, on disk or for the engine; returns how many.
        load_engine: Raises ModelError or EngineError.
        apply: Puts settings in force, but for the engine.
        tell: Says what is in force, after a change.
        calibrate: Measures what suits this device.
        restart: Ends the agent, to be started again.
    """

    def __init__(
        self,
        identity: DeviceIdentity,
        settings: Settings,
        applied: Applied,
        *,
        source: Microphone,
        transcriber: Transcriber,
        forget: Callable[[], int],
        load_engine: Callable[[Settings], Engine],
        apply: Callable[[Settings], None],
        tell: Callable[[], None],
        calibrate: Callable[[], Outcome | Later],
        restart: Callable[[], None],
    ) -> None:
        self.settings = settings
        """What is in force. Any thread may read."""
        self.mqtt: MqttClient | None = None
        """The link to the broker, once there is one."""
        self.changing = threading.Lock()
        """Held by every thread that changes what is in force, from reading it until the change is in it. Else two
        engines might be loaded at once, and the settings say one thing while another is done."""
        self._identity = identity
        self._applied = applied
        self._source = source
        self._transcriber = transcriber
        self._forget = forget
        self._load_engine = load_engine
        self._apply = apply
        self._tell = tell
        self._calibrate = calibrate
        self._restart = restart

    @property
    def listening(self) -> bool:
        """Whether the microphone is open. Any thread may ask."""
        return self._source.listening

    @property
    def name(self) -> str:
        """What people call the device."""
        return self.settings.device.name or self._identity.device_id

    @property
    def configured_model(self) -> object:
        """The model that the configuration names, commands left aside; None if there is none."""
        return self._applied.configured("engine.model")

    def execute(self, command: Command) -> Outcome | Later:
        """Do what `command` says, or say why not."""
        match command:
            case Listen(value=on, purge=purge):  # a device is muted at once, whatever else is being changed
                return self._listen(on=on, purge=purge, asked=on)
            case Mute(value=mute, purge=purge):
                return self._listen(on=not mute, purge=purge, asked=mute)
            case Set(value=value):
                with self.changing:
                    return self._set(command.tunable, value)
            case _:
                return self._do(command)

    def _do(self, command: Command) -> Outcome | Later:
        match command:
            case GoldenUtterance():
                return listen_to_it(self._transcriber)
            case Restart():
                return Outcome("restarting", then=self._restart)
            case Identify():
                described = self.describe()
                log.info("identify: this device is %s", described)
                return Outcome("see the log", result=described)
            case Replay(first=first, last=last):
                wanted = SeqRange(first, last)
                return replay_outcome(self.mqtt.replay(wanted) if self.mqtt else SentAgain(0, (wanted,), None))
            case _:
                return self._calibrate()

    def reload(self, wanted: Callable[[], Settings]) -> Reload:
        """Put in force what can be of the settings that `wanted` reads. If that raises AgentError, nothing changes."""
        with self.changing:
            reload = plan_reload(self.settings, wanted())
            if reload.engine:
                self._transcriber.exchange(self._load_engine(reload.settings))
            self._apply(reload.settings)
            self.settings = reload.settings
            self._tell()
            return reload

    def describe(self) -> dict[str, Any]:
        """What tells this device from its neighbours."""
        described = {"device": self._identity.device_id, "name": self.name, "source": self._identity.source}
        hardware = self._identity.machine.hardware
        return described | ({"hardware": hardware} if hardware else {})

    def _listen(self, *, on: bool, purge: bool, asked: bool) -> Outcome:
        if on:
            try:
                self._source.on()
            except SourceError as error:
                return Outcome(str(error), "failed")
        else:
            self._source.off()
        stored = self._applied.remember(LISTENING, on)
        purged = {"purged": self._purge()} if purge and not on else {}
        self._tell()
        msg = "listening" if on else "mute: the microphone is closed"
        return Outcome(msg if stored else msg + _FORGETFUL, result={"value": asked, **purged})

    def _purge(self) -> int:
        """Delete what waits for the broker, on disk or for the engine; what the engine has will be told to nobody."""
        return self._forget() + (self.mqtt.purge() if self.mqtt else 0)

    def _set(self, tunable: Tunable, value: object) -> Outcome:
        """Put another value in force, keep it and tell."""
        wanted = self._with(tunable, value)
        if isinstance(wanted, Outcome):
            return wanted
        if tunable.engine and (refusal := self._exchange_engine(wanted)):
            return refusal
        self._apply(wanted)
        self.settings = wanted
        stored = self._applied.remember(tunable.key, value)
        self._tell()
        msg = f"the {_name(tunable)} is set" if tunable.platform == "text" else f"the {_name(tunable)} is {value}"
        return Outcome(msg if stored else msg + _FORGETFUL, result={"value": value})

    def _exchange_engine(self, wanted: Settings) -> Outcome | None:
        """Load an engine, and let it take over between two utterances; or why that cannot be."""
        try:
            engine = self._load_engine(wanted)
        except (ModelError, EngineError) as error:
            return Outcome(str(error), "unavailable")
        try:
            self._transcriber.exchange(engine, SWAP_S)
        except EngineError as error:
            return Outcome(str(error), "busy")
        return None

    def _with(self, tunable: Tunable, value: object) -> Settings | Outcome:
        """The settings with another value; or why there are none."""
        if tunable.command == "model" and (refusal := self._foreign(str(value))):
            return refusal
        if value_at(self.settings, tunable.key) is None:
            return Outcome(f"the {self.settings.engine.kind} engine has no {_name(tunable)}", "unavailable")
        try:
            wanted = with_value(self.settings, tunable.key, value)
        except ValidationError:
            return Outcome(f"{value!r} is no {_name(tunable)} for this engine", "invalid")
        complaint = _contradiction(wanted) if tunable.engine else None
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


def _name(tunable: Tunable) -> str:
    return tunable.key.rpartition(".")[2].replace("_", " ")


def _contradiction(settings: Settings) -> str | None:
    model, language = value_at(settings, "engine.model"), value_at(settings, "engine.language")
    if not isinstance(model, str) or not isinstance(language, str) or knows(model, language):
        return None
    return f"the model {model} does not know the language {language}: change the other one first"


def replay_outcome(replay: SentAgain) -> Outcome:
    """`ok` if all of it goes again, `partial` if some does, `not_available` if nothing does."""
    if replay.still_waiting:
        return Outcome(f"{replay.still_waiting} of an earlier replay have not gone yet: ask again", "busy")
    result: dict[str, Any] = {"replayed": replay.again, "missing": [_as_json(one) for one in replay.missing]}
    if replay.available:
        result["available"] = _as_json(replay.available)
    if not replay.again:
        return Outcome("none of these is kept any more", "not_available", result)
    msg = f"{replay.again} will be sent again"
    return Outcome(f"{msg}, others are not kept", "partial", result) if replay.missing else Outcome(msg, result=result)


def _as_json(one: SeqRange) -> dict[str, int]:
    return {"from": one.first, "to": one.last}


def in_force(settings: Settings) -> Mapping[str, object]:
    """What `state` tells of the settings."""
    values = {tunable.command: value_at(settings, tunable.key) for tunable in COMMANDED}
    known = {name: value for name, value in values.items() if value is not None}
    kind = settings.engine.kind
    return {"engine": kind, "model": kind, "privacy": settings.publish.privacy} | known


@cache
def golden_utterance() -> Utterance:
    """The bundled sentence."""
    first, last = round(_START_S * SAMPLE_RATE_HZ), round(_END_S * SAMPLE_RATE_HZ)
    pcm, _rate_hz = soundfile.read(_RECORDING, dtype="int16", start=first, stop=last)
    spoken = round((_SPOKEN_UNTIL_S - _START_S) * SAMPLE_RATE_HZ)
    return Utterance("golden", pcm, 0, time.monotonic_ns(), spoken, len(pcm))


def listen_to_it(transcriber: Transcriber) -> Outcome:
    """Transcribe it between two utterances."""
    # An id of its own each time: an engine that was lost over an utterance does not try that one again.
    utterance = replace(golden_utterance(), id=str(ULID()))
    try:
        transcript = transcriber.probe(utterance, TIMEOUT_S)
    except EngineError as error:
        return Outcome(str(error), "failed")
    result = score(SENTENCE, transcript.text)
    share = round(result.right / result.expected, 3)
    good = share >= GOOD_SCORE
    return Outcome(
        f"{result.right} of {result.expected} words are right",
        "ok" if good else "golden_mismatch",
        {
            "text": transcript.text,
            "expected": SENTENCE,
            "score": share,
            "rtf": round(transcript.inference_s / utterance.duration_s, 3),
            "model": transcript.model,
            "engine": transcript.engine,
            "lang": transcript.language,
        },
    )
