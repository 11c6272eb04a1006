"""whisper.cpp, through pywhispercpp's low-level module."""

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

# Idle OpenMP threads spin by default. With another process on one of two cores, inference then takes four times as
# long. The library reads this once, when it is loaded: hence before the import.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import _pywhispercpp as pw

from agent.asr.context import Window, policy_for
from agent.asr.cpu import engine_threads
from agent.asr.decoding import transcribe_with_fallback
from agent.asr.transcript import Segment, Transcript
from agent.audio.frames import SAMPLE_RATE_HZ, PcmFloat, Utterance
from agent.errors import EngineError, ModelError

if TYPE_CHECKING:
    from agent.config.settings import WhisperCppSettings

_SECONDS_PER_TICK = 0.01
"""whisper.cpp's timestamps."""
_DETECTION_POSITIONS = 384
"""Seven seconds are enough to tell a language: the probabilities are those of the full window."""
_MIN_SAMPLES = SAMPLE_RATE_HZ // 10
"""whisper.cpp refuses shorter sound."""
_LOADED = "compute buffer (decode)"
"""Part of the last line that whisper.cpp logs when it has loaded a model."""
_NO_MEMORY = "failed to allocate"
"""Part of a line that it logs when memory runs out."""


class WhisperCpp:
    """Transcribes with whisper.cpp on the CPU; implements `agent.asr.Engine`.

    `model_path` is a verified ggml file: whisper.cpp's loader does not check its input.

    Decodes greedily, without whisper.cpp's temperature fallback (`decoding.py` decides on a retry) and without flash
    attention, which pads a short context with empty keys and attends to them (docs/decisions/0002).

    Raises:
        ModelError: the file is not a model that whisper.cpp can load, or it does not know the language.
        EngineError: there is not enough memory.
    """

    batch_size = 1

    def __init__(self, settings: "WhisperCppSettings", model_path: Path, model_name: str) -> None:
        self._settings = settings
        self._model_name = model_name
        self._threads = engine_threads(settings.threads)
        self._context: Any = _load(model_path)
        self._multilingual = bool(pw.whisper_is_multilingual(self._context))
        self._end_of_text = int(pw.whisper_token_eot(self._context))
        self._policy = policy_for(settings.context, int(pw.whisper_model_n_audio_state(self._context)))
        self._no_speech = no_speech_reader(self._context)
        self._check_language()

    def transcribe(self, utterances: Sequence[Utterance]) -> list[Transcript]:
        """See `agent.asr.Engine`."""
        if self._context is None:
            raise EngineError("the whisper_cpp engine is closed: create a new one")
        return transcribe_with_fallback(utterances, self._policy, self._decode)

    def close(self) -> None:
        """Free the model; idempotent."""
        if self._context is not None:
            pw.whisper_free(self._context)
            self._context = None

    def _decode(self, sounds: Sequence[PcmFloat], windows: Sequence[Window]) -> list[Transcript]:
        return [self._decode_one(samples, window) for samples, window in zip(sounds, windows, strict=True)]

    def _decode_one(self, samples: PcmFloat, window: Window) -> Transcript:
        padded = np.pad(samples, (0, max(0, _MIN_SAMPLES - len(samples))))
        language, language_prob = self._language(padded, window)
        self._run(padded, self._parameters(window, language))
        tokens, segments = self._results(len(samples) / SAMPLE_RATE_HZ)
        logprobs = [token.plog for token in tokens if token.id < self._end_of_text]
        return Transcript(
            utterance_id="",
            text="".join(segment.text for segment in segments).strip(),
            language=language,
            segments=segments,
            engine="whisper_cpp",
            model=self._model_name,
            inference_s=0.0,
            audio_ctx=window.positions,
            tokens=len(logprobs),
            capped=len(tokens) >= window.max_tokens,
            avg_logprob=float(np.mean(logprobs)) if logprobs else None,
            no_speech_prob=self._no_speech(self._threads) if logprobs else None,
            language_prob=language_prob,
        )

    def _parameters(self, window: Window, language: str) -> Any:
        strategies, beam_size = pw.whisper_sampling_strategy, self._settings.beam_size
        greedy = beam_size == 1
        strategy = strategies.WHISPER_SAMPLING_GREEDY if greedy else strategies.WHISPER_SAMPLING_BEAM_SEARCH
        parameters = pw.whisper_full_default_params(strategy)
        parameters.n_threads = self._threads
        parameters.language = language
        parameters.audio_ctx = window.positions
        parameters.max_tokens = window.max_tokens
        parameters.no_context = True
        parameters.suppress_blank = True
        parameters.temperature_inc = 0.0
        # Off: with multilingual models whisper.cpp looks at the figure of the sound before, and drops words for it.
        parameters.no_speech_thold = 1.0
        parameters.greedy = {"best_of": 1}
        parameters.beam_search = {"beam_size": beam_size, "patience": -1.0}
        parameters.print_progress = False
        parameters.print_timestamps = False
        if self._settings.initial_prompt:
            parameters.initial_prompt = self._settings.initial_prompt
        return parameters

    def _run(self, samples: PcmFloat, parameters: Any) -> None:
        with _captured_log() as lines:
            status = pw.whisper_full(self._context, parameters, samples, len(samples))
        if status:
            raise EngineError(f"whisper.cpp failed with {status}: {_last(lines)}")

    def _results(self, duration_s: float) -> tuple[list[Any], tuple[Segment, ...]]:
        """Return all tokens, and the segments, with their times clamped to `duration_s`."""
        tokens: list[Any] = []
        segments: list[Segment] = []
        for index in range(pw.whisper_full_n_segments(self._context)):
            count = pw.whisper_full_n_tokens(self._context, index)
            tokens += [pw.whisper_full_get_token_data(self._context, index, token) for token in range(count)]
            start_s = pw.whisper_full_get_segment_t0(self._context, index) * _SECONDS_PER_TICK
            end_s = pw.whisper_full_get_segment_t1(self._context, index) * _SECONDS_PER_TICK
            # A token may end inside a character; at the token cap, so may the text.
            text = pw.whisper_full_get_segment_text(self._context, index).decode("utf-8", errors="ignore")
            segments.append(Segment(min(start_s, duration_s), min(end_s, duration_s), text))
        return tokens, tuple(segments)

    def _language(self, samples: PcmFloat, window: Window) -> tuple[str, float | None]:
        """Return the language and, where it was detected, its probability.

        whisper.cpp detects in the context of the *previous* call, the full window at first. A call that is stopped
        before its encoder sets the context and computes the mel spectrogram; detection then encodes a few seconds.
        """
        if not self._multilingual:
            return "en", None
        if self._settings.language != "auto":
            return self._settings.language, None
        parameters = self._parameters(Window(min(window.positions, _DETECTION_POSITIONS), 1), "en")
        parameters.set_encoder_begin_callback(lambda *_: False)
        self._run(samples, parameters)
        probabilities = np.zeros(pw.whisper_lang_max_id() + 1, np.float32)
        best = pw.whisper_lang_auto_detect(self._context, 0, self._threads, probabilities)
        if best < 0:
            raise EngineError(f"whisper.cpp could not detect the language ({best}): set engine.language")
        return str(pw.whisper_lang_str(best)), float(probabilities[best])

    def _check_language(self) -> None:
        language = self._settings.language
        if not self._multilingual or language == "auto":
            return
        with _captured_log():
            known = pw.whisper_lang_id(language) >= 0
        if not known:
            self.close()
            raise ModelError(f"whisper.cpp does not know the language {language!r}: set engine.language to another one")


