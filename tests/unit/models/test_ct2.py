"""Reading CTranslate2 folders, the hostile ones above all."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.errors import ModelError
from agent.models.ct2 import check_ctranslate2, read_ctranslate2
from tests.model_files import (
    TIED,
    USABLE,
    ctranslate2_bytes,
    same,
    small_weights,
    usable_weights,
    variables,
    write_ctranslate2,
)


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
        (ctranslate2_bytes(small_weights(), revision=4), "later CTranslate2"),
    ],
    ids=["empty", "ggml", "old", "translation", "new"],
)
def test_other_files_are_named_for_what_they_are_not(folder: Path, content: bytes, words: str) -> None:
    """An empty file, another format, another version, another kind of model."""
    (folder / "model.bin").write_bytes(content)
    with pytest.raises(ModelError, match=words):
        read_ctranslate2(folder)


def test_int8_weights_can_be_checked_but_not_converted(folder: Path) -> None:
    """A CTranslate2 model stored in int8 is fine for its own engine, and no source for a ggml file."""
    write_ctranslate2(folder, usable_weights())
    name = "encoder/layer_0/ffn/linear_0/weight"
    quantised: dict[str, NDArray[np.generic]] = {
        name: np.ones((256, 64), np.int8),
        f"{name}_scale": np.ones(256, np.float32),
    }
    (folder / "model.bin").write_bytes(ctranslate2_bytes(usable_weights(), changed=quantised))
    check_ctranslate2(folder)
    with pytest.raises(ModelError, match="quantised; convert from"):
        read_ctranslate2(folder)


@pytest.fixture
def usable(tmp_path: Path) -> Path:
    """A folder with a model that CTranslate2 can load."""
    return write_ctranslate2(tmp_path / "usable", usable_weights())


def test_a_model_of_whispers_size_is_accepted(usable: Path) -> None:
    """As it is, and where equal variables are stored once, as CTranslate2's converter does."""
    check_ctranslate2(usable)
    aliases = {**TIED, "encoder/layer_norm/gamma": "decoder/layer_norm/gamma"}
    (usable / "model.bin").write_bytes(ctranslate2_bytes(usable_weights(), aliases=aliases))
    check_ctranslate2(usable)
    flags: dict[str, np.generic] = {"decoder/activation": np.int8(3), "decoder/alignment_layer": np.int16(-1)}
    (usable / "model.bin").write_bytes(ctranslate2_bytes(usable_weights(), changed=flags))
    check_ctranslate2(usable)


@pytest.mark.parametrize("name", ["model.bin", "config.json", "tokenizer.json", "vocabulary.txt"])
def test_an_incomplete_folder_is_refused(usable: Path, name: str) -> None:
    """Each file that the engine will ask for must be there."""
    (usable / name).unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        check_ctranslate2(usable)


def test_every_variable_has_to_be_there(usable: Path) -> None:
    """CTranslate2 finds out when it loads the model: with a KeyError, or never."""
    contents = [
        (name, ctranslate2_bytes(usable_weights(), changed={name: None}))
        for name in variables(usable_weights())
        if name not in TIED.values()
    ]
    for name, content in [*contents, ("decoder/projection/weight", ctranslate2_bytes(usable_weights(), aliases={}))]:
        (usable / "model.bin").write_bytes(content)
        with pytest.raises(ModelError, match=rf"{name}|layer_0|n_(audio|text)_layer"):
            check_ctranslate2(usable)


LINEAR = "decoder/layer_0/ffn/linear_0"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"encoder/num_heads": np.int16(3)}, "64 cannot be divided among 3 heads"),
        ({"decoder/num_heads": np.int16(2)}, "2 attention heads in a width of 64"),
        ({"decoder/num_heads": np.int16(-1)}, "n_text_head"),
        ({"decoder/num_heads": np.float32(1)}, "not a whole number"),
        ({"encoder/conv1/weight": np.zeros((64, 79, 3), np.float16)}, "n_mels = 79"),
        ({"encoder/conv1/weight": np.zeros((64, 80, 5), np.float16)}, "encoder/conv1/weight has shape"),
        ({"encoder/position_encodings/encodings": np.zeros((750, 64), np.float16)}, "n_audio_ctx = 750"),
        ({"decoder/position_encodings/encodings": np.zeros((447, 64), np.float16)}, "n_text_ctx = 447"),
        ({"decoder/embeddings/weight": np.zeros((300, 64), np.float16)}, "n_vocab = 300"),
        ({"decoder/projection/weight": np.zeros((3, 5), np.float16)}, "decoder/projection/weight has shape"),
        ({"decoder/embeddings/weight": np.zeros((51_865, 64), np.float16)}, "lists 51864 tokens"),
        ({f"{LINEAR}/weight": np.zeros((64, 256), np.float16)}, f"{LINEAR}/weight has shape"),
        ({f"{LINEAR}/weight": np.zeros((256, 64), np.int8)}, f"{LINEAR}/weight_scale is missing"),
        (
            {f"{LINEAR}/weight": np.zeros((256, 64), np.int8), f"{LINEAR}/weight_scale": np.ones(64, np.float32)},
            f"{LINEAR}/weight_scale does not",
        ),
        ({f"{LINEAR}/bias": np.zeros(256, np.int8)}, f"{LINEAR}/bias is of whole numbers"),
        ({f"{LINEAR}/more": np.zeros(256, np.float16)}, "is not part of a Whisper model"),
        ({"decoder/alignment_layer": np.int16(1)}, "alignment_layer = 1, expected -1 to 0"),
        ({"decoder/alignment_layer": np.int16(-2)}, "alignment_layer = -2"),
        ({"decoder/alignment_heads": np.int16(-1)}, "alignment_heads = -1"),
        ({f"{LINEAR}/more": np.zeros(0, np.float16)}, "does not fit its shape"),
    ],
    ids=lambda changed: "" if isinstance(changed, str) else next(iter(changed)),
)
def test_variables_have_to_fit_each_other(usable: Path, changed: dict[str, NDArray[np.generic]], words: str) -> None:
    """Heads, widths, shapes and types are checked before native code relies on them."""
    (usable / "model.bin").write_bytes(ctranslate2_bytes(usable_weights(), changed=changed))
    with pytest.raises(ModelError, match=words):
        check_ctranslate2(usable)


