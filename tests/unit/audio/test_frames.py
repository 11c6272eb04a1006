from itertools import pairwise

import numpy as np
import pytest

from agent.audio.frames import (
    EDGE_SAMPLES,
    FRAME_SAMPLES,
    SILENCE_DBFS,
    AudioFrame,
    Pcm16,
    Utterance,
    frames_of,
    rms_dbfs,
    samples,
    snr_db,
    to_float,
)


def test_frames_and_utterances_are_compared_without_their_samples() -> None:
    """Two arrays have no truth value: Python 3.13 would raise where 3.11 saw the same array twice."""
    ones, zeros = np.ones(512, np.int16), np.zeros(512, np.int16)
    assert AudioFrame(ones, 0, 7) == AudioFrame(zeros, 0, 7)
    assert AudioFrame(ones, 0, 7) != AudioFrame(ones, 1, 7)
    one, same, other = (Utterance(id_, ones.copy(), 0, 0, speech_end=1, closed_at=2) for id_ in ("a", "a", "b"))
    assert one == same != other
    assert len({one, same, other}) == 2


def test_full_scale_square_wave_is_zero_dbfs() -> None:
    """Levels are relative to full scale: a square wave at full scale is 0 dBFS, a tenth of it 20 dB less."""
    square = np.array([32767, -32767] * 256, dtype=np.int16)
    assert rms_dbfs(square) == pytest.approx(0.0, abs=0.01)
    assert rms_dbfs((square // 10).astype(np.int16)) == pytest.approx(-20.0, abs=0.02)


def test_digital_silence_has_a_finite_level() -> None:
    """Silence, and no sound at all, are the floor and never minus infinity, which JSON cannot hold."""
    assert rms_dbfs(np.zeros(512, dtype=np.int16)) == SILENCE_DBFS
    assert rms_dbfs(np.zeros(0, dtype=np.int16)) == SILENCE_DBFS


def test_scaling_to_float_is_exact() -> None:
    """Every int16 value maps to itself over 32768, in float32."""
    every = np.arange(-32768, 32768, dtype=np.int32).astype(np.int16)
    scaled = to_float(every)
    assert scaled.dtype == np.float32
    assert np.array_equal((scaled * 32768).astype(np.int32), every.astype(np.int32))


def test_speech_over_noise_is_found_within_two_decibels() -> None:
    """A tone of known level over white noise of known level, half of the time; an offset does not count."""
    chance = np.random.default_rng(5)
    noise = chance.normal(0.0, 100.0, 64_000)
    tone = np.where(np.arange(64_000) < 32_000, 1_000.0 * np.sqrt(2) * np.sin(np.arange(64_000) * 0.3), 0.0)
    measured = snr_db((noise + tone + 500.0).astype(np.int16))
    assert measured == pytest.approx(20.0, abs=2.0)


def test_without_noise_there_is_no_ratio() -> None:
    """Digital silence between the words, or too little sound, is nothing to divide by."""
    assert snr_db(np.zeros(16_000, np.int16)) is None
    assert snr_db(np.ones(1_000, np.int16)) is None
    assert snr_db(np.zeros(0, np.int16)) is None


def test_milliseconds_become_samples() -> None:
    """One frame of 32 ms is 512 samples."""
    assert samples(32) == 512


def test_an_utterance_knows_its_times() -> None:
    """Times follow from positions: start, length, and how long the listener waited after the last word."""
    utterance = Utterance("x", np.zeros(32_000, np.int16), 16_000, 0, speech_end=40_000, closed_at=49_600)
    assert utterance.start_s == 1.0
    assert utterance.duration_s == 2.0
    assert utterance.hangover_s == pytest.approx(0.6)


def test_a_frame_knows_its_end() -> None:
    """The next frame of an unbroken stream begins where this one ends."""
    assert AudioFrame(np.zeros(512, np.int16), 1024, 0).end == 1536


def noise(length: int) -> Pcm16:
    """Sound without silence at its edges."""
    return np.random.default_rng(length).integers(1_000, 20_000, length).astype(np.int16)


def joined(frames: list[AudioFrame]) -> Pcm16:
    """The samples of the frames, which follow each other."""
    assert all(frame.end == following.position for frame, following in pairwise(frames))
    assert all(frame.captured_ns == frame.end * 62_500 for frame in frames)
    return np.concatenate([frame.pcm for frame in frames])


@pytest.mark.parametrize("length", [1, 511, 512, 513, 7_999, 8_000, 8_001, 30_000])
def test_a_recording_has_half_a_second_of_silence_around_it(length: int) -> None:
    """Positions and clock count from its first sample; no sample is lost, and the silence is told from the sound."""
    pcm = noise(length)
    frames = list(frames_of([pcm]))
    together = joined(frames)
    assert frames[0].position == -EDGE_SAMPLES
    assert np.array_equal(together[EDGE_SAMPLES : EDGE_SAMPLES + length], pcm)
    assert not together[:EDGE_SAMPLES].any()
    assert not together[EDGE_SAMPLES + length :].any()
    assert EDGE_SAMPLES <= len(together) - EDGE_SAMPLES - length < EDGE_SAMPLES + FRAME_SAMPLES
    sound = [frame.pcm[frame.lead_samples : FRAME_SAMPLES - frame.tail_samples] for frame in frames]
    assert np.array_equal(np.concatenate(sound), pcm)


@pytest.mark.parametrize("length", [100, 9_000, 30_000])
@pytest.mark.parametrize(("before", "behind"), [(8_000, 8_000), (1, 7_999), (5_000, 0), (0, 5_000)])
def test_silence_of_its_own_changes_nothing_for_what_hears_it(length: int, before: int, behind: int) -> None:
    """A recording with up to half a second of silence around it has the same frames as without it."""
    pcm = noise(length)
    with_silence = np.pad(pcm, (before, behind))
    assert np.array_equal(joined(list(frames_of([pcm]))), joined(list(frames_of([with_silence]))))


@pytest.mark.parametrize("piece", [1, 100, 8_000, 20_000])
def test_the_pieces_in_which_a_recording_comes_do_not_matter(piece: int) -> None:
    """Frames are the same as for the whole, silence inside and at the end included."""
    pcm = np.concatenate(
        [np.zeros(300, np.int16), noise(9_000), np.zeros(9_000, np.int16), noise(700), np.zeros(900, np.int16)]
    )
    pieces = [pcm[start : start + piece] for start in range(0, len(pcm), piece)]
    assert np.array_equal(joined(list(frames_of(pieces))), joined(list(frames_of([pcm]))))


def test_no_sound_makes_no_frame() -> None:
    """Not even a silent one."""
    assert list(frames_of([])) == []
    assert list(frames_of([np.zeros(0, np.int16)])) == []
