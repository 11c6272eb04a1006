"""A short window first, wider ones only where that failed."""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from agent.asr.context import FULL, FULL_WINDOW, WIDER, ContextPolicy, Window
from agent.asr.decoding import Decode, transcribe_with_fallback
from agent.asr.transcript import Segment, Transcript, Verdict
from agent.audio.frames import SAMPLE_RATE_HZ, PcmFloat, Utterance
from agent.errors import EngineError

FOLLOW = ContextPolicy(min_positions=384, margin_positions=128)
LOOP = " ".join(["ask,"] * 30)
LONG_LOOP = " ".join(["ask,"] * 200)


def utterance(seconds: float) -> Utterance:
    """Digital silence: what is heard is up to the decoder."""
    length = round(seconds * SAMPLE_RATE_HZ)
    return Utterance("01U", np.zeros(length, np.int16), 0, 0, speech_end=length, closed_at=length, speech_s=seconds)


def decoded(text: str, segments: tuple[Segment, ...], window: Window) -> Transcript:
    """What a decoder that is sure of `text` answers."""
    tokens = len(text.split())
    return Transcript("", text, "en", segments, "scripted", "none", 0.0, window.positions, tokens, avg_logprob=-0.2)


def transcribe(utterance: Utterance, policy: ContextPolicy, decode: Decode) -> Transcript:
    """The transcript of one utterance."""
    (transcript,) = transcribe_with_fallback([utterance], policy, decode)
    return transcript


class Decoder:
    """Answers with the given texts in turn, and remembers the windows it was given.

    A text with a number before it ends so many seconds before the sound: "2.5|Who loses his".
    """

    def __init__(self, *texts: str) -> None:
        self._texts = list(texts)
        self.windows: list[Window] = []

    def __call__(self, sounds: Sequence[PcmFloat], windows: Sequence[Window]) -> list[Transcript]:
        """Decode nothing."""
        return [self._decode(samples, window) for samples, window in zip(sounds, windows, strict=True)]

    def _decode(self, samples: PcmFloat, window: Window) -> Transcript:
        self.windows.append(window)
        early_s, _, text = self._texts.pop(0).rpartition("|")
        segments = (Segment(0.0, len(samples) / SAMPLE_RATE_HZ - float(early_s or 0), text),) if text else ()
        return decoded(text, segments, window)


def unsure(decoder: Decoder, policy: ContextPolicy = FOLLOW) -> Transcript:
    """What becomes of a short sound that the detector was not sure of."""
    return transcribe(replace(utterance(1.2), speech_s=0.5, speech_prob=0.4), policy, decoder)


def heard(decoder: Decoder, policy: ContextPolicy = FOLLOW, seconds: float = 3.0) -> Transcript:
    """What becomes of `seconds` of sound."""
    return transcribe(utterance(seconds), policy, decoder)


def test_one_short_window_is_all_that_an_ordinary_utterance_costs() -> None:
    """No second decoding without a reason."""
    decoder = Decoder("Turn on the light.")
    transcript = heard(decoder)
    assert [window.positions for window in decoder.windows] == [384]
    assert (transcript.text, transcript.retries, transcript.audio_ctx) == ("Turn on the light.", 0, 384)
    assert transcript.verdict is Verdict.CONFIDENT


def test_a_loop_is_decoded_once_more_in_half_of_the_window() -> None:
    """The retry's words are what counts; the tokens of both are."""
    decoder = Decoder(LOOP, "Ask him.")
    transcript = heard(decoder)
    assert [window.positions for window in decoder.windows] == [384, 768]
    assert (transcript.text, transcript.retries, transcript.audio_ctx, transcript.tokens) == ("Ask him.", 1, 768, 32)


def test_what_loops_there_too_is_decoded_in_all_of_the_window() -> None:
    """And is believed, if it listened."""
    decoder = Decoder(LONG_LOOP, LONG_LOOP, "Ask him.")
    transcript = heard(decoder, seconds=12.0)
    assert [window.positions for window in decoder.windows] == [728, 984, FULL_WINDOW]
    assert (transcript.text, transcript.retries, transcript.audio_ctx) == ("Ask him.", 2, 1500)


