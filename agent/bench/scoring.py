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

from agent.errors import ConfigError
from agent.install import extras

BY_CHARACTER = frozenset({"zh", "yue", "ja", "th", "lo", "my"})
"""Languages in which errors are counted over characters: the rate is a CER."""
_SPELLED = re.compile(r"\b(?:[^\W\d](?: [^\W\d]\b)+|\d(?: \d\b)+)")
"""Letters, or digits, that stand alone, two or more in a row."""
_NOTES = re.compile(r"\[[^\]]*\]|\([^)]*\)")
"""Such as `[BLANK_AUDIO]` or `(sighs)`, which Whisper's normalisers leave out as well."""
_WORD = re.compile(r"\w+(?:['’]\w+)*")


@dataclass(frozen=True, slots=True)
class Alignment:
    """How a text differs from what was said, by a Levenshtein alignment of words (or characters)."""

    operations: tuple[str, ...]
    """For each word that was said, in order: `equal`, `substitute` or `delete`."""
    insertions: int

    @property
    def said(self) -> int:
        """Words (or characters) that were said."""
        return len(self.operations)

    @property
    def deletions(self) -> int:
        """Words that were said and not heard."""
        return self.operations.count("delete")

    @property
    def errors(self) -> int:
        """Fewest edits that turn what was said into what was heard."""
        return self.said - self.operations.count("equal") + self.insertions


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


def align(reference: str, heard: str, language: str, *, spelled: bool = True) -> Alignment:
    """Compare two texts, both normalised alike; without `spelled`, what was spelled is not joined.

    Raises:
        ConfigError: the extra `bench` is not installed.
    """
    if spelled or language in BY_CHARACTER:
        return align_words(units(reference, language), units(heard, language))
    return align_words(_normaliser(language)(reference).split(), _normaliser(language)(heard).split())


def align_words(reference: Sequence[str], heard: Sequence[str]) -> Alignment:
    """Compare words as they are."""
    from jiwer import process_words  # noqa: PLC0415 - an extra; `_normaliser` says what is missing

    output = process_words(" ".join(reference), " ".join(heard))
    operations = [chunk.type for chunk in output.alignments[0] for _ in range(chunk.ref_start_idx, chunk.ref_end_idx)]
    return Alignment(tuple(operations), output.insertions)


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
        import jiwer  # noqa: F401, PLC0415 - an extra, see the message below
        from whisper_normalizer.basic import BasicTextNormalizer  # noqa: PLC0415 - an extra, see the message below
        from whisper_normalizer.english import EnglishTextNormalizer  # noqa: PLC0415 - likewise
    except ImportError:
        raise ConfigError(f"scoring needs the extra `bench`: {extras.missing('bench')}") from None
    normaliser: Callable[[str], str] = EnglishTextNormalizer() if language == "en" else BasicTextNormalizer()
    return normaliser
