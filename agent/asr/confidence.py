"""The evidence for and against a text, measured in the same way for every engine, and the verdict.

Compression ratio and mean log probability are openai/whisper's own measures (`whisper/decoding.py`,
`whisper/transcribe.py`). So are the thresholds, unless a comment says otherwise.
"""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from typing import Final

import regex

from agent.asr.context import FULL_WINDOW
from agent.asr.subtitles import Stock, is_sung, spoken, stock
from agent.asr.transcript import Segment, Transcript, Verdict
from agent.audio.frames import Utterance

MAX_COMPRESSION_RATIO: Final = 2.4
MAX_TOKENS_PER_SECOND: Final = 12.0
"""Fast readers reach 6 (English) to 9 (languages that Whisper splits finely); loops run to the token cap."""
TOKENS_OF_GRACE: Final = 12
"""Added to what the duration allows, so that a single short word is never suspect."""
MIN_REPEATS: Final = 4
"""This many copies of the same words in a row are a loop. People do repeat words three times."""
LONGEST_REPEATED_WORDS: Final = 8
SHORTEST_ECHO_WORDS: Final = 3
"""Of a phrase that is repeated in part. At least a third of it must return; less is a coincidence."""

LOST_TAIL_S: Final = 1.0
"""Complete texts end up to 0.85 s before the last speech. Texts with lost words end 1.3 s before it or more
(docs/decisions/0016-half-a-window-before-the-whole.md)."""

SILENCE_NO_SPEECH_PROB: Final = 0.6
DOUBTFUL_AVG_LOGPROB: Final = -1.0

# Figures without a source in openai/whisper: docs/decisions/0009-nothing-invented.md.
SHORT_SPEECH_S: Final = 1.2
"""Whisper invents words for brief sounds. Longer sounds give the decoder enough to be unsure of."""
SHORTEST_WORD_S: Final = 0.3
"""The detector needs 0.2 s to fall, so even "two" reaches 0.32 s."""
SHORTEST_WORD_AVG_LOGPROB: Final = -0.75
VAD_WEIGHT: Final = 3.0
SUSPICIOUS: Final = 1.4
HOPELESS: Final = 2.6
SURE_OF_VOICE: Final = 0.9
"""Nearly all spoken words reach this mean probability, far from the microphone too. No known noise reaches it."""
SURE_OF_LANGUAGE: Final = 0.7
STRANGE_AVG_LOGPROB: Final = -0.95
"""Where the detector is unsure of the voice, and Whisper of the language: words below this were never right."""
SURE_OF_STOCK_AVG_LOGPROB: Final = -0.4
SHORTEST_STOCK_S: Final = 0.6
"""A spoken "thank you" takes longer. A sneeze is shorter, however sure Whisper is."""
SAME_WORDS: Final = 0.5
"""Likeness of two texts (Ratcliff and Obershelp) above which they are the same words but for the spelling."""

