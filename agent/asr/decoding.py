"""The decoding policy, the same for every engine: a short window first, wider ones where that failed.

samples ─▶ decode in the window that fits ─▶ a loop, an echo, no end? ──no──▶ suspicious? ──no──▶ transcript
       decode in half of the window, then in all ◀─yes─┘                      └─yes─▶ the same in another window?
       then the rest behind the last word

All decodings together cost at most a few times what the first window costs (`context.MOST_TIMES`).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from agent.asr.confidence import (
    agree,
    better,
    compression_ratio,
    continues,
    followed_by,
    is_loop,
    judge,
    lost_tail,
    needs_retry,
    needs_second_look,
    went_wrong,
)
from agent.asr.context import FOLLOW, FULL, MOST_TIMES, ROOMY, WIDER, WINDOW_S, ContextPolicy, Window
from agent.asr.subtitles import spoken
from agent.asr.transcript import Segment, Transcript, Verdict
from agent.audio.frames import SAMPLE_RATE_HZ, PcmFloat, Utterance, to_float
from agent.errors import EngineError

Decode = Callable[[Sequence[PcmFloat], Sequence[Window]], Sequence[Transcript]]
"""Decodes sounds, each of shape (n,), float32 in [-1, 1), within its window. Answers in their order, with texts as
decoded (stripped) and without the utterance's id; raises EngineError."""


def transcribe_with_fallback(
    utterances: Sequence[Utterance], policy: ContextPolicy, decode: Decode
) -> list[Transcript]:
    """Transcribe `utterances`: the first windows of all at once, retries and second looks one by one.

    Each utterance gets at most two retries and one second look, as far as they are worth their cost. Retries are for
    loops, echoes, and words that end before the speech does. If speech goes on behind the last word, the rest is
    decoded by itself. A second look confirms words of a brief sound that detector and Whisper doubt: noise gives other
    words in another window.

    Decoding is deterministic, so the same window would repeat a loop. There is no temperature fallback as in
    openai/whisper, because it multiplies the cost of exactly the hardest sounds.

    The inference time of each is its share of the first decoding, by the size of its window, and its own retries.

    Raises:
        EngineError: an utterance is longer than Whisper's window, or decoding failed.
    """
    began_ns = time.monotonic_ns()
    wholes = [utterance.with_edges() for utterance in utterances]
    for whole in wholes:
        _check_length(whole)
    windows = [policy.window(whole.duration_s) for whole in wholes]
    results = decode([to_float(whole.pcm) for whole in wholes], windows)
    s_per_position = _since_s(began_ns) / sum(window.positions for window in windows)
    return [
        _conclude(utterance, whole, result, decode, s_per_position * window.positions)
        for utterance, whole, result, window in zip(utterances, wholes, results, windows, strict=True)
    ]


def _conclude(utterance: Utterance, sound: Utterance, result: Transcript, decode: Decode, spent_s: float) -> Transcript:
    """Make the transcript from the first result, which took `spent_s`: retry if the evidence asks for it, and judge.

    `sound` is the utterance with its edges; the times of the transcript count from the start of `utterance`.
    """
    began_ns = time.monotonic_ns()
    samples, second = to_float(sound.pcm), None
    tries = [result, *_retries(result, samples, sound, decode)]
    for retry in tries[1:]:
        result = better(result, retry, sound)
    result = _go_on(result, tries, samples, sound, decode)
    if needs_second_look(result, sound):
        (second,) = decode([samples], [_another_window(tries, sound.duration_s)])
        tries.append(second)
    verdict = judge(result, sound, second)
    rejected = verdict is Verdict.REJECTED
    return replace(
        result,
        utterance_id=utterance.id,
        text="" if rejected else spoken(result.text),
        segments=() if rejected else _segments(result.segments, utterance),
        inference_s=spent_s + _since_s(began_ns),
        tokens=sum(one.tokens for one in tries),
        retries=len(tries) - 1,
        compression_ratio=compression_ratio(result.text),
        verdict=verdict,
    )


def _retries(first: Transcript, samples: PcmFloat, sound: Utterance, decode: Decode) -> list[Transcript]:
    """Decode in wider windows while the evidence asks for it. An echo that comes again in another window was said."""
    retries: list[Transcript] = []
    latest = first
    for window in (WIDER.window(sound.duration_s), FULL.window(sound.duration_s)):
        worth_it = _worth_its_cost(window, (first, *retries))
        if window.positions > latest.audio_ctx and needs_retry(latest, sound) and worth_it:
            before = latest
            (latest,) = decode([samples], [window])
            retries.append(latest)
            if not went_wrong(latest, sound) and agree(before.text, latest.text):
                break
    return retries


def _go_on(
    result: Transcript, tries: list[Transcript], samples: PcmFloat, sound: Utterance, decode: Decode
) -> Transcript:
    """Decode the rest behind the last word while speech goes on there, as `seek` in openai/whisper does.

    Returns all words, and appends the further decodings to `tries`.
    """
    while not is_loop(result, sound.duration_s) and lost_tail(result, sound):
        rest = samples[round(result.end_s * SAMPLE_RATE_HZ) :]
        duration_s = len(rest) / SAMPLE_RATE_HZ
        window = FOLLOW.window(duration_s)
        if not _worth_its_cost(window, tries):
            break
        tries += decode([rest], [window])
        if not continues(result, tries[-1], duration_s):
            break
        result = followed_by(result, tries[-1])
    return result


def _worth_its_cost(window: Window, tries: Sequence[Transcript]) -> bool:
    """Return whether all decodings stay within the bound of `MOST_TIMES`."""
    spent = sum(one.audio_ctx for one in tries)
    return spent + window.positions <= MOST_TIMES * tries[0].audio_ctx


def _since_s(began_ns: int) -> float:
    return (time.monotonic_ns() - began_ns) / 1e9


def _check_length(utterance: Utterance) -> None:
    if utterance.duration_s > WINDOW_S:
        raise EngineError(
            f"utterance {utterance.id} lasts {utterance.duration_s:.1f} s and Whisper hears {WINDOW_S:.0f} s: "
            "set segmenter.max_length_s to less"
        )


def _another_window(tries: Sequence[Transcript], duration_s: float) -> Window:
    """Return a window in which the sound was not decoded yet: usually half of the full one."""
    used = {result.audio_ctx for result in tries}
    windows = [policy.window(duration_s) for policy in (WIDER, FOLLOW, ROOMY)]
    return next((window for window in windows if window.positions not in used), windows[0])


def _segments(decoded: Sequence[Segment], utterance: Utterance) -> tuple[Segment, ...]:
    """Return the segments with words, with times from the start of `utterance`, without the silence around it."""

    def at(decoded_s: float) -> float:
        return min(max(0.0, decoded_s - utterance.lead_samples / SAMPLE_RATE_HZ), utterance.duration_s)

    return tuple(Segment(at(one.start_s), at(one.end_s), text) for one in decoded if (text := spoken(one.text)))
