"""The languages that a model knows: all of Whisper's, or English only."""

import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from agent.config.types import AUTO, WHISPER
from agent.errors import ModelError
from agent.models.catalogue import Catalogue, load_catalogue
from agent.models.ct2 import ctranslate2_vocabulary_size
from agent.models.ggml import ggml_vocabulary_size
from agent.models.whisper import is_multilingual

_ENGLISH_ONLY_NAME = re.compile(r"(tiny|base|small|medium)\.en\b")
"""OpenAI's names; there is no large English-only model."""


def is_english_only(model: str) -> bool:
    """Return whether a model knows English only: by the catalogue, by the file at a path, or at least by its name.

    Raises:
        ModelError: the catalogue is missing or malformed.
    """
    catalogue = _catalogue()
    if model in catalogue:
        return catalogue.find(model).languages == "en"
    path = Path(model)
    with suppress(ModelError, OSError, RuntimeError):  # the last for `~` of an unknown user
        path = path.expanduser()
        size = ctranslate2_vocabulary_size(path) if path.is_dir() else ggml_vocabulary_size(path)
        return not is_multilingual(size)
    return bool(_ENGLISH_ONLY_NAME.search(path.name))


@lru_cache(maxsize=1)
def _catalogue() -> Catalogue:
    return load_catalogue()


def multilingual(model: str) -> str:
    """Return the name of the model of the same size for all languages."""
    folder, slash, name = model.rpartition("/")
    return folder + slash + _ENGLISH_ONLY_NAME.sub(r"\1", name, count=1)


def languages_of(model: str) -> tuple[str, ...]:
    """Return the values of `engine.language` that a model can take, `auto` first."""
    return (AUTO, "en") if is_english_only(model) else (AUTO, *WHISPER)


def knows(model: str, language: str) -> bool:
    """Return whether a model knows `engine.language`."""
    return language in languages_of(model)
