"""Where utterances begin and end, on scripted probabilities and on random ones."""

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from agent.audio.frames import FRAME_SAMPLES, SAMPLE_RATE_HZ, AudioFrame, Pcm16, Utterance, frames_of, samples
from agent.config.settings import SegmenterSettings
from agent.segmenter import (
    PAUSE_SAMPLES,
    Discarded,
    Ended,
    Paused,
    Resumed,
    Segmenter,
    SegmenterEvent,
    SpeechStarted,
    quietest_moment,
)
from tests.frames import audio_frames

SETTINGS = SegmenterSettings(hang_over_ms=600)
FRAME_MS = 32


def counting_ids() -> Callable[[], str]:
    """Ids that count up from 0."""
    numbers = itertools.count()
    return lambda: str(next(numbers))


def segmenter(threshold: float = 0.5, **changes: float) -> Segmenter:
    """A segmenter with some settings changed."""
    return Segmenter(SegmenterSettings.model_validate({"hang_over_ms": 600} | changes), threshold, counting_ids())


def noise(frames: int, seed: int = 0) -> Pcm16:
    """Sound in which every stretch is recognisable."""
    return np.random.default_rng(seed).integers(-20_000, 20_000, frames * FRAME_SAMPLES, dtype=np.int16)


def run(
    subject: Segmenter, frames: Iterable[AudioFrame], probabilities: Sequence[float], *, finish: bool = True
) -> list[SegmenterEvent]:
    """All events of a stream."""
    events: list[SegmenterEvent] = []
    for frame, probability in zip(frames, probabilities, strict=True):
        events += subject.push(frame, probability)
    return events + (subject.finish() if finish else [])


def ended(events: Iterable[SegmenterEvent]) -> list[Utterance]:
    """The finished utterances among `events`."""
    return [event.utterance for event in events if isinstance(event, Ended)]


def kinds(events: Iterable[SegmenterEvent]) -> list[type[SegmenterEvent]]:
    """What happened, without the particulars."""
    return [type(event) for event in events]


def test_an_utterance_has_its_pre_roll_its_speech_and_the_pause() -> None:
    """From the pre-roll before the first speech frame to 200 ms behind the last, sample for sample."""
    pcm = noise(100)
    probabilities = [0.0] * 30 + [0.9] * 20 + [0.0] * 50
    events = run(segmenter(), audio_frames(pcm, epoch_ns=5), probabilities)
    assert kinds(events) == [SpeechStarted, Paused, Ended]
    (utterance,) = ended(events)
    speech_start, speech_end = 30 * FRAME_SAMPLES, 50 * FRAME_SAMPLES
    assert events[0] == SpeechStarted(speech_start)
    start = speech_start - samples(SETTINGS.pre_roll_ms)
    assert utterance.position == start
    assert utterance.speech_end == speech_end
    np.testing.assert_array_equal(utterance.pcm, pcm[start : speech_end + samples(200)])
    assert utterance.closed_at == speech_end + 19 * FRAME_SAMPLES, "the first frame boundary after 600 ms"
    assert utterance.started_ns == 5 + utterance.position * 62_500
    assert not utterance.truncated


def test_an_utterance_knows_how_sure_the_detector_was() -> None:
    """Seconds and mean probability of the frames that were called speech, of no others."""
    (utterance,) = ended(run(segmenter(), audio_frames(noise(60)), [0.3] * 10 + [0.9] * 8 + [0.4] * 2 + [0.1] * 40))
    assert utterance.speech_s == pytest.approx(10 * FRAME_SAMPLES / SAMPLE_RATE_HZ)
    assert utterance.speech_prob == pytest.approx(0.8)


def test_what_paused_is_what_ended() -> None:
    """After a pause without more speech the utterance has the same id, samples and start; only later is it certain."""
    events = run(segmenter(), audio_frames(noise(80)), [0.0] * 15 + [0.9] * 20 + [0.0] * 45)
    _, paused, final = events
    assert isinstance(paused, Paused)
    assert isinstance(final, Ended)
    np.testing.assert_array_equal(paused.utterance.pcm, final.utterance.pcm)
    assert replace(final.utterance, closed_at=paused.utterance.closed_at) == paused.utterance
    assert paused.utterance.closed_at < final.utterance.closed_at


