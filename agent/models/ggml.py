"""whisper.cpp's legacy ggml container: reads it with each length checked, writes it, and quantises it.

Layout, all little-endian (whisper.cpp, `models/convert-pt-to-ggml.py` and `whisper_model_load`): u32 magic; eleven i32,
the hyper-parameters and ftype; i32 n_mels, i32 n_fft and the mel filters, f32; i32 count of tokens, each i32 length and
bytes; then tensors to the end of the file: i32 dimensions, i32 length of the name, i32 type, the dimensions innermost
first, the name, the data.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from agent.errors import ModelError
from agent.models.files import Reader, atomic_write, open_reader
from agent.models.whisper import (
    N_FFT_BINS,
    ORDINARY_TOKENS,
    FloatArray,
    HyperParameters,
    WhisperWeights,
    tensor_shapes,
)

MAGIC = 0x67676D6C
_MAX_DIMS = 3
_MAX_NAME_BYTES = 128
_MAX_TOKEN_BYTES = 4_096
_MAX_TOKENS = 51_866
"""whisper.cpp computes the number of languages from the size of the vocabulary, and knows 100."""
_CHUNK_VALUES = 2**20
"""Weights quantised at a time: 4 MiB of float32 and a few temporaries."""
_COLUMNS = frozenset({"encoder.conv1.bias", "encoder.conv2.bias"})
"""Vectors that whisper.cpp reads as matrices of one column."""


class TensorType(IntEnum):
    """ggml's types that a Whisper file may hold (ggml.h, `enum ggml_type`)."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8