@pytest.mark.parametrize("seconds", [1.0, 3.0, 6.0])
@pytest.mark.parametrize("texts", [[LOOP, LOOP], ["2.5|Who loses his"] * 2])
def test_a_short_one_is_not_worth_all_of_the_window(texts: list[str], seconds: float) -> None:
    """Somebody waits for the answer: the decodings together cost a few times what a clear one costs."""
    decoder = Decoder(*texts, "")
    transcript = transcribe(replace(utterance(seconds), speech_s=seconds, speech_prob=0.99), FOLLOW, decoder)
    positions = [window.positions for window in decoder.windows]
    assert sum(positions) < 5 * positions[0]
    assert FULL_WINDOW not in positions
    assert transcript.verdict is not Verdict.REJECTED


def test_words_that_end_before_the_speech_are_looked_for_in_half_of_the_window() -> None:
    """Although the retry agrees with most of what was heard, it is what counts."""
    decoder = Decoder("2.5|His friends say he is looking for the", "His friends say he is looking for the pot of gold.")
    transcript = heard(decoder, seconds=6.0)
    assert [window.positions for window in decoder.windows] == [428, 768]
    assert transcript.text == "His friends say he is looking for the pot of gold."
    assert (transcript.retries, transcript.verdict) == (1, Verdict.CONFIDENT)


def test_where_no_wider_window_finds_the_end_the_rest_is_decoded_by_itself() -> None:
    """From the last timestamp on, with times and tokens of the whole utterance."""
    decoder = Decoder(
        "2.5|His friends say he is looking for the", "2.5|His friends say he is looking for the", "pot of gold."
    )
    transcript = heard(decoder, seconds=6.0)
    assert [window.positions for window in decoder.windows] == [428, 768, 384]
    assert transcript.text == "His friends say he is looking for the pot of gold."
    assert [(round(one.start_s, 2), round(one.end_s, 2)) for one in transcript.segments] == [(0.0, 3.5), (3.5, 6.0)]
    assert (transcript.retries, transcript.tokens, transcript.verdict) == (2, 19, Verdict.CONFIDENT)


def test_all_rests_together_keep_within_the_cost_of_a_few_windows() -> None:
    """Each one finds a word more and never the end: a short utterance is not decoded for ever."""
    words = [f"2.5|{word}" for word in ("Who", "Who", "loses", "his", "way", "asks", "again", "and", "once", "more")]
    decoder = Decoder(*words)
    transcript = heard(decoder, seconds=6.0)
    positions = [window.positions for window in decoder.windows]
    assert sum(positions) <= 5 * positions[0]
    assert transcript.verdict is Verdict.DOUBTFUL


@pytest.mark.parametrize("rest", ["", "Thank you.", LOOP, "his way", "(sighs)"])
def test_a_rest_that_adds_nothing_is_left_out(rest: str) -> None:
    """Neither a note, nor a stock text, nor a loop, nor the last words once more."""
    transcript = heard(Decoder(*["2.5|Who loses his way"] * 2, rest), seconds=6.0)
    assert (transcript.text, transcript.verdict) == ("Who loses his way", Verdict.DOUBTFUL)


def test_what_is_not_found_there_is_looked_for_in_all_of_the_window() -> None:
    """The same words again are no proof that they were all."""
    decoder = Decoder("2.5|Who loses his", "2.5|Who loses his", "Who loses his way, asks.")
    transcript = heard(decoder, seconds=12.0)
    assert [window.positions for window in decoder.windows] == [728, 984, FULL_WINDOW]
    assert (transcript.text, transcript.verdict) == ("Who loses his way, asks.", Verdict.CONFIDENT)


@pytest.mark.parametrize("policy", [FOLLOW, FULL])
def test_an_end_that_is_found_in_no_window_is_a_reason_for_doubt(policy: ContextPolicy) -> None:
    """What was heard is published, and never as the whole truth."""
    transcript = heard(Decoder(*["2.5|Who loses his"] * 3), policy, seconds=6.0)
    assert (transcript.text, transcript.verdict) == ("Who loses his", Verdict.DOUBTFUL)


def test_who_looks_for_an_end_and_hears_nothing_takes_back_no_words() -> None:
    """What the detector called speech behind them may have been a door."""
    transcript = heard(Decoder("2.5|Who loses his", "", ""), seconds=6.0)
    assert (transcript.text, transcript.verdict) == ("Who loses his", Verdict.DOUBTFUL)