def test_speech_after_a_pause_resumes_the_utterance() -> None:
    """A silence shorter than the hang-over does not end it: one utterance, with all the speech."""
    events = run(segmenter(), audio_frames(noise(90)), [0.0] * 15 + [0.9] * 10 + [0.0] * 12 + [0.9] * 10 + [0.0] * 43)
    assert kinds(events) == [SpeechStarted, Paused, Resumed, Paused, Ended]
    (utterance,) = ended(events)
    assert utterance.speech_end == 47 * FRAME_SAMPLES


def test_little_is_enough_to_stay_in_speech_but_not_to_get_in() -> None:
    """0.4 begins no utterance at a threshold of 0.5, but carries one on; 0.3 does neither."""
    frames = audio_frames(noise(100))
    assert run(segmenter(), frames, [0.4] * 100) == []
    (carried,) = ended(run(segmenter(), frames, [0.9] * 10 + [0.4] * 50 + [0.0] * 40))
    (dropped,) = ended(run(segmenter(), frames, [0.9] * 10 + [0.3] * 50 + [0.0] * 40))
    assert carried.speech_end == 60 * FRAME_SAMPLES
    assert dropped.speech_end == 10 * FRAME_SAMPLES


def test_a_click_is_discarded_and_told_of() -> None:
    """64 ms of speech are too few: nothing but `Discarded`, and no id is spent."""
    subject = segmenter()
    events = run(subject, audio_frames(noise(90)), [0.0] * 20 + [0.9] * 2 + [0.0] * 68)
    assert events == [Discarded(20 * FRAME_SAMPLES, 64)]
    (utterance,) = ended(run(subject, audio_frames(noise(60)), [0.9] * 20 + [0.0] * 40))
    assert utterance.id == "0"


def test_the_end_of_the_stream_ends_the_utterance() -> None:
    """Speech up to the last sample is published at once, with what there is."""
    pcm = noise(40)
    events = run(segmenter(), audio_frames(pcm), [0.0] * 20 + [0.9] * 20)
    assert kinds(events) == [SpeechStarted, Ended]
    np.testing.assert_array_equal(ended(events)[0].pcm, pcm[20 * FRAME_SAMPLES - samples(SETTINGS.pre_roll_ms) :])


@pytest.mark.parametrize(
    ("changes", "hang_over_ms"),
    [({}, 800), ({"use": "dictation"}, 1000), ({"use": "dictation", "hang_over_ms": 300}, 300)],
)
def test_the_use_says_how_long_a_pause_may_be(changes: dict[str, object], hang_over_ms: int) -> None:
    """Unless the setting itself does."""
    assert SegmenterSettings.model_validate(changes).effective_hang_over_ms == hang_over_ms


def test_the_pre_roll_takes_nothing_from_the_utterance_before() -> None:
    """With a pre-roll longer than the silence between two utterances, the second begins where the first ended."""
    probabilities = [0.9] * 20 + [0.0] * 20 + [0.9] * 20 + [0.0] * 30
    first, second = ended(run(segmenter(pre_roll_ms=2000), audio_frames(noise(90)), probabilities))
    assert second.position == first.position + len(first.pcm)


def test_a_long_speech_is_cut_at_its_quietest_moment() -> None:
    """20 s of speech with a soft spot at 17 s: the cut is in the middle of it, and the next piece begins there."""
    pcm = noise(700)
    spot = slice(17 * SAMPLE_RATE_HZ, 17 * SAMPLE_RATE_HZ + samples(150))
    pcm[spot] //= 100
    first, second = ended(run(segmenter(), audio_frames(pcm), [0.9] * 700))
    assert first.truncated
    assert not second.truncated
    cut = first.position + len(first.pcm)
    assert spot.start + samples(40) < cut < spot.stop - samples(40)
    assert (second.position, first.speech_end, second.id) == (cut, cut, "1")
    assert second.started_ns == cut * 62_500


