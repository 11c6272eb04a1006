"""Makes a ggml file smaller: INT4, INT5 or INT8 blocks of 32 weights, as whisper.cpp's `quantize` does.

Blocks are computed by the `gguf` package (ggml-org), one tensor at a time: memory stays at a few times the largest
tensor. Vectors, convolutions (three dimensions) and positional embeddings stay as they are.
"""

from pathlib import Path

import numpy as np

from agent.errors import ModelError
from agent.models.files import atomic_write
from agent.models.ggml import (
    F32_ALWAYS,
    GgmlFile,
    TensorEntry,
    TensorType,
    read_ggml,
    write_header,
    write_tensor_header,
)

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
