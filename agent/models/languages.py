"""Which languages a model knows: all of Whisper's, or English only."""

import re
from functools import lru_cache
from pathlib import Path

from agent.config.languages import AUTO, WHISPER
from agent.models.catalogue import load_catalogue

_NAMED_SO = re.compile(r"(tiny|base|small|medium)\.en\b")
"""As OpenAI names them; there is no large one."""


@lru_cache(maxsize=64)
def is_english_only(model: str) -> bool:
    """What the catalogue says of a name that it has; else whether the last part of the path is named like one.

    Raises:
        ModelError: the catalogue is missing or malformed.
    """
    catalogue = load_catalogue()
    if model in catalogue:
        return catalogue.find(model).languages == "en"
    return bool(_NAMED_SO.search(Path(model).name))


def multilingual(model: str) -> str:
    """What the model of the same size for all languages would be called."""
    folder, slash, name = model.rpartition("/")
    return folder + slash + _NAMED_SO.sub(r"\1", name, count=1)


def languages_of(model: str) -> tuple[str, ...]:
    """What can be chosen with a model; `auto` comes first."""
    return (AUTO, "en") if is_english_only(model) else (AUTO, *WHISPER)


def knows(model: str, language: str) -> bool:
    """Whether a model does for `engine.language`."""
    return language in languages_of(model)
