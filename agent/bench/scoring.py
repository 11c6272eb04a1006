"""Errors between what was said and what was heard. Pure functions.

Words are compared after the normalisation that Whisper's authors published (Radford et al. 2022, appendix C; the
package `whisper-normalizer` is their code): the English normaliser for `en`, the basic one elsewhere. What it does not
know is spelling: "K-E-N", "K E N" and "KEN" are the same answer, and so are "2 4 3" and "243". Letters, or digits, that
stand alone in a row are therefore joined to one word. Languages written without spaces are scored by character.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from agent import extras
from agent.errors import ConfigError

BY_CHARACTER = frozenset({"zh", "yue", "ja", "th", "lo", "my"})
"""Languages in which errors are counted over characters: the rate is a CER."""
_SPELLED = re.compile(r"\b(?:[^\W\d](?: [^\W\d]\b)+|\d(?: \d\b)+)")
"""Letters, or digits, that stand alone, two or more in a row."""
_NOTES = re.compile(r"\[[^\]]*\]|\([^)]*\)")
"""Such as `[BLANK_AUDIO]` or `(sighs)`, which Whisper's normalisers leave out as well."""
_WORD = re.compile(r"\w+(?:['’]\w+)*")


@dataclass(frozen=True, slots=True)
class Errors:
    """Counts that can be added up over clips."""

    substitutions: int
    deletions: int
    insertions: int
    reference: int
    """Words (or characters) that were said."""

    @property
    def total(self) -> int:
        """Fewest edits that turn what was said into what was heard."""
        return self.substitutions + self.deletions + self.insertions


def units(text: str, language: str) -> list[str]:
    """Normalised words of `text`, what was spelled as one word; characters in the languages of `BY_CHARACTER`.

    Raises:
        ConfigError: the normaliser is not installed.
    """
    normalised = _normaliser(language)(text)
    if language in BY_CHARACTER:
        return [char for char in normalised if unicodedata.category(char)[0] in "LNM"]
    return _SPELLED.sub(lambda run: run[0].replace(" ", ""), " ".join(normalised.split())).split()


def words_in(text: str) -> int:
    """How many words somebody would read in `text`, whatever its language: notes and punctuation are none.

    For sound in which nothing was said. Needs no normaliser; a text without spaces is one word.
    """
    return len(_WORD.findall(_NOTES.sub(" ", text)))


def count_errors(reference: Sequence[str], heard: Sequence[str]) -> Errors:
    """Levenshtein alignment; among equally short ones the one with most substitutions (as jiwer and sclite count)."""
    # A cell is (edits, insertions + deletions, insertions, deletions): tuples compare in just the order we want.
    row = [(j, j, j, 0) for j in range(len(heard) + 1)]
    for i, said in enumerate(reference, start=1):
        diagonal, row[0] = row[0], (i, i, 0, i)
        for j, word in enumerate(heard, start=1):
            above, left = row[j], row[j - 1]
            row[j], diagonal = (
                (
                    diagonal
                    if said == word
                    else min(
                        (diagonal[0] + 1, diagonal[1], diagonal[2], diagonal[3]),
                        (above[0] + 1, above[1] + 1, above[2], above[3] + 1),
                        (left[0] + 1, left[1] + 1, left[2] + 1, left[3]),
                    )
                ),
                above,
            )
    edits, _, insertions, deletions = row[-1]
    return Errors(edits - insertions - deletions, deletions, insertions, len(reference))


def score(reference: str, heard: str, language: str) -> Errors:
    """Errors of `heard` against `reference`, both normalised alike."""
    return count_errors(units(reference, language), units(heard, language))


def require(languages: Iterable[str]) -> None:
    """Make sure that clips in these languages can be scored: to be asked before hours of measuring.

    Raises:
        ConfigError: the normaliser is not installed.
    """
    for language in set(languages):
        _normaliser(language)


@lru_cache(maxsize=4)
def _normaliser(language: str) -> Callable[[str], str]:
    try:
        from whisper_normalizer.basic import BasicTextNormalizer  # noqa: PLC0415 - an extra, see the message below
        from whisper_normalizer.english import EnglishTextNormalizer  # noqa: PLC0415 - likewise
    except ImportError:
        raise ConfigError(f"scoring needs the extra `bench`: {extras.missing('bench')}") from None
    normaliser: Callable[[str], str] = EnglishTextNormalizer() if language == "en" else BasicTextNormalizer()
    return normaliser
