"""From settings to an engine."""

from pathlib import Path
from typing import TYPE_CHECKING

from agent import cpu, extras
from agent.engines import Engine
from agent.errors import EngineError

if TYPE_CHECKING:  # pydantic is 11 MB that an engine process does without, see agent/engine_child.py
    from agent.config import EngineSettings, FasterWhisperSettings, ScriptedSettings, WhisperCppSettings


def create_engine(settings: "EngineSettings", model_path: Path | None) -> Engine:
    """Load the engine that `settings` ask for; its library is imported only now.

    `model_path` is the verified ggml file or CTranslate2 folder, and None for an engine without a model.

    Raises:
        EngineError: the engine is not installed, or cannot load the model.
    """
    if settings.kind == "scripted":
        return _scripted(settings)
    if settings.kind == "whisper_cpp":
        return _whisper_cpp(settings, _required(model_path, settings.model))
    return _faster_whisper(settings, _required(model_path, settings.model))


# The libraries are imported where they are needed: each costs tens of megabytes, and one of them is an extra.


def _scripted(settings: "ScriptedSettings") -> Engine:
    from agent.engines.scripted import Scripted  # noqa: PLC0415 - see above

    return Scripted(settings)


def _whisper_cpp(settings: "WhisperCppSettings", model_path: Path) -> Engine:
    if refusal := cpu.refused("pywhispercpp"):
        raise EngineError(refusal)
    try:
        from agent.engines.whisper_cpp import WhisperCpp  # noqa: PLC0415 - see above
    except ImportError as error:
        raise EngineError(f"whisper.cpp cannot be loaded ({error}): {extras.here().again('pywhispercpp')}") from error
    return WhisperCpp(settings, model_path, settings.model)


def _faster_whisper(settings: "FasterWhisperSettings", model_path: Path) -> Engine:
    try:
        from agent.engines.faster_whisper import FasterWhisper  # noqa: PLC0415 - see above
    except ImportError as error:
        raise EngineError(f"CTranslate2 is not installed ({error}): {extras.missing('faster-whisper')}") from error
    return FasterWhisper(settings, model_path, settings.model)


def _required(model_path: Path | None, model: str) -> Path:
    if model_path is None:
        raise EngineError(f"the engine needs the model {model}: `edgescribe models pull {model}`")
    return model_path
