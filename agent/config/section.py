"""What every group of settings has in common."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


@dataclass(frozen=True, slots=True)
class InWords:
    """Stands beside a pattern in the annotation of a setting, for people to read."""

    words: str
    """What a value has to be: `a language code such as "en"`."""


class Section(BaseModel):
    """A frozen group of settings that rejects what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)