def test_a_cut_between_two_words_knows_where_the_first_one_ended() -> None:
    """If the quietest moment is not speech, the first piece's speech ends before it, the second has the rest."""
    pcm, probabilities = noise(640), [0.9] * 640
    quiet = slice(550, 554)
    pcm[quiet.start * FRAME_SAMPLES : quiet.stop * FRAME_SAMPLES] //= 100
    probabilities[quiet] = [0.0] * 4
    first, second = ended(run(segmenter(), audio_frames(pcm), probabilities))
    assert first.speech_end == quiet.start * FRAME_SAMPLES < second.position < quiet.stop * FRAME_SAMPLES
    assert first.speech_s == pytest.approx(550 * FRAME_SAMPLES / SAMPLE_RATE_HZ)
    assert second.speech_s == pytest.approx(86 * FRAME_SAMPLES / SAMPLE_RATE_HZ)


def test_talk_without_end_and_silence_without_end_need_no_more_memory() -> None:
    """Ten minutes of either leave no more on the tape than one utterance, and one pre-roll."""
    subject, frames = segmenter(), audio_frames(noise(18_750))
    run(subject, frames[:-1], [0.9] * (len(frames) - 1), finish=False)
    assert subject._buffer.end - subject._buffer.start <= samples(20_000), "looks inside: memory has no other face"
    assert subject._passage is not None
    assert len(subject._passage.speech_ends) <= samples(20_000) / FRAME_SAMPLES
    subject.finish()
    run(subject, frames, [0.0] * len(frames), finish=False)
    assert subject._buffer.end - subject._buffer.start == samples(SETTINGS.pre_roll_ms)


def test_at_the_limit_a_pause_is_cut_enough() -> None:
    """Where the limit falls into a pause, the utterance ends there, whole, before the hang-over has passed."""
    speech = 610
    probabilities = [0.9] * speech + [0.0] * 15 + [0.9] * 20 + [0.0] * 30
    events = run(segmenter(hang_over_ms=1000), audio_frames(noise(len(probabilities))), probabilities)
    first, second = ended(events)
    assert Resumed not in kinds(events)
    assert not first.truncated
    assert first.closed_at < speech * FRAME_SAMPLES + samples(400)
    assert second.position >= first.position + len(first.pcm)


def test_a_small_gap_is_filled_so_that_time_stays_true() -> None:
    """300 ms lost within speech become zeros at their place."""
    pcm = noise(60)
    lost = samples(300)
    frames = audio_frames(pcm[: 20 * FRAME_SAMPLES]) + audio_frames(
        pcm[20 * FRAME_SAMPLES :], position=20 * FRAME_SAMPLES + lost
    )
    (utterance,) = ended(run(segmenter(), frames, [0.9] * 30 + [0.0] * 30))
    hole = 20 * FRAME_SAMPLES
    assert not utterance.pcm[hole : hole + lost].any()
    np.testing.assert_array_equal(utterance.pcm[:hole], pcm[:hole])
    np.testing.assert_array_equal(utterance.pcm[hole + lost :][: 10 * FRAME_SAMPLES], pcm[hole:][: 10 * FRAME_SAMPLES])
    assert utterance.speech_end == 30 * FRAME_SAMPLES + lost


def test_a_small_gap_before_speech_does_not_lengthen_the_pre_roll() -> None:
    """0.7 s lost just before the first word: the utterance still begins a pre-roll before it, with zeros."""
    pcm = noise(60)
    hole = 20 * FRAME_SAMPLES
    onset = hole + samples(700)
    frames = audio_frames(pcm[:hole]) + audio_frames(pcm[hole:], position=onset)
    (utterance,) = ended(run(segmenter(), frames, [0.0] * 20 + [0.9] * 10 + [0.0] * 30))
    assert utterance.position == onset - samples(SETTINGS.pre_roll_ms)
    assert not utterance.pcm[: samples(SETTINGS.pre_roll_ms)].any()


