"""ggml files: written, read back, quantised, and refused when they lie."""

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

from agent.errors import ModelError
from agent.models.convert import convert
from agent.models.ggml import QUANTISATIONS, TensorType, check_ggml, quantise, read_ggml, write_ggml
from agent.models.whisper import HyperParameters
from tests.model_files import (
    HYPER,
    USABLE,
    small_weights,
    usable_weights,
    write_ctranslate2,
    write_hugging_face,
)

HEADER_BYTES = 4 + 11 * 4
FIRST_TENSOR = HEADER_BYTES + 8 + 80 * 201 * 4 + 4 + 256 * 5 + 44 * 6
STEPS = {"q4_0": 8, "q4_1": 15, "q5_0": 16, "q5_1": 31, "q8_0": 127}
"""Levels that share the range of a block (for the symmetric ones, of its larger half)."""


@pytest.fixture
def ggml(tmp_path: Path) -> Path:
    """A sound f16 file."""
    write_ggml(small_weights(), tmp_path / "model.bin")
    return tmp_path / "model.bin"


def test_what_was_written_is_read_back(ggml: Path) -> None:
    """Hyper-parameters, filters, vocabulary, and each tensor to the bit."""
    weights, found = small_weights(), read_ggml(ggml)
    assert (found.hyper, found.type, found.vocabulary) == (HYPER, TensorType.F16, weights.vocabulary)
    assert np.array_equal(found.mel_filters, weights.mel_filters)
    assert [entry.name for entry in found.tensors] == list(weights.tensors)
    for entry in found.tensors:
        dtype = np.float32 if entry.type is TensorType.F32 else np.float16
        assert np.array_equal(entry.data.view(dtype), weights.tensors[entry.name].ravel().astype(dtype))


def test_vectors_and_positions_are_float32(ggml: Path) -> None:
    """whisper.cpp wants them so; convolution biases are columns."""
    entries = {entry.name: entry for entry in read_ggml(ggml).tensors}
    for name in ("encoder.positional_embedding", "decoder.ln.bias", "encoder.conv2.bias"):
        assert entries[name].type is TensorType.F32
    assert entries["encoder.conv1.bias"].shape == (32, 1)
    assert entries["encoder.conv1.weight"].type is TensorType.F16


def test_the_same_model_gives_the_same_bytes_from_any_format(tmp_path: Path, ggml: Path) -> None:
    """CTranslate2, safetensors and the weights themselves convert to one and the same file."""
    for folder in (
        write_ctranslate2(tmp_path / "a", small_weights()),
        write_hugging_face(tmp_path / "b", small_weights()),
    ):
        convert(folder, tmp_path / "out.bin")
        assert (tmp_path / "out.bin").read_bytes() == ggml.read_bytes()


@pytest.mark.parametrize("name", QUANTISATIONS)
def test_quantised_weights_stay_close(tmp_path: Path, ggml: Path, name: str) -> None:
    """Each weight comes back within half a step of its block's range; everything else is untouched."""
    quantise(ggml, tmp_path / "small.bin", QUANTISATIONS[name])
    before, after = read_ggml(ggml), read_ggml(tmp_path / "small.bin")
    assert after.type is QUANTISATIONS[name]
    weights = small_weights()
    for old, new in zip(before.tensors, after.tensors, strict=True):
        assert (old.name, old.shape) == (new.name, new.shape)
        if new.type is old.type:
            assert np.array_equal(old.data, new.data)
            continue
        packed = new.data.reshape(new.shape[0], -1)
        blocks = quants.dequantize(packed, GGMLQuantizationType[name.upper()]).reshape(-1, 32)
        exact = weights.tensors[new.name].astype(np.float32).reshape(-1, 32)
        spread = np.ptp(exact, axis=1) if name.endswith("_1") else abs(exact).max(axis=1)
        # Symmetric blocks have one level more below zero than above, so the far end may miss by a whole step.
        worst = 0.55 if name in {"q8_0", "q4_1", "q5_1"} else 1.05
        assert (abs(blocks - exact).max(axis=1) <= worst * spread / STEPS[name] + 1e-3).all()


def test_only_matrices_are_quantised(tmp_path: Path, ggml: Path) -> None:
    """Convolutions, vectors and positional embeddings keep their type, as in whisper.cpp's own files."""
    quantise(ggml, tmp_path / "small.bin", TensorType.Q8_0)
    types = {entry.name: entry.type for entry in read_ggml(tmp_path / "small.bin").tensors}
    assert types["decoder.token_embedding.weight"] is TensorType.Q8_0
    assert types["encoder.conv1.weight"] is TensorType.F16
    assert types["encoder.positional_embedding"] is TensorType.F32
    assert types["decoder.blocks.0.attn.out.bias"] is TensorType.F32


