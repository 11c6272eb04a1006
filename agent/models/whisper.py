"""The shape of Whisper, independent of file formats: hyper-parameters, tensor names and sizes, mel filters, vocabulary.

Names are those of OpenAI's checkpoints, which ggml files keep. The order is that of openai/whisper's modules, encoder
first. OpenAI's training code, which is not published, used another order. So converted files have the size, header,
mel filters and vocabulary of the official ggml files, but another digest.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.errors import ModelError

FloatArray = NDArray[np.float16 | np.float32]

N_FFT_BINS = 201
"""Frequencies of a 400-point transform, 0 to 8000 Hz."""
HEAD_WIDTH = 64
"""Width of an attention head."""
VOCABULARY_EN = 51_864
"""Tokens of an English-only model; multilingual models have one or two more."""
ORDINARY_TOKENS = 50_257
"""Tokens that are not special, `<|endoftext|>` included in English-only models."""
_USABLE = {"n_audio_ctx": (1_500,), "n_text_ctx": (448,), "n_mels": (80, 128)}
_MAX_LAYERS = 64
_MAX_WIDTH = 8_192
_MAX = {"n_vocab": 100_000, "n_audio_ctx": 8_192, "n_text_ctx": 8_192, "n_mels": 256}
_MAX_FILE_BYTES = 64 * 2**20
_CONTROLS = ("<|endoftext|>", "<|startoftranscript|>", "<|transcribe|>", "<|notimestamps|>")


@dataclass(frozen=True, slots=True)
class HyperParameters:
    """The ten numbers that fix the shape of each tensor, in ggml's order."""

    n_vocab: int
    n_audio_ctx: int
    """Encoder positions; 50 are one second."""
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int
    n_mels: int
    """80, or 128 for large-v3."""

    def check(self, source: str) -> None:
        """Refuse numbers that no Whisper can have; `source` names the file in the message.

        Raises:
            ModelError: a number is out of bounds or contradicts another.
        """
        for field in fields(self):
            limit = _MAX_LAYERS if field.name.endswith(("head", "layer")) else _MAX.get(field.name, _MAX_WIDTH)
            value = getattr(self, field.name)
            if not 1 <= value <= limit:
                raise ModelError(f"{source}: {field.name} = {value} is not a Whisper model's (1 to {limit})")
        if self.n_audio_state != self.n_text_state:
            raise ModelError(f"{source}: widths {self.n_audio_state} and {self.n_text_state} do not fit together")
        for heads in (self.n_audio_head, self.n_text_head):
            if self.n_audio_state % heads:
                raise ModelError(f"{source}: a width of {self.n_audio_state} cannot be divided among {heads} heads")

    def check_usable(self, source: str) -> None:
        """Refuse numbers that no published Whisper has: an engine loads such a model, but cannot decode with it.

        Raises:
            ModelError: one of them is different.
        """
        for name, allowed in _USABLE.items():
            if (found := getattr(self, name)) not in allowed:
                raise ModelError(f"{source}: {name} = {found}, expected {' or '.join(map(str, allowed))}; damaged")
        for heads in (self.n_audio_head, self.n_text_head):
            if heads * HEAD_WIDTH != self.n_audio_state:
                misfit = f"{heads} attention heads in a width of {self.n_audio_state}"
                raise ModelError(f"{source}: {misfit}, expected heads of {HEAD_WIDTH}; damaged")
        if self.n_vocab < VOCABULARY_EN:
            raise ModelError(f"{source}: n_vocab = {self.n_vocab}, expected at least {VOCABULARY_EN}; damaged")


@dataclass(frozen=True, slots=True)
class WhisperWeights:
    """A whole model, in memory or mapped from its file."""

    hyper: HyperParameters
    vocabulary: tuple[bytes, ...]
    """Bytes of each ordinary token, in the order of their ids; special tokens are not in it."""
    mel_filters: NDArray[np.float32]
    """Shape (n_mels, 201)."""
    tensors: Mapping[str, FloatArray]
    """By OpenAI's names; exactly those of `tensor_shapes(hyper)`."""


def tensor_shapes(hyper: HyperParameters) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of each tensor, in the order of the file."""
    width = hyper.n_audio_state
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.positional_embedding": (hyper.n_audio_ctx, width),
        "encoder.conv1.weight": (width, hyper.n_mels, 3),
        "encoder.conv1.bias": (width,),
        "encoder.conv2.weight": (width, width, 3),
        "encoder.conv2.bias": (width,),
    }
    for layer in range(hyper.n_audio_layer):
        shapes.update(_block(f"encoder.blocks.{layer}", width, ("attn",)))
    shapes.update(_norm("encoder.ln_post", width))
    shapes["decoder.positional_embedding"] = (hyper.n_text_ctx, width)
    shapes["decoder.token_embedding.weight"] = (hyper.n_vocab, width)
    for layer in range(hyper.n_text_layer):
        shapes.update(_block(f"decoder.blocks.{layer}", width, ("attn", "cross_attn")))
    shapes.update(_norm("decoder.ln", width))
    return shapes


def _block(prefix: str, width: int, attentions: tuple[str, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for attention in attentions:
        for part in ("query", "key", "value", "out"):
            yield f"{prefix}.{attention}.{part}.weight", (width, width)
            if part != "key":  # Whisper's keys have no bias
                yield f"{prefix}.{attention}.{part}.bias", (width,)
        yield from _norm(f"{prefix}.{attention}_ln", width)
    yield f"{prefix}.mlp.0.weight", (4 * width, width)
    yield f"{prefix}.mlp.0.bias", (4 * width,)
    yield f"{prefix}.mlp.2.weight", (width, 4 * width)
    yield f"{prefix}.mlp.2.bias", (width,)
    yield from _norm(f"{prefix}.mlp_ln", width)


def _norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def renamed(name: str, rules: Iterable[tuple[str, str]]) -> str:
    """Return OpenAI's tensor name `name` in another format: apply the rules (pattern, replacement) in order."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