def _load(model_path: Path) -> Any:
    parameters = pw.whisper_context_default_params()
    parameters.flash_attn = False
    if not model_path.is_file():
        raise ModelError(f"{model_path} does not exist: pull the model with `edgescribe models pull`")
    with _captured_log() as lines:
        context = pw.whisper_init_from_file_with_params(str(model_path), parameters)
    # pywhispercpp hides a null pointer, and using it would kill the process: only the log tells success from failure.
    if not any(_LOADED in line for line in lines):
        if any(_NO_MEMORY in line for line in lines):
            raise EngineError(f"{model_path} cannot be loaded: not enough memory ({_last(lines)})")
        raise ModelError(f"{model_path} cannot be loaded ({_last(lines)}): check it with `edgescribe models verify`")
    return context


_log_lock = threading.Lock()


@contextmanager
def _captured_log() -> Iterator[list[str]]:
    """Collect the log lines of whisper.cpp, which it would write to stderr.

    The callback is removed at the end: a callback that outlives the interpreter's shutdown kills the process.
    """
    lines: list[str] = []
    with _log_lock:
        pw.whisper_log_set(lambda _level, text: lines.append(text.strip()))
        try:
            yield lines
        finally:
            pw.whisper_log_set(None)


def _last(lines: list[str]) -> str:
    return lines[-1] if lines else "no reason given"


# Whisper's own no-speech probability (openai/whisper, `whisper/decoding.py`) is that of `<|nospeech|>` right behind
# `<|startoftranscript|>`. pywhispercpp does not export it, and with multilingual models whisper.cpp's own figure is of
# the sound before. After a transcription the encoder's output is still there, so one step of the decoder gives the
# probability, in 4 to 8 ms. The library's C functions do that; ctypes releases the GIL meanwhile.
#
# The functions need a pointer to the context. pybind11 keeps the address of a wrapper behind the head of the Python
# object, and the pointer is the wrapper's only field. With another version of the binding the probability is None.

_KNOWN_LAYOUTS: Final = ("1.5.",)
"""Beginnings of the versions of pywhispercpp with the layout above."""
_SYMBOLS: Final = ("whisper_decode", "whisper_get_logits", "whisper_token_nosp")

NoSpeech = Callable[[int], float | None]
"""Given a number of threads, returns the probability of the last transcription, in [0, 1]; None if unknown."""


def no_speech_reader(context: Any) -> NoSpeech:
    """Return a function that reads the probability from `context`, a loaded model. Do not call it after the free."""
    library = ctypes.CDLL(pw.__file__)
    known = version("pywhispercpp").startswith(_KNOWN_LAYOUTS) and sys.implementation.name == "cpython"
    if not known or not all(hasattr(library, symbol) for symbol in _SYMBOLS):
        return lambda _threads: None
    # The signatures in `whisper.h`.
    int32 = ctypes.c_int32
    library.whisper_decode.argtypes = [ctypes.c_void_p, ctypes.POINTER(int32), ctypes.c_int, ctypes.c_int, ctypes.c_int]
    library.whisper_get_logits.argtypes = [ctypes.c_void_p]
    library.whisper_get_logits.restype = ctypes.POINTER(ctypes.c_float)
    library.whisper_token_nosp.argtypes = [ctypes.c_void_p]
    wrapper = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
    pointer = ctypes.c_void_p.from_address(wrapper).value if wrapper else None
    start = int32(int(pw.whisper_token_sot(context)))
    no_speech, tokens = int(library.whisper_token_nosp(pointer)), int(pw.whisper_model_n_vocab(context))

    def read(threads: int) -> float | None:
        if library.whisper_decode(pointer, ctypes.byref(start), 1, 0, threads):
            return None
        logits = np.ctypeslib.as_array(library.whisper_get_logits(pointer), (tokens,)).astype(np.float64)
        weights = np.exp(logits - logits.max())
        return float(weights[no_speech] / weights.sum())

    return read
