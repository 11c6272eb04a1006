"""From settings to the stages that more than one verb needs."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ulid import ULID

from agent.asr import Engine
from agent.asr.engine_process import ProcessEngine
from agent.asr.factory import create_engine
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
"""How much lower the priority of everything that computes for the engine is than that of capture. The unit runs at -5,
so an engine stands level with other programs; more would leave it behind them."""


def concrete_engine(settings: Settings) -> EngineSettings:
    """The engine that the settings mean, `auto` resolved; logs what is not as it should be.

    Raises:
        ModelError: `auto` has nothing to choose from.
    """
    resolved = resolve(settings)
    if resolved.warning:
        log.warning(resolved.warning)
    return resolved.engine


def load_engine(settings: Settings, on_loss: Callable[[str], None] = lambda _reason: None) -> Engine:
    """Find and verify the model, and load it, in a process of its own if `engine.isolation` wants that.

    Whatever threads or process it starts have a lower priority than the caller. Never touches the network. `on_loss` is
    told, from the thread that transcribes, why such a process was lost.

    Raises:
        ModelError: the model is unknown, not on this device, not what it should be, or does not know the language.
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
    """The segmenter that `settings` describe; utterances get ULIDs for ids."""
    return Segmenter(settings.segmenter, settings.vad.threshold, lambda: str(ULID()))


def as_commanded(configured: Settings, applied: Applied) -> Settings:
    """`configured`, with what commands have changed; a language that a newly configured model lacks is forgotten."""
    settings = applied.overlay(configured)
    problem = language_problem(concrete_engine(settings))
    if problem and not language_problem(concrete_engine(configured)) and _gives_way(applied, problem):
        settings = applied.overlay(configured)
    return settings


def load_as_commanded(
    configured: Settings, applied: Applied, load: Callable[[Settings], Engine]
) -> tuple[Engine, Settings]:
    """The engine, and the settings with which it could be loaded: a command must not keep a device from starting.

    Whoever starts a device that does not listen because of a command reads so in the log.

    Raises:
        ModelError, EngineError: the engine that is configured cannot be loaded either.
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
    """Forget what a command made of the engine, with a line in the log; False if none did."""
    if not applied.forget("engine"):
        return False
    log.warning(f"what a command made of the engine does not work any more ({why}); it is as configured")
    return True


@dataclass(frozen=True, slots=True)
class Passage:
    """An utterance of the recording, with its words."""

    utterance: Utterance
    transcript: Transcript


def transcribe(path: Path, settings: Settings, engine: Engine, channel: int | None = None) -> Iterator[Passage]:
    """Yield the passages of a recording in which words were found, as soon as each is transcribed.

    `channel` counts from 1; None mixes all of them.

    Raises:
        SourceError: the file cannot be read; or, behind the last passage, some of it could not be read.
        EngineError: the engine failed.
    """
    for utterance in _utterances(WavSettings(path=path, pace="flat_out", channel=channel), settings):
        transcript = engine.transcribe(utterance)
        if transcript.text and transcript.verdict is not Verdict.REJECTED:
            yield Passage(utterance, transcript)


def _utterances(recording: WavSettings, settings: Settings) -> Iterator[Utterance]:
    source = WavSource(recording)
    try:
        yield from utterances_in(iter(source.read, None), create_detector(settings.vad), create_segmenter(settings))
    finally:
        source.close()
