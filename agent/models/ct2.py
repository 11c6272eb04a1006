"""Reads a Whisper model from a CTranslate2 folder, as Systran publishes them for faster-whisper.

`model.bin`, version 6 (CTranslate2, `python/ctranslate2/specs/model_spec.py`): u32 version; the specification's name;
u32 revision; u32 count; then for each variable its name, u8 rank, u32 dimensions, u8 type, u32 bytes, data; at last
u32 count of aliases, each two names: its own and that of an equal variable. A name is u16 length, zero byte included,
then the bytes.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.errors import ModelError
from agent.models.files import Reader, open_reader
from agent.models.whisper import (
    FloatArray,
    HyperParameters,
    WhisperWeights,
    check_tokens,
    is_multilingual,
    mel_filters,
    read_json,
    read_vocabulary,
    renamed,
    tensor_shapes,
)

_VERSION = 6
_REVISION = 3
"""Of `WhisperSpec`; CTranslate2 refuses later ones."""
_MAX_VARIABLES = 10_000
_MAX_RANK = 4
_TYPES = tuple(np.dtype(name) for name in ("<f4", "i1", "<i2", "<i4", "<f2", "V2"))
"""CTranslate2's types by their number; the last is bfloat16, which numpy does not know."""
_RULES = (
    (r"\.blocks\.", "/layer_"),
    (r"\.attn_ln\.", "/self_attention/layer_norm/"),
    (r"\.cross_attn_ln\.", "/attention/layer_norm/"),
    (r"\.mlp_ln\.", "/ffn/layer_norm/"),
    (r"\.ln(_post)?\.", "/layer_norm/"),
    (r"\.attn\.(query|key|value)\.", "/self_attention/linear_0/"),
    (r"\.attn\.out\.", "/self_attention/linear_1/"),
    (r"\.cross_attn\.query\.", "/attention/linear_0/"),
    (r"\.cross_attn\.(key|value)\.", "/attention/linear_1/"),
    (r"\.cross_attn\.out\.", "/attention/linear_2/"),
    (r"\.mlp\.0\.", "/ffn/linear_0/"),
    (r"\.mlp\.2\.", "/ffn/linear_1/"),
    (r"layer_norm/weight$", "layer_norm/gamma"),
    (r"layer_norm/bias$", "layer_norm/beta"),
    (r"\.positional_embedding$", "/position_encodings/encodings"),
    (r"\.token_embedding\.", "/embeddings/"),
    (r"\.(conv\d)\.", r"/\1/"),
)
"""From OpenAI's names to CTranslate2's. One variable of CTranslate2 may hold several tensors."""
_PROJECTION = "decoder/projection/weight"
"""The embeddings once more, usually an alias."""
_PAIR = 2


class _Variables(dict[str, NDArray[Any]]):
    """The variables of a `model.bin`, by name. A missing one is a ModelError."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        """The file's name, for messages."""

    def __missing__(self, name: str) -> NDArray[Any]:
        raise ModelError(f"{self.source}: variable {name} is missing; the model is incomplete")


def read_ctranslate2(folder: Path) -> WhisperWeights:
    """Read the Whisper model in `folder`; its tensors are views of the mapped file, so they need little memory.

    Raises:
        ModelError: the folder is incomplete, damaged, not Whisper, or its weights are not float16 or float32.
    """
    variables, hyper = _open(folder)
    _check_variables(variables, hyper)
    tensors: dict[str, FloatArray] = {}
    for name, parts in _layout(hyper).items():
        if variables[name].dtype.kind != "f":
            raise ModelError(
                f"{variables.source}: {name} is quantised; convert from a float16 or float32 model instead"
            )
        tensors.update(zip(parts, np.split(variables[name], len(parts)), strict=True))
    tensors = {name: tensors[name] for name in tensor_shapes(hyper)}
    return WhisperWeights(hyper, read_vocabulary(folder, hyper.n_vocab), mel_filters(hyper.n_mels), tensors)


def check_ctranslate2(folder: Path) -> None:
    """Check a CTranslate2 Whisper folder, with weights of any type, before native code reads it.

    Raises:
        ModelError: a file or a variable is missing, is damaged or does not fit the others, or it is not Whisper.
    """
    variables, hyper = _open(folder)
    hyper.check_usable(variables.source)
    _check_variables(variables, hyper)
    check_tokens(folder, hyper.n_vocab)
    _check_config(folder / "config.json", hyper)


