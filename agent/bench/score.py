"""Count the errors between spoken and heard words, and estimate how certain a rate is.

Both texts go through the normalisation that Whisper's authors published (Radford et al. 2022, appendix C). The package
`whisper-normalizer` is their code: the English normaliser for `en`, the basic one for other languages. It leaves
spelling alone: "K-E-N", "K E N" and "KEN" are the same answer, and so are "2 4 3" and "243". So single letters, or
digits, in a row are joined to one word. Languages without spaces between words are scored by character.

Intervals are bootstrapped over utterances (M. Bisani, H. Ney: "Bootstrap estimates for confidence intervals in ASR
performance evaluation", ICASSP 2004). Each draw takes as many utterances as there are, with replacement. The interval
is the middle 95 % of the rates. For a difference, both systems are scored on the same draw.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from agent.errors import ConfigError
from agent.install import extras

BY_CHARACTER = frozenset({"zh", "yue", "ja", "th", "lo", "my"})
"""Languages in which errors are counted over characters: the rate is a CER."""
CONFIDENCE = 0.95
RESAMPLES = 10_000
_SEED = 20_220_906
"""Fixed: the same measurements always give the same report."""
_SPELLED = re.compile(r"\b(?:[^\W\d](?: [^\W\d]\b)+|\d(?: \d\b)+)")
"""Two or more single letters, or digits, in a row."""
_NOTES = re.compile(r"\[[^\]]*\]|\([^)]*\)")
"""Such as `[BLANK_AUDIO]` or `(sighs)`; Whisper's normalisers remove them as well."""
_WORD = re.compile(r"\w+(?:['’]\w+)*")


@dataclass(frozen=True, slots=True)
class Alignment:
    """The difference between a heard text and its reference, by a Levenshtein alignment of words (or characters)."""

    operations: tuple[str, ...]
    """For each word of the reference, in order: `equal`, `substitute` or `delete`."""
    insertions: int

    @property
    def said(self) -> int:
        """Words (or characters) in the reference."""
        return len(self.operations)

    @property
    def deletions(self) -> int:
        """Words of the reference that are missing."""
        return self.operations.count("delete")

    @property
    def errors(self) -> int:
        """Fewest edits that turn the reference into the heard text."""
        return self.said - self.operations.count("equal") + self.insertions


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether the interval has a width: clips that are all alike give none, because there are too few of them."""
        return not math.isclose(self.low, self.high, rel_tol=1e-9, abs_tol=1e-12)


def units(text: str, language: str, *, spelled: bool = True) -> list[str]:
    """Return the normalised words of `text`, or its characters in the languages of `BY_CHARACTER`.

    With `spelled`, single letters or digits in a row are one word.

    Raises:
        ConfigError: the extra `bench` is not installed.
    """
    normalised = " ".join(normaliser(language)(text).split())
    if language in BY_CHARACTER:
        return [char for char in normalised if unicodedata.category(char)[0] in "LNM"]
    return (_SPELLED.sub(lambda run: run[0].replace(" ", ""), normalised) if spelled else normalised).split()


def align(reference: str, heard: str, language: str, *, spelled: bool = True) -> Alignment:
    """Compare two texts after the same normalisation.

    Raises:
        ConfigError: the extra `bench` is not installed.
    """
    return align_words(units(reference, language, spelled=spelled), units(heard, language, spelled=spelled))


def align_words(reference: Sequence[str], heard: Sequence[str]) -> Alignment:
    """Compare words as they are."""
    from jiwer import process_words  # noqa: PLC0415 - an extra; `normaliser` checks for it

    output = process_words(" ".join(reference), " ".join(heard))
    operations = [chunk.type for chunk in output.alignments[0] for _ in range(chunk.ref_start_idx, chunk.ref_end_idx)]
    return Alignment(tuple(operations), output.insertions)


def words_in(text: str) -> int:
    """Count the words that a reader finds in `text`, in any language. Notes and punctuation are not words.

    This is for sound without speech. It needs no normaliser, and takes a text without spaces for one word.
    """
    return len(_WORD.findall(_NOTES.sub(" ", text)))


@lru_cache(maxsize=4)
def normaliser(language: str) -> Callable[[str], str]:
    """Return the function that normalises texts in `language`. Call it before hours of measuring.

    Raises:
        ConfigError: the extra `bench` is not installed.
    """
    try:
        import jiwer  # noqa: F401, PLC0415 - an extra, see the message below
        from whisper_normalizer.basic import BasicTextNormalizer  # noqa: PLC0415
        from whisper_normalizer.english import EnglishTextNormalizer  # noqa: PLC0415
    except ImportError:
        raise ConfigError(f"scoring needs the extra `bench`: {extras.missing('bench')}") from None
    chosen: Callable[[str], str] = EnglishTextNormalizer() if language == "en" else BasicTextNormalizer()
    return chosen


def rate(parts: Sequence[float], wholes: Sequence[float], resamples: int = RESAMPLES) -> Estimate:
    """Return the sum of `parts` over the sum of `wholes`, with its interval over the items.

    This gives a WER, an RTF, or a ratio of CPU seconds. With the differences of two systems on the same items as
    `parts`, it gives the paired interval.

    Raises:
        ValueError: there are no items, the lengths differ, or the wholes add up to 0.
    """
    numerator, denominator = np.asarray(parts, dtype=np.float64), np.asarray(wholes, dtype=np.float64)
    items = len(numerator)
    if not items or items != len(denominator) or denominator.sum() <= 0:
        msg = f"no rate from {items} parts and {len(denominator)} wholes of {denominator.sum():g}"
        raise ValueError(msg)
    # How often each item is drawn, shape (resamples, items).
    draws = np.random.default_rng(_SEED).multinomial(items, np.full(items, 1.0 / items), size=resamples)
    drawn = draws @ denominator
    quotients = (draws @ numerator)[drawn > 0] / drawn[drawn > 0]
    low, high = np.quantile(quotients, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(numerator.sum() / denominator.sum()), float(low), float(high))


def percentile(values: Sequence[float], fraction: float) -> float:
    """Return the smallest value that at least `fraction` of all values do not exceed (nearest rank)."""
    return float(np.quantile(values, fraction, method="inverted_cdf"))
