"""Finds the engine and model for the settings on this machine, with `engine.kind = "auto"` too."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent.config.layers import models_dir
from agent.config.settings import (
    AutoSettings,
    EngineCommon,
    EngineSettings,
    FasterWhisperSettings,
    ScriptedSettings,
    Settings,
    WhisperCppSettings,
)
from agent.errors import ModelError
from agent.models import ModelFormat
from agent.models.calibration import (
    CalibrationError,
    Measurement,
    command,
    differences,
    fingerprint,
    folder_of,
    installed_engines,
    plural,
    read_calibration,
)
from agent.models.catalogue import load_catalogue
from agent.models.choice import choose, for_language
from agent.models.languages import knows, multilingual
from agent.models.store import Store

WhisperSettings = WhisperCppSettings | FasterWhisperSettings


@dataclass(frozen=True, slots=True)
class Resolved:
    """An engine that can be loaded."""

    engine: EngineSettings
    warning: str = ""
    """One line for the user; empty if all is well."""


def resolve(settings: Settings) -> Resolved:
    """Return the engine of the settings, or for `auto` the one that the calibration chose.

    If the chosen model is gone, or the language is another, the best of the other measured models is used. If none can
    be used, the engine is whisper_cpp with its default model, if that is here.

    Raises:
        ModelError: no measured model can be used, and the default model neither.
    """
    wanted = settings.engine
    if not isinstance(wanted, AutoSettings):
        return Resolved(wanted)
    store = Store(models_dir(settings), load_catalogue())
    try:
        calibration = read_calibration(folder_of(settings))
    except CalibrationError as error:
        return _default(wanted, store, str(error))
    suitable = usable(calibration.measurements, wanted.language, store)
    if not suitable:
        return _default(wanted, store, f"no measured model can be used now: run {command()} again")
    candidate, warning = calibration.choice.candidate, ""
    if all(one.candidate != candidate for one in suitable):
        candidate = choose(suitable, calibration.limits).candidate
        warning = (
            f"cannot use {calibration.choice.candidate.model}, which the calibration chose; using {candidate.model} "
            f"instead: run {command()} again"
        )
    if changed := differences(calibration.fingerprint, fingerprint()):
        warning = warning or f"the calibration is out of date ({'; '.join(changed)}): run {command()} again"
        candidate = replace(candidate, threads=0)  # as many as suit the machine now
    wanted = wanted.model_copy(update={"threads": wanted.threads or candidate.threads})
    return Resolved(engine_like(wanted, candidate.engine, candidate.model), warning)


def _default(wanted: AutoSettings, store: Store, problem: str) -> Resolved:
    """Return whisper_cpp with its default model, which knows English only."""
    default = engine_like(wanted, "whisper_cpp", WhisperCppSettings().model)
    if not store.has(default.model) or wanted.language not in {"auto", "en"}:
        raise ModelError(f'engine.kind = "auto": {problem} (with --pull, to fetch models first)')
    return Resolved(default, f"{problem}; until then it is {default.kind} {default.model}")


def engine_like(wanted: EngineCommon, kind: str, model: str) -> WhisperSettings:
    """Return the engine `kind` with `model`, and with the settings of `wanted` that all engines have."""
    engine = WhisperCppSettings if kind == "whisper_cpp" else FasterWhisperSettings
    return engine(**wanted.model_dump(include=set(EngineCommon.model_fields)), model=model)


def in_words(engine: EngineSettings) -> str:
    """Return kind, model and threads: `whisper_cpp tiny.en-q8_0, 1 thread`."""
    if isinstance(engine, ScriptedSettings):
        return engine.kind
    return f"{engine.kind} {engine.model}" + (f", {plural(engine.threads, 'thread')}" if engine.threads else "")


def usable(measurements: Sequence[Measurement], language: str, store: Store) -> list[Measurement]:
    """Return the measurements whose engine and model are on this device, for the language."""
    engines, measured = installed_engines(), {one.candidate.model for one in measurements}
    here = [model for model in store.installed() if model.name in measured]
    suitable = {model.name for model in for_language(here, language)}
    return [one for one in measurements if one.candidate.engine in engines and one.candidate.model in suitable]


def format_for(engine: EngineSettings) -> ModelFormat | None:
    """Return the format that the engine loads; None if it has no model."""
    if isinstance(engine, ScriptedSettings):
        return None
    return ModelFormat.GGML if isinstance(engine, WhisperCppSettings) else ModelFormat.CTRANSLATE2


def language_problem(engine: EngineSettings) -> str:
    """Return why the model does not suit the language, with the remedy; empty if it does, or there is no model."""
    if isinstance(engine, ScriptedSettings) or knows(engine.model, engine.language):
        return ""
    return (
        f'engine.language = "{engine.language}", but engine.model = "{engine.model}" knows English only: '
        f'set engine.model = "{multilingual(engine.model)}" or engine.language = "en"'
    )


def chosen_model(engine: EngineSettings, store: Store) -> Path | None:
    """Return the verified path of the engine's model; None if it has none.

    Raises:
        ModelError: it is not on this device, of the wrong format, or not the expected one.
    """
    if isinstance(engine, ScriptedSettings) or (wanted := format_for(engine)) is None:
        return None
    return store.resolve(engine.model, wanted)
