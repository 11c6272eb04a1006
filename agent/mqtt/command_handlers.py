"""The work of single commands, without the state of the device: `Remote` calls these functions."""

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import soundfile
from pydantic import ValidationError
from ulid import ULID

from agent.asr.transcriber import Transcriber
from agent.audio.frames import SAMPLE_RATE_HZ, Utterance
from agent.config.commanded import value_at, with_value
from agent.config.settings import Settings
from agent.config.tunables import COMMANDED, Tunable
from agent.errors import EngineError, ModelError
from agent.messages.presentation import score
from agent.models.catalogue import load_catalogue
from agent.models.languages import knows
from agent.mqtt.commands import CommandError, Outcome
from agent.mqtt.delivery import Replay, SeqRange

GOOD_SCORE: Final = 0.8
TIMEOUT_S: Final = 60.0
_RECORDING: Final = Path(__file__).parents[1] / "clips" / "demo.flac"
_START_S: Final = 4.7
_SPOKEN_UNTIL_S: Final = 7.5
_END_S: Final = 7.7
SENTENCE: Final = "Please hold while we try to connect you."
"""From `clips/demo.tsv`, which also has its times; the cut adds a little room, as a segmenter would."""


def changed_settings(settings: Settings, tunable: Tunable, value: object, configured_model: object) -> Settings:
    """Return `settings` with another value of `tunable`.

    Raises:
        CommandError: the value does not fit the engine.
    """
    if tunable.command == "model" and value != configured_model:
        _check_model(str(value))
    if value_at(settings, tunable.key) is None:
        raise CommandError("unavailable", f"the {settings.engine.kind} engine has no {label(tunable)}")
    try:
        changed = with_value(settings, tunable.key, value)
    except ValidationError as error:
        raise CommandError("invalid", f"{value!r} is no {label(tunable)} for this engine") from error
    model, language = value_at(changed, "engine.model"), value_at(changed, "engine.language")
    if tunable.engine and isinstance(model, str) and isinstance(language, str) and not knows(model, language):
        why = f"the model {model} does not know the language {language}: change the other one first"
        raise CommandError("unavailable", why)
    return changed


def _check_model(name: str) -> None:
    """Refuse every path: only the configuration may point into the file system.

    Raises:
        CommandError: `name` is a path, or not in the catalogue.
    """
    if "/" in name or name.startswith("~"):
        raise CommandError("invalid", "a path is allowed only if it is the configured engine.model: name a model")
    try:
        load_catalogue().find(name)
    except ModelError as error:
        raise CommandError("unavailable", str(error)) from error


def label(tunable: Tunable) -> str:
    """Return the name of a setting for people."""
    return tunable.key.rpartition(".")[2].replace("_", " ")


def values_in_force(settings: Settings) -> Mapping[str, object]:
    """Return the fields of `state` that come from the settings."""
    values = {tunable.command: value_at(settings, tunable.key) for tunable in COMMANDED}
    known = {name: value for name, value in values.items() if value is not None}
    kind = settings.engine.kind
    return {"engine": kind, "model": kind, "privacy": settings.publish.privacy} | known


def replay_outcome(replay: Replay) -> Outcome:
    """Return `ok` if all of the range is sent again, `partial` for some of it, `not_available` for none."""
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


@cache
def golden_utterance() -> Utterance:
    """Read the bundled sentence."""
    first, last = round(_START_S * SAMPLE_RATE_HZ), round(_END_S * SAMPLE_RATE_HZ)
    pcm, _rate_hz = soundfile.read(_RECORDING, dtype="int16", start=first, stop=last)
    spoken = round((_SPOKEN_UNTIL_S - _START_S) * SAMPLE_RATE_HZ)
    return Utterance("golden", pcm, 0, time.monotonic_ns(), spoken, len(pcm))


def transcribe_golden_utterance(transcriber: Transcriber) -> Outcome:
    """Transcribe the bundled sentence between two utterances, and score the words."""
    # It gets a new id each time: the engine does not try an utterance again that has killed it.
    utterance = replace(golden_utterance(), id=str(ULID()))
    try:
        transcript = transcriber.probe(utterance, TIMEOUT_S)
    except EngineError as error:
        return Outcome(str(error), "failed")
    words = score(SENTENCE, transcript.text)
    share = round(words.right / words.expected, 3)
    result = {
        "text": transcript.text,
        "expected": SENTENCE,
        "score": share,
        "rtf": round(transcript.inference_s / utterance.duration_s, 3),
        "model": transcript.model,
        "engine": transcript.engine,
        "lang": transcript.language,
    }
    code = "ok" if share >= GOOD_SCORE else "golden_mismatch"
    return Outcome(f"{words.right} of {words.expected} words are right", code, result)
