"""Sound that is all there, cut into utterances: on real clips, with the real detector."""

import numpy as np

from agent.audio import FRAME_SAMPLES, SAMPLE_RATE_HZ, Pcm16, Utterance
from agent.config import SegmenterSettings, VadSettings
from agent.segmenter import Segmenter
from agent.utterances import frames_of, utterances_in
from agent.vad.factory import create_detector
from tests.clips import clip, silence


def cut(pcm: Pcm16) -> list[Utterance]:
    """The utterances in `pcm`, each held against the sound at its position."""
    numbers = iter(range(100))
    segmenter = Segmenter(SegmenterSettings(), 0.5, lambda: str(next(numbers)))
    found = list(utterances_in(frames_of(pcm), create_detector(VadSettings()), segmenter))
    assert [utterance.id for utterance in found] == [str(number) for number in range(len(found))]
    for utterance in found:
        end = min(len(pcm), utterance.position + len(utterance.pcm))
        assert np.array_equal(utterance.pcm[: end - utterance.position], pcm[utterance.position : end])
    return found


def test_nothing_of_the_sound_is_lost_and_silence_fills_the_last_frame() -> None:
    """Positions and clock go on without a gap, whatever the length; no sound makes no frame."""
    pcm = np.arange(1, 2 * FRAME_SAMPLES + 8, dtype=np.int16)
    frames = list(frames_of(pcm))
    together = np.concatenate([frame.pcm for frame in frames])
    assert np.array_equal(together[: len(pcm)], pcm)
    assert not together[len(pcm) :].any()
    assert [frame.position for frame in frames] == [0, 512, 1024]
    assert [frame.captured_ns for frame in frames] == [32_000_000, 64_000_000, 96_000_000]
    assert list(frames_of(pcm[:0])) == []


def test_each_stretch_of_speech_is_an_utterance_and_silence_is_none() -> None:
    """The last one, too, that the end of the sound cuts short of its hang-over; and silence alone gives none."""
    speech = clip("en_dir-intro")[: 2 * SAMPLE_RATE_HZ]
    assert len(cut(np.concatenate([silence(2), speech, silence(3), speech]))) == 2
    assert cut(silence(3)) == []
