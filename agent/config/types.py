"""Types of settings, with their bounds, for `settings` and `tunables`."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

AUTO: Final = "auto"
_CODES: Final = (
    "af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr ht hu hy id "
    "is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl ps pt ro ru sa sd si "
    "sk sl sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo yue zh"
)
WHISPER: Final = tuple(_CODES.split())
"""The languages that Whisper knows, by ISO 639-1 code (`whisper/tokenizer.py` in openai/whisper)."""


@dataclass(frozen=True, slots=True)
class InWords:
    """Explains a pattern in an annotation to people."""

    words: str
    """The form of a value: `a language code such as "en"`."""


def in_words(metadata: Iterable[object]) -> str:
    """Return the words among the metadata of a field; empty if there are none."""
    return next((item.words for item in metadata if isinstance(item, InWords)), "")


Fraction = Annotated[float, Field(ge=0.0, le=1.0), AfterValidator(abs)]
"""`abs` makes 0.0 of -0.0."""
Language = Annotated[
    str,
    Field(pattern=rf"^({'|'.join((AUTO, *WHISPER))})$"),
    InWords('a language code that Whisper knows, such as "en", or "auto"'),
]
"""ISO 639-1 as Whisper spells it, or `auto`. `models.selection.language_problem` checks that the model knows it."""
_NAME: Final = re.compile(r"(?=.{1,253}$)[^\W_]([\w-]{0,61}\w)?(\.[^\W_]([\w-]{0,61}\w)?)*\.?")
"""RFC 1123, with the underscores and letters of other scripts that home networks have (IDNA spells them)."""


def _host(text: str) -> str:
    if not _NAME.fullmatch(text):
        try:
            ipaddress.IPv6Address(text)
        except ValueError as error:
            raise PydanticCustomError("host_shape", "no name or address") from error
    return text


Host = Annotated[
    str,
    AfterValidator(_host),
    InWords('a name or an address alone, such as "192.168.1.2": the port is mqtt.port'),
]
"""A host name, an IPv4 or an IPv6 address (perhaps with its zone), without scheme, port and brackets."""
DeviceId = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,36}$"), InWords("a name of a-z, 0-9 and -, at most 36")]
TopicLevels = Annotated[
    str,
    Field(pattern=r"^[^+#/\s\x00-\x1f\x7f]+(/[^+#/\s\x00-\x1f\x7f]+)*$"),
    InWords("levels of a topic, without spaces, + or #"),
]


class Section(BaseModel):
    """A frozen group of settings that rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)
