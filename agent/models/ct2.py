"""Reads a Whisper model from a CTranslate2 folder, as Systran publishes them for faster-whisper.

`model.bin`, version 6 (CTranslate2, `python/ctranslate2/specs/model_spec.py`): u32 version; the specification's name;
u32 revision; u32 count; then for each variable its name, u8 rank, u32 dimensions, u8 type, u32 bytes, data; at last
u32 count of aliases, each two names: its own and that of an equal variable. A name is u16 length, zero byte included,
then the bytes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.errors import ModelError
from agent.models.files import Reader, open_reader
from agent.models.whisper import (
    FloatArray,
    HyperParameters,
    WhisperWeights,
    check_tensors,
    check_tokens,
    is_multilingual,
    mel_filters,
    read_json,
    read_vocabulary,
    tensor_shapes,
)

_VERSION = 6
_REVISION = 3
"""Of `WhisperSpec`; CTranslate2 refuses later ones."""
_MAX_VARIABLES = 10_000
_MAX_RANK = 4
_ITEM_BYTES = {0: 4, 1: 1, 2: 2, 3: 4, 4: 2, 5: 2}
"""CTranslate2's data types: float32, int8, int16, int32, float16, bfloat16."""
_INT8 = 1
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
_PROJECTION = "decoder/projection/weight"
"""The embeddings once more: an alias, as a rule."""
_PAIR = 2


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
    """Check a CTranslate2 Whisper folder, with weights of any type, before native code reads it.

    Raises:
        ModelError: a file or a variable is missing, is damaged or does not fit the others, or it is not Whisper.
    """
    model, hyper = _open(folder)
    hyper.check_usable(model.source)
    model.check(hyper)
    check_tokens(folder, hyper.n_vocab)
    _check_config(folder / "config.json", hyper)


def ctranslate2_vocabulary_size(folder: Path) -> int:
    """Return the number of tokens that the model in `folder` can say.

    Raises:
        ModelError: it cannot be read, or is not Whisper.
    """
    return _open(folder)[1].n_vocab


def _check_config(path: Path, hyper: HyperParameters) -> None:
    config = read_json(path)
    if not isinstance(config, dict):
        raise ModelError(f"{path}: no JSON object; the model folder is damaged")
    if "suppress_ids_begin" not in config or (is_multilingual(hyper.n_vocab) and not config.get("lang_ids")):
        raise ModelError(f"{path}: suppress_ids_begin or lang_ids is missing; the model folder is damaged")
    for key in ("suppress_ids", "suppress_ids_begin", "lang_ids"):
        _check_indices(path, key, config.get(key), hyper.n_vocab)
    heads = config.get("alignment_heads") or []
    if not isinstance(heads, list) or not all(isinstance(pair, list) and len(pair) == _PAIR for pair in heads):
        raise ModelError(f"{path}: alignment_heads is no list of pairs; the model folder is damaged")
    _check_indices(path, "alignment_heads", [layer for layer, _head in heads], hyper.n_text_layer)
    _check_indices(path, "alignment_heads", [head for _layer, head in heads], hyper.n_text_head)


def _check_indices(path: Path, key: str, found: object, size: int) -> None:
    if found is not None and not (
        isinstance(found, list) and all(type(index) is int and 0 <= index < size for index in found)
    ):
        raise ModelError(f"{path}: {key} is no list of numbers from 0 to {size - 1}; the model folder is damaged")


def _open(folder: Path) -> "tuple[_Model, HyperParameters]":
    model = _Model(open_reader(folder / "model.bin"))
    hyper = model.hyper_parameters()
    hyper.check(model.source)
    return model, hyper


def _read_name(reader: Reader) -> str:
    (length,) = reader.integers("H")
    name = reader.take(length)
    if not name.endswith(b"\0"):
        raise ModelError(f"{reader.source}: a name without an end before byte {reader.offset}; damaged")
    return name[:-1].decode("ascii", errors="replace")


def _read_variable(reader: Reader) -> _Variable:
    (rank,) = reader.integers("B")
    if rank > _MAX_RANK:
        raise ModelError(f"{reader.source}: a variable of {rank} dimensions; damaged, or not a Whisper model")
    shape = reader.integers(f"{rank}I")
    type_code, size_bytes = reader.integers("BI")
    if type_code not in _ITEM_BYTES:
        raise ModelError(f"{reader.source}: a variable of the unknown type {type_code}; damaged")
    if math.prod(shape) * _ITEM_BYTES[type_code] != size_bytes or not size_bytes:
        raise ModelError(f"{reader.source}: a variable's size does not fit its shape {shape}; damaged")
    return _Variable(shape, type_code, reader.skip(size_bytes), size_bytes)


