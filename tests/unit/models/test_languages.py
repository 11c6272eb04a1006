import pytest

from agent.models.catalogue import load_catalogue
from agent.models.languages import is_english_only, multilingual


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
def test_a_file_is_what_its_last_part_says(model: str, english: bool) -> None:  # noqa: FBT001 - a row of the table
    """Folders have names for reasons of their own."""
    assert is_english_only(model) is english


def test_the_other_model_is_the_one_of_that_size() -> None:
    """Nothing else of the name or the path is changed."""
    assert multilingual("tiny.en-q8_0") == "tiny-q8_0"
    assert multilingual("/jo.en/ggml-base.en.bin") == "/jo.en/ggml-base.bin"