@pytest.mark.parametrize("jump", [samples(1001), 3600 * SAMPLE_RATE_HZ, -FRAME_SAMPLES, -20 * FRAME_SAMPLES])
def test_a_large_gap_ends_the_utterance(jump: int) -> None:
    """More than a second lost, or time that runs backwards: what was said so far is published, nothing is filled in."""
    pcm = noise(60)
    frames = audio_frames(pcm[: 20 * FRAME_SAMPLES]) + audio_frames(
        pcm[20 * FRAME_SAMPLES :], position=20 * FRAME_SAMPLES + jump
    )
    first, second = ended(run(segmenter(), frames, [0.9] * 30 + [0.0] * 30))
    np.testing.assert_array_equal(first.pcm, pcm[: 20 * FRAME_SAMPLES])
    assert second.position == 20 * FRAME_SAMPLES + jump
    np.testing.assert_array_equal(second.pcm[: 10 * FRAME_SAMPLES], pcm[20 * FRAME_SAMPLES : 30 * FRAME_SAMPLES])


def test_quietest_moment_is_the_middle_of_the_dip() -> None:
    """A dip of 100 ms in loud noise is found to within a step; short or even sound gives an index within it."""
    pcm = noise(100)
    pcm[20_000:21_600] = 1
    assert quietest_moment(pcm) == pytest.approx(20_800, abs=samples(10))
    assert 0 <= quietest_moment(np.zeros(5, np.int16)) <= 5
    assert quietest_moment(np.zeros(0, np.int16)) == 0


def random_talk(chance: random.Random, frames: int) -> list[float]:
    """Probabilities that come in stretches of speech, silence and doubt, from one frame to 30 s long."""
    probabilities: list[float] = []
    while len(probabilities) < frames:
        length = min(int(chance.paretovariate(0.6)), 940)
        level = chance.choice([0.0, 0.0, 0.3, 0.4, 0.6, 0.95])
        probabilities += [min(1.0, max(0.0, level + chance.uniform(-0.1, 0.1))) for _ in range(length)]
    return probabilities[:frames]


def check_utterance(utterance: Utterance, pcm: Pcm16, settings: SegmenterSettings) -> None:
    """What holds for every utterance, whatever was said."""
    end = utterance.position + len(utterance.pcm)
    np.testing.assert_array_equal(utterance.pcm, pcm[utterance.position : end])
    assert utterance.duration_s <= settings.max_length_s
    assert utterance.position < utterance.speech_end <= end <= utterance.closed_at
    assert end - utterance.speech_end <= PAUSE_SAMPLES or utterance.truncated
    assert utterance.started_ns == utterance.position * 62_500


@pytest.mark.parametrize("seed", range(60))
def test_no_speech_is_lost_or_told_twice(seed: int) -> None:
    """Whatever the probabilities and settings, every sample of speech is in exactly one utterance.

    Utterances never overlap, the pieces of one that was cut follow each other without a gap, every frame above the
    threshold is in an utterance or was counted as discarded, none is too long, and ids and events are in order.
    """
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    settings = SegmenterSettings(
        pre_roll_ms=chance.choice([300, 400, 2000]),
        hang_over_ms=chance.choice([200, 600, 3000]),
        min_speech_ms=chance.choice([0, 96, 500, 2000]),
        max_length_s=chance.choice([4.0, 20.0, 29.0]),
    )
    frames = 3000
    pcm, probabilities = noise(frames, seed), random_talk(chance, frames)
    events = run(Segmenter(settings, 0.5, counting_ids()), audio_frames(pcm), probabilities)

    utterances = ended(events)
    for utterance in utterances:
        check_utterance(utterance, pcm, settings)
    for earlier, later in itertools.pairwise(utterances):
        end = earlier.position + len(earlier.pcm)
        assert later.position >= end
        assert not earlier.truncated or later.position == end
    assert not utterances or not utterances[-1].truncated
    assert [utterance.id for utterance in utterances] == [str(number) for number in range(len(utterances))]
    check_coverage(events, probabilities, settings)
    check_order(events)


