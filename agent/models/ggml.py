"""whisper.cpp's legacy ggml container: written, read with every length checked, quantised.

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
    LEAST_ORDINARY_TOKENS,
    N_FFT_BINS,
    FloatArray,
    HyperParameters,
    WhisperWeights,
    tensor_shapes,
)

MAGIC = 0x67676D6C
_MAX_DIMS = 3
_MAX_NAME_BYTES = 128
_MAX_TOKEN_BYTES = 4_096
_QUANTISATION_VERSION = 2
_VERSION_FACTOR = 1_000
"""ftype = version × 1000 + type (ggml.h, `GGML_QNT_VERSION_FACTOR`)."""
F32_ALWAYS = frozenset(
    {"encoder.conv1.bias", "encoder.conv2.bias", "encoder.positional_embedding", "decoder.positional_embedding"}
)
"""Tensors that whisper.cpp wants in float32 whatever the rest is in."""
_COLUMNS = frozenset({"encoder.conv1.bias", "encoder.conv2.bias"})
"""Vectors that it wants as matrices of one column."""
_MOST_TOKENS = 51_866
"""whisper.cpp computes the number of languages from the size of the vocabulary, and knows 100."""


class TensorType(IntEnum):
    """ggml's types that a Whisper file may hold (ggml.h, `enum ggml_type`)."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8

    @property
    def block(self) -> tuple[int, int]:
        """Values and bytes of one block."""
        return _BLOCKS[self]


_BLOCKS = {
    TensorType.F32: (1, 4),
    TensorType.F16: (1, 2),
    TensorType.Q4_0: (32, 18),
    TensorType.Q4_1: (32, 20),
    TensorType.Q5_0: (32, 22),
    TensorType.Q5_1: (32, 24),
    TensorType.Q8_0: (32, 34),
}
_TYPE_CODES = frozenset(TensorType)
_FILE_TYPES = {
    0: TensorType.F32,
    1: TensorType.F16,
    2: TensorType.Q4_0,
    3: TensorType.Q4_1,
    7: TensorType.Q8_0,
    8: TensorType.Q5_0,
    9: TensorType.Q5_1,
}
"""ggml.h, `enum ggml_ftype`: not the same numbers as the tensor types."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where one tensor lies in a ggml file."""

    name: str
    shape: tuple[int, ...]
    """Outermost dimension first, as numpy counts."""
    type: TensorType
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class GgmlFile:
    """A ggml file that was read and found sound."""

    hyper: HyperParameters
    type: TensorType
    """Of the matrices."""
    mel_filters: NDArray[np.float32]
    vocabulary: tuple[bytes, ...]
    tensors: tuple[TensorEntry, ...]
    data: NDArray[np.uint8]
    """The whole file, mapped."""

    def raw(self, entry: TensorEntry) -> NDArray[np.uint8]:
        """The bytes of a tensor."""
        return self.data[entry.offset : entry.offset + entry.size_bytes]


def read_ggml(path: Path) -> GgmlFile:
    """Read a Whisper ggml file and check everything that whisper.cpp's loader takes on trust.

    Raises:
        ModelError: it is not a ggml file, is cut short, or holds what no Whisper has.
    """
    reader = open_reader(path)
    hyper, kind = _read_header(reader)
    filters = _read_mel_filters(reader, hyper)
    vocabulary = _read_vocabulary(reader, hyper)
    return GgmlFile(hyper, kind, filters, vocabulary, tuple(_read_tensors(reader, hyper, kind)), reader.data)


def check_ggml(path: Path) -> None:
    """Check a Whisper ggml file before whisper.cpp reads it: what `read_ggml` checks, and that it can be used.

    Raises:
        ModelError: as `read_ggml`, or it is no model of a size that whisper.cpp can decode with.
    """
    hyper, _kind = _read_header(open_reader(path))
    hyper.check_usable(str(path))
    if hyper.n_vocab > _MOST_TOKENS:
        raise ModelError(f"{path}: n_vocab = {hyper.n_vocab}, and whisper.cpp knows {_MOST_TOKENS} tokens; damaged")
    if (tokens := len(read_ggml(path).vocabulary)) < LEAST_ORDINARY_TOKENS:
        raise ModelError(f"{path}: {tokens} tokens in the vocabulary; damaged")


