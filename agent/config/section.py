"""What every group of settings has in common."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from agent.config.languages import AUTO, WHISPER


@dataclass(frozen=True, slots=True)
class InWords:
    """Stands beside a pattern in an annotation, for people to read."""

    words: str
    """What a value has to be: `a language code such as "en"`."""


def in_words(metadata: Iterable[object]) -> str:
    """The words among the metadata of a field; empty if there are none."""
    return next((item.words for item in metadata if isinstance(item, InWords)), "")


Fraction = Annotated[float, Field(ge=0.0, le=1.0), AfterValidator(abs)]
"""`abs` makes 0.0 of -0.0."""
Language = Annotated[
    str,
    Field(pattern=rf"^({'|'.join((AUTO, *WHISPER))})$"),
    InWords('a language code that Whisper knows, such as "en", or "auto"'),
]
"""ISO 639-1 as Whisper spells it, or `auto`. Whether the model knows it: `models.chosen.language_problem`."""


class Section(BaseModel):
    """A frozen group of settings that rejects what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)
