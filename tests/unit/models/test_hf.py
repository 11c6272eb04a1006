"""Reading Hugging Face folders without torch."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import ModelError
from agent.models.convert import hugging_face_name, read_hugging_face
from agent.models.whisper import tensor_shapes
from tests.model_files import HYPER, safetensors_bytes, same, small_weights, write_hugging_face


@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_what_was_written_is_read_back(tmp_path: Path, dtype: str) -> None:
    """Every tensor survives in both float types."""
    assert same(read_hugging_face(write_hugging_face(tmp_path, small_weights(), dtype)), small_weights())


def test_bfloat16_is_read_to_its_precision(tmp_path: Path) -> None:
    """Eight bits of mantissa: within 1/128 of each value."""
    weights = small_weights()
    found = read_hugging_face(write_hugging_face(tmp_path, weights, "BF16"))
    for name, array in weights.tensors.items():
        assert abs(found.tensors[name] - array).max() <= abs(array).max() / 128


def test_names_are_those_of_transformers() -> None:
    """Spot checks against `WhisperModel.state_dict()`, and no two tensors share a name."""
    assert hugging_face_name("encoder.blocks.0.attn.query.weight") == "model.encoder.layers.0.self_attn.q_proj.weight"
    assert (
        hugging_face_name("decoder.blocks.3.cross_attn.out.bias") == "model.decoder.layers.3.encoder_attn.out_proj.bias"
    )
    assert hugging_face_name("decoder.blocks.1.mlp_ln.weight") == "model.decoder.layers.1.final_layer_norm.weight"
    assert hugging_face_name("encoder.conv1.bias") == "model.encoder.conv1.bias"
    assert hugging_face_name("encoder.ln_post.weight") == "model.encoder.layer_norm.weight"
    assert hugging_face_name("decoder.token_embedding.weight") == "model.decoder.embed_tokens.weight"
    names = [hugging_face_name(name) for name in tensor_shapes(HYPER)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("share", [0.00001, 0.001, 0.5, 0.999])
def test_a_file_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    """Truncation is one clear line."""
    folder = write_hugging_face(tmp_path, small_weights())
    whole = safetensors_bytes(small_weights())
    (folder / "model.safetensors").write_bytes(whole[: 1 + int(len(whole) * share)])
    with pytest.raises(ModelError, match="cut short"):
        read_hugging_face(folder)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [32], "data_offsets": [0, 2**60]},
        {"dtype": "F32", "shape": [32], "data_offsets": [-128, 0]},
        {"dtype": "F32", "shape": [-32], "data_offsets": [0, 128]},
        {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 128]},
        {"dtype": "I64", "shape": [32], "data_offsets": [0, 256]},
        {"shape": [32]},
        "nonsense",
    ],
)
def test_a_lying_header_is_refused(tmp_path: Path, entry: object) -> None:
    """Offsets outside the file, sizes that do not fit, types that are no floats."""
    folder = write_hugging_face(tmp_path, small_weights())
    content = safetensors_bytes(small_weights())
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    header["model.encoder.conv1.bias"] = entry
    encoded = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(encoded)) + encoded + content[8 + size :])
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        read_hugging_face(folder)


def test_no_tensor_may_miss_or_be_misshapen(tmp_path: Path) -> None:
    """A model with a gap or a wrong shape is refused with the tensor's name."""
    folder, weights = write_hugging_face(tmp_path, small_weights()), small_weights()
    name = "decoder.blocks.1.mlp.0.weight"
    without = {key: array for key, array in weights.tensors.items() if key != name}
    for tensors, words in ((without, "missing"), ({**weights.tensors, name: weights.tensors[name][:-1]}, "shape")):
        (folder / "model.safetensors").write_bytes(safetensors_bytes(replace(weights, tensors=tensors)))
        with pytest.raises(ModelError, match=rf"layers\.1\.fc1\.weight .*{words}"):
            read_hugging_face(folder)


def test_another_model_is_refused(tmp_path: Path) -> None:
    """The configuration must say that it is Whisper, in whole numbers."""
    folder = write_hugging_face(tmp_path, small_weights())
    config = json.loads((folder / "config.json").read_text())
    for change, words in (({"model_type": "bart"}, "not the configuration"), ({"d_model": "32"}, "d_model")):
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ModelError, match=words):
            read_hugging_face(folder)