def test_a_conversion_quantises_like_the_two_steps(tmp_path: Path, ggml: Path) -> None:
    """From a CTranslate2 folder to q5_1 at once, or by way of an f16 file: the same bytes."""
    quantise(ggml, tmp_path / "two.bin", TensorType.Q5_1)
    convert(write_ctranslate2(tmp_path / "ct2", small_weights()), tmp_path / "one.bin", TensorType.Q5_1)
    assert (tmp_path / "one.bin").read_bytes() == (tmp_path / "two.bin").read_bytes()


def test_a_float32_file_is_quantised_too(tmp_path: Path) -> None:
    """Its convolutions become f16, as in every quantised file."""
    write_ggml(small_weights(), tmp_path / "f32.bin", TensorType.F32)
    quantise(tmp_path / "f32.bin", tmp_path / "q8.bin", TensorType.Q8_0)
    types = {tensor.name: tensor.type for tensor in read_ggml(tmp_path / "q8.bin").tensors}
    assert types["encoder.conv1.weight"] is TensorType.F16


def test_quantising_twice_is_refused(tmp_path: Path, ggml: Path) -> None:
    """Each quantisation loses; from q8_0 to q4_0 would lose twice."""
    quantise(ggml, tmp_path / "a.bin", TensorType.Q8_0)
    with pytest.raises(ModelError, match="already"):
        quantise(tmp_path / "a.bin", tmp_path / "b.bin", TensorType.Q4_0)
    assert not (tmp_path / "b.bin").exists()


def test_a_failed_write_leaves_nothing(tmp_path: Path, ggml: Path) -> None:
    """No half file, no temporary file, and what was there before stays."""
    target = tmp_path / "target.bin"
    target.write_bytes(b"before")
    cut = tmp_path / "cut.bin"
    cut.write_bytes(ggml.read_bytes()[:-100])
    with pytest.raises(ModelError):
        quantise(cut, target, TensorType.Q4_0)
    with pytest.raises(ModelError, match="cannot be written"):
        write_ggml(small_weights(), tmp_path / "no such folder" / "x.bin")
    assert target.read_bytes() == b"before"
    assert {path.name for path in tmp_path.iterdir()} == {"target.bin", "cut.bin", "model.bin"}


@pytest.mark.parametrize("share", [0.0001, 0.2, 0.6, 0.95, 0.9999])
def test_a_file_cut_short_is_refused(ggml: Path, share: float) -> None:
    """Truncation is one clear line, wherever it happened."""
    content = ggml.read_bytes()
    ggml.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match=r"cut short|not a ggml"):
        read_ggml(ggml)


def patched(content: bytes, position: int, *values: int) -> bytes:
    """`content` with little-endian numbers written over it."""
    patch = struct.pack(f"<{len(values)}i", *values)
    return content[:position] + patch + content[position + len(patch) :]


@pytest.mark.parametrize(
    ("position", "values", "words"),
    [
        (0, (0x46554747,), "not a ggml file"),  # GGUF
        (4, (-1,), "n_vocab"),
        (4, (10**9,), "n_vocab"),
        (HEADER_BYTES - 4, (12,), "file type 12"),
        (HEADER_BYTES - 4, (2_002 - 1_000,), "file type"),
        (HEADER_BYTES, (80, 10**8), "mel filters"),
        (HEADER_BYTES + 8 + 80 * 201 * 4, (301,), "301 tokens"),  # whisper.cpp#4059
        (HEADER_BYTES + 8 + 80 * 201 * 4 + 4, (-5,), "token"),
        (FIRST_TENSOR, (5,), "not a tensor"),  # whisper.cpp#3957
        (FIRST_TENSOR, (-1,), "not a tensor"),
        (FIRST_TENSOR + 4, (10**9,), "not a tensor"),
        (FIRST_TENSOR + 8, (4,), "not a tensor"),
        (FIRST_TENSOR + 12, (-32,), "shape"),
        (FIRST_TENSOR + 12, (2**31 - 1, 2**31 - 1), "shape"),
    ],
)
def test_lying_numbers_are_refused(ggml: Path, position: int, values: tuple[int, ...], words: str) -> None:
    """Every number that whisper.cpp's loader takes on trust is checked, the two published holes among them."""
    ggml.write_bytes(patched(ggml.read_bytes(), position, *values))
    with pytest.raises(ModelError, match=words):
        read_ggml(ggml)


COUNT = HEADER_BYTES + 8 + 80 * 201 * 4
"""Where the number of tokens stands."""