@lru_cache(maxsize=2)
def mel_filters(n_mels: int) -> NDArray[np.float32]:
    """Return triangular filters on Slaney's mel scale, area-normalised; shape (n_mels, 201), 0 to 8000 Hz.

    M. Slaney, "Auditory Toolbox", 1998: linear below 1000 Hz with 200/3 Hz a mel, above it logarithmic with 27 steps
    for a factor of 6.4. Rounded to float32 before the normalisation, as librosa did when OpenAI made `mel_filters.npz`.
    """
    mels = np.linspace(0.0, 15.0 + 27.0 * np.log(8.0) / np.log(6.4), n_mels + 2)
    linear, logarithmic = 200.0 / 3.0 * mels, 1_000.0 * np.exp(np.log(6.4) / 27.0 * (mels - 15.0))
    edges_hz = np.where(mels >= 15.0, logarithmic, linear)  # noqa: PLR2004 - 1000 Hz is 15 mel
    widths_hz = np.diff(edges_hz)
    ramps = np.subtract.outer(edges_hz, np.linspace(0.0, 8_000.0, N_FFT_BINS))
    rising = -ramps[:-2] / widths_hz[:-1, np.newaxis]
    falling = ramps[2:] / widths_hz[1:, np.newaxis]
    filters = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    filters *= (2.0 / (edges_hz[2:] - edges_hz[:-2]))[:, np.newaxis]
    return filters


def is_multilingual(n_vocab: int) -> bool:
    """Return whether a vocabulary of this size has language tokens; whisper.cpp uses the same limit."""
    return n_vocab > VOCABULARY_EN


def read_json(path: Path) -> Any:
    """Parse a JSON file of bounded size.

    Raises:
        ModelError: it is absent, too large, or not JSON.
    """
    try:
        return json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not valid JSON; the model folder is damaged") from error


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ModelError(f"{path}: larger than {_MAX_FILE_BYTES} bytes; not a model's description")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); the model folder is incomplete") from error


def read_vocabulary(folder: Path, n_vocab: int) -> tuple[bytes, ...]:
    """Return the bytes of each ordinary token, in the order of ids, without special tokens.

    `<|endoftext|>` of a multilingual model is special too: whisper.cpp adds it (whisper.cpp#725).

    Raises:
        ModelError: there is no vocabulary, it has gaps, or a token is not byte-level.
    """
    if (folder / "tokenizer.json").is_file():
        document = read_json(folder / "tokenizer.json")
        model = document.get("model") if isinstance(document, dict) else None
        ids = model.get("vocab") if isinstance(model, dict) else None
    elif (folder / "vocab.json").is_file():
        ids = read_json(folder / "vocab.json")
    else:
        ids = {token: index for index, token in enumerate(_listed_tokens(folder))}
    if not isinstance(ids, dict) or not all(isinstance(index, int) for index in ids.values()):
        raise ModelError(f"{folder}: the vocabulary is not a table of tokens and numbers; it is damaged")
    tokens = {index: token for token, index in ids.items()}
    alphabet = byte_alphabet()
    try:
        return tuple(bytes(map(alphabet.__getitem__, tokens[index])) for index in range(min(ORDINARY_TOKENS, n_vocab)))
    except KeyError as error:
        raise ModelError(f"{folder}: the vocabulary has no byte-level token for {error}; it is damaged") from error


def check_tokens(folder: Path, n_vocab: int) -> None:
    """Compare `tokenizer.json` with CTranslate2's own vocabulary, `vocabulary.json` or `vocabulary.txt`.

    Raises:
        ModelError: one of them is missing or damaged, or belongs to another model.
    """
    document = read_json(folder / "tokenizer.json")
    added = document.get("added_tokens") if isinstance(document, dict) else None
    ids = {
        entry.get("content"): entry.get("id")
        for entry in (added if isinstance(added, list) else ())
        if isinstance(entry, dict) and isinstance(entry.get("content"), str)
    }
    tokens = _listed_tokens(folder)
    if len(tokens) != n_vocab:
        raise ModelError(f"{folder}: its vocabulary lists {len(tokens)} tokens, and its weights are for {n_vocab}")
    for name in _CONTROLS:
        index = ids.get(name)
        if type(index) is not int or not 0 <= index < n_vocab or tokens[index] != name:
            raise ModelError(f"{folder}: the vocabulary and tokenizer.json do not have {name} at the same place")
    read_vocabulary(folder, n_vocab)


def _listed_tokens(folder: Path) -> list[str]:
    path = folder / "vocabulary.json"
    if not path.is_file():
        text = _read(folder / "vocabulary.txt").decode(errors="replace")
        return text.removesuffix("\n").split("\n")
    tokens = read_json(path)
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ModelError(f"{path}: not a list of tokens; the model folder is damaged")
    return tokens


def byte_alphabet() -> dict[str, int]:
    """Return GPT-2's printable characters for the 256 bytes (openai/gpt-2, `bytes_to_unicode`)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}