def test_silence_behind_the_speech_needs_no_words() -> None:
    """It is the end of the speech that counts, not that of the sound, and from the utterance's own start."""
    told = replace(utterance(6.0), position=50 * SAMPLE_RATE_HZ, speech_end=54 * SAMPLE_RATE_HZ)
    transcript = transcribe(told, FOLLOW, Decoder("2.5|Who loses his way."))
    assert (transcript.retries, transcript.verdict) == (0, Verdict.CONFIDENT)


def test_the_end_of_a_recording_is_no_end_of_speech() -> None:
    """Where no detector was asked, what comes behind the words may be silence."""
    whole = replace(utterance(6.0), speech_s=None)
    transcript = transcribe(whole, FOLLOW, Decoder("2.5|Who loses his way."))
    assert (transcript.retries, transcript.verdict) == (0, Verdict.CONFIDENT)


def test_there_is_never_a_third_retry() -> None:
    """A loop in the full window too is published as doubtful, not tried for ever."""
    decoder = Decoder(LONG_LOOP, LONG_LOOP, LONG_LOOP)
    transcript = heard(decoder, seconds=12.0)
    assert len(decoder.windows) == 3
    assert transcript.verdict is Verdict.DOUBTFUL


def test_an_echo_that_comes_again_was_said() -> None:
    """Somebody who says "stop, stop" costs one retry, not two."""
    decoder = Decoder("Stop, stop.", "Stop. Stop.")
    transcript = heard(decoder)
    assert [window.positions for window in decoder.windows] == [384, 768]
    assert (transcript.text, transcript.verdict) == ("Stop. Stop.", Verdict.CONFIDENT)


def test_a_long_utterance_goes_to_the_full_window_at_once() -> None:
    """Where half of the window is no more than it had."""
    decoder = Decoder(" ".join(["ask,"] * 400), "Ask him.")
    assert heard(decoder, ContextPolicy(512, 512), seconds=19.0).audio_ctx == FULL_WINDOW
    assert len(decoder.windows) == 2


@pytest.mark.parametrize(("policy", "seconds"), [(FULL, 3.0), (FOLLOW, 28.0)])
def test_a_loop_in_the_full_window_is_not_repeated(policy: ContextPolicy, seconds: float) -> None:
    """Greedy decoding is deterministic: it would only come back."""
    decoder = Decoder(" ".join(["ask,"] * 60))
    assert heard(decoder, policy, seconds).retries == 0


@pytest.mark.parametrize(("policy", "windows"), [(FOLLOW, [384, 768]), (FULL, [1500, 768]), (WIDER, [768, 384])])
def test_a_suspicious_sound_is_heard_in_another_window(policy: ContextPolicy, windows: list[int]) -> None:
    """The second look confirms the first and does not replace it."""
    decoder = Decoder("Never mind.", "never mind")
    transcript = unsure(decoder, policy)
    assert [window.positions for window in decoder.windows] == windows
    assert (transcript.text, transcript.retries, transcript.verdict) == ("Never mind.", 1, Verdict.DOUBTFUL)


def test_a_suspicious_sound_that_looped_is_heard_in_a_third_window() -> None:
    """In the same window again it would only say the same."""
    decoder = Decoder(LOOP, "Never mind.", "never mind")
    transcript = unsure(decoder)
    assert [window.positions for window in decoder.windows] == [384, 768, 512]
    assert (transcript.text, transcript.verdict) == ("Never mind.", Verdict.DOUBTFUL)


def test_what_changes_with_the_window_was_not_said() -> None:
    """Rejected transcripts keep their evidence and lose their words."""
    transcript = unsure(Decoder("RAGE!", "Thanks!"))
    assert (transcript.text, transcript.segments, transcript.verdict) == ("", (), Verdict.REJECTED)
    assert transcript.avg_logprob == -0.2


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


