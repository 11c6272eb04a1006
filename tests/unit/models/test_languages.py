from dataclasses import replace
from pathlib import Path

import pytest

from agent.models.catalogue import load_catalogue
from agent.models.ggml import write_ggml
from agent.models.languages import is_english_only, multilingual
from tests.model_files import HYPER, ctranslate2_bytes, small_weights


def test_names_are_what_the_catalogue_says() -> None:
    """Of every model in it."""
    for model in load_catalogue().models:
        assert is_english_only(model.name) == (model.languages == "en")


@pytest.mark.parametrize(
    ("model", "english"),
    [
        ("/srv/ggml-base.en.bin", True),
        ("/srv/small.en-ct2/", True),
        ("models/ggml-medium.en-q5_0.bin", True),
        ("/home/jo.en/ggml-base.bin", False),
        ("/srv/tiny.en/model.bin", False),
        ("/srv/base.enhanced.bin", False),
        ("/srv/voice.en.bin", False),
    ],
)
def test_a_file_that_cannot_be_read_is_what_its_last_part_says(model: str, english: bool) -> None:  # noqa: FBT001 - a row of the table
    """Folders have names for reasons of their own."""
    assert is_english_only(model) is english


@pytest.mark.parametrize(("n_vocab", "english"), [(51_864, True), (51_865, False), (51_866, False)])
def test_a_model_that_is_there_speaks_for_itself(tmp_path: Path, n_vocab: int, english: bool) -> None:  # noqa: FBT001
    """Its vocabulary tells, whatever it is called: a file of whisper.cpp's, and a folder of CTranslate2's."""
    weights = small_weights(0, replace(HYPER, n_vocab=n_vocab))
    name = "my-base" if english else "my-base.en"
    write_ggml(weights, tmp_path / f"{name}.bin")
    (tmp_path / name).mkdir()
    (tmp_path / name / "model.bin").write_bytes(ctranslate2_bytes(weights))
    assert is_english_only(str(tmp_path / f"{name}.bin")) is english
    assert is_english_only(str(tmp_path / name)) is english


def test_the_other_model_is_the_one_of_that_size() -> None:
    """Nothing else of the name or the path is changed."""
    assert multilingual("tiny.en-q8_0") == "tiny-q8_0"
    assert multilingual("/jo.en/ggml-base.en.bin") == "/jo.en/ggml-base.bin"
