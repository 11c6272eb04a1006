"""What speaks for and against a text."""

from dataclasses import replace

import numpy as np
import pytest

from agent.asr.confidence import (
    agree,
    better,
    compression_ratio,
    is_echo,
    is_loop,
    is_silence,
    judge,
    lost_tail,
    needs_retry,
    needs_second_look,
    repeats_itself,
)
from agent.asr.transcript import Segment, Transcript, Verdict
from agent.audio.frames import SAMPLE_RATE_HZ, Utterance

SENTENCE = "Please enter a new extension, followed by pound."
LOOP = " ".join(["ask,"] * 30)


def attempt(
    text: str = SENTENCE,
    *,
    tokens: int = 10,
    capped: bool = False,
    avg_logprob: float | None = -0.3,
    no_speech_prob: float | None = 0.02,
    audio_ctx: int = 384,
    end_s: float = 3.0,
) -> Transcript:
    """An ordinary decoding of a sentence, but for what the test says."""
    return Transcript(
        utterance_id="",
        text=text,
        engine="scripted",
        model="none",
        inference_s=0.0,
        segments=(Segment(0.0, end_s, text),) if text else (),
        tokens=tokens,
        capped=capped,
        audio_ctx=audio_ctx,
        language="en",
        avg_logprob=avg_logprob,
        no_speech_prob=no_speech_prob,
    )


def heard(
    duration_s: float,
    speech_s: float | None = None,
    speech_prob: float | None = None,
    speech_end_s: float = 0.0,
) -> Utterance:
    """An utterance as the detector measured it."""
    return Utterance(
        id="",
        pcm=np.zeros(round(duration_s * SAMPLE_RATE_HZ), np.int16),
        position=0,
        started_ns=0,
        speech_end=round(speech_end_s * SAMPLE_RATE_HZ),
        closed_at=0,
        speech_s=speech_s,
        speech_prob=speech_prob,
    )


def test_no_text_has_no_compression_ratio() -> None:
    """What cannot be told is None, never 0."""
    assert compression_ratio("") is None


def test_repetition_compresses_better_than_speech() -> None:
    """On either side of openai/whisper's threshold of 2.4."""
    sentence, loop = compression_ratio(SENTENCE), compression_ratio(LOOP)
    assert sentence is not None
    assert loop is not None
    assert sentence < 2.4 < loop


@pytest.mark.parametrize("text", ["no no no no", "Snow boy. Snow boy. Snow boy. Snow boy.", "a b c d e f g h " * 4])
def test_the_same_words_four_times_over_are_a_repetition(text: str) -> None:
    """Phrases of one to eight words, whatever stands between them."""
    assert repeats_itself(text)


@pytest.mark.parametrize("text", ["no no no", "one two one two one two", SENTENCE, "", "yes"])
def test_what_people_say_three_times_is_none(text: str) -> None:
    """Emphasis is not a loop."""
    assert not repeats_itself(text)


@pytest.mark.parametrize(
    "looping",
    [attempt(LOOP, tokens=60), attempt(capped=True), attempt(tokens=90), attempt("yes yes yes yes yes", tokens=5)],
)
def test_each_sign_of_a_loop_is_enough(looping: Transcript) -> None:
    """Compression, the token cap, an impossible rate of speech, repeated words."""
    assert is_loop(looping, duration_s=3.0)


def test_an_ordinary_sentence_is_no_loop() -> None:
    """The guard costs nothing where nothing is wrong."""
    assert not is_loop(attempt(), duration_s=3.0)


@pytest.mark.parametrize(
    ("text", "echo"),
    [
        ("View glass. View glass.", True),
        ("Computer, computer, computer.", True),
        ("E-M-B-G-6-E-M-B-G-", True),
        ("Just suppose it is true and I say yes. Just suppose it is true and", True),
        ("two one seven two one", False),
        ("Computer.", False),
        ("yes yes no", False),
        ("", False),
        (SENTENCE, False),
    ],
)
def test_a_text_of_one_phrase_over_and_over_is_an_echo(text: str, echo: bool) -> None:  # noqa: FBT001 - a table
    """A short window says a single word twice, or begins a sentence again that it has heard to its end."""
    assert is_echo(text) is echo


def test_an_echo_is_worth_a_retry_but_no_reason_for_doubt() -> None:
    """Somebody may have said "stop, stop": if the full window hears it too, it was said."""
    echo = attempt("Stop, stop.", tokens=4)
    assert needs_retry(echo, heard(1.5))
    assert judge(echo, heard(1.5)) is Verdict.CONFIDENT


