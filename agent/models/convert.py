"""Converts a CTranslate2 or a Hugging Face folder to a ggml file.

A Hugging Face folder holds `model.safetensors`, `config.json` and a tokenizer. safetensors (huggingface/safetensors,
"Format"): u64 length of the header, the header in JSON (name → dtype, shape, data_offsets), the data. The file holds
no code, and torch is not needed.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from agent.errors import ModelError
from agent.models.ct2 import read_ctranslate2
from agent.models.files import Reader, open_reader
from agent.models.ggml import TensorType, write_ggml
from agent.models.whisper import (
    FloatArray,
    HyperParameters,
    WhisperWeights,
    mel_filters,
    read_json,
    read_vocabulary,
    renamed,
    tensor_shapes,
)

_MAX_HEADER_BYTES = 16 * 2**20
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_HYPER = {
    "n_vocab": "vocab_size",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_head": "encoder_attention_heads",
    "n_audio_layer": "encoder_layers",
    "n_text_ctx": "max_target_positions",
    "n_text_state": "d_model",
    "n_text_head": "decoder_attention_heads",
    "n_text_layer": "decoder_layers",
    "n_mels": "num_mel_bins",
}
"""Keys of transformers' `WhisperConfig`, by the names of `HyperParameters`."""
_RULES = (
    (r"^(encoder|decoder)\.blocks\.", r"model.\1.layers."),
    (r"\.cross_attn_ln\.", ".encoder_attn_layer_norm."),
    (r"\.attn_ln\.", ".self_attn_layer_norm."),
    (r"\.mlp_ln\.", ".final_layer_norm."),
    (r"\.cross_attn\.", ".encoder_attn."),
    (r"\.attn\.", ".self_attn."),
    (r"\.(q)uery\.|\.(k)ey\.|\.(v)alue\.", r".\1\2\3_proj."),
    (r"\.out\.", ".out_proj."),
    (r"\.mlp\.0\.", ".fc1."),
    (r"\.mlp\.2\.", ".fc2."),
    (r"^(encoder|decoder)\.positional_embedding$", r"model.\1.embed_positions.weight"),
    (r"^decoder\.token_embedding\.", "model.decoder.embed_tokens."),
    (r"^encoder\.ln_post\.", "model.encoder.layer_norm."),
    (r"^decoder\.ln\.", "model.decoder.layer_norm."),
    (r"^encoder\.conv", "model.encoder.conv"),
)
"""From OpenAI's names to those of transformers."""


def convert(folder: Path, target: Path, kind: TensorType = TensorType.F16) -> None:
    """Write the model in `folder` to `target` as a ggml file whose matrices are of `kind`.

    Raises:
        ModelError: the model cannot be read, or `target` cannot be written.
    """
    if (folder / "model.bin").is_file():
        weights = read_ctranslate2(folder)
    elif (folder / "model.safetensors").is_file():
        weights = read_hugging_face(folder)
    else:
        raise ModelError(f"{folder}: holds neither model.bin (CTranslate2) nor model.safetensors (Hugging Face)")
    write_ggml(weights, target, kind)


def read_hugging_face(folder: Path) -> WhisperWeights:
    """Read the Whisper model in `folder`, which transformers' `save_pretrained` or `git clone` made.

    Raises:
        ModelError: the folder is incomplete, damaged, or not Whisper.
    """
    hyper = _hyper_parameters(folder / "config.json")
    reader = open_reader(folder / "model.safetensors")
    header = _read_header(reader)
    tensors = {
        name: _tensor(reader, header, hugging_face_name(name), shape) for name, shape in tensor_shapes(hyper).items()
    }
    return WhisperWeights(hyper, read_vocabulary(folder, hyper.n_vocab), mel_filters(hyper.n_mels), tensors)


def hugging_face_name(name: str) -> str:
    """Return transformers' name of the tensor that OpenAI calls `name`."""
    return renamed(name, _RULES)


def _hyper_parameters(path: Path) -> HyperParameters:
    config = read_json(path)
    if not isinstance(config, dict) or config.get("model_type") != "whisper":
        raise ModelError(f"{path}: not the configuration of a Whisper model")
    for key in _HYPER.values():
        if type(config.get(key)) is not int:
            raise ModelError(f"{path}: {key} is missing or not a whole number")
    hyper = HyperParameters(**{name: config[key] for name, key in _HYPER.items()})
    hyper.check(str(path))
    return hyper


def _read_header(reader: Reader) -> dict[str, Any]:
    (size_bytes,) = reader.integers("Q")
    if size_bytes > min(_MAX_HEADER_BYTES, reader.remaining_bytes):
        raise ModelError(f"{reader.source}: not a safetensors file, or cut short")
    try:
        header = json.loads(reader.take(size_bytes))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{reader.source}: not a safetensors file: its header is not JSON") from error
    if not isinstance(header, dict):
        raise ModelError(f"{reader.source}: not a safetensors file: its header is not a table")
    return header


def _tensor(reader: Reader, header: dict[str, Any], name: str, shape: tuple[int, ...]) -> FloatArray:
    """Return the tensor `name` as a view of the file, if the header describes it with `shape`."""
    # Models that were saved without their language head leave out the prefix.
    match header.get(name, header.get(name.removeprefix("model."))):
        case None:
            raise ModelError(f"{reader.source}: tensor {name} is missing; the model is incomplete")
        case {"dtype": str(dtype), "shape": [*found], "data_offsets": [int(start), int(end)]}:
            pass
        case _:
            raise ModelError(f"{reader.source}: the header's entry for {name} is malformed")
    if dtype not in _ITEM_BYTES:
        raise ModelError(f"{reader.source}: tensor {name} is {dtype[:20]}; only F32, F16 and BF16 can be converted")
    if found != [*shape]:
        raise ModelError(f"{reader.source}: tensor {name} has shape {str(found)[:60]}, expected {[*shape]}")
    if not 0 <= start <= end <= reader.remaining_bytes or end - start != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise ModelError(f"{reader.source}: tensor {name} does not lie where the header says; cut short or damaged")
    raw = reader.data[reader.offset + start : reader.offset + end]
    if dtype == "BF16":  # the upper half of a float32
        raw = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.uint8)
    item: np.dtype[np.float16 | np.float32] = np.dtype(np.float16 if dtype == "F16" else np.float32)
    return raw.view(item).reshape(shape)