def overwritten(path: Path, position: int) -> Iterator[int]:
    """Put one hostile number after the other at `position`, and at last what was there."""
    with path.open("r+b", buffering=0) as file:
        file.seek(position)
        (old,) = struct.unpack("<i", file.read(4))
        values = {0, 1, -1, 2, 3, 4, 5, 8, 12, 65_536, 2_002, old - 1, old + 1, old * 2, old // 2, 2**31 - 1, -(2**31)}
        for value in [*sorted(values - {old}), old]:
            if -(2**31) <= value < 2**31:
                file.seek(position)
                file.write(struct.pack("<i", value))
                if value != old:
                    yield value


def test_a_file_of_whispers_size_is_accepted(tmp_path: Path) -> None:
    """Of every type of weights."""
    path = tmp_path / "f16.bin"
    write_ggml(usable_weights(), path)
    check_ggml(path)
    for name, kind in QUANTISATIONS.items():
        quantise(path, tmp_path / name, kind)
        check_ggml(tmp_path / name)


def test_no_hostile_number_in_the_head_gets_past(tmp_path: Path) -> None:
    """Each number of the head, each with values that loaders trip over: always one line."""
    path = tmp_path / "model.bin"
    write_ggml(usable_weights(), path)
    for position in [*range(4, HEADER_BYTES + 8, 4), COUNT, COUNT + 4]:
        for _ in overwritten(path, position):
            with pytest.raises(ModelError) as refused:
                check_ggml(path)
            assert "\n" not in str(refused.value)


def test_no_hostile_number_of_a_tensor_gets_past(ggml: Path) -> None:
    """Dimensions, length of the name, type and shape of each: always one line."""
    for entry in read_ggml(ggml).tensors[::7]:
        end = entry.offset - len(entry.name)
        for position in range(end - 4 * len(entry.shape) - 12, end, 4):
            for _ in overwritten(ggml, position):
                with pytest.raises(ModelError) as refused:
                    read_ggml(ggml)
                assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("hyper", "words"),
    [
        (replace(USABLE, n_audio_head=2), "2 attention heads in a width of 64"),
        (replace(USABLE, n_text_head=64), "64 attention heads in a width of 64"),
        (replace(USABLE, n_text_head=3), "64 cannot be divided among 3 heads"),
        (replace(USABLE, n_audio_ctx=750), "n_audio_ctx = 750, expected 1500"),
        (replace(USABLE, n_text_ctx=6), "n_text_ctx = 6, expected 448"),
        (replace(USABLE, n_mels=100), "n_mels = 100, expected 80 or 128"),
        (replace(USABLE, n_vocab=300), "n_vocab = 300, expected at least 51864"),
        (replace(USABLE, n_vocab=60_000), "n_vocab = 60000"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_is_sound_and_no_whisper_is_refused(tmp_path: Path, hyper: HyperParameters, words: str) -> None:
    """Everything in it fits together, and whisper.cpp would crash: at the start, or at the first word."""
    write_ggml(small_weights(0, hyper), tmp_path / "model.bin")
    with pytest.raises(ModelError, match=words):
        check_ggml(tmp_path / "model.bin")


def test_a_vocabulary_that_lacks_words_is_refused(tmp_path: Path) -> None:
    """whisper.cpp would make up names for them, and publish those."""
    write_ggml(replace(usable_weights(), vocabulary=usable_weights().vocabulary[:-2]), tmp_path / "model.bin")
    with pytest.raises(ModelError, match="50255 tokens in the vocabulary"):
        check_ggml(tmp_path / "model.bin")


def test_the_type_of_each_tensor_follows_from_the_type_of_the_file(ggml: Path, tmp_path: Path) -> None:
    """whisper.cpp reserves memory by the one and reads by the other."""
    quantise(ggml, tmp_path / "q8_0.bin", TensorType.Q8_0)
    for path, ftype, words in (
        (ggml, 0, "is F16, expected F32 in a file of type F32"),
        (ggml, 2_007, "attn.query.weight is F16, expected Q8_0"),
        (tmp_path / "q8_0.bin", 2_002, "attn.query.weight is Q8_0, expected Q4_0"),
        (tmp_path / "q8_0.bin", 1, "attn.query.weight is Q8_0, expected F16"),
    ):
        path.write_bytes(patched(path.read_bytes(), HEADER_BYTES - 4, ftype))
        with pytest.raises(ModelError, match=words):
            read_ggml(path)


def test_no_tensor_may_come_twice_or_be_misshapen(ggml: Path) -> None:
    """Names must be those of a Whisper of this size, each once, each with its shape."""
    content = ggml.read_bytes()
    first = read_ggml(ggml).tensors[0]
    end = first.offset + len(first.data)
    for changed, words in (
        (content + content[FIRST_TENSOR:end], "there twice"),
        (content.replace(b"encoder.conv1.bias", b"encoder.conv9.bias"), "unknown"),
        (patched(content, FIRST_TENSOR + 12, 8, 32), "shape"),
    ):
        ggml.write_bytes(changed)
        with pytest.raises(ModelError, match=words):
            read_ggml(ggml)


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    """What can be converted is said where nothing can."""
    with pytest.raises(ModelError, match="neither"):
        convert(tmp_path, tmp_path / "out.bin")
