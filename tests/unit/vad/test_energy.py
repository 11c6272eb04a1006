"""Levels of known signals, the floor under speech, and detection by level alone, within what it can do."""

import numpy as np
import pytest

from agent.audio.frames import SILENCE_DBFS
from agent.vad.energy import (
    HISTORY_FRAMES,
    UPDATE_FRAMES,
    EnergyDetector,
    NoiseFloor,
    level_dbfs,
    voice_band_dbfs,
)
from tests.support.clips import clip, clip_names, frames_of, silence

SECONDS = np.arange(512) / 16_000


def sine(hz: float) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    """One frame of a sine at a tenth of full scale."""
    return np.rint(3_276.8 * np.sin(2 * np.pi * hz * SECONDS)).astype(np.int16)


def test_level_is_the_root_mean_square_whatever_the_offset() -> None:
    """A sine at a tenth of full scale has -23 dBFS, with an offset too; a constant is silence."""
    assert level_dbfs(sine(1_000)) == pytest.approx(-23.01, abs=0.01)
    assert level_dbfs(sine(1_000) + np.int16(5_000)) == pytest.approx(-23.01, abs=0.05)
    for constant in (0, 100, -32_768):
        assert level_dbfs(np.full(512, constant, np.int16)) == SILENCE_DBFS
        assert voice_band_dbfs(np.full(512, constant, np.int16)) == SILENCE_DBFS


def test_the_voice_band_leaves_out_rumble_and_hiss() -> None:
    """Equally loud sines count fully at 1 kHz, at least 15 dB less at 50 Hz, and at least 10 dB less at 7 kHz."""
    voice = voice_band_dbfs(sine(1_000))
    assert voice_band_dbfs(sine(50)) < voice - 15
    assert voice_band_dbfs(sine(7_000)) < voice - 10


def test_the_floor_is_the_level_between_the_words() -> None:
    """While somebody speaks over faint noise, the floor stays within 3 dB of that noise."""
    floor = NoiseFloor()
    noise = silence(30)
    for name in ("en_conf-waitforleader", "en_vm-invalidpassword", "fr_agent-user"):
        pcm = np.concatenate([clip(name), np.zeros(8_000, np.int16)])
        for frame in frames_of(pcm + noise[: len(pcm)]):
            floor.hear(level_dbfs(frame))
    assert floor.dbfs == pytest.approx(level_dbfs(noise), abs=3.0)


def test_the_floor_follows_the_room_within_four_seconds() -> None:
    """It falls and rises to a new level once that has lasted for the whole history."""
    floor = NoiseFloor()
    assert floor.dbfs is None
    for level in (-40.0, -70.0, -20.0):
        for _ in range(HISTORY_FRAMES + UPDATE_FRAMES):
            floor.hear(level)
        assert floor.dbfs == level


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
