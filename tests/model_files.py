"""A Whisper model of a few kilobytes, in every format that can be read."""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from agent.models.convert import hugging_face_name
from agent.models.whisper import FloatArray, HyperParameters, WhisperWeights, byte_alphabet, mel_filters, tensor_shapes

HYPER = HyperParameters(
    n_vocab=300,
    n_audio_ctx=8,
    n_audio_state=32,
    n_audio_head=2,
    n_audio_layer=1,
    n_text_ctx=6,
    n_text_state=32,
    n_text_head=2,
    n_text_layer=2,
    n_mels=80,
)
USABLE = replace(
    HYPER,
    n_vocab=51_864,
    n_audio_ctx=1_500,
    n_audio_state=64,
    n_audio_head=1,
    n_text_ctx=448,
    n_text_state=64,
    n_text_head=1,
    n_text_layer=1,
)
"""The smallest that engines accept: 8 MB."""
CONTROLS = {"<|startoftranscript|>": 50_257, "<|transcribe|>": 50_358, "<|notimestamps|>": 50_362}
"""Of an English-only vocabulary; `<|endoftext|>` is its last ordinary token."""
TIED = MappingProxyType({"decoder/projection/weight": "decoder/embeddings/weight"})
"""CTranslate2 stores once what Whisper uses for its first and its last step."""
CONFIG = {"suppress_ids": [1], "suppress_ids_begin": [220], "lang_ids": [259], "alignment_heads": [[0, 0]]}


