"""Detection by level alone, within what it can do."""

import numpy as np
import pytest

from agent.vad.energy import EnergyDetector
from tests.support.clips import clip, clip_names, frames_of, silence


@pytest.mark.parametrize("name", clip_names())
def test_speech_in_a_quiet_room_stands_out(name: str) -> None:
    """Most of a sentence is above 0.5, none of the quiet before it is."""
    detector = EnergyDetector()
    before = [detector.probability(frame) for frame in frames_of(silence(5))]
    during = [detector.probability(frame) for frame in frames_of(clip(name))]
    assert max(before) < 0.5
    assert np.mean(np.array(during) > 0.5) > 0.5


def test_a_noise_that_stays_is_no_longer_speech() -> None:
    """A loud noise fools it when it begins, but not after the floor has risen to it."""
    detector = EnergyDetector()
    for frame in frames_of(silence(5)):
        detector.probability(frame)
    answers = [detector.probability(frame) for frame in frames_of(silence(8, level=1_000))]
    assert answers[0] > 0.9
    assert max(answers[-100:]) < 0.5


def test_it_says_nothing_before_it_knows_the_room_and_knows_it_soon() -> None:
    """The first frames are 0; after a quarter of a second there is a floor, which a reset does not forget."""
    detector = EnergyDetector()
    loud = frames_of(silence(1, level=3_000))
    assert detector.probability(loud[0]) == 0.0
    assert detector.noise_floor_dbfs is None
    for frame in loud[:8]:
        detector.probability(frame)
    detector.reset()
    assert detector.noise_floor_dbfs == pytest.approx(-20.8, abs=1.0)
