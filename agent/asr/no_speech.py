"""Whisper's own probability that there was no speech, from whisper.cpp.

openai/whisper defines it (`whisper/decoding.py`): the probability of `<|nospeech|>` right behind
`<|startoftranscript|>`. pywhispercpp exports neither it nor the logits (it returns the first one only), and with
multilingual models whisper.cpp's own figure is left over from the sound before. The encoder's output is still there
after a transcription, so one step of the decoder gives it: 4 to 8 ms, about 2 % of an utterance. The library's C
functions do that; ctypes releases the GIL meanwhile.

They want a pointer to the context, and that is taken from the Python object, where pybind11 keeps it: behind the head
of the object there is the address of the wrapper, whose only field is the pointer. That is the layout of one version of
the binding, so with any other the probability stays unknown.
"""

import ctypes
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Final

import _pywhispercpp as pw
import numpy as np

_KNOWN_LAYOUTS: Final = ("1.5.",)
"""Beginnings of the versions of pywhispercpp whose layout was looked at."""
_SYMBOLS: Final = ("whisper_decode", "whisper_get_logits", "whisper_token_nosp")

NoSpeech = Callable[[int], float | None]
"""Given a number of threads, the probability for what was transcribed last, in [0, 1]; None where it cannot be told."""


def no_speech_reader(context: Any) -> NoSpeech:
    """Return what reads the probability from `context`, a loaded model; it must not be used once that is freed."""
    library = ctypes.CDLL(pw.__file__)
    known = version("pywhispercpp").startswith(_KNOWN_LAYOUTS) and sys.implementation.name == "cpython"
    if not known or not all(hasattr(library, symbol) for symbol in _SYMBOLS):
        return lambda _threads: None
    _declare(library)
    pointer = _pointer(context)
    start = ctypes.c_int32(int(pw.whisper_token_sot(context)))
    no_speech, tokens = int(library.whisper_token_nosp(pointer)), int(pw.whisper_model_n_vocab(context))

    def read(threads: int) -> float | None:
        if library.whisper_decode(pointer, ctypes.byref(start), 1, 0, threads):
            return None
        logits = np.ctypeslib.as_array(library.whisper_get_logits(pointer), (tokens,)).astype(np.float64)
        weights = np.exp(logits - logits.max())
        return float(weights[no_speech] / weights.sum())

    return read


def _declare(library: ctypes.CDLL) -> None:
    """Tell ctypes the signatures in `whisper.h`."""
    tokens = ctypes.POINTER(ctypes.c_int32)
    library.whisper_decode.argtypes = [ctypes.c_void_p, tokens, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    library.whisper_get_logits.argtypes = [ctypes.c_void_p]
    library.whisper_get_logits.restype = ctypes.POINTER(ctypes.c_float)
    library.whisper_token_nosp.argtypes = [ctypes.c_void_p]


def _pointer(context: Any) -> int | None:
    wrapper = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
    return ctypes.c_void_p.from_address(wrapper).value if wrapper else None