def ggml_vocabulary_size(path: Path) -> int:
    """Return `n_vocab` of a ggml file; nothing but its head is read.

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
    return hyper, _file_type(ftype, reader.source)


def _file_type(ftype: int, source: str) -> TensorType:
    version, kind = divmod(ftype, _VERSION_FACTOR)
    found = _FILE_TYPES.get(kind)
    if found is None or version != (0 if found <= TensorType.F16 else _QUANTISATION_VERSION):
        raise ModelError(f"{source}: unknown ggml file type {ftype}; convert the model again")
    return found


def _read_mel_filters(reader: Reader, hyper: HyperParameters) -> NDArray[np.float32]:
    if reader.integers("2i") != (hyper.n_mels, N_FFT_BINS):
        raise ModelError(f"{reader.source}: mel filters of a wrong shape; damaged")
    raw = reader.take(hyper.n_mels * N_FFT_BINS * 4)
    return np.frombuffer(raw, "<f4").reshape(hyper.n_mels, N_FFT_BINS)


def _read_vocabulary(reader: Reader, hyper: HyperParameters) -> tuple[bytes, ...]:
    (count,) = reader.integers("i")
    if not 0 <= count <= hyper.n_vocab:  # more would overflow whisper.cpp's buffers (whisper.cpp#4059)
        raise ModelError(f"{reader.source}: {count} tokens in a vocabulary of {hyper.n_vocab}; damaged")
    return tuple(_read_token(reader) for _ in range(count))


def _read_token(reader: Reader) -> bytes:
    (length,) = reader.integers("i")
    if not 0 <= length <= _MAX_TOKEN_BYTES:
        raise ModelError(f"{reader.source}: a token of {length} bytes; damaged")
    return reader.take(length)


def _read_tensors(reader: Reader, hyper: HyperParameters, kind: TensorType) -> Iterator[TensorEntry]:
    wanted = tensor_shapes(hyper)
    while reader.remaining_bytes:
        entry = _read_tensor(reader)
        shape = wanted.pop(entry.name, None)
        if shape is None:
            raise ModelError(f"{reader.source}: tensor {entry.name[:60]!r} is unknown or there twice; damaged")
        expected = (*shape, 1) if entry.name in _COLUMNS else shape
        if entry.shape != expected:
            raise ModelError(f"{reader.source}: tensor {entry.name} has shape {entry.shape}, expected {expected}")
        if entry.type is not (expected_type := _type_of(entry.name, shape, kind)):
            what = f"is {entry.type.name}, expected {expected_type.name} in a file of type {kind.name}"
            raise ModelError(f"{reader.source}: tensor {entry.name} {what}; damaged")
        yield entry
    if wanted:
        raise ModelError(f"{reader.source}: cut short, tensor {next(iter(wanted))} is missing; fetch it again")


def _type_of(name: str, shape: tuple[int, ...], kind: TensorType) -> TensorType:
    """Return the type that whisper.cpp's loader wants a tensor to have in a file of type `kind`."""
    if len(shape) == 1 or name in F32_ALWAYS:
        return TensorType.F32
    is_matrix = len(shape) == 2  # noqa: PLR2004 - rows and columns
    return kind if is_matrix or kind is TensorType.F32 else TensorType.F16


def _read_tensor(reader: Reader) -> TensorEntry:
    n_dims, name_bytes, type_code = reader.integers("3i")
    # whisper.cpp wrote beyond a four-element array here (whisper.cpp#3957)
    if not 1 <= n_dims <= _MAX_DIMS or not 1 <= name_bytes <= _MAX_NAME_BYTES or type_code not in _TYPE_CODES:
        raise ModelError(f"{reader.source}: not a tensor at byte {reader.offset}; damaged")
    shape = tuple(reversed(reader.integers(f"{n_dims}i")))
    name = reader.take(name_bytes).decode("ascii", errors="replace")
    values, block_bytes = TensorType(type_code).block
    if min(shape) < 1 or shape[-1] % values:
        raise ModelError(f"{reader.source}: tensor {name[:60]!r} has shape {shape}; damaged")
    size_bytes = math.prod(shape) // values * block_bytes
    return TensorEntry(name, shape, TensorType(type_code), reader.skip(size_bytes), size_bytes)


