"""Reading CTranslate2 folders, the hostile ones above all."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from agent.errors import ModelError
from agent.models.ct2 import check_ctranslate2, read_ctranslate2
from tests.model_files import ctranslate2_bytes, same, small_weights, write_ctranslate2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound CTranslate2 folder."""
    return write_ctranslate2(tmp_path / "ct2", small_weights())


def test_what_was_written_is_read_back(folder: Path) -> None:
    """Every tensor, the vocabulary and the hyper-parameters survive, stacked projections included."""
    assert same(read_ctranslate2(folder), small_weights())


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.3, 0.9, 0.9999])
def test_a_file_cut_short_anywhere_is_refused(folder: Path, share: float) -> None:
    """Truncation is one clear line, wherever it happened."""
    whole = ctranslate2_bytes(small_weights())
    (folder / "model.bin").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelError, match=r"cut short|not a CTranslate2|missing"):
        read_ctranslate2(folder)


def test_no_damaged_header_gets_past(folder: Path) -> None:
    """Whatever byte of the first kilobytes is overwritten: either it still reads, or it is a ModelError."""
    whole = ctranslate2_bytes(small_weights())
    for position in range(0, 2_000, 7):
        damaged = bytearray(whole)
        damaged[position : position + 4] = b"\xff\xff\xff\xff"
        (folder / "model.bin").write_bytes(damaged)
        try:
            read_ctranslate2(folder)
        except ModelError:
            continue


def test_sizes_that_do_not_fit_their_shape_are_refused(folder: Path) -> None:
    """A length beyond the file, or other than the shape says, is caught before anything is read."""
    head = struct.pack("<I", 6) + struct.pack("<H", 12) + b"WhisperSpec\0" + struct.pack("<II", 3, 1)
    variable = struct.pack("<H", 2) + b"a\0" + struct.pack("<B2I", 2, 2**31, 2**31) + struct.pack("<BI", 4, 2**32 - 1)
    (folder / "model.bin").write_bytes(head + variable)
    with pytest.raises(ModelError, match="does not fit its shape"):
        read_ctranslate2(folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"lmgg" + bytes(64), "not a CTranslate2 model"),
        (ctranslate2_bytes(small_weights(), version=5), "version 6"),
        (ctranslate2_bytes(small_weights(), specification="TransformerSpec"), "not Whisper"),
    ],
    ids=["empty", "ggml", "old", "translation"],
)
def test_other_files_are_named_for_what_they_are_not(folder: Path, content: bytes, words: str) -> None:
    """An empty file, another format, another version, another kind of model."""
    (folder / "model.bin").write_bytes(content)
    with pytest.raises(ModelError, match=words):
        read_ctranslate2(folder)


def test_int8_weights_can_be_checked_but_not_converted(folder: Path) -> None:
    """A CTranslate2 model stored in int8 is fine for its own engine, and no source for a ggml file."""
    weights = small_weights()
    tensors = dict(weights.tensors)
    name = "encoder.blocks.0.mlp.0.weight"
    tensors[name] = tensors[name].astype(np.int8)
    (folder / "model.bin").write_bytes(
        ctranslate2_bytes(type(weights)(weights.hyper, weights.vocabulary, weights.mel_filters, tensors))
    )
    check_ctranslate2(folder)
    with pytest.raises(ModelError, match="quantised; convert from"):
        read_ctranslate2(folder)


@pytest.mark.parametrize("name", ["model.bin", "config.json", "tokenizer.json"])
def test_an_incomplete_folder_is_refused(folder: Path, name: str) -> None:
    """Each file that an engine will ask for must be there (the vocabulary may be in another spelling)."""
    (folder / name).unlink()
    with pytest.raises(ModelError, match=r"read|no tokenizer"):
        check_ctranslate2(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "5", "null"])
def test_a_description_that_is_no_object_is_refused(folder: Path, content: str) -> None:
    """The engine would only find out when it loads the model."""
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json.*damaged"):
        check_ctranslate2(folder)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[" * 100_000,
        "[]",
        '{"model": 3}',
        '{"model": {"vocab": {"!": "a"}}}',
        '{"model": {"vocab": {"!": 0}}}',
    ],
    ids=["empty", "half", "deep", "list", "number", "text", "gaps"],
)
def test_a_damaged_tokenizer_is_refused(folder: Path, content: str) -> None:
    """JSON that is not a byte-level vocabulary without gaps."""
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError):
        read_ctranslate2(folder)


def test_the_vocabulary_may_be_a_list(folder: Path) -> None:
    """`vocabulary.json`, a list of tokens in the order of their ids, does where there is no tokenizer."""
    ids = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocabulary.json").write_text(json.dumps(list(ids)))
    assert same(read_ctranslate2(folder), small_weights())
