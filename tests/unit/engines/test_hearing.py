"""A short window first, the full one only where that failed."""

from dataclasses import replace

import numpy as np
import pytest

from agent.audio import SAMPLE_RATE_HZ, PcmFloat, Utterance
from agent.engines.context import FULL, FULL_WINDOW, ContextPolicy, Window
from agent.engines.evidence import Attempt
from agent.engines.hearing import Label, hear
from agent.errors import EngineError
from agent.transcript import Segment, Transcript, Verdict

LABEL = Label("scripted", "none")
FOLLOW = ContextPolicy(min_positions=384, margin_positions=128)
LOOP = " ".join(["ask,"] * 30)


def utterance(seconds: float) -> Utterance:
    """Digital silence: what is heard is up to the decoder."""
    length = round(seconds * SAMPLE_RATE_HZ)
    return Utterance("01U", np.zeros(length, np.int16), 0, 0, speech_end=length, closed_at=length)


class Decoder:
    """Answers with the given texts in turn, and remembers the windows it was given."""

    def __init__(self, *texts: str) -> None:
        self._texts = list(texts)
        self.windows: list[Window] = []

    def __call__(self, samples: PcmFloat, window: Window) -> Attempt:
        """Decode nothing."""
        self.windows.append(window)
        text = self._texts.pop(0)
        segments = (Segment(0.0, len(samples) / SAMPLE_RATE_HZ, text),) if text else ()
        return Attempt(text, segments, len(text.split()), False, window.positions, "en", avg_logprob=-0.2)


def unsure(decoder: Decoder, policy: ContextPolicy = FOLLOW) -> Transcript:
    """What becomes of a short sound that the detector was not sure of."""
    return hear(replace(utterance(1.2), speech_s=0.5, speech_prob=0.4), policy, decoder, LABEL)


def heard(decoder: Decoder, policy: ContextPolicy = FOLLOW, seconds: float = 3.0) -> Transcript:
    """What becomes of `seconds` of sound."""
    return hear(utterance(seconds), policy, decoder, LABEL)


def test_one_short_window_is_all_that_an_ordinary_utterance_costs() -> None:
    """No second decoding without a reason."""
    decoder = Decoder("Turn on the light.")
    transcript = heard(decoder)
    assert [window.positions for window in decoder.windows] == [384]
    assert (transcript.text, transcript.retries, transcript.audio_ctx) == ("Turn on the light.", 0, 384)
    assert transcript.verdict is Verdict.CONFIDENT


def test_a_loop_is_decoded_once_more_in_the_full_window() -> None:
    """The retry's words are what counts; the tokens of both are."""
    decoder = Decoder(LOOP, "Ask him.")
    transcript = heard(decoder)
    assert [window.positions for window in decoder.windows] == [384, FULL_WINDOW]
    assert (transcript.text, transcript.retries, transcript.audio_ctx, transcript.tokens) == ("Ask him.", 1, 1500, 32)


def test_there_is_never_a_second_retry() -> None:
    """A loop in the full window too is published as doubtful, not tried for ever."""
    decoder = Decoder(LOOP, LOOP)
    transcript = heard(decoder)
    assert len(decoder.windows) == 2
    assert transcript.verdict is Verdict.DOUBTFUL


@pytest.mark.parametrize(("policy", "seconds"), [(FULL, 3.0), (FOLLOW, 28.0)])
def test_a_loop_in_the_full_window_is_not_repeated(policy: ContextPolicy, seconds: float) -> None:
    """Greedy decoding is deterministic: it would only come back."""
    decoder = Decoder(" ".join(["ask,"] * 60))
    assert heard(decoder, policy, seconds).retries == 0


@pytest.mark.parametrize(("policy", "windows"), [(FOLLOW, [384, 1500]), (FULL, [1500, 384])])
def test_a_suspicious_sound_is_heard_in_another_window(policy: ContextPolicy, windows: list[int]) -> None:
    """The second look confirms the first and does not replace it."""
    decoder = Decoder("Never mind.", "never mind")
    transcript = unsure(decoder, policy)
    assert [window.positions for window in decoder.windows] == windows
    assert (transcript.text, transcript.retries, transcript.verdict) == ("Never mind.", 1, Verdict.DOUBTFUL)


def test_what_changes_with_the_window_was_not_said() -> None:
    """Rejected transcripts keep their evidence and lose their words."""
    transcript = unsure(Decoder("RAGE!", "Thanks!"))
    assert (transcript.text, transcript.segments, transcript.verdict) == ("", (), Verdict.REJECTED)
    assert transcript.evidence.avg_logprob == -0.2


def test_notes_on_sounds_leave_no_text_and_no_segments() -> None:
    """`[BLANK_AUDIO]` is evidence of silence."""
    transcript = heard(Decoder("[BLANK_AUDIO]"))
    assert (transcript.text, transcript.segments, transcript.verdict) == ("", (), Verdict.REJECTED)


def test_more_than_whisper_can_hear_is_refused_with_the_remedy() -> None:
    """Nothing is cut off in silence."""
    with pytest.raises(EngineError, match=r"31\.0 s.*max_length_s"):
        heard(Decoder("too much"), seconds=31.0)


def test_the_transcript_says_where_it_comes_from() -> None:
    """Utterance, engine, model, and how long it took."""
    transcript = heard(Decoder("yes"))
    assert (transcript.utterance_id, transcript.engine, transcript.model) == ("01U", "scripted", "none")
    assert 0 < transcript.inference_s < 60