@pytest.mark.parametrize("text", [LOOP, "Stop, stop."])
def test_nothing_is_retried_in_the_window_it_came_from(text: str) -> None:
    """Greedy decoding is deterministic."""
    assert not needs_retry(attempt(text, tokens=60, audio_ctx=1500), heard(3.0))


SPOKEN_TO_THE_END = heard(9.2, speech_s=8.0, speech_prob=0.97, speech_end_s=9.0)


@pytest.mark.parametrize(("end_s", "lost"), [(9.2, False), (8.1, False), (7.9, True), (1.0, True)])
def test_words_that_end_a_second_before_the_speech_have_lost_their_end(end_s: float, lost: bool) -> None:  # noqa: FBT001 - a table
    """The timestamps of whole texts are up to 0.85 s early; what is lost is worth a wider window, or a doubt."""
    early = attempt(end_s=end_s)
    assert lost_tail(early, SPOKEN_TO_THE_END) is lost
    assert needs_retry(early, SPOKEN_TO_THE_END) is lost
    assert judge(early, SPOKEN_TO_THE_END) is (Verdict.DOUBTFUL if lost else Verdict.CONFIDENT)


@pytest.mark.parametrize(
    ("text", "sound"),
    [(SENTENCE, heard(9.2)), ("[BLANK_AUDIO]", SPOKEN_TO_THE_END), ("", SPOKEN_TO_THE_END)],
    ids=["nobody knows where the speech ends", "a note", "nothing"],
)
def test_only_words_can_end_too_early(text: str, sound: Utterance) -> None:
    """A noise is not worth three decodings."""
    assert not lost_tail(attempt(text, end_s=1.0), sound)


def test_of_two_texts_that_end_too_early_the_longer_one_is_kept() -> None:
    """Whichever came first; one that is whole replaces both, and a loop replaces none."""
    short, longer = attempt("Who loses his", end_s=4.0), attempt("Who loses his way", end_s=6.0)
    assert better(short, longer, SPOKEN_TO_THE_END) is longer
    assert better(longer, short, SPOKEN_TO_THE_END) is longer
    whole = attempt("Who loses his way asks.", end_s=8.9)
    assert better(longer, whole, SPOKEN_TO_THE_END) is whole
    assert better(short, attempt(LOOP, tokens=30, end_s=9.0), SPOKEN_TO_THE_END) is short


def test_a_retry_that_listened_replaces_a_loop() -> None:
    """Even where the loop was more sure of itself, as loops are."""
    retry = attempt(avg_logprob=-0.9, audio_ctx=1500)
    assert better(attempt(LOOP, tokens=60, avg_logprob=-0.1), retry, heard(3.0)) is retry


def test_of_two_loops_the_one_that_ended_by_itself_and_repeats_less_is_kept() -> None:
    """A retry that is worse does not replace the first attempt."""
    first = attempt(" ".join(["ask,"] * 5), tokens=10)
    assert better(first, attempt(LOOP, tokens=60, capped=True), heard(3.0)) is first


def test_whispers_own_opinion_of_silence_counts_only_where_it_doubts_its_words() -> None:
    """openai/whisper's rule: a high no-speech probability alone is often wrong."""
    assert is_silence(attempt(no_speech_prob=0.9, avg_logprob=-1.4))
    assert not is_silence(attempt(no_speech_prob=0.9, avg_logprob=-0.3))
    assert not is_silence(attempt(no_speech_prob=0.1, avg_logprob=-1.4))
    assert not is_silence(attempt(no_speech_prob=None, avg_logprob=-1.4))


@pytest.mark.parametrize(
    ("judged", "verdict"),
    [
        (attempt(), Verdict.CONFIDENT),
        (attempt(avg_logprob=-1.2), Verdict.DOUBTFUL),
        (attempt(LOOP, tokens=30), Verdict.DOUBTFUL),
        (attempt("[BLANK_AUDIO]"), Verdict.REJECTED),
        (attempt("", avg_logprob=None), Verdict.REJECTED),
        (attempt("you", no_speech_prob=0.9, avg_logprob=-1.4), Verdict.REJECTED),
    ],
)
def test_the_verdict_follows_from_the_evidence(judged: Transcript, verdict: Verdict) -> None:
    """No words or silence: rejected; unsure or in circles: doubtful; else confident."""
    assert judge(judged, heard(4.0, speech_s=3.0, speech_prob=0.95)) is verdict


SNEEZE = heard(1.2, speech_s=0.54, speech_prob=0.68)
WORD = heard(1.3, speech_s=0.7, speech_prob=0.96)