class BatchDecoder:
    """Decodes several at once in the window of the longest, and takes 50 ms for it; `alone` decodes single ones."""

    def __init__(self, *texts: str, alone: Decoder | None = None) -> None:
        self._decoder = Decoder(*texts)
        self._alone = alone or Decoder()
        self.calls: list[list[int]] = []

    def __call__(self, sounds: Sequence[PcmFloat], windows: Sequence[Window]) -> list[Transcript]:
        """Decode nothing."""
        if len(sounds) == 1:
            return self._alone(sounds, windows)
        self.calls.append([window.positions for window in windows])
        time.sleep(0.05)
        largest = max(windows, key=lambda window: window.positions)
        return self._decoder(sounds, [largest] * len(sounds))


def several(*seconds: float) -> list[Utterance]:
    """As many utterances, with ids of their own."""
    return [replace(utterance(each), id=f"01U{index}") for index, each in enumerate(seconds)]


def test_several_are_decoded_at_once_and_answered_in_order() -> None:
    """One call for all, each with the window that it would have alone."""
    alone = Decoder()
    together = BatchDecoder("One.", "Two.", "Three.", alone=alone)
    transcripts = transcribe_with_fallback(several(3.0, 8.0, 1.0), FOLLOW, together)
    assert together.calls == [[384, 528, 384]]
    assert alone.windows == []
    assert [(transcript.utterance_id, transcript.text) for transcript in transcripts] == [
        ("01U0", "One."),
        ("01U1", "Two."),
        ("01U2", "Three."),
    ]


def test_a_loop_in_a_batch_is_retried_by_itself() -> None:
    """The others are done; what was wrong with one costs them nothing."""
    alone = Decoder("Two.")
    together = BatchDecoder("One.", LOOP, "Three.", alone=alone)
    transcripts = transcribe_with_fallback(several(3.0, 3.0, 3.0), FOLLOW, together)
    assert [window.positions for window in alone.windows] == [768]
    assert [(transcript.text, transcript.retries) for transcript in transcripts] == [
        ("One.", 0),
        ("Two.", 1),
        ("Three.", 0),
    ]


def test_a_suspicious_sound_in_a_batch_gets_its_second_look() -> None:
    """Nothing is published from a batch that would not be published alone."""
    sure, doubtful = several(3.0, 1.2)
    doubtful = replace(doubtful, speech_s=0.5, speech_prob=0.4)
    alone = Decoder("Thanks!")
    together = BatchDecoder("One.", "RAGE!", alone=alone)
    transcripts = transcribe_with_fallback([sure, doubtful], FOLLOW, together)
    assert [transcript.verdict for transcript in transcripts] == [Verdict.CONFIDENT, Verdict.REJECTED]
    assert [window.positions for window in alone.windows] == [768]


def test_the_time_for_a_batch_is_shared_out() -> None:
    """The sum is what it took: a real-time factor over many utterances stays right. Larger windows take more."""
    began_s = time.monotonic()
    transcripts = transcribe_with_fallback(several(3.0, 20.0), FOLLOW, BatchDecoder("One.", "Two."))
    shares_s = [transcript.inference_s for transcript in transcripts]
    assert 0.05 <= sum(shares_s) <= time.monotonic() - began_s
    assert shares_s[0] < shares_s[1]


def test_one_that_is_too_long_spoils_the_batch_before_it_begins() -> None:
    """Whoever asked tries each by itself, and finds out which."""
    together = BatchDecoder()
    with pytest.raises(EngineError, match=r"01U1.*31\.0 s"):
        transcribe_with_fallback(several(3.0, 31.0), FOLLOW, together)
    assert together.calls == []


def test_an_engine_hears_the_silence_at_the_edges_and_times_are_those_of_the_recording() -> None:
    """Half a second before 2 s of sound, a quarter behind: 2.75 s are decoded; segments lie within the 2 s."""
    lengths: list[int] = []

    def decode(sounds: Sequence[PcmFloat], windows: Sequence[Window]) -> list[Transcript]:
        lengths.append(len(sounds[0]))
        segments = (Segment(0.25, 1.5, "Turn on"), Segment(1.5, 2.75, "the light."))
        return [decoded("Turn on the light.", segments, windows[0])]

    at_the_edges = replace(utterance(2.0), lead_samples=8_000, tail_samples=4_000, speech_end=33_000)
    transcript = transcribe(at_the_edges, FOLLOW, decode)
    assert lengths == [44_000]
    assert [(segment.start_s, segment.end_s) for segment in transcript.segments] == [(0.0, 1.0), (1.0, 2.0)]