_DIGITS: Final = dict(
    zip("0123456789", ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"), strict=True)
)


def compression_ratio(text: str) -> float | None:
    """Bytes of `text` over bytes of its zlib compression; None for no text. Repetition makes it large."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw)) if raw else None


def repeats_itself(text: str) -> bool:
    """True if the same one to eight words follow each other at least four times."""
    words = regex.findall(r"\w+", text.lower())
    return any(_longest_run(words, size) >= MIN_REPEATS * size for size in range(1, LONGEST_REPEATED_WORDS + 1))


def is_echo(text: str) -> bool:
    """True if the whole text is one phrase, said twice or more; the last time may be incomplete.

    "View glass. View glass."; "E-M-B-G-6-E-M-B-G". A person may say this. But a short window also repeats words in this
    way, so a wider window should confirm it.
    """
    words = regex.findall(r"\w+", text.lower())
    return any(
        words[size:] == words[:-size] and (not len(words) % size or len(words) - size >= SHORTEST_ECHO_WORDS)
        for size in range(1, len(words) * 2 // 3 + 1)
    )


def _longest_run(words: Sequence[str], period: int) -> int:
    """Length of the longest stretch of `words` that repeats with `period`; at least `period` where there is one."""
    longest = run = 0
    for earlier, later in zip(words, words[period:], strict=False):
        run = run + 1 if earlier == later else 0
        longest = max(longest, run)
    return longest + period if longest else 0


def is_loop(result: Transcript, duration_s: float) -> bool:
    """True if the decoder ran in circles instead of listening.

    Signs: the text compresses too well, the same words follow each other, there are more tokens than a person can say
    in `duration_s`, or the token cap ended the decoding.
    """
    ratio = compression_ratio(result.text)
    return (
        result.capped
        or result.tokens > duration_s * MAX_TOKENS_PER_SECOND + TOKENS_OF_GRACE
        or (ratio is not None and ratio > MAX_COMPRESSION_RATIO)
        or repeats_itself(result.text)
    )


def is_brief(sound: Utterance) -> bool:
    """True if there was little speech, and without a detector."""
    return sound.speech_s is None or sound.speech_s < SHORT_SPEECH_S


def lost_tail(result: Transcript, sound: Utterance) -> bool:
    """True if the words end well before the speech does, by Whisper's timestamps.

    Whisper then took the end of a sentence for the end of the sound.
    """
    return (
        sound.speech_end_s is not None and bool(spoken(result.text)) and sound.speech_end_s - result.end_s > LOST_TAIL_S
    )


def continues(first: Transcript, rest: Transcript, duration_s: float) -> bool:
    """True if `rest`, decoded from the `duration_s` seconds behind `first`, has words to add to it."""
    said, again = _words(first.text), _words(rest.text)
    no_words = not spoken(rest.text) or is_silence(rest) or stock(rest.text)
    return not (no_words or is_loop(rest, duration_s) or said[-len(again) :] == again)


def followed_by(first: Transcript, rest: Transcript) -> Transcript:
    """Return `first`, continued by the words of `rest`, which was decoded from `first.end_s` on."""
    tokens = first.tokens + rest.tokens
    logprob = None
    if first.avg_logprob is not None and rest.avg_logprob is not None and tokens:
        logprob = (first.avg_logprob * first.tokens + rest.avg_logprob * rest.tokens) / tokens
    later = (Segment(first.end_s + one.start_s, first.end_s + one.end_s, one.text) for one in rest.segments)
    return replace(
        first,
        text=f"{first.text} {rest.text}",
        segments=(*first.segments, *later),
        tokens=tokens,
        avg_logprob=logprob,
    )


def went_wrong(result: Transcript, sound: Utterance) -> bool:
    """True if the decoder ran in circles, or stopped before the speech did."""
    return is_loop(result, sound.duration_s) or lost_tail(result, sound)


def needs_retry(result: Transcript, sound: Utterance) -> bool:
    """True if a wider window may give other words: the decoder went wrong, or the text is an echo."""
    return result.audio_ctx < FULL_WINDOW and (went_wrong(result, sound) or is_echo(result.text))


def says_silence(result: Transcript) -> bool:
    """True if Whisper's own no-speech probability says that there was no speech."""
    return result.no_speech_prob is not None and result.no_speech_prob > SILENCE_NO_SPEECH_PROB


def is_silence(result: Transcript) -> bool:
    """True if Whisper takes the sound for silence, and is unsure of its words as well."""
    return says_silence(result) and result.avg_logprob is not None and result.avg_logprob < DOUBTFUL_AVG_LOGPROB


def better(first: Transcript, retry: Transcript, sound: Utterance) -> Transcript:
    """Return the result to believe: the retry, unless it is worse than `first`.

    Of two loops, the one that repeats less. Of two texts that end too early, the one that ends later. A retry without
    words does not disprove a text that ended too early.
    """
    first_loops, retry_loops = is_loop(first, sound.duration_s), is_loop(retry, sound.duration_s)
    if first_loops and retry_loops:
        return min(first, retry, key=lambda result: (result.capped, compression_ratio(result.text) or 0.0))
    if first_loops or retry_loops:
        return first if retry_loops else retry
    if lost_tail(first, sound) and (lost_tail(retry, sound) or not spoken(retry.text)):
        return max(retry, first, key=lambda result: result.end_s)
    return retry


def is_stock(result: Transcript, sound: Utterance) -> bool:
    """True if the text is one that Whisper writes for sounds without words, and the evidence confirms it.

    A person may say each of these texts. Whisper's own no-speech probability is evidence against a person. For thanks
    and names of sounds, after little sound, so is doubt, or sound shorter than a word: Whisper hears "Thank you!" in a
    sneeze. For longer texts, it takes doubt of the words and of the voice together.
    """
    kind = stock(result.text)
    if kind is None or result.avg_logprob is None:
        return False
    unsure = result.avg_logprob < SURE_OF_STOCK_AVG_LOGPROB
    sneezed = sound.speech_s is not None and sound.speech_s < SHORTEST_STOCK_S
    hardly_voice = sound.speech_prob is None or sound.speech_prob < SURE_OF_VOICE
    short_one = kind in (Stock.THANKS, Stock.SOUND) and is_brief(sound) and (unsure or sneezed)
    return says_silence(result) or short_one or (kind is not Stock.THANKS and unsure and hardly_voice)


def suspicion(result: Transcript, sound: Utterance) -> float:
    """Return how much detector and Whisper doubt the words together: 0 is no doubt, 2 is half.

    Neither alone tells noise from words. In far-field speech the detector is sure and Whisper is not (-1.3). At the
    very beginning of the sound, Whisper is sure of a word and the detector is not. Without a detector, and for longer
    sounds, the suspicion is 0.
    """
    if sound.speech_prob is None or result.avg_logprob is None or not is_brief(sound):
        return 0.0
    if sound.speech_prob >= SURE_OF_VOICE:
        return 0.0
    return VAD_WEIGHT * (1.0 - sound.speech_prob) - result.avg_logprob


def is_noise(result: Transcript, sound: Utterance) -> bool:
    """True if suspicious words have one more sign against them.

    The signs: very strong suspicion; Whisper takes the sound for silence; the sound is shorter than any word; Whisper
    doubts the words and their language.
    """
    doubt = suspicion(result, sound)
    too_short = sound.speech_s is not None and sound.speech_s < SHORTEST_WORD_S
    logprob = result.avg_logprob or 0.0
    unsure = logprob < SHORTEST_WORD_AVG_LOGPROB
    strange = result.language_prob is not None and result.language_prob < SURE_OF_LANGUAGE
    return (
        doubt > HOPELESS
        or (doubt > SUSPICIOUS and (says_silence(result) or (too_short and unsure)))
        or (doubt > 0.0 and strange and logprob < STRANGE_AVG_LOGPROB)
    )


def is_nothing(result: Transcript, sound: Utterance) -> bool:
    """True if one decoding is enough to reject: no words, silence, a stock phrase, noise."""
    return not spoken(result.text) or is_silence(result) or is_stock(result, sound) or is_noise(result, sound)


def needs_second_look(result: Transcript, sound: Utterance) -> bool:
    """True if only another window can tell: words come out again, inventions change."""
    return not is_nothing(result, sound) and suspicion(result, sound) > SUSPICIOUS


def agree(first: str, second: str) -> bool:
    """True if both texts say the same but for spelling and punctuation ("9." and "Nine.")."""
    one, other = " ".join(_words(first)), " ".join(_words(second))
    return SequenceMatcher(None, one, other).ratio() > SAME_WORDS


def _words(text: str) -> list[str]:
    return [_DIGITS.get(word, word) for word in regex.findall(r"\w+", text.lower())]


def judge(result: Transcript, sound: Utterance, second: Transcript | None = None) -> Verdict:
    """Return the verdict on the words of `result`; `second` is the second look, if there was one.

    Rejected: texts without words, silence, stock texts, noise, and suspicious words that the second look did not
    confirm or that loop there. Doubtful: loops and lost ends that no window cured, songs, words that Whisper is unsure
    of or takes for no speech, and words that needed the second look.
    """
    if is_nothing(result, sound):
        return Verdict.REJECTED
    if second is not None and (is_loop(result, sound.duration_s) or not agree(result.text, second.text)):
        return Verdict.REJECTED
    unsure = result.avg_logprob is not None and result.avg_logprob < DOUBTFUL_AVG_LOGPROB
    doubts = (unsure, second is not None, went_wrong(result, sound), says_silence(result), is_sung(result.text))
    return Verdict.DOUBTFUL if any(doubts) else Verdict.CONFIDENT
