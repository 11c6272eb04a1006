"""Values out of other people's JSON: None where they are missing or of another kind, and fit for a terminal."""

import math
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

_MAX_TEXT: Final = 8_192
_UNPRINTABLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Controls (the escape character among them), directions of writing, surrogates, unassigned, line separators."""
_JOINERS: Final = frozenset("\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}")
"""Invisible, and parts of letters in Persian and of emoji."""


def clean(words: str) -> str:
    """One line without anything that could steer a terminal."""
    return "".join(
        character if character in _JOINERS or unicodedata.category(character) not in _UNPRINTABLE else " "
        for character in words[:_MAX_TEXT]
    ).strip()


def text(payload: Mapping[str, Any], key: str) -> str | None:
    """A text, clean."""
    value = payload.get(key)
    return clean(value) if isinstance(value, str) else None


def truth(payload: Mapping[str, Any], key: str) -> bool | None:
    """A boolean."""
    value = payload.get(key)
    return value if isinstance(value, bool) else None


def number(payload: Mapping[str, Any], part: str, key: str) -> float | None:
    """A finite number inside a part, such as `cpu`, `pct`."""
    inner = payload.get(part)
    value = inner.get(key) if isinstance(inner, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number of hundreds of digits
        return None
