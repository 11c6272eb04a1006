"""The log-mel spectrogram is Whisper's."""

import numpy as np
import pytest

from agent.asr.mel import log_mel
from agent.audio.frames import PcmFloat, to_float
from agent.models.whisper import mel_filters
from tests.support.clips import clip, clip_names

reference = pytest.importorskip("faster_whisper.feature_extractor", reason="faster-whisper computes the reference")

WINDOW_SAMPLES = 480_000


def whispers(samples: PcmFloat, bands: int = 80) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """What openai/whisper computes: 30 seconds, filled up with silence (by faster-whisper's extractor)."""
    padded = np.pad(samples, (0, WINDOW_SAMPLES - len(samples)))
    spectrogram = reference.FeatureExtractor(feature_size=bands)(padded)[:, :3_000]
    return np.asarray(spectrogram, dtype=np.float32)


@pytest.mark.parametrize("bands", [80, 128])
def test_the_filter_bank_is_slaneys(bands: int) -> None:
    """80 bands for tiny to large-v2, 128 for large-v3."""
    expected = reference.FeatureExtractor.get_mel_filters(16_000, 400, n_mels=bands)
    np.testing.assert_allclose(mel_filters(bands), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", clip_names())
def test_speech_gives_the_same_spectrogram_as_whisper(name: str) -> None:
    """Over the full window, sound and silence alike."""
    samples = to_float(clip(name))
    np.testing.assert_allclose(log_mel(samples, 3_000), whispers(samples), atol=1e-4)


@pytest.mark.parametrize("frames", [600, 768, 1_500])
def test_a_shorter_window_is_the_beginning_of_the_full_one(frames: int) -> None:
    """The context can follow the utterance because nothing else changes."""
    samples = to_float(clip("en_vm-invalidpassword"))
    assert len(samples) < 600 * 160
    np.testing.assert_array_equal(log_mel(samples, frames), log_mel(samples, 3_000)[:, :frames])


@pytest.mark.parametrize("length", [0, 1, 150, 200, 201, 400, 1_600])
def test_very_short_sound_is_continued_by_silence(length: int) -> None:
    """Even a single sample has a spectrogram, and it is finite."""
    samples = np.full(length, 0.1, dtype=np.float32)
    mel = log_mel(samples, 100)
    assert mel.shape == (80, 100)
    assert mel.dtype == np.float32
    assert np.isfinite(mel).all()


def test_what_is_longer_than_the_window_is_cut_off() -> None:
    """The shape is what was asked for."""
    assert log_mel(to_float(clip("en_dir-intro")), 100).shape == (80, 100)
