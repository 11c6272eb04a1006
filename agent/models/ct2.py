"""Reads a Whisper model from a CTranslate2 folder, as Systran publishes them for faster-whisper.

`model.bin`, version 6 (CTranslate2, `python/ctranslate2/specs/model_spec.py`): u32 version; the specification's name;
u32 revision; u32 count; then for each variable its name, u8 rank, u32 dimensions, u8 type, u32 bytes, data; at last
u32 count of aliases, each two names. A name is u16 length, zero byte included, then the bytes.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.errors import ModelError
from agent.models.binary import Reader, open_reader
from agent.models.vocabulary import read_json, read_vocabulary
from agent.models.whisper import FloatArray, HyperParameters, WhisperWeights, check_tensors, mel_filters

_VERSION = 6
_MAX_VARIABLES = 10_000
_MAX_RANK = 4
_ITEM_BYTES = {0: 4, 1: 1, 2: 2, 3: 4, 4: 2}
"""CTranslate2's data types: float32, int8, int16, int32, float16."""
_FLOAT_TYPES: dict[int, np.dtype[np.float16 | np.float32]] = {0: np.dtype(np.float32), 4: np.dtype(np.float16)}
_INTEGER_TYPES: dict[int, np.dtype[np.signedinteger]] = {
    1: np.dtype(np.int8),
    2: np.dtype(np.int16),
    3: np.dtype(np.int32),
}

_DIRECT = {
    "encoder/position_encodings/encodings": "encoder.positional_embedding",
    "encoder/conv1/weight": "encoder.conv1.weight",
    "encoder/conv1/bias": "encoder.conv1.bias",
    "encoder/conv2/weight": "encoder.conv2.weight",
    "encoder/conv2/bias": "encoder.conv2.bias",
    "encoder/layer_norm/gamma": "encoder.ln_post.weight",
    "encoder/layer_norm/beta": "encoder.ln_post.bias",
    "decoder/position_encodings/encodings": "decoder.positional_embedding",
    "decoder/embeddings/weight": "decoder.token_embedding.weight",
    "decoder/layer_norm/gamma": "decoder.ln.weight",
    "decoder/layer_norm/beta": "decoder.ln.bias",
}
_SELF_ATTENTION = {"linear_0": ("query", "key", "value"), "linear_1": ("out",)}
_CROSS_ATTENTION = {"linear_0": ("query",), "linear_1": ("key", "value"), "linear_2": ("out",)}
_FEED_FORWARD = {"linear_0": "mlp.0", "linear_1": "mlp.2"}


@dataclass(frozen=True, slots=True)
class _Variable:
    """Where one variable lies in the file."""

    shape: tuple[int, ...]
    type_code: int
    offset: int
    size_bytes: int


def read_ctranslate2(folder: Path) -> WhisperWeights:
    """Read the Whisper model in `folder`; its tensors are views of the mapped file, so little memory is used.

    Raises:
        ModelError: the folder is incomplete, damaged, not Whisper, or its weights are not float16 or float32.
    """
    model, hyper = _open(folder)
    vocabulary = read_vocabulary(folder, hyper.n_vocab)
    weights = WhisperWeights(hyper, vocabulary, mel_filters(hyper.n_mels), model.tensors(hyper))
    return check_tensors(weights, model.source)


def check_ctranslate2(folder: Path) -> None:
    """Check what a CTranslate2 Whisper folder (of any type of weights) says about itself before native code reads it.

    Raises:
        ModelError: a file is missing, a length points outside the file, or it is not a Whisper model.
    """
    _, hyper = _open(folder)
    if not isinstance(read_json(folder / "config.json"), dict):
        raise ModelError(f"{folder / 'config.json'}: no JSON object; the model folder is damaged")
    read_vocabulary(folder, hyper.n_vocab)


def _open(folder: Path) -> "tuple[_Model, HyperParameters]":
    model = _Model(open_reader(folder / "model.bin"))
    hyper = model.hyper_parameters()
    hyper.check(model.source)
    return model, hyper


def _read_name(reader: Reader) -> str:
    (length,) = reader.integers("H")
    return reader.take(length).rstrip(b"\0").decode("ascii", errors="replace")


def _read_variable(reader: Reader) -> _Variable:
    (rank,) = reader.integers("B")
    if rank > _MAX_RANK:
        raise ModelError(f"{reader.source}: a variable of {rank} dimensions; damaged, or not a Whisper model")
    shape = reader.integers(f"{rank}I")
    type_code, size_bytes = reader.integers("BI")
    if math.prod(shape) * _ITEM_BYTES.get(type_code, 0) != size_bytes:
        raise ModelError(f"{reader.source}: a variable's size does not fit its shape {shape}; damaged")
    return _Variable(shape, type_code, reader.skip(size_bytes), size_bytes)