def check_coverage(events: list[SegmenterEvent], probabilities: list[float], settings: SegmenterSettings) -> None:
    """Every frame at or above the threshold lies in an utterance, or in a stretch that was discarded."""
    covered = np.zeros(len(probabilities) * FRAME_SAMPLES, bool)
    for utterance in ended(events):
        covered[utterance.position :][: len(utterance.pcm)] = True
    missed = [
        index
        for index, probability in enumerate(probabilities)
        if probability >= 0.5 and not covered[index * FRAME_SAMPLES : (index + 1) * FRAME_SAMPLES].all()
    ]
    discarded = [event for event in events if isinstance(event, Discarded)]
    assert len(missed) * FRAME_MS <= sum(event.speech_ms for event in discarded)
    assert all(event.speech_ms < settings.min_speech_ms for event in discarded)


def check_order(events: list[SegmenterEvent]) -> None:
    """Start, then pauses and resumptions in turn, then the end; after a cut it goes on without a new start."""
    speaking = paused = False
    for event in events:
        match event:
            case SpeechStarted() | Discarded():
                assert not speaking
                speaking = isinstance(event, SpeechStarted)
            case Paused():
                assert speaking
                assert not paused
                paused = True
            case Resumed():
                assert paused
                paused = False
            case Ended(utterance):
                assert speaking
                assert not (utterance.truncated and paused)
                speaking, paused = utterance.truncated, False


def at_the_edges(length: int, probabilities: Callable[[AudioFrame], float], **changes: float) -> list[Utterance]:
    """The utterances of a recording of `length` samples with the silence around it."""
    subject, events = segmenter(**changes), []
    for frame in frames_of([noise(100)[:length]]):
        events += subject.push(frame, probabilities(frame))
    return ended(events + subject.finish())


@pytest.mark.parametrize("length", [6_552, 20_000])
def test_a_recording_that_is_all_speech_is_heard_with_silence_around_it(length: int) -> None:
    """The utterance is the recording, and tells how much silence an engine has to hear: as if it were in the file."""
    (utterance,) = at_the_edges(length, lambda frame: 0.0 if frame.is_edge else 0.9)
    (whole,) = ended(
        run(
            segmenter(),
            audio_frames(np.pad(noise(100)[:length], 8_000)),
            [0.0 if frame.is_edge else 0.9 for frame in frames_of([noise(100)[:length]])],
        )
    )
    pcm = utterance.with_edges().pcm
    assert np.array_equal(pcm, whole.pcm[: len(pcm)])
    assert len(whole.pcm) - len(pcm) < FRAME_SAMPLES
    assert (utterance.position, utterance.started_ns) == (0, 0)
    assert np.array_equal(utterance.pcm, noise(100)[:length])
    assert utterance.lead_samples == 8_000 - whole.position
    assert utterance.tail_samples > 0


def test_speech_in_the_middle_of_a_recording_has_no_silence_added() -> None:
    """There pre-roll and pause are sound of the recording."""
    (utterance,) = at_the_edges(40_000, lambda frame: 0.9 if 12_000 <= frame.position < 28_000 else 0.0)
    assert (utterance.lead_samples, utterance.tail_samples) == (0, 0)


def test_a_detector_that_hears_speech_in_the_silence_costs_nothing_but_time() -> None:
    """It lags behind: where the sound is over, it is not over for the detector, and a piece still has its sound."""
    for utterance in at_the_edges(40_000, lambda _frame: 0.9, max_length_s=4.0):
        assert 0 < len(utterance.pcm) <= 40_000 + FRAME_SAMPLES


def test_what_is_cut_at_the_maximum_length_begins_with_the_silence_too() -> None:
    """The first piece of a recording that begins with speech; the pieces have every sample of it."""
    pieces = at_the_edges(51_000, lambda frame: 0.0 if frame.is_edge else 0.9, max_length_s=4.0)
    assert len(pieces) > 1 or len(pieces[0].pcm) >= 51_000
    assert pieces[0].lead_samples > 0
    assert [piece.lead_samples for piece in pieces[1:]] == [0] * (len(pieces) - 1)
    together = np.concatenate([piece.pcm for piece in pieces])
    assert np.array_equal(together, noise(100)[:51_000])
