"""What speaks for and against a text, measured the same way for every engine; and what follows from it.

Compression ratio and mean log probability are openai/whisper's own measures (`whisper/decoding.py`,
`whisper/transcribe.py`); the thresholds are theirs where a comment does not say otherwise.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent.engines.context import FULL_WINDOW
from agent.transcript import Segment, Verdict

MAX_COMPRESSION_RATIO: Final = 2.4
MAX_TOKENS_PER_SECOND: Final = 12.0
"""Fast readers reach 6 (English) to 9 (languages that Whisper splits finely); loops run to the token cap."""
TOKENS_OF_GRACE: Final = 12
"""Added to what the duration allows, so that a single short word is never suspect."""
MIN_REPEATS: Final = 4
"""As many copies of the same words in a row are a loop; people do say a thing three times."""
LONGEST_REPEATED_WORDS: Final = 8

SILENCE_NO_SPEECH_PROB: Final = 0.6
DOUBTFUL_AVG_LOGPROB: Final = -1.0

_ANNOTATION = re.compile(r"\[[^\]\d]*\]|\([^)\d]*\)|\*[^*\d]*\*|[♩♪♫♬♭♮♯]+")
"""Without digits: a telephone number in parentheses was said."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One decoding of an utterance, before anything is made of it."""

    text: str
    """As decoded, stripped."""
    segments: tuple[Segment, ...]
    """As decoded."""
    tokens: int
    """Text tokens decoded."""
    capped: bool
    """The token cap ended it, not the decoder."""
    audio_ctx: int
    """Encoder positions used."""
    language: str
    """ISO 639-1 code."""
    avg_logprob: float | None = None
    """Mean natural log probability of the tokens; None without any."""
    no_speech_prob: float | None = None
    """Whisper's own probability, in [0, 1], that there was no speech; None where the engine cannot tell."""
    language_prob: float | None = None
    """Probability, in [0, 1], of the language, where it was detected."""


def spoken(text: str) -> str:
    """Return `text` without Whisper's notes on what is no speech: `[BLANK_AUDIO]`, `(music)`, `*coughs*`, `♪`.

    Whisper learned them from subtitles. Nobody said them, so a text of nothing else is no text; what is left is
    stripped, its gaps closed, and a remainder without a letter or digit (" - ", "...") is no text either.
    """
    words = " ".join(_ANNOTATION.sub(" ", text).split())
    return words if any(character.isalnum() for character in words) else ""


def compression_ratio(text: str) -> float | None:
    """Bytes of `text` over bytes of its zlib compression; None for no text. Repetition makes it large."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw)) if raw else None


def repeats_itself(text: str) -> bool:
    """True if the same one to eight words follow each other at least four times."""
    words = re.findall(r"\w+", text.lower())
    return any(_longest_run(words, size) >= MIN_REPEATS * size for size in range(1, LONGEST_REPEATED_WORDS + 1))


def is_echo(text: str) -> bool:
    """True if the whole text is one phrase, said twice or more ("View glass. View glass.").

    Somebody may have said so; but a short window repeats a single word just like this, so it is worth a second look.
    """
    words = re.findall(r"\w+", text.lower())
    return any(
        words == words[:size] * (len(words) // size) for size in range(1, len(words) // 2 + 1) if not len(words) % size
    )


def _longest_run(words: Sequence[str], period: int) -> int:
    """Length of the longest stretch of `words` that repeats with `period`; at least `period` where there is one."""
    longest = run = 0
    for earlier, later in zip(words, words[period:], strict=False):
        run = run + 1 if earlier == later else 0
        longest = max(longest, run)
    return longest + period if longest else 0


def is_loop(attempt: Attempt, duration_s: float) -> bool:
    """True if the decoder ran in circles instead of listening.

    Signs: the text compresses too well, the same words follow each other, more tokens than anybody can say in
    `duration_s`, or it did not stop before the token cap.
    """
    ratio = compression_ratio(attempt.text)
    return (
        attempt.capped
        or attempt.tokens > duration_s * MAX_TOKENS_PER_SECOND + TOKENS_OF_GRACE
        or (ratio is not None and ratio > MAX_COMPRESSION_RATIO)
        or repeats_itself(attempt.text)
    )


def needs_retry(attempt: Attempt, duration_s: float) -> bool:
    """True if the full window may well hear something else: after a loop, or an echo."""
    return attempt.audio_ctx < FULL_WINDOW and (is_loop(attempt, duration_s) or is_echo(attempt.text))


def is_silence(attempt: Attempt) -> bool:
    """True if Whisper itself takes the sound for silence: it says so, and is not sure of its words either."""
    return (
        attempt.no_speech_prob is not None
        and attempt.no_speech_prob > SILENCE_NO_SPEECH_PROB
        and attempt.avg_logprob is not None
        and attempt.avg_logprob < DOUBTFUL_AVG_LOGPROB
    )


def better(first: Attempt, retry: Attempt, duration_s: float) -> Attempt:
    """Return the attempt to believe, after `first` ran in circles or echoed: the retry, unless it does so worse."""
    if not is_loop(retry, duration_s):
        return retry
    return min(first, retry, key=lambda attempt: (attempt.capped, compression_ratio(attempt.text) or 0.0))


def judge(attempt: Attempt, duration_s: float) -> Verdict:
    """Return what the evidence says about the words of `attempt`.

    Rejected is what holds no words or what Whisper takes for silence; doubtful is a loop that the full window did not
    cure, and what Whisper itself was not sure of.
    """
    if not spoken(attempt.text) or is_silence(attempt):
        return Verdict.REJECTED
    unsure = attempt.avg_logprob is not None and attempt.avg_logprob < DOUBTFUL_AVG_LOGPROB
    return Verdict.DOUBTFUL if unsure or is_loop(attempt, duration_s) else Verdict.CONFIDENT
