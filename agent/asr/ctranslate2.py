"""CTranslate2, the runtime of faster-whisper, with a mel spectrogram as short as the utterance.

The faster-whisper package itself is not used: it pads every utterance to 30 seconds, and imports PyAV and onnxruntime,
which are not needed here (docs/decisions/0005).
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ctranslate2
import numpy as np
from tokenizers import Tokenizer

from agent.asr.context import CPU_BATCH, CUDA_BATCH, Window, batches, common_window, policy_for
from agent.asr.cpu import engine_threads
from agent.asr.decoding import transcribe_with_fallback
from agent.asr.mel import log_mel
from agent.asr.transcript import Segment, Transcript
from agent.audio.frames import SAMPLE_RATE_HZ, PcmFloat, Utterance
from agent.errors import EngineError, ModelError

if TYPE_CHECKING:
    from agent.config.settings import FasterWhisperSettings

_NOT_THE_MODEL = re.compile("out of memory|cuda|cublas|cudnn|Library", re.IGNORECASE)
"""CTranslate2's errors that are about the machine: another start may avoid them."""
_PATIENCE = 0.6
"""Share of the beam that must end before the best of these is taken (docs/decisions/0016)."""


class CTranslate2Engine:
    """Transcribes with CTranslate2 on the CPU or on CUDA; implements `agent.asr.Engine`.

    `folder` holds `model.bin`, `config.json` and `tokenizer.json`, already verified.

    Raises:
        EngineError: the device or the arithmetic is not available, or there is not enough memory.
        ModelError: the folder holds no Whisper model, or the model does not know the language.
    """

    def __init__(self, settings: "FasterWhisperSettings", folder: Path, model_name: str) -> None:
        self._settings = settings
        self._model_name = model_name
        self._tokens = Tokens(folder)
        self._suppressed = self._tokens.suppressed(_suppressed_ids(folder / "config.json"))
        self._model: Any = _load(settings, folder)
        self._on_cuda = bool(self._model.device == "cuda")
        self.batch_size: int = settings.batch_size or (CUDA_BATCH if self._on_cuda else CPU_BATCH)
        # A language that the model lacks is an error now, not at the first word.
        self._prompt("en" if settings.language == "auto" else settings.language)
        self._policy = policy_for(settings.context, self._width())

    def transcribe(self, utterances: Sequence[Utterance]) -> list[Transcript]:
        """See `agent.asr.Engine`."""
        if self._model is None:
            raise EngineError("the faster_whisper engine is closed: create a new one")
        try:
            return transcribe_with_fallback(utterances, self._policy, self._decode)
        except (RuntimeError, ValueError, ModelError) as error:  # mostly out of memory on CUDA
            ids = ", ".join(utterance.id for utterance in utterances)
            raise EngineError(f"CTranslate2 failed on {ids}: {error}") from error

    def close(self) -> None:
        """Free the model; idempotent."""
        if self._model is not None:
            self._model.unload_model()
            self._model = None

    def _decode(self, sounds: Sequence[PcmFloat], windows: Sequence[Window]) -> list[Transcript]:
        results: dict[int, Transcript] = {}
        for batch in batches(windows, frugal=not self._on_cuda):
            together = self._decode_batch([sounds[index] for index in batch], [windows[index] for index in batch])
            results.update(zip(batch, together, strict=True))
        return [results[index] for index in range(len(sounds))]

    def _decode_batch(self, sounds: Sequence[PcmFloat], windows: Sequence[Window]) -> list[Transcript]:
        """Decode all of `sounds` in the largest of `windows`."""
        common = common_window(windows)
        encoded = self._encode(sounds, common)
        languages = self._languages(encoded, len(sounds))
        prompts = [self._prompt(language) for language, _ in languages]
        results = self._model.generate(
            encoded,
            prompts,
            beam_size=self._settings.beam_size,
            patience=_PATIENCE,
            # A language is one token, so all prompts have the same length.
            max_length=_max_length(len(prompts[0]), common.max_tokens),
            return_scores=True,
            return_no_speech_prob=True,
            suppress_tokens=self._suppressed,
        )
        return [
            # CTranslate2 has one cap for all. A text beyond its own cap is a loop, and is decoded again alone.
            self._transcript(result, len(samples) / SAMPLE_RATE_HZ, common.positions, window.max_tokens, *language)
            if len(result.sequences_ids[0]) <= window.max_tokens
            else self._decode_batch([samples], [window])[0]
            for samples, window, language, result in zip(sounds, windows, languages, results, strict=True)
        ]

    def _transcript(
        self,
        result: Any,
        duration_s: float,
        positions: int,
        max_tokens: int,
        language: str,
        language_prob: float | None,
    ) -> Transcript:
        tokens = result.sequences_ids[0]
        return Transcript(
            utterance_id="",
            text=self._tokens.text(tokens),
            language=language,
            segments=self._tokens.segments(tokens, duration_s),
            engine="faster_whisper",
            model=self._model_name,
            inference_s=0.0,
            audio_ctx=positions,
            tokens=sum(token < self._tokens.end_of_text for token in tokens),
            capped=len(tokens) >= max_tokens,
            # The score is the mean over the tokens; Whisper counts the end of the text as one more.
            avg_logprob=result.scores[0] * len(tokens) / (len(tokens) + 1) if tokens else None,
            no_speech_prob=result.no_speech_prob,
            language_prob=language_prob,
        )

    def _prompt(self, language: str) -> list[int]:
        return self._tokens.prompt(language if self._model.is_multilingual else None, self._settings.initial_prompt)

    def _width(self) -> int:
        """Return the width of the model, from one position of silence; this is also the warm-up."""
        try:
            return int(self._encode([np.zeros(0, np.float32)], Window(1, 1)).shape[2])
        except RuntimeError as error:  # a ValueError is the model's fault
            raise EngineError(
                f"CTranslate2 cannot compute here ({error}): on x86-64 it compiles at run time, which a unit with "
                "MemoryDenyWriteExecute=yes forbids: run `sudo edgescribe service install` again, which adds the "
                "drop-in faster-whisper.conf"
            ) from error

    def _encode(self, sounds: Sequence[PcmFloat], window: Window) -> Any:
        """Return the encoder's output, shape (sounds, positions, width), on the device it was computed on."""
        mels = np.stack([log_mel(samples, window.frames, int(self._model.n_mels)) for samples in sounds])
        return self._model.encode(ctranslate2.StorageView.from_array(mels))

    def _languages(self, encoded: Any, sounds: int) -> list[tuple[str, float | None]]:
        """Return each language, and its probability if it was detected. Detection costs one step of the decoder."""
        if not self._model.is_multilingual:
            return [("en", None)] * sounds
        if self._settings.language != "auto":
            return [(self._settings.language, None)] * sounds
        likeliest = [ranking[0] for ranking in self._model.detect_language(encoded)]
        return [(token.strip("<|>"), probability) for token, probability in likeliest]


