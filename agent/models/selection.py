"""Which engine and model the settings mean on this machine, `engine.kind = "auto"` included."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
    Candidate,
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


@dataclass(frozen=True, slots=True)
class Resolved:
    """An engine that can be loaded."""

    engine: EngineSettings
    warning: str = ""
    """One line about what is not as it should be; empty where all is well."""


def resolve(settings: Settings) -> Resolved:
    """The engine that is meant: what the settings say themselves, or what the calibration chose.

    What has changed since the calibration is allowed for: a model that is gone, or another language, makes the next
    best of what was measured the choice. Where nothing of it can be used, whisper_cpp's default model is, if it is
    here.

    Raises:
        ModelError: there is nothing to choose from.
    """
    wanted = settings.engine
    if not isinstance(wanted, AutoSettings):
        return Resolved(wanted)
    store = Store(models_dir(settings), load_catalogue())
    try:
        calibration = read_calibration(folder_of(settings))
    except CalibrationError as error:
        return _without(wanted, store, str(error))
    suitable = usable(calibration.measurements, wanted.language, store)
    if not suitable:
        problem = f"nothing that was measured can be used now: run {command()} again"
        return _without(wanted, store, problem)
    if any(one.candidate == calibration.choice.candidate for one in suitable):
        candidate, warning = calibration.choice.candidate, ""
    else:
        candidate = choose(suitable, calibration.limits).candidate
        warning = (
            f"the calibration chose {calibration.choice.candidate.model}, which does not do now; {candidate.model} is "
            f"used instead: run {command()} again"
        )
    stale = ""
    if changed := differences(calibration.fingerprint, fingerprint()):
        stale = f"the calibration is out of date ({'; '.join(changed)}): run {command()} again"
        candidate = replace(candidate, threads=0)  # as many as are right for what the machine is now
    return Resolved(_engine(wanted, candidate), warning or stale)


def in_words(engine: EngineSettings) -> str:
    """Kind, model and threads: `whisper_cpp tiny.en-q8_0, 1 thread`."""
    if isinstance(engine, ScriptedSettings):
        return engine.kind
    return f"{engine.kind} {engine.model}" + (f", {plural(engine.threads, 'thread')}" if engine.threads else "")


def usable(measurements: Sequence[Measurement], language: str, store: Store) -> list[Measurement]:
    """Those whose engine and model are here, for the language."""
    engines, measured = installed_engines(), {one.candidate.model for one in measurements}
    here = [model for model in store.installed() if model.name in measured]
    suitable = {model.name for model in for_language(here, language)}
    return [one for one in measurements if one.candidate.engine in engines and one.candidate.model in suitable]


def _without(wanted: AutoSettings, store: Store, problem: str) -> Resolved:
    default = WhisperCppSettings(**_common(wanted))
    if not store.has(default.model) or wanted.language not in {"auto", "en"}:
        raise ModelError(f'engine.kind = "auto": {problem} (with --pull, to fetch models first)')
    return Resolved(default, f"{problem}; until then it is {default.kind} {default.model}")


def _engine(wanted: AutoSettings, candidate: Candidate) -> EngineSettings:
    common = _common(wanted) | {"threads": wanted.threads or candidate.threads}
    kind = WhisperCppSettings if candidate.engine == "whisper_cpp" else FasterWhisperSettings
    return kind(**common, model=candidate.model)


def _common(wanted: AutoSettings) -> dict[str, Any]:
    return wanted.model_dump(include=set(EngineCommon.model_fields))


def format_for(engine: EngineSettings) -> ModelFormat | None:
    """What the engine loads; None if it has no model."""
    if isinstance(engine, ScriptedSettings):
        return None
    return ModelFormat.GGML if isinstance(engine, WhisperCppSettings) else ModelFormat.CTRANSLATE2


def language_problem(engine: EngineSettings) -> str:
    """Why the model does not do for the language, with the remedy; empty if it does, or there is no model."""
    if isinstance(engine, ScriptedSettings) or knows(engine.model, engine.language):
        return ""
    return (
        f'engine.language = "{engine.language}", but engine.model = "{engine.model}" knows English only: '
        f'set engine.model = "{multilingual(engine.model)}" or engine.language = "en"'
    )


def chosen_model(engine: EngineSettings, store: Store) -> Path | None:
    """Verified path of the engine's model; None if it has none.

    Raises:
        ModelError: it is not on this device, of the wrong format, or not what it should be.
    """
    wanted = format_for(engine)
    if wanted is None or isinstance(engine, ScriptedSettings):
        return None
    return store.resolve(engine.model, wanted)