def _layout(hyper: HyperParameters) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the name of each variable, and OpenAI's names of the tensors that lie in it, one below the other."""
    for theirs, ours in _DIRECT.items():
        yield theirs, (ours,)
    for side, layers in (("encoder", hyper.n_audio_layer), ("decoder", hyper.n_text_layer)):
        for layer in range(layers):
            theirs, ours = f"{side}/layer_{layer}", f"{side}.blocks.{layer}"
            yield from _attention(f"{theirs}/self_attention", f"{ours}.attn", _SELF_ATTENTION)
            if side == "decoder":
                yield from _attention(f"{theirs}/attention", f"{ours}.cross_attn", _CROSS_ATTENTION)
            for linear, name in _FEED_FORWARD.items():
                for kind in ("weight", "bias"):
                    yield f"{theirs}/ffn/{linear}/{kind}", (f"{ours}.{name}.{kind}",)
            yield from _norm(f"{theirs}/ffn/layer_norm", f"{ours}.mlp_ln")


def _attention(theirs: str, ours: str, linears: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for linear, parts in linears.items():
        for kind in ("weight", "bias"):
            yield f"{theirs}/{linear}/{kind}", tuple(f"{ours}.{part}.{kind}" for part in parts)
    yield from _norm(f"{theirs}/layer_norm", f"{ours}_ln")


def _norm(theirs: str, ours: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield f"{theirs}/gamma", (f"{ours}.weight",)
    yield f"{theirs}/beta", (f"{ours}.bias",)


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
        revision, count = reader.integers("II")
        if revision > _REVISION:
            raise ModelError(f"{self.source}: made for a later CTranslate2 (revision {revision})")
        if count > _MAX_VARIABLES:
            raise ModelError(f"{self.source}: {count} variables; damaged, or not a Whisper model")
        self._variables: dict[str, _Variable] = {}
        for _ in range(count):
            name = _read_name(reader)
            if name in self._variables:
                raise ModelError(f"{self.source}: variable {name[:60]!r} is there twice; damaged")
            self._variables[name] = _read_variable(reader)
        (count,) = reader.integers("I")
        for _ in range(min(count, _MAX_VARIABLES)):
            alias, name = _read_name(reader), _read_name(reader)
            self._variables[alias] = self._variable(name)

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
        found: dict[str, FloatArray] = {}
        for name, parts in _layout(hyper):
            stacked = self._array(name)
            if len(stacked) % len(parts):
                raise ModelError(f"{self.source}: {name} cannot be divided; damaged")
            found.update(zip(parts, np.split(stacked, len(parts)), strict=True))
        # CTranslate2 stores zeros for the bias of the keys: Whisper's have none.
        return {name: array for name, array in found.items() if not name.endswith(".key.bias")}

    def check(self, hyper: HyperParameters) -> None:
        """Hold every variable against the shapes that follow from `hyper`.

        Raises:
            ModelError: one is missing, has another shape, or a type that CTranslate2 cannot compute with.
        """
        shapes = tensor_shapes(hyper)
        expected = {_PROJECTION: shapes["decoder.token_embedding.weight"]}
        for name, parts in _layout(hyper):
            rows, *columns = shapes[parts[-1]]
            expected[name] = (rows * len(parts), *columns)
        for name, shape in expected.items():
            variable = self._variable(name)
            if variable.shape != shape:
                raise ModelError(f"{self.source}: variable {name} has shape {variable.shape}, expected {shape}")
            if variable.type_code in _INTEGER_TYPES and not name.endswith("/weight"):
                raise ModelError(f"{self.source}: variable {name} is of whole numbers; damaged")
            if variable.type_code == _INT8 and self._variable(f"{name}_scale").shape != shape[:1]:
                raise ModelError(f"{self.source}: {name}_scale does not have one value a row; damaged")
        for name, variable in self._variables.items():
            if variable.shape and name.removesuffix("_scale") not in expected:
                raise ModelError(f"{self.source}: variable {name[:60]!r} is not part of a Whisper model of this size")
        for name, least, most in (
            ("decoder/alignment_layer", -hyper.n_text_layer, hyper.n_text_layer - 1),
            ("decoder/alignment_heads", 0, hyper.n_text_head),
        ):
            if name in self._variables and not least <= self._integer(name) <= most:
                raise ModelError(f"{self.source}: {name} = {self._integer(name)}, expected {least} to {most}; damaged")

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
