"""CTranslate2, the runtime of faster-whisper, with a mel spectrogram as short as the utterance.

CTranslate2 is used directly: the faster-whisper package pads every utterance to 30 seconds, and importing it brings
PyAV and onnxruntime along, which nothing here needs (docs/decisions/0005).
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ctranslate2
import numpy as np

from agent.audio import PcmFloat, Utterance
from agent.engines.context import Window, policy_for
from agent.engines.evidence import Attempt
from agent.engines.hearing import Label, hear
from agent.engines.mel import log_mel
from agent.engines.threads import engine_threads
from agent.engines.tokens import Tokens
from agent.errors import EngineError
from agent.transcript import Transcript

if TYPE_CHECKING:
    from agent.config import FasterWhisperSettings


class FasterWhisper:
    """Transcribes with CTranslate2 on the CPU or on CUDA; implements `agent.engines.Engine`.

    `folder` holds `model.bin`, `config.json` and `tokenizer.json`, already verified.

    Raises:
        EngineError: the device or the arithmetic is not available, the folder holds no Whisper model, or the model
            does not know the language.
    """

    def __init__(self, settings: "FasterWhisperSettings", folder: Path, model_name: str) -> None:
        self._settings = settings
        self._label = Label("faster_whisper", model_name)
        self._tokens = Tokens(folder)
        self._suppressed = self._tokens.suppressed(_read_config(folder).get("suppress_ids", []))
        self._model: Any = _load(settings, folder)
        self._bands = int(self._model.n_mels)
        if self._model.is_multilingual and settings.language != "auto":
            self._tokens.prompt(settings.language, "")  # an unknown language is an error now, not at the first word
        self._policy = policy_for(settings.context, self._width())

    def transcribe(self, utterance: Utterance) -> Transcript:
        """Return the words of `utterance` (at most 30 s).

        Raises:
            EngineError: inference failed, or the engine is closed.
        """
        if self._model is None:
            raise EngineError("the faster_whisper engine is closed: create a new one")
        try:
            return hear(utterance, self._policy, self._decode, self._label)
        except (RuntimeError, ValueError) as error:  # what CTranslate2 raises; out of memory on CUDA, above all
            raise EngineError(f"CTranslate2 failed on utterance {utterance.id}: {error}") from error

    def close(self) -> None:
        """Free the model; idempotent."""
        if self._model is not None:
            self._model.unload_model()
            self._model = None

    def _decode(self, samples: PcmFloat, window: Window) -> Attempt:
        encoded = self._encode(samples, window)
        language, language_prob = self._language(encoded)
        prompt = self._tokens.prompt(language if self._model.is_multilingual else None, self._settings.initial_prompt)
        result = self._model.generate(
            encoded,
            [prompt],
            beam_size=self._settings.beam_size,
            max_length=len(prompt) + window.max_tokens,
            return_scores=True,
            return_no_speech_prob=True,
            suppress_tokens=self._suppressed,
        )[0]
        tokens = result.sequences_ids[0]
        duration_s = len(samples) / 16_000
        return Attempt(
            text=self._tokens.text(tokens),
            segments=self._tokens.segments(tokens, duration_s),
            tokens=sum(token < self._tokens.end_of_text for token in tokens),
            capped=len(tokens) >= window.max_tokens,
            audio_ctx=window.positions,
            language=language,
            # The score is the mean over the tokens; Whisper counts the end of the text as one more.
            avg_logprob=result.scores[0] * len(tokens) / (len(tokens) + 1) if tokens else None,
            no_speech_prob=result.no_speech_prob,
            language_prob=language_prob,
        )

    def _width(self) -> int:
        """Width of the model; one position of silence tells, and is the warm-up."""
        try:
            return int(self._encode(np.zeros(0, np.float32), Window(1, 1)).shape[2])
        except RuntimeError as error:
            raise EngineError(
                f"CTranslate2 cannot compute here ({error}): on x86-64 it compiles at run time, which a unit with "
                "MemoryDenyWriteExecute=yes forbids; install the drop-in systemd/drop-ins/faster-whisper.conf"
            ) from error

    def _encode(self, samples: PcmFloat, window: Window) -> Any:
        """Return the encoder's output, shape (1, positions, width), on the device it was computed on."""
        mel = log_mel(samples, window.frames, self._bands)
        return self._model.encode(ctranslate2.StorageView.from_array(mel[np.newaxis]))

    def _language(self, encoded: Any) -> tuple[str, float | None]:
        """Return the language and, where it was detected, its probability. Detection costs one step of the decoder."""
        if not self._model.is_multilingual:
            return "en", None
        if self._settings.language != "auto":
            return self._settings.language, None
        token, probability = self._model.detect_language(encoded)[0][0]
        return token.strip("<|>"), probability


def _load(settings: "FasterWhisperSettings", folder: Path) -> Any:
    """Load the weights; one line that says what to do where that fails."""
    supported = _supported_compute_types(settings.device)
    if settings.compute_type not in supported:
        raise EngineError(
            f'engine.compute_type = "{settings.compute_type}" is not available on {settings.device}: '
            f"use one of {', '.join(sorted(supported))}"
        )
    try:
        return ctranslate2.models.Whisper(
            str(folder),
            device=settings.device,
            compute_type=settings.compute_type,
            inter_threads=1,
            intra_threads=engine_threads(settings.threads),
        )
    except (RuntimeError, ValueError) as error:
        raise EngineError(f"{folder} cannot be loaded ({error}): check it with `edgescribe models verify`") from error


def _supported_compute_types(device: str) -> set[str]:
    if device == "cuda" and not ctranslate2.get_cuda_device_count():
        raise EngineError(
            'engine.device = "cuda", but this CTranslate2 sees no CUDA device: set it to "cpu" (`edgescribe doctor` '
            "says what is missing; PyPI's CTranslate2 for aarch64 has no CUDA)"
        )
    usable = "cuda" if device != "cpu" and ctranslate2.get_cuda_device_count() else "cpu"
    return set(ctranslate2.get_supported_compute_types(usable))


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} cannot be read ({error}): pull the model again") from error