def write_ggml(weights: WhisperWeights, path: Path) -> None:
    """Write `weights` as a float16 ggml file, atomically. Same weights, same bytes.

    Raises:
        ModelError: the file cannot be written.
    """
    with atomic_write(path) as file:
        write_header(file, weights.hyper, TensorType.F16, weights.mel_filters, weights.vocabulary)
        for name in tensor_shapes(weights.hyper):
            _write_array(file, name, weights.tensors[name])


def _write_array(file: BinaryIO, name: str, array: FloatArray) -> None:
    f32 = array.ndim == 1 or name in F32_ALWAYS
    shape = (*array.shape, 1) if name in F32_ALWAYS and array.ndim == 1 else array.shape
    write_tensor_header(file, name, shape, TensorType.F32 if f32 else TensorType.F16)
    file.write(array.astype("<f4" if f32 else "<f2", copy=False).tobytes())


def write_header(
    file: BinaryIO,
    hyper: HyperParameters,
    kind: TensorType,
    mel_filters: NDArray[np.float32],
    vocabulary: tuple[bytes, ...],
) -> None:
    """Write everything that stands before the first tensor."""
    ftype = next(number for number, found in _FILE_TYPES.items() if found is kind)
    if kind > TensorType.F16:
        ftype += _QUANTISATION_VERSION * _VERSION_FACTOR
    file.write(struct.pack("<I11i", MAGIC, *astuple(hyper), ftype))
    file.write(struct.pack("<2i", *mel_filters.shape))
    file.write(mel_filters.astype("<f4", copy=False).tobytes())
    file.write(struct.pack("<i", len(vocabulary)))
    for token in vocabulary:
        file.write(struct.pack("<i", len(token)))
        file.write(token)


def write_tensor_header(file: BinaryIO, name: str, shape: tuple[int, ...], kind: TensorType) -> None:
    """Write what stands before a tensor's data; `shape` is outermost first."""
    encoded = name.encode("ascii")
    file.write(struct.pack(f"<{3 + len(shape)}i", len(shape), len(encoded), kind, *reversed(shape)))
    file.write(encoded)


QUANTISATIONS = {kind.name.lower(): kind for kind in TensorType if kind > TensorType.F16}
"""`q4_0`, `q4_1`, `q5_0`, `q5_1`, `q8_0`."""
_FLOATS: dict[TensorType, np.dtype[np.float16 | np.float32]] = {
    TensorType.F32: np.dtype(np.float32),
    TensorType.F16: np.dtype(np.float16),
}
_CHUNK_VALUES = 2**20
"""Weights quantised at a time: 4 MiB of float32 and a few temporaries."""


def quantise(source: Path, target: Path, kind: TensorType) -> None:
    """Write `source`, an f16 or f32 ggml file, to `target` with its matrices as blocks of `kind`, atomically.

    Raises:
        ModelError: `source` is not a sound float ggml file, or `target` cannot be written.
    """
    model = read_ggml(source)
    if model.type not in _FLOATS:
        raise ModelError(f"{source}: is {model.type.name.lower()} already; quantise from f16 to lose no more than once")
    with atomic_write(target) as file:
        write_header(file, model.hyper, kind, model.mel_filters, model.vocabulary)
        for entry in model.tensors:
            if len(entry.shape) != 2 or entry.name in F32_ALWAYS:  # noqa: PLR2004 - a matrix
                write_tensor_header(file, entry.name, entry.shape, entry.type)
                file.write(model.raw(entry).tobytes())
            else:
                write_tensor_header(file, entry.name, entry.shape, kind)
                for start in range(0, entry.shape[0], _rows(entry)):
                    file.write(_blocks(model, entry, kind, start))


def _rows(entry: TensorEntry) -> int:
    return max(1, _CHUNK_VALUES // entry.shape[1])


def _blocks(model: GgmlFile, entry: TensorEntry, kind: TensorType, start: int) -> bytes:
    if entry.type not in _FLOATS or entry.shape[1] % kind.block[0]:
        raise ModelError(f"tensor {entry.name} cannot be quantised: rows of {entry.shape[1]} {entry.type.name} values")
    # Imported here: the service loads this module at every start, and never quantises.
    from gguf import GGMLQuantizationType, quants  # noqa: PLC0415

    values = model.raw(entry).view(_FLOATS[entry.type]).reshape(entry.shape)[start : start + _rows(entry)]
    blocks = quants.quantize(values.astype(np.float32), GGMLQuantizationType[kind.name])
    return bytes(blocks.tobytes())
