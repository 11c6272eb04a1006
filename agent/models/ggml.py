"""whisper.cpp's legacy ggml container: written from weights, read back with every length checked.

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
from agent.models.binary import Reader, open_reader
from agent.models.files import atomic_write
from agent.models.whisper import N_FFT_BINS, FloatArray, HyperParameters, WhisperWeights, tensor_shapes

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
    if reader.remaining_bytes < struct.calcsize("12i") or reader.integers("I") != (MAGIC,):
        raise ModelError(f"{path}: not a ggml file; see `edgescribe models convert`")
    *numbers, ftype = reader.integers("11i")
    hyper = HyperParameters(*numbers)
    hyper.check(str(path))
    filters = _read_mel_filters(reader, hyper)
    vocabulary = _read_vocabulary(reader, hyper)
    tensors = tuple(_read_tensors(reader, tensor_shapes(hyper)))
    return GgmlFile(hyper, _file_type(ftype, reader.source), filters, vocabulary, tensors, reader.data)


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


def _read_tensors(reader: Reader, shapes: dict[str, tuple[int, ...]]) -> Iterator[TensorEntry]:
    wanted = dict(shapes)
    while reader.remaining_bytes:
        entry = _read_tensor(reader)
        expected = wanted.pop(entry.name, None)
        if expected is None:
            raise ModelError(f"{reader.source}: tensor {entry.name[:60]!r} is unknown or there twice; damaged")
        if entry.shape not in {expected, (*expected, 1)}:  # conv biases are columns
            raise ModelError(f"{reader.source}: tensor {entry.name} has shape {entry.shape}, expected {expected}")
        yield entry
    if wanted:
        raise ModelError(f"{reader.source}: cut short, tensor {next(iter(wanted))} is missing; fetch it again")


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