QUANTISATIONS = {kind.name.lower(): kind for kind in TensorType if kind > TensorType.F16}
"""`q4_0`, `q4_1`, `q5_0`, `q5_1`, `q8_0`."""
_LAYOUTS = {
    TensorType.F32: (0, 1, 4),
    TensorType.F16: (1, 1, 2),
    TensorType.Q4_0: (2_002, 32, 18),
    TensorType.Q4_1: (2_003, 32, 20),
    TensorType.Q5_0: (2_008, 32, 22),
    TensorType.Q5_1: (2_009, 32, 24),
    TensorType.Q8_0: (2_007, 32, 34),
}
"""ftype of a file with such matrices; values and bytes of a block.

ftype is a number of ggml.h, `enum ggml_ftype`, plus 1000 times the version of the quantisation, which is 2.
"""
_FLOATS: dict[TensorType, np.dtype[np.float16 | np.float32]] = {
    TensorType.F32: np.dtype("<f4"),
    TensorType.F16: np.dtype("<f2"),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a ggml file."""

    name: str
    shape: tuple[int, ...]
    """Outermost dimension first, as numpy counts."""
    type: TensorType
    offset: int
    """Bytes from the start of the file to its data."""
    data: NDArray[np.uint8]
    """A view of the mapped file."""


@dataclass(frozen=True, slots=True)
class GgmlFile:
    """A ggml file that was read and checked."""

    hyper: HyperParameters
    type: TensorType
    """Of the matrices."""
    mel_filters: NDArray[np.float32]
    vocabulary: tuple[bytes, ...]
    tensors: tuple[Tensor, ...]


def read_ggml(path: Path) -> GgmlFile:
    """Read a Whisper ggml file, and check all that whisper.cpp's loader does not check.

    Raises:
        ModelError: it is not a ggml file, is cut short, or holds a value that no Whisper has.
    """
    reader = open_reader(path)
    hyper, kind = _read_header(reader)
    if reader.integers("2i") != (hyper.n_mels, N_FFT_BINS):
        raise ModelError(f"{reader.source}: mel filters of a wrong shape; damaged")
    filters = np.frombuffer(reader.take(hyper.n_mels * N_FFT_BINS * 4), "<f4").reshape(hyper.n_mels, N_FFT_BINS)
    (count,) = reader.integers("i")
    if not 0 <= count <= hyper.n_vocab:  # more would overflow whisper.cpp's buffers (whisper.cpp#4059)
        raise ModelError(f"{reader.source}: {count} tokens in a vocabulary of {hyper.n_vocab}; damaged")
    vocabulary = tuple(_read_token(reader) for _ in range(count))
    return GgmlFile(hyper, kind, filters, vocabulary, tuple(_read_tensors(reader, hyper, kind)))


def check_ggml(path: Path) -> None:
    """Check a Whisper ggml file before whisper.cpp reads it.

    Raises:
        ModelError: as `read_ggml`, or whisper.cpp cannot decode with a model of this size.
    """
    model = read_ggml(path)
    model.hyper.check_usable(str(path))
    if (n_vocab := model.hyper.n_vocab) > _MAX_TOKENS:
        raise ModelError(f"{path}: n_vocab = {n_vocab}, and whisper.cpp knows {_MAX_TOKENS} tokens; damaged")
    if (tokens := len(model.vocabulary)) < ORDINARY_TOKENS - 1:  # English-only files may lack `<|endoftext|>`
        raise ModelError(f"{path}: {tokens} tokens in the vocabulary; damaged")


def ggml_vocabulary_size(path: Path) -> int:
    """Return `n_vocab` of a ggml file; reads only its head.

    Raises:
        ModelError: it is not a ggml file, or no Whisper.
    """
    return _read_header(open_reader(path))[0].n_vocab


def _read_header(reader: Reader) -> tuple[HyperParameters, TensorType]:
    if reader.remaining_bytes < struct.calcsize("12i") or reader.integers("I") != (MAGIC,):
        raise ModelError(f"{reader.source}: not a ggml file; see `edgescribe models convert`")
    *numbers, ftype = reader.integers("11i")
    hyper = HyperParameters(*numbers)
    hyper.check(reader.source)
    kind = next((kind for kind, layout in _LAYOUTS.items() if layout[0] == ftype), None)
    if kind is None:
        raise ModelError(f"{reader.source}: unknown ggml file type {ftype}; convert the model again")
    return hyper, kind


def _read_token(reader: Reader) -> bytes:
    (length,) = reader.integers("i")
    if not 0 <= length <= _MAX_TOKEN_BYTES:
        raise ModelError(f"{reader.source}: a token of {length} bytes; damaged")
    return reader.take(length)


def _read_tensors(reader: Reader, hyper: HyperParameters, kind: TensorType) -> Iterator[Tensor]:
    missing = tensor_shapes(hyper)
    while reader.remaining_bytes:
        n_dims, name_bytes, number = reader.integers("3i")
        # whisper.cpp wrote beyond a four-element array here (whisper.cpp#3957)
        if not 1 <= n_dims <= _MAX_DIMS or not 1 <= name_bytes <= _MAX_NAME_BYTES or number not in _LAYOUTS:
            raise ModelError(f"{reader.source}: not a tensor at byte {reader.offset}; damaged")
        stored = tuple(reversed(reader.integers(f"{n_dims}i")))
        name, found = reader.take(name_bytes).decode("ascii", errors="replace"), TensorType(number)
        if name not in missing:
            raise ModelError(f"{reader.source}: tensor {name[:60]!r} is unknown or there twice; damaged")
        shape = missing.pop(name)
        if stored != (expected := _stored_shape(name, shape)):
            raise ModelError(f"{reader.source}: tensor {name} has shape {stored}, expected {expected}")
        if found is not (expected_type := _type_of(name, shape, kind)):
            misfit = f"is {found.name}, expected {expected_type.name} in a file of type {kind.name}"
            raise ModelError(f"{reader.source}: tensor {name} {misfit}; damaged")
        _ftype, values, block_bytes = _LAYOUTS[found]
        yield Tensor(name, stored, found, reader.offset, reader.view(math.prod(shape) // values * block_bytes))
    if missing:
        raise ModelError(f"{reader.source}: cut short, tensor {next(iter(missing))} is missing; fetch it again")


def _stored_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape, 1) if name in _COLUMNS else shape


def _type_of(name: str, shape: tuple[int, ...], kind: TensorType) -> TensorType:
    """Return the type that whisper.cpp's loader expects of a tensor in a file of type `kind`."""
    if len(shape) == 1 or name.endswith("positional_embedding"):
        return TensorType.F32
    is_matrix = len(shape) == 2  # noqa: PLR2004 - rows and columns
    return kind if is_matrix or kind is TensorType.F32 else TensorType.F16


def write_ggml(weights: WhisperWeights, path: Path, kind: TensorType = TensorType.F16) -> None:
    """Write `weights` as a ggml file with matrices of `kind`, atomically. The same weights give the same bytes.

    Raises:
        ModelError: the file cannot be written, or a matrix does not divide into blocks of `kind`.
    """
    with atomic_write(path) as file:
        file.write(struct.pack("<I11i", MAGIC, *astuple(weights.hyper), _LAYOUTS[kind][0]))
        file.write(struct.pack("<2i", *weights.mel_filters.shape))
        file.write(weights.mel_filters.astype("<f4", copy=False).tobytes())
        file.write(struct.pack("<i", len(weights.vocabulary)))
        for token in weights.vocabulary:
            file.write(struct.pack("<i", len(token)) + token)
        for name, array in weights.tensors.items():
            _write_tensor(file, name, array, _type_of(name, array.shape, kind))


def _write_tensor(file: BinaryIO, name: str, array: FloatArray, kind: TensorType) -> None:
    shape, encoded = _stored_shape(name, array.shape), name.encode("ascii")
    file.write(struct.pack(f"<{3 + len(shape)}i", len(shape), len(encoded), kind, *reversed(shape)) + encoded)
    if kind in _FLOATS:
        file.write(array.astype(_FLOATS[kind], copy=False).tobytes())
        return
    columns = array.shape[1]
    if columns % _LAYOUTS[kind][1]:
        raise ModelError(f"tensor {name} cannot be quantised: its rows have {columns} values")
    # Imported here: the service loads this module at every start, and never quantises.
    from gguf import GGMLQuantizationType, quants  # noqa: PLC0415

    rows = max(1, _CHUNK_VALUES // columns)
    for start in range(0, len(array), rows):
        values = array[start : start + rows].astype(np.float32)
        file.write(quants.quantize(values, GGMLQuantizationType[kind.name]).tobytes())


def quantise(source: Path, target: Path, kind: TensorType) -> None:
    """Write `source`, an f16 or f32 ggml file, to `target` with its matrices as blocks of `kind`, atomically.

    Raises:
        ModelError: `source` is not a sound float ggml file, or `target` cannot be written.
    """
    model = read_ggml(source)
    if model.type not in _FLOATS:
        raise ModelError(f"{source}: is {model.type.name.lower()} already; quantise from f16 to lose no more than once")
    shapes = tensor_shapes(model.hyper)
    tensors = {one.name: one.data.view(_FLOATS[one.type]).reshape(shapes[one.name]) for one in model.tensors}
    write_ggml(WhisperWeights(model.hyper, model.vocabulary, model.mel_filters, tensors), target, kind)