class _Model:
    """The directory of `model.bin` and what is found through it."""

    def __init__(self, reader: Reader) -> None:
        self.source = reader.source
        self._data = reader.data
        (version,) = reader.integers("I")
        if version != _VERSION:
            raise ModelError(f"{self.source}: not a CTranslate2 model of version {_VERSION}")
        specification = _read_name(reader)
        if specification != "WhisperSpec":
            raise ModelError(f"{self.source}: a CTranslate2 model, but not Whisper ({specification[:40]!r})")
        _revision, count = reader.integers("II")
        if count > _MAX_VARIABLES:
            raise ModelError(f"{self.source}: {count} variables; damaged, or not a Whisper model")
        self._variables = {_read_name(reader): _read_variable(reader) for _ in range(count)}

    def hyper_parameters(self) -> HyperParameters:
        """Taken from the shapes of the tensors, which the weights cannot contradict."""
        n_vocab, width = self._shape("decoder/embeddings/weight", 2)
        n_audio_ctx, audio_width = self._shape("encoder/position_encodings/encodings", 2)
        n_text_ctx, _ = self._shape("decoder/position_encodings/encodings", 2)
        _, n_mels, _ = self._shape("encoder/conv1/weight", 3)
        return HyperParameters(
            n_vocab=n_vocab,
            n_audio_ctx=n_audio_ctx,
            n_audio_state=audio_width,
            n_audio_head=self._integer("encoder/num_heads"),
            n_audio_layer=self._layers("encoder"),
            n_text_ctx=n_text_ctx,
            n_text_state=width,
            n_text_head=self._integer("decoder/num_heads"),
            n_text_layer=self._layers("decoder"),
            n_mels=n_mels,
        )

    def tensors(self, hyper: HyperParameters) -> dict[str, FloatArray]:
        """Every tensor, by OpenAI's names."""
        found = {ours: self._array(theirs) for theirs, ours in _DIRECT.items()}
        for layer in range(hyper.n_audio_layer):
            found.update(self._block("encoder", layer))
        for layer in range(hyper.n_text_layer):
            found.update(self._block("decoder", layer))
        return found

    def _block(self, side: str, layer: int) -> Iterator[tuple[str, FloatArray]]:
        theirs, ours = f"{side}/layer_{layer}", f"{side}.blocks.{layer}"
        yield from self._attention(f"{theirs}/self_attention", f"{ours}.attn", _SELF_ATTENTION)
        if side == "decoder":
            yield from self._attention(f"{theirs}/attention", f"{ours}.cross_attn", _CROSS_ATTENTION)
        for linear, name in _FEED_FORWARD.items():
            yield f"{ours}.{name}.weight", self._array(f"{theirs}/ffn/{linear}/weight")
            yield f"{ours}.{name}.bias", self._array(f"{theirs}/ffn/{linear}/bias")
        yield from self._norm(f"{theirs}/ffn/layer_norm", f"{ours}.mlp_ln")

    def _attention(
        self, theirs: str, ours: str, linears: Mapping[str, tuple[str, ...]]
    ) -> Iterator[tuple[str, FloatArray]]:
        for linear, parts in linears.items():
            for kind in ("weight", "bias"):
                stacked = self._array(f"{theirs}/{linear}/{kind}")
                if len(stacked) % len(parts):
                    raise ModelError(f"{self.source}: {theirs}/{linear}/{kind} cannot be divided; damaged")
                for part, array in zip(parts, np.split(stacked, len(parts)), strict=True):
                    if (part, kind) != ("key", "bias"):  # CTranslate2 stores zeros there: Whisper's keys have no bias
                        yield f"{ours}.{part}.{kind}", array
        yield from self._norm(f"{theirs}/layer_norm", f"{ours}_ln")

    def _norm(self, theirs: str, ours: str) -> Iterator[tuple[str, FloatArray]]:
        yield f"{ours}.weight", self._array(f"{theirs}/gamma")
        yield f"{ours}.bias", self._array(f"{theirs}/beta")

    def _variable(self, name: str) -> _Variable:
        try:
            return self._variables[name]
        except KeyError:
            raise ModelError(f"{self.source}: variable {name} is missing; the model is incomplete") from None

    def _shape(self, name: str, rank: int) -> tuple[int, ...]:
        shape = self._variable(name).shape
        if len(shape) != rank:
            raise ModelError(f"{self.source}: variable {name} has {len(shape)} dimensions, expected {rank}")
        return shape

    def _array(self, name: str) -> FloatArray:
        variable = self._variable(name)
        if variable.type_code not in _FLOAT_TYPES:
            raise ModelError(f"{self.source}: {name} is quantised; convert from a float16 or float32 model instead")
        raw = self._data[variable.offset : variable.offset + variable.size_bytes]
        return raw.view(_FLOAT_TYPES[variable.type_code]).reshape(variable.shape)

    def _integer(self, name: str) -> int:
        variable = self._variable(name)
        if variable.shape or variable.type_code not in _INTEGER_TYPES:
            raise ModelError(f"{self.source}: {name} is not a whole number; damaged")
        raw = self._data[variable.offset : variable.offset + variable.size_bytes]
        return int(raw.view(_INTEGER_TYPES[variable.type_code])[0])

    def _layers(self, side: str) -> int:
        prefix = f"{side}/layer_"
        numbers = {name[len(prefix) :].partition("/")[0] for name in self._variables if name.startswith(prefix)}
        return sum(number.isdigit() for number in numbers)