@pytest.mark.parametrize("text", ["Thank you!", "you", "Thanks for...", "Mm-hmm.", "Oh"])
@pytest.mark.parametrize("sound", [SNEEZE, WORD, heard(2.0)])
def test_what_whisper_says_of_any_noise_is_rejected_where_it_is_unsure(text: str, sound: Utterance) -> None:
    """Sneezes may convince the detector of voices; digital silence is "you"."""
    assert judge(attempt(text, avg_logprob=-0.65), sound) is Verdict.REJECTED


@pytest.mark.parametrize(
    ("logprob", "sound"), [(-0.2, WORD), (-0.65, heard(4.0, speech_s=3.1, speech_prob=0.9))], ids=["sure", "long"]
)
def test_thanks_that_somebody_says_are_published(logprob: float, sound: Utterance) -> None:
    """Where Whisper has no doubt, and where there was more speech than a sneeze has."""
    assert judge(attempt("Thank you.", avg_logprob=logprob), sound) is Verdict.CONFIDENT


def test_nobody_says_thank_you_in_a_third_of_a_second() -> None:
    """Whisper may be sure of what it makes of a sneeze."""
    assert judge(attempt("Thank you!", avg_logprob=-0.28), heard(0.9, 0.32, 0.89)) is Verdict.REJECTED


@pytest.mark.parametrize(
    ("logprob", "language_prob", "speech_prob", "verdict"),
    [
        (-0.99, 0.44, 0.88, Verdict.REJECTED),
        (-0.9, 0.44, 0.88, Verdict.CONFIDENT),
        (-0.99, 0.9, 0.88, Verdict.CONFIDENT),
        (-0.99, 0.44, 0.95, Verdict.CONFIDENT),
        (-0.99, None, 0.88, Verdict.CONFIDENT),
    ],
    ids=["a bark", "likely words", "a certain language", "a certain voice", "a language from the settings"],
)
def test_doubt_of_voice_words_and_language_together_is_noise(
    logprob: float, language_prob: float | None, speech_prob: float, verdict: Verdict
) -> None:
    """Each alone is usual in short words."""
    bark = replace(attempt("来来来", avg_logprob=logprob), language_prob=language_prob)
    assert judge(bark, heard(0.9, speech_s=0.38, speech_prob=speech_prob)) is verdict


MUSIC = heard(0.9, speech_s=0.26, speech_prob=0.85)


@pytest.mark.parametrize(
    ("text", "logprob", "no_speech_prob", "sound"),
    [
        ("MUZIEK.", -0.53, 0.86, MUSIC),
        ("MUZIEK.", -0.2, 0.86, heard(4.0, speech_s=3.1, speech_prob=0.95)),
        ("ТРЕВОЖНАЯ МУЗЫКА", -0.63, 0.3, heard(2.2, speech_s=1.15, speech_prob=0.64)),
        ("Dank u!", -0.63, 0.01, heard(0.9, speech_s=0.32, speech_prob=0.69)),
        ("謝謝", -0.83, 0.01, heard(0.9, speech_s=0.32, speech_prob=0.69)),
        ("Thank you. Thank you.", -0.2, 0.7, heard(3.0, speech_s=2.5, speech_prob=0.95)),
        ("ご視聴ありがとうございました。", -0.5, 0.2, heard(3.0, speech_s=2.5, speech_prob=0.7)),
        ("Thanks for watching!", -0.1, 0.9, heard(3.0)),
    ],
)
def test_a_stock_text_with_evidence_against_it_is_rejected(
    text: str, logprob: float, no_speech_prob: float, sound: Utterance
) -> None:
    """In any language: Whisper's no-speech probability, or doubt of the words and of the voice."""
    assert judge(attempt(text, avg_logprob=logprob, no_speech_prob=no_speech_prob), sound) is Verdict.REJECTED


@pytest.mark.parametrize(
    "text", ["Musik!", "MUSIC", "Bis zum nächsten Mal.", "谢谢", "Thanks for watching!", "Gracias."]
)
def test_a_stock_text_without_evidence_against_it_is_published(text: str) -> None:
    """A person may say it."""
    assert judge(attempt(text, avg_logprob=-0.2), heard(1.6, speech_s=0.9, speech_prob=0.97)) is Verdict.CONFIDENT


@pytest.mark.parametrize("text", ["MUSIC OFF", "TURN THE MUSIC OFF", "Musik aus", "Die Musik ist laut."])
def test_a_command_about_music_is_no_label(text: str) -> None:
    """Even where Whisper writes it in capitals and is not sure of it."""
    assert judge(attempt(text, avg_logprob=-0.7), heard(1.6, speech_s=0.9, speech_prob=0.95)) is Verdict.CONFIDENT