def ctranslate2_vocabulary_size(folder: Path) -> int:
    """Return the number of tokens of the model in `folder`.

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


def _open(folder: Path) -> tuple[_Variables, HyperParameters]:
    """Return the variables of `model.bin`, and the hyper-parameters that follow from their shapes."""
    variables = _read_variables(open_reader(folder / "model.bin"))
    n_vocab, width = _shape(variables, "decoder/embeddings/weight", 2)
    n_audio_ctx, audio_width = _shape(variables, "encoder/position_encodings/encodings", 2)
    n_text_ctx, _ = _shape(variables, "decoder/position_encodings/encodings", 2)
    _, n_mels, _ = _shape(variables, "encoder/conv1/weight", 3)
    hyper = HyperParameters(
        n_vocab=n_vocab,
        n_audio_ctx=n_audio_ctx,
        n_audio_state=audio_width,
        n_audio_head=_integer(variables, "encoder/num_heads"),
        n_audio_layer=_layers(variables, "encoder"),
        n_text_ctx=n_text_ctx,
        n_text_state=width,
        n_text_head=_integer(variables, "decoder/num_heads"),
        n_text_layer=_layers(variables, "decoder"),
        n_mels=n_mels,
    )
    hyper.check(variables.source)
    return variables, hyper


def _read_variables(reader: Reader) -> _Variables:
    (version,) = reader.integers("I")
    if version != _VERSION:
        raise ModelError(f"{reader.source}: not a CTranslate2 model of version {_VERSION}")
    specification = _read_name(reader)
    if specification != "WhisperSpec":
        raise ModelError(f"{reader.source}: a CTranslate2 model, but not Whisper ({specification[:40]!r})")
    revision, count = reader.integers("II")
    if revision > _REVISION:
        raise ModelError(f"{reader.source}: made for a later CTranslate2 (revision {revision})")
    if count > _MAX_VARIABLES:
        raise ModelError(f"{reader.source}: {count} variables; damaged, or not a Whisper model")
    variables = _Variables(reader.source)
    for _ in range(count):
        name = _read_name(reader)
        if name in variables:
            raise ModelError(f"{reader.source}: variable {name[:60]!r} is there twice; damaged")
        variables[name] = _read_variable(reader)
    (count,) = reader.integers("I")
    for _ in range(min(count, _MAX_VARIABLES)):
        alias, name = _read_name(reader), _read_name(reader)
        variables[alias] = variables[name]
    return variables


def _read_name(reader: Reader) -> str:
    (length,) = reader.integers("H")
    name = reader.take(length)
    if not name.endswith(b"\0"):
        raise ModelError(f"{reader.source}: a name without an end before byte {reader.offset}; damaged")
    return name[:-1].decode("ascii", errors="replace")


def _read_variable(reader: Reader) -> NDArray[Any]:
    (rank,) = reader.integers("B")
    if rank > _MAX_RANK:
        raise ModelError(f"{reader.source}: a variable of {rank} dimensions; damaged, or not a Whisper model")
    shape = reader.integers(f"{rank}I")
    number, size_bytes = reader.integers("BI")
    if number >= len(_TYPES):
        raise ModelError(f"{reader.source}: a variable of the unknown type {number}; damaged")
    if math.prod(shape) * _TYPES[number].itemsize != size_bytes or not size_bytes:
        raise ModelError(f"{reader.source}: a variable's size does not fit its shape {shape}; damaged")
    return reader.view(size_bytes).view(_TYPES[number]).reshape(shape)


def _layout(hyper: HyperParameters) -> dict[str, list[str]]:
    """Return for each variable the OpenAI names of its tensors, which lie one below the other."""
    layout: dict[str, list[str]] = {}
    for name in tensor_shapes(hyper):
        layout.setdefault(renamed(name, _RULES), []).append(name)
        if name.endswith(".key.weight"):  # CTranslate2 also stores a bias of zeros, which Whisper's keys do not have
            bias = f"{name.removesuffix('weight')}bias"
            layout.setdefault(renamed(bias, _RULES), []).append(bias)
    return layout


def _check_variables(variables: _Variables, hyper: HyperParameters) -> None:
    """Check that each variable has the shape that follows from `hyper`, and a type that CTranslate2 can use there."""
    source = variables.source
    shapes = tensor_shapes(hyper)
    expected = {_PROJECTION: shapes["decoder.token_embedding.weight"]}
    for name, parts in _layout(hyper).items():
        rows, *columns = shapes[parts[-1]]
        expected[name] = (rows * len(parts), *columns)
    for name, shape in expected.items():
        variable = variables[name]
        if variable.shape != shape:
            raise ModelError(f"{source}: variable {name} has shape {variable.shape}, expected {shape}")
        if variable.dtype.kind == "i" and not name.endswith("/weight"):
            raise ModelError(f"{source}: variable {name} is of whole numbers; damaged")
        if variable.dtype == np.int8 and variables[f"{name}_scale"].shape != shape[:1]:
            raise ModelError(f"{source}: {name}_scale does not have one value a row; damaged")
    for name, variable in variables.items():
        if variable.shape and name.removesuffix("_scale") not in expected:
            raise ModelError(f"{source}: variable {name[:60]!r} is not part of a Whisper model of this size")
    for name, least, most in (
        ("decoder/alignment_layer", -hyper.n_text_layer, hyper.n_text_layer - 1),
        ("decoder/alignment_heads", 0, hyper.n_text_head),
    ):
        if name in variables and not least <= (found := _integer(variables, name)) <= most:
            raise ModelError(f"{source}: {name} = {found}, expected {least} to {most}; damaged")


def _shape(variables: _Variables, name: str, rank: int) -> tuple[int, ...]:
    shape = variables[name].shape
    if len(shape) != rank:
        raise ModelError(f"{variables.source}: variable {name} has {len(shape)} dimensions, expected {rank}")
    return shape


def _integer(variables: _Variables, name: str) -> int:
    variable = variables[name]
    if variable.shape or variable.dtype.kind != "i":
        raise ModelError(f"{variables.source}: {name} is not a whole number; damaged")
    return int(variable)


def _layers(variables: _Variables, side: str) -> int:
    prefix = f"{side}/layer_"
    numbers = {name.removeprefix(prefix).partition("/")[0] for name in variables if name.startswith(prefix)}
    return sum(number.isdigit() for number in numbers)
