"""Formats transcripts for people: shared by `transcribe` and `demo`. A pipe gets plain text."""

import math
import os
import re
from dataclasses import dataclass
from typing import Literal

_WORD = re.compile(r"[\w']+")
_DUMB = frozenset({"dumb", "unknown"})


def colours() -> Literal["auto"] | None:
    """Return the `color_system` for a rich console: None forbids all escapes.

    `NO_COLOR` (https://no-color.org) and a dumb terminal forbid them. rich alone would still write bold and dim.
    """
    unwanted = os.environ.get("NO_COLOR") or os.environ.get("TERM", "") in _DUMB
    return None if unwanted else "auto"


def clock(seconds: float) -> str:
    """Format seconds as `m:ss.t`, or `h:mm:ss.t` from an hour on."""
    minutes, tenths = divmod(round(seconds * 10), 600)
    hours, minute = divmod(minutes, 60)
    rest = f"{tenths // 10:02}.{tenths % 10}"
    return f"{hours}:{minute:02}:{rest}" if hours else f"{minutes}:{rest}"


def confidence_pct(avg_logprob: float | None) -> str:
    """Format the mean token probability (the exponential of the mean log probability) as a percentage, or blank."""
    return "" if avg_logprob is None else f"{100 * math.exp(min(0.0, avg_logprob)):.0f} %"


def words(text: str) -> list[str]:
    """Return the words in lower case, without punctuation, for a comparison."""
    return _WORD.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


@dataclass(frozen=True, slots=True)
class WordScore:
    """How well a transcript matches the spoken words."""

    expected: int
    """Spoken words."""
    errors: int
    """Fewest words to insert, delete or replace (Levenshtein distance over words)."""

    @property
    def right(self) -> int:
        """Words that were recognised, at worst none."""
        return max(0, self.expected - self.errors)


def score(expected: str, heard: str) -> WordScore:
    """Compare two texts word by word."""
    reference, hypothesis = words(expected), words(heard)
    row = list(range(len(hypothesis) + 1))
    for said_index, said in enumerate(reference, start=1):
        diagonal, row[0] = row[0], said_index
        for index, word in enumerate(hypothesis, start=1):
            substituted = diagonal + (word != said)
            diagonal = row[index]
            row[index] = min(substituted, row[index] + 1, row[index - 1] + 1)
    return WordScore(len(reference), row[-1])
