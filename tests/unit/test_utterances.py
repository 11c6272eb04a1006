"""Sound that is all there, cut into utterances: on real clips, with the real detector."""

from collections.abc import Iterator

import numpy as np
import pytest

from agent.audio.frames import SAMPLE_RATE_HZ, AudioFrame, Pcm16, Utterance, frames_of
from agent.config.settings import SegmenterSettings, VadSettings
from agent.errors import SourceError
from agent.segmenter import Segmenter, utterances_in
from agent.vad import create_detector
from tests.support.clips import clip, silence


def cut(pcm: Pcm16) -> list[Utterance]:
    """The utterances in `pcm`, each held against the sound at its position."""
    numbers = iter(range(100))
    segmenter = Segmenter(SegmenterSettings(), 0.5, lambda: str(next(numbers)))
    found = list(utterances_in(frames_of([pcm]), create_detector(VadSettings()), segmenter))
    assert [utterance.id for utterance in found] == [str(number) for number in range(len(found))]
    for utterance in found:
        start, end = max(0, utterance.position), min(len(pcm), utterance.position + len(utterance.pcm))
        assert np.array_equal(utterance.pcm[start - utterance.position : end - utterance.position], pcm[start:end])
    return found


def test_each_stretch_of_speech_is_an_utterance_and_silence_is_none() -> None:
    """The last one, too, that the end of the sound cuts short of its hang-over; and silence alone gives none."""
    speech = clip("en_dir-intro")[: 2 * SAMPLE_RATE_HZ]
    assert len(cut(np.concatenate([silence(2), speech, silence(3), speech]))) == 2
    assert cut(silence(3)) == []


def test_a_source_that_fails_has_all_of_its_speech_heard_first() -> None:
    """Also what is being said at that moment; the failure comes behind it."""
    speech = clip("en_dir-intro")[: 2 * SAMPLE_RATE_HZ]

    def breaking_off() -> Iterator[AudioFrame]:
        yield from list(frames_of([speech]))[:-20]
        raise SourceError("the rest is damaged")

    found = utterances_in(
        breaking_off(), create_detector(VadSettings()), Segmenter(SegmenterSettings(), 0.5, lambda: "x")
    )
    assert next(found).duration_s > 1.0
    with pytest.raises(SourceError):
        next(found)