def _max_length(prompt_tokens: int, max_tokens: int) -> int:
    """Return the `max_length` with which CTranslate2 decodes at most `max_tokens`.

    Its Whisper decodes min(max_length / 2, max_length - prompt) tokens (`src/models/whisper.cc`,
    `WhisperReplica::generate`).
    """
    return max(2 * max_tokens, prompt_tokens + max_tokens)


def _load(settings: "FasterWhisperSettings", folder: Path) -> Any:
    """Load the weights."""
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
    except RuntimeError as error:
        if not _NOT_THE_MODEL.search(str(error)):
            raise
        raise EngineError(f"{folder} cannot be loaded ({error}): run `edgescribe doctor`") from error


def _supported_compute_types(device: str) -> set[str]:
    if device == "cuda" and not ctranslate2.get_cuda_device_count():
        raise EngineError(
            'engine.device = "cuda", but this CTranslate2 sees no CUDA device: set it to "cpu" (`edgescribe doctor` '
            "names the missing part; PyPI's CTranslate2 for aarch64 has no CUDA)"
        )
    usable = "cuda" if device != "cpu" and ctranslate2.get_cuda_device_count() else "cpu"
    return set(ctranslate2.get_supported_compute_types(usable))


def _suppressed_ids(path: Path) -> list[int]:
    """Return the tokens that the model's description excludes from sampling."""
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read ({error}): pull the model again") from error
    ids = config.get("suppress_ids") or [] if isinstance(config, dict) else None
    if not isinstance(ids, list) or not all(isinstance(each, int) for each in ids):
        raise ModelError(
            f"{path} is not a model's description (an object, numbers in suppress_ids): pull the model again"
        )
    return ids


