import numpy as np
import pytest

from agent.audio.frames import FRAME_SAMPLES, SILENCE_DBFS, AudioFrame, Pcm16
from agent.terminal.meter import LevelMeter


def frame(pcm: Pcm16) -> AudioFrame:
    """A frame of these samples."""
    return AudioFrame(pcm, position=0, captured_ns=0)


def square(amplitude: int) -> AudioFrame:
    """A square wave: its root mean square is its amplitude."""
    return frame(np.tile(np.array([amplitude, -amplitude], np.int16), FRAME_SAMPLES // 2))


def test_levels_are_those_since_the_last_look() -> None:
    """Half of full scale is -6 dBFS; what was looked at is not counted again."""
    meter = LevelMeter()
    meter.hear(square(16_384), 0.2)
    loudness = meter.take()
    assert loudness
    assert (loudness.rms_dbfs, loudness.peak_dbfs, loudness.speech_prob) == (-6.0, -6.0, 0.2)
    meter.hear(square(1_638), 0.1)
    later = meter.take()
    assert later
    assert (later.rms_dbfs, later.peak_dbfs, later.speech_prob) == (-26.0, -26.0, 0.1)


def test_of_several_frames_the_mean_power_and_the_highest_peak_count() -> None:
    """A loud frame and a silent one: half the power, all of the peak."""
    meter = LevelMeter()
    meter.hear(square(16_384), 0.9)
    meter.hear(frame(np.zeros(FRAME_SAMPLES, np.int16)), 0.3)
    loudness = meter.take()
    assert loudness
    assert loudness.rms_dbfs == pytest.approx(-9.0, abs=0.1)
    assert (loudness.peak_dbfs, loudness.speech_prob) == (-6.0, 0.9)


def test_silence_is_quiet_and_nothing_is_nothing() -> None:
    """Digital silence has a level, no sound has none; the lowest sample there is does not overflow."""
    meter = LevelMeter()
    assert meter.take() is None
    meter.hear(frame(np.zeros(FRAME_SAMPLES, np.int16)), 0.0)
    silent = meter.take()
    assert silent
    assert (silent.rms_dbfs, silent.peak_dbfs) == (SILENCE_DBFS, SILENCE_DBFS)
    meter.hear(frame(np.full(FRAME_SAMPLES, -32_768, np.int16)), 0.0)
    loud = meter.take()
    assert loud
    assert loud.peak_dbfs == 0.0