@pytest.mark.parametrize("name", ["encoder/num_heads", "encoder/conv1/bias", "decoder/position_encodings/encodings"])
def test_no_hostile_number_of_a_variable_gets_past(usable: Path, name: str) -> None:
    """Rank, dimensions, type and size, each with values that loaders trip over: always one line."""
    content = ctranslate2_bytes(usable_weights())
    start = content.index(f"{name}\0".encode()) + len(name) + 1
    rank = content[start]
    fields = [(start, "B"), *((start + 1 + 4 * index, "I") for index in range(rank))]
    fields += [(start + 1 + 4 * rank, "B"), (start + 2 + 4 * rank, "I")]
    for position, layout in fields:
        (old,) = struct.unpack_from(f"<{layout}", content, position)
        most = 2 ** (8 * struct.calcsize(layout)) - 1
        for value in {0, 1, 2, 3, 4, 6, old + 1, max(0, old - 1), min(most, old * 2), most // 2, most} - {old}:
            damaged = bytearray(content)
            struct.pack_into(f"<{layout}", damaged, position, value)
            (usable / "model.bin").write_bytes(damaged)
            if (layout, value) == ("B", 5):  # float16 may be taken for bfloat16: it has the same size
                continue
            with pytest.raises(ModelError) as refused:
                check_ctranslate2(usable)
            assert "\n" not in str(refused.value)


def test_a_variable_that_is_there_twice_is_refused(usable: Path) -> None:
    """CTranslate2 takes the first of them, and others the last."""
    content = ctranslate2_bytes(usable_weights(), changed={"decoder/layer_norm/xxxxx": np.zeros(64, np.float16)})
    (usable / "model.bin").write_bytes(content.replace(b"decoder/layer_norm/xxxxx", b"decoder/layer_norm/gamma"))
    with pytest.raises(ModelError, match="decoder/layer_norm/gamma' is there twice"):
        check_ctranslate2(usable)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "5",
        "null",
        "{}",
        '{"suppress_ids_begin": 5}',
        '{"suppress_ids_begin": ["a"]}',
        '{"suppress_ids_begin": [-1]}',
        '{"suppress_ids_begin": [51864]}',
        '{"suppress_ids_begin": [1.5]}',
        '{"suppress_ids_begin": [], "suppress_ids": [1000000000000000000000]}',
        '{"suppress_ids_begin": [], "alignment_heads": [[0, 1]]}',
        '{"suppress_ids_begin": [], "alignment_heads": [[1, 0]]}',
        '{"suppress_ids_begin": [], "alignment_heads": ["a", [0]]}',
    ],
)
def test_a_description_that_does_not_fit_is_refused(usable: Path, content: str) -> None:
    """CTranslate2 writes to the places that it names: a number out of range crashes the engine at the first word."""
    (usable / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json.*damaged"):
        check_ctranslate2(usable)


def test_a_multilingual_model_needs_its_languages(tmp_path: Path) -> None:
    """Without them the language cannot be detected."""
    folder = write_ctranslate2(tmp_path / "all", small_weights(0, replace(USABLE, n_vocab=51_865)))
    check_ctranslate2(folder)
    (folder / "config.json").write_text('{"suppress_ids_begin": [], "lang_ids": []}')
    with pytest.raises(ModelError, match="lang_ids is missing"):
        check_ctranslate2(folder)


def test_the_two_vocabularies_have_to_be_of_one_model(usable: Path) -> None:
    """The engine asks in tokens of the one, and CTranslate2 answers in tokens of the other."""
    tokens = (usable / "vocabulary.txt").read_text().split("\n")
    for listed, words in (
        (tokens[:-1], "lists 51863 tokens"),
        ([*tokens, "<|30.02|>"], "lists 51865 tokens"),
        ([*tokens[1:], tokens[0]], r"<\|endoftext\|> at the same place"),
        ([], "lists 1 tokens"),
    ):
        (usable / "vocabulary.txt").write_text("\n".join(listed))
        with pytest.raises(ModelError, match=words):
            check_ctranslate2(usable)
    for nonsense in ("{", "{}", "[1, 2]", "[" * 100_000):
        (usable / "vocabulary.json").write_text(nonsense)
        with pytest.raises(ModelError):
            check_ctranslate2(usable)


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