@cache
def small_weights(seed: int = 0, hyper: HyperParameters = HYPER) -> WhisperWeights:
    """Random float16 weights; token `i` is the byte `i`, and from 256 on pairs of bytes."""
    random = np.random.default_rng(seed)
    tensors: dict[str, FloatArray] = {
        name: random.normal(scale=0.02 if hyper is USABLE else 1.0, size=shape).astype(np.float16)
        for name, shape in tensor_shapes(hyper).items()
    }
    tokens = [bytes([index]) for index in range(256)]
    tokens += [bytes([index % 256, index // 256]) for index in range(min(50_256, hyper.n_vocab) - 256)]
    if hyper.n_vocab > len(tokens):
        tokens.append(b"<|endoftext|>")
    return WhisperWeights(hyper, tuple(tokens), mel_filters(hyper.n_mels), tensors)


def usable_weights(seed: int = 0) -> WhisperWeights:
    """A model that engines load: its words make no sense."""
    return small_weights(seed, USABLE)


def vocabulary_ids(weights: WhisperWeights) -> dict[str, int]:
    """The vocabulary as `tokenizer.json` spells it."""
    letters = {byte: letter for letter, byte in byte_alphabet().items()}
    return {"".join(letters[byte] for byte in token): index for index, token in enumerate(weights.vocabulary)}


def same(left: WhisperWeights, right: WhisperWeights) -> bool:
    """Whether two models are equal in all that makes a model."""
    return (
        left.hyper == right.hyper
        and left.vocabulary == right.vocabulary
        and left.tensors.keys() == right.tensors.keys()
        and all(np.array_equal(left.tensors[name], right.tensors[name]) for name in left.tensors)
    )


def ctranslate2_bytes(
    weights: WhisperWeights,
    *,
    version: int = 6,
    specification: str = "WhisperSpec",
    revision: int = 3,
    changed: Mapping[str, NDArray[np.generic] | np.generic | None] = MappingProxyType({}),
    aliases: Mapping[str, str] = TIED,
) -> bytes:
    """`model.bin` of a CTranslate2 folder; in `changed` are other variables, and None for those that are left out."""
    wanted: dict[str, NDArray[np.generic] | np.generic | None] = {**variables(weights), **changed}
    tied = {alias: name for alias, name in aliases.items() if alias not in changed}
    stored = {name: array for name, array in wanted.items() if array is not None and name not in tied}
    content = [struct.pack("<I", version) + _name(specification) + struct.pack("<II", revision, len(stored))]
    for name, array in stored.items():
        code = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}[array.dtype.name]
        content.append(_name(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape))
        content.append(struct.pack("<BI", code, array.nbytes) + array.tobytes())
    content.append(struct.pack("<I", len(tied)))
    return b"".join([*content, *(_name(alias) + _name(name) for alias, name in tied.items())])


def variables(weights: WhisperWeights) -> dict[str, NDArray[np.generic]]:
    """The model by CTranslate2's names."""
    return dict(_ctranslate2_variables(weights))


def _name(name: str) -> bytes:
    return struct.pack("<H", len(name) + 1) + name.encode() + b"\0"


def _ctranslate2_variables(weights: WhisperWeights) -> Iterator[tuple[str, NDArray[np.generic]]]:
    yield "encoder/num_heads", np.array(weights.hyper.n_audio_head, np.int16)
    yield "decoder/num_heads", np.array(weights.hyper.n_text_head, np.int16)
    get = weights.tensors.__getitem__
    yield "encoder/position_encodings/encodings", get("encoder.positional_embedding")
    yield "decoder/position_encodings/encodings", get("decoder.positional_embedding")
    yield "decoder/embeddings/weight", get("decoder.token_embedding.weight")
    for conv in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            yield f"encoder/{conv}/{kind}", get(f"encoder.{conv}.{kind}")
    for theirs, ours in (("encoder/layer_norm", "encoder.ln_post"), ("decoder/layer_norm", "decoder.ln")):
        yield f"{theirs}/gamma", get(f"{ours}.weight")
        yield f"{theirs}/beta", get(f"{ours}.bias")
    for side, layers in (("encoder", weights.hyper.n_audio_layer), ("decoder", weights.hyper.n_text_layer)):
        for layer in range(layers):
            yield from _ctranslate2_block(weights, side, layer)


def _ctranslate2_block(weights: WhisperWeights, side: str, layer: int) -> Iterator[tuple[str, NDArray[np.generic]]]:
    theirs, ours = f"{side}/layer_{layer}", f"{side}.blocks.{layer}"
    stacks = [("self_attention", "attn", [("query", "key", "value"), ("out",)])]
    if side == "decoder":
        stacks.append(("attention", "cross_attn", [("query",), ("key", "value"), ("out",)]))
    no_bias = np.zeros(weights.hyper.n_audio_state, np.float16)  # CTranslate2 keeps zeros for the keys, which have none
    for attention, name, linears in stacks:
        for index, parts in enumerate(linears):
            weight = [weights.tensors[f"{ours}.{name}.{part}.weight"] for part in parts]
            bias = [weights.tensors.get(f"{ours}.{name}.{part}.bias", no_bias) for part in parts]
            yield f"{theirs}/{attention}/linear_{index}/weight", np.concatenate(weight)
            yield f"{theirs}/{attention}/linear_{index}/bias", np.concatenate(bias)
        yield f"{theirs}/{attention}/layer_norm/gamma", weights.tensors[f"{ours}.{name}_ln.weight"]
        yield f"{theirs}/{attention}/layer_norm/beta", weights.tensors[f"{ours}.{name}_ln.bias"]
    for linear, name in (("linear_0", "mlp.0"), ("linear_1", "mlp.2")):
        for kind in ("weight", "bias"):
            yield f"{theirs}/ffn/{linear}/{kind}", weights.tensors[f"{ours}.{name}.{kind}"]
    yield f"{theirs}/ffn/layer_norm/gamma", weights.tensors[f"{ours}.mlp_ln.weight"]
    yield f"{theirs}/ffn/layer_norm/beta", weights.tensors[f"{ours}.mlp_ln.bias"]


def write_ctranslate2(folder: Path, weights: WhisperWeights) -> Path:
    """A folder as faster-whisper loads it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.bin").write_bytes(ctranslate2_bytes(weights))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    added = [{"id": index, "content": name} for name, index in {"<|endoftext|>": 50_256, **CONTROLS}.items()]
    document = {"model": {"vocab": vocabulary_ids(weights)}, "added_tokens": added}
    (folder / "tokenizer.json").write_text(json.dumps(document))
    (folder / "vocabulary.txt").write_text("\n".join(listed_tokens(weights)))
    return folder


def listed_tokens(weights: WhisperWeights) -> list[str]:
    """All tokens in the order of their ids, as CTranslate2's vocabulary has them."""
    ordinary = list(vocabulary_ids(weights))
    names = {index: name for name, index in CONTROLS.items()}
    return ordinary + [names.get(index, f"<|{index}|>") for index in range(len(ordinary), weights.hyper.n_vocab)]


def safetensors_bytes(weights: WhisperWeights, dtype: str = "F32") -> bytes:
    """`model.safetensors` of a Hugging Face folder; `dtype` is F32, F16 or BF16."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, array in weights.tensors.items():
        data = {
            "F32": lambda array: array.astype(np.float32).tobytes(),
            "F16": lambda array: array.astype(np.float16).tobytes(),
            "BF16": lambda array: (array.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes(),
        }[dtype](array)
        offsets = [len(body), len(body) + len(data)]
        header[hugging_face_name(name)] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
        body += data
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + body


def write_hugging_face(folder: Path, weights: WhisperWeights, dtype: str = "F32") -> Path:
    """A folder as transformers' `save_pretrained` makes it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(safetensors_bytes(weights, dtype))
    hyper = weights.hyper
    config = {
        "model_type": "whisper",
        "vocab_size": hyper.n_vocab,
        "max_source_positions": hyper.n_audio_ctx,
        "d_model": hyper.n_audio_state,
        "encoder_attention_heads": hyper.n_audio_head,
        "encoder_layers": hyper.n_audio_layer,
        "max_target_positions": hyper.n_text_ctx,
        "decoder_attention_heads": hyper.n_text_head,
        "decoder_layers": hyper.n_text_layer,
        "num_mel_bins": hyper.n_mels,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.json").write_text(json.dumps(vocabulary_ids(weights)))
    return folder
