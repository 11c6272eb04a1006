"""Speech to text: the protocol of an engine, and the way from settings to one.

An engine process imports this package before its confinement. So this module must not import numpy: it starts threads.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from agent.asr.cpu import refused
from agent.errors import AgentError, EngineError, ModelError
from agent.install import extras

if TYPE_CHECKING:
    from agent.asr.transcript import Transcript
    from agent.audio.frames import Utterance
    from agent.config.settings import EngineSettings, FasterWhisperSettings, WhisperCppSettings


class Engine(Protocol):
    """Transcribes utterances.

    The composition root creates it. The transcribe thread calls `transcribe`, and `close` at its end. `transcribe` is
    not called after `close`. An engine never uses the network.
    """

    @property
    def batch_size(self) -> int:
        """How many utterances `transcribe` should get at once, at most; may change between two calls."""

    def transcribe(self, utterances: "Sequence[Utterance]") -> "list[Transcript]":
        """Return the words of each of `utterances` (at most 30 s each), in their order.

        Raises:
            EngineError: inference failed, and there are words for none of them. The engine stays usable. After a
                failure of several, try each alone: one may be the cause.
        """

    def close(self) -> None:
        """Free the model; idempotent."""


def create_engine(settings: "EngineSettings", model_path: Path | None) -> Engine:
    """Load the engine of `settings`, and import its library: that costs tens of megabytes.

    `model_path` is the verified ggml file or CTranslate2 folder, and None for an engine without a model.

    Raises:
        EngineError: the engine is not installed, or there is not enough memory.
        ModelError: the engine cannot load the model.
    """
    if settings.kind == "scripted":
        from agent.asr.scripted import Scripted  # noqa: PLC0415 - it imports numpy

        return Scripted(settings)
    if model_path is None:
        raise EngineError(f"the engine needs the model {settings.model}: `edgescribe models pull {settings.model}`")
    try:
        return _load(settings, model_path)
    except AgentError:
        raise
    except MemoryError as error:
        raise EngineError(f"{model_path} cannot be loaded: not enough memory") from error
    except Exception as error:  # native libraries and `tokenizers` raise any exception for a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"{model_path} cannot be loaded ({reason}): check it with `edgescribe models verify`"
        ) from error


def _load(settings: "WhisperCppSettings | FasterWhisperSettings", model_path: Path) -> Engine:
    if settings.kind == "whisper_cpp":
        if refusal := refused("pywhispercpp"):
            raise EngineError(refusal)
        try:
            from agent.asr.whisper_cpp import WhisperCpp  # noqa: PLC0415 - see `create_engine`
        except ImportError as error:
            remedy = extras.here().again("pywhispercpp")
            raise EngineError(f"whisper.cpp cannot be loaded ({error}): {remedy}") from error
        return WhisperCpp(settings, model_path, settings.model)
    try:
        from agent.asr.ctranslate2 import CTranslate2Engine  # noqa: PLC0415 - see `create_engine`
    except ImportError as error:
        raise EngineError(f"CTranslate2 is not installed ({error}): {extras.missing('faster-whisper')}") from error
    return CTranslate2Engine(settings, model_path, settings.model)