TIMESTAMPS_PER_SECOND = 50
MAX_PROMPT_TOKENS = 223
"""Half of the decoder's 448 positions, less one for `<|startofprev|>` (openai/whisper does the same)."""


class Tokens:
    """Text to tokens and back, by the `tokenizer.json` beside the weights.

    Layout of vocabulary and prompt: `whisper/tokenizer.py` in openai/whisper. Text tokens come first, then
    `<|endoftext|>`, the control tokens, and from `<|notimestamps|>` + 1 on the timestamps, 20 ms apart.

    Raises:
        ModelError: `tokenizer.json` is absent or not a Whisper tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelError(f"{path} is missing: pull the model again with `edgescribe models pull`")
        self._path = path
        self._tokenizer = Tokenizer.from_file(str(path))
        self.end_of_text = self._control("<|endoftext|>")
        self.start = self._control("<|startoftranscript|>")
        self.first_timestamp = self._control("<|notimestamps|>") + 1

    def prompt(self, language: str | None, initial_prompt: str) -> list[int]:
        """Return the first tokens for the decoder; `language` is None for an English-only model.

        Raises:
            ModelError: the model does not know the language.
        """
        tokens = [self.start]
        if words := initial_prompt.strip():
            previous = self._tokenizer.encode(f" {words}", add_special_tokens=False).ids
            tokens = [self._control("<|startofprev|>"), *previous[-MAX_PROMPT_TOKENS:], self.start]
        if language is None:
            return tokens
        spoken = self._tokenizer.token_to_id(f"<|{language}|>")
        if spoken is None:
            raise ModelError(f"this model does not know the language {language!r}: set engine.language to another one")
        return [*tokens, spoken, self._control("<|transcribe|>")]

    def text(self, tokens: Iterable[int]) -> str:
        """Return the text of the text tokens among `tokens`, stripped."""
        return str(self._tokenizer.decode([token for token in tokens if token < self.end_of_text])).strip()

    def segments(self, tokens: Sequence[int], duration_s: float) -> tuple[Segment, ...]:
        """Divide `tokens` at its timestamps, clamped to `duration_s`; leave out segments without text.

        A segment that no timestamp closes ends with the sound.
        """
        found: list[Segment] = []
        start_s, part = 0.0, list[int]()
        for token in (*tokens, None):
            if token is not None and token < self.first_timestamp:
                part.append(token)
                continue
            end_s = duration_s if token is None else (token - self.first_timestamp) / TIMESTAMPS_PER_SECOND
            if text := self.text(part):
                found.append(Segment(min(start_s, duration_s), min(max(start_s, end_s), duration_s), text))
            start_s, part = end_s, []
        return tuple(found)

    def suppressed(self, from_config: Iterable[int]) -> list[int]:
        """Return the tokens that are never sampled: those of `config.json`, and the control tokens."""
        names = ("<|transcribe|>", "<|translate|>", "<|startoftranscript|>", "<|startofprev|>", "<|startoflm|>")
        controls = (self._tokenizer.token_to_id(name) for name in names)
        return sorted({*from_config, *(token for token in controls if token is not None)})

    def _control(self, name: str) -> int:
        token = self._tokenizer.token_to_id(name)
        if token is None:
            raise ModelError(f"{self._path} is not Whisper's: it has no {name}")
        return int(token)
