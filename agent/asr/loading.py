"""From settings to the stages that several verbs use."""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ulid import ULID

from agent.asr import Engine, create_engine
from agent.asr.engine_process import ProcessEngine
from agent.asr.transcript import Transcript, Verdict
from agent.audio.frames import Utterance
from agent.audio.wav import WavSource
from agent.config.commanded import Applied
from agent.config.layers import models_dir
from agent.config.settings import EngineSettings, Settings, WavSettings
from agent.errors import EngineError, ModelError
from agent.models.catalogue import load_catalogue
from agent.models.selection import chosen_model, language_problem, resolve
from agent.models.store import Store
from agent.segmenter import Segmenter, utterances_in
from agent.vad import create_detector
from agent.worker import at_lower_priority

log = logging.getLogger(__name__)

ENGINE_NICE: Final = 5
"""The priority of all threads of the engine is so much lower than that of capture. The unit runs at -5, so an engine is
equal to other programs; with more it would come after them."""


def concrete_engine(settings: Settings) -> EngineSettings:
    """Return the engine of the settings, with `auto` resolved; log a warning about the choice.

    Raises:
        ModelError: `auto` finds no model.
    """
    resolved = resolve(settings)
    if resolved.warning:
        log.warning(resolved.warning)
    return resolved.engine


def load_engine(settings: Settings, on_loss: Callable[[str], None] = lambda _reason: None) -> Engine:
    """Find and verify the model, and load it, in its own process if `engine.isolation` asks for that.

    The threads and the process of the engine have a lower priority than the caller. It never uses the network.
    `on_loss` is called from the thread that transcribes, with the reason for the loss of a process.

    Raises:
        ModelError: the model is unknown, missing or damaged, or does not know the language.
        EngineError: the engine cannot be started.
    """
    engine, store = concrete_engine(settings), Store(models_dir(settings), load_catalogue())
    if problem := language_problem(engine):
        raise ModelError(problem)

    def load() -> Engine:
        if engine.isolation == "process":
            return ProcessEngine(engine, lambda: chosen_model(engine, store), on_loss)
        return create_engine(engine, chosen_model(engine, store))

    return at_lower_priority(load, ENGINE_NICE)


def create_segmenter(settings: Settings) -> Segmenter:
    """Return the segmenter of `settings`; the ids of its utterances are ULIDs."""
    return Segmenter(settings.segmenter, settings.vad.threshold, lambda: str(ULID()))


def as_commanded(configured: Settings, applied: Applied) -> Settings:
    """Return `configured` with the changes by commands, without a commanded language that the model does not know."""
    settings = applied.overlay(configured)
    problem = language_problem(concrete_engine(settings))
    if problem and not language_problem(concrete_engine(configured)) and _gives_way(applied, problem):
        settings = applied.overlay(configured)
    return settings


def load_as_commanded(
    configured: Settings, applied: Applied, load: Callable[[Settings], Engine]
) -> tuple[Engine, Settings]:
    """Load the engine as commanded, or else as configured; return it with its settings.

    A command must not keep a device from starting. A commanded mute is logged.

    Raises:
        ModelError, EngineError: the configured engine cannot be loaded either.
    """
    if applied.muted:
        log.warning(applied.muted)
    settings = applied.overlay(configured)
    try:
        return load(settings), settings
    except (ModelError, EngineError) as error:
        if not _gives_way(applied, error):
            raise
        settings = applied.overlay(configured)
        return load(settings), settings


def _gives_way(applied: Applied, why: object) -> bool:
    """Forget the commanded engine settings, and log it; return False if there are none."""
    if not applied.forget("engine"):
        return False
    log.warning(f"ignoring the commanded engine settings ({why}); using the configured engine")
    return True


@dataclass(frozen=True, slots=True)
class Passage:
    """An utterance of the recording, with its words."""

    utterance: Utterance
    transcript: Transcript


def transcribe(path: Path, settings: Settings, engine: Engine, channel: int | None = None) -> Iterator[Passage]:
    """Yield the passages of a recording with words, each as soon as it is transcribed.

    `channel` counts from 1; None mixes all of them.

    Raises:
        SourceError: the file cannot be read; or, after the last passage, a part of it cannot be read.
        EngineError: the engine failed.
    """
    with closing(WavSource(WavSettings(path=path, pace="flat_out", channel=channel))) as source:
        frames = iter(source.read, None)
        for utterance in utterances_in(frames, create_detector(settings.vad), create_segmenter(settings)):
            (transcript,) = engine.transcribe([utterance])
            if transcript.text and transcript.verdict is not Verdict.REJECTED:
                yield Passage(utterance, transcript)