def test_words_are_not_confident_where_whisper_says_no_speech() -> None:
    """Far-field words may have such a probability: they are published, and doubtful."""
    assert judge(attempt(no_speech_prob=0.86), heard(4.0, speech_s=3.0, speech_prob=0.95)) is Verdict.DOUBTFUL


def test_a_song_is_not_confident() -> None:
    """Whisper writes ♪ around what a radio sings, or invents it for music."""
    assert judge(attempt("♪ Freude, schöner Götterfunken ♪"), WORD) is Verdict.DOUBTFUL


def test_suspicious_words_in_circles_are_rejected() -> None:
    """A bark is "んんんん…" in every window."""
    bark = heard(1.5, speech_s=0.42, speech_prob=0.57)
    circles = attempt("ん" * 26, tokens=26, avg_logprob=-0.58)
    assert judge(circles, bark, circles) is Verdict.REJECTED


@pytest.mark.parametrize("text", ["हाँ जी हाँ", "दिन दान दोनों दूर"])
def test_vowel_signs_belong_to_their_letter(text: str) -> None:
    """Words that differ in them alone do not repeat each other."""
    assert not repeats_itself(text)
    assert not is_echo(text)


def test_a_stock_phrase_within_a_sentence_is_no_stock_phrase() -> None:
    """Only a text of nothing else is suspect."""
    assert judge(attempt("Thank you, computer.", avg_logprob=-0.65), WORD) is Verdict.CONFIDENT


@pytest.mark.parametrize(
    ("logprob", "sound", "needed"),
    [
        (-0.97, SNEEZE, True),
        (-1.3, heard(6.0, speech_s=5.2, speech_prob=0.6), False),
        (-1.2, WORD, False),
        (-1.8, heard(1.2, speech_s=0.58, speech_prob=0.92), False),
        (-0.2, SNEEZE, False),
        (-2.0, heard(1.2), False),
        (None, SNEEZE, False),
    ],
    ids=[
        "both unsure",
        "long",
        "a sure detector",
        "a sure detector of bad words",
        "sure words",
        "no detector",
        "no probabilities",
    ],
)
def test_only_little_sound_that_convinced_nobody_needs_a_second_look(
    logprob: float | None,
    sound: Utterance,
    needed: bool,  # noqa: FBT001 - a table
) -> None:
    """Far-field speech has bad probabilities and a sure detector: neither alone is a reason."""
    assert needs_second_look(attempt("Never mind.", avg_logprob=logprob), sound) is needed


def test_nothing_is_looked_at_twice_that_is_rejected_anyway() -> None:
    """A second look costs a decoding."""
    assert not needs_second_look(attempt("Thank you!", avg_logprob=-0.97), SNEEZE)


@pytest.mark.parametrize(
    ("second", "verdict"), [("never mind", Verdict.DOUBTFUL), ("Thank you.", Verdict.REJECTED), ("", Verdict.REJECTED)]
)
def test_the_second_look_decides(second: str, verdict: Verdict) -> None:
    """Words come out again and stay doubtful; inventions change."""
    assert judge(attempt("Never mind.", avg_logprob=-0.97), SNEEZE, attempt(second)) is verdict


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("9.", "Nine!", True),
        ("View glass.", "View class", True),
        ("Включи свет", "включи свет.", True),
        ("RAGE!", "Thanks!", False),
        ("12", "one two", False),
        ("Yes.", "", False),
    ],
)
def test_texts_agree_whatever_their_spelling(first: str, second: str, same: bool) -> None:  # noqa: FBT001 - a table
    """Case, punctuation, digits and a letter or two are not what was said."""
    assert agree(first, second) is same


def test_what_is_shorter_than_any_word_is_rejected_if_nobody_is_sure_of_it() -> None:
    """A bark of a quarter of a second; a clear word as short is kept."""
    bark = heard(0.7, speech_s=0.19, speech_prob=0.51)
    assert judge(attempt("No!", avg_logprob=-1.05), bark) is Verdict.REJECTED
    assert judge(attempt("No!", avg_logprob=-0.2), heard(0.7, 0.19, 0.95)) is Verdict.CONFIDENT


@pytest.mark.parametrize(("logprob", "no_speech_prob"), [(-2.1, 0.3), (-0.73, 0.72)], ids=["hopeless", "silence"])
def test_one_thing_more_against_what_is_suspicious_is_enough(logprob: float, no_speech_prob: float) -> None:
    """No second look where the answer is known."""
    growl = attempt("RAGG!", avg_logprob=logprob, no_speech_prob=no_speech_prob)
    sound = heard(1.5, speech_s=0.77, speech_prob=0.6)
    assert not needs_second_look(growl, sound)
    assert judge(growl, sound) is Verdict.REJECTED
