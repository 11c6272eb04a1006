"""From settings to an engine."""

from pathlib import Path
from typing import TYPE_CHECKING

from agent.asr import Engine, cpu
from agent.errors import AgentError, EngineError, ModelError
from agent.install import extras

if TYPE_CHECKING:  # pydantic is 11 MB that an engine process does without, see agent/asr/engine_child.py
    from agent.config.settings import EngineSettings, FasterWhisperSettings, ScriptedSettings, WhisperCppSettings


def create_engine(settings: "EngineSettings", model_path: Path | None) -> Engine:
    """Load the engine that `settings` ask for; its library is imported only now.

    `model_path` is the verified ggml file or CTranslate2 folder, and None for an engine without a model.

    Raises:
        EngineError: the engine is not installed, or there is not enough memory.
        ModelError: the engine cannot load the model.
    """
    if settings.kind == "scripted":
        return _scripted(settings)
    if model_path is None:
        raise EngineError(f"the engine needs the model {settings.model}: `edgescribe models pull {settings.model}`")
    try:
        if settings.kind == "whisper_cpp":
            return _whisper_cpp(settings, model_path)
        return _faster_whisper(settings, model_path)
    except AgentError:
        raise
    except MemoryError as error:
        raise EngineError(f"{model_path} cannot be loaded: not enough memory") from error
    except Exception as error:  # native libraries and `tokenizers` raise what they like at a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"{model_path} cannot be loaded ({reason}): check it with `edgescribe models verify`"
        ) from error


# The libraries are imported where they are needed: each costs tens of megabytes, and one of them is an extra.


def _scripted(settings: "ScriptedSettings") -> Engine:
    from agent.asr.scripted import Scripted  # noqa: PLC0415 - see above

    return Scripted(settings)


def _whisper_cpp(settings: "WhisperCppSettings", model_path: Path) -> Engine:
    if refusal := cpu.refused("pywhispercpp"):
        raise EngineError(refusal)
    try:
        from agent.asr.whisper_cpp import WhisperCpp  # noqa: PLC0415 - see above
    except ImportError as error:
        raise EngineError(f"whisper.cpp cannot be loaded ({error}): {extras.here().again('pywhispercpp')}") from error
    return WhisperCpp(settings, model_path, settings.model)


def _faster_whisper(settings: "FasterWhisperSettings", model_path: Path) -> Engine:
    try:
        from agent.asr.ctranslate2 import CTranslate2Engine  # noqa: PLC0415 - see above
    except ImportError as error:
        raise EngineError(f"CTranslate2 is not installed ({error}): {extras.missing('faster-whisper')}") from error
    return CTranslate2Engine(settings, model_path, settings.model)
