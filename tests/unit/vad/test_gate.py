"""The gate in front of the detector: pure decisions first, then real speech and steady noises."""

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.audio.frames import FULL_SCALE, SAMPLE_RATE_HZ, Pcm16
from agent.vad.energy import (
    HISTORY_FRAMES,
    QUIET_FRAMES,
    REPLAYED_FRAMES,
    STEADY_FRAMES,
    UPDATE_FRAMES,
    EnergyGate,
    GatedDetector,
)
from agent.vad.silero import SileroDetector
from tests.support.clips import clip, clip_names, frames_of, silence

FRAMES_A_SECOND = SAMPLE_RATE_HZ / 512


def settled(room_dbfs: float = -60.0) -> EnergyGate:
    """A gate that has closed in a quiet room."""
    gate = EnergyGate()
    for _ in range(HISTORY_FRAMES):
        if gate.hear(room_dbfs):
            gate.judge(0.0)
    assert not gate.open
    return gate


class Recorder:
    """A detector that remembers what it was given and always answers the same."""

    noise_floor_dbfs = None

    def __init__(self, answer: float = 0.0) -> None:
        self.heard: list[int] = []
        self.resets = 0
        self._answer = answer

    def probability(self, pcm: Pcm16) -> float:
        """Remember the first sample, by which a test knows the frame."""
        self.heard.append(int(pcm[0]))
        return self._answer

    def reset(self) -> None:
        """Count it."""
        self.resets += 1


def noises() -> dict[str, NDArray[np.float64]]:
    """Twenty seconds of steady noises, root mean square 1."""
    length = 20 * SAMPLE_RATE_HZ
    white = np.random.default_rng(3).normal(size=length)
    spectrum, bins = np.fft.rfft(white), np.maximum(np.arange(length // 2 + 1), 400.0)
    seconds = np.arange(length) / SAMPLE_RATE_HZ
    hum = sum(np.sin(2 * np.pi * 50 * harmonic * seconds) / harmonic for harmonic in (1, 2, 3, 5, 7))
    found = {
        "white": white,
        "pink": np.fft.irfft(spectrum / np.sqrt(bins), length),
        "rumble": np.fft.irfft(spectrum / bins, length),
        "hum": np.asarray(hum),
        "whine": np.sin(2 * np.pi * 3_000 * seconds),
    }
    return {name: sound / sound.std() for name, sound in found.items()}


def at_level(sound: NDArray[np.float64], dbfs: float) -> Pcm16:
    """`sound` with that root mean square level."""
    scaled = np.rint(sound * FULL_SCALE * 10 ** (dbfs / 20))
    return np.clip(scaled, -32_768, 32_767).astype(np.int16)


def test_it_is_open_until_the_room_is_known() -> None:
    """At the start every frame is heard, for at least a second, whatever its level."""
    gate = EnergyGate()
    for _ in range(QUIET_FRAMES):
        assert gate.hear(-60.0)
        gate.judge(0.0)
    for _ in range(UPDATE_FRAMES):
        gate.hear(-60.0)
        gate.judge(0.0)
    assert not gate.open


def test_a_frame_louder_than_the_room_opens_it_for_that_very_frame() -> None:
    """5 dB above the floor open it at once; 4 dB do not."""
    assert settled().hear(-55.0)
    assert not settled().hear(-56.0)


def test_it_stays_open_as_long_as_the_detector_hears_something_like_speech() -> None:
    """Soft speech between loud words keeps the gate open; a second without any closes it."""
    gate = settled()
    gate.hear(-30.0)
    for _ in range(2 * QUIET_FRAMES):
        gate.judge(0.3)
        assert gate.hear(-60.0)
    for _ in range(QUIET_FRAMES):
        gate.judge(0.05)
        gate.hear(-60.0)
    assert not gate.open


def test_a_steady_sound_closes_it_even_if_the_detector_calls_it_speech() -> None:
    """A hum that fools the detector holds the gate open for the time that the floor takes to rise, and 3 s more."""
    gate = settled()
    for _ in range(HISTORY_FRAMES + STEADY_FRAMES):
        if gate.hear(-30.0):
            gate.judge(0.9)
    assert not gate.open


def test_below_what_can_be_heard_nothing_opens_it() -> None:
    """In digital silence a few least significant bits are no event."""
    assert not settled(-96.0).hear(-77.0)
    assert settled(-96.0).hear(-70.0)


@pytest.mark.parametrize("dbfs", [-70.0, -50.0, -30.0, -15.0])
@pytest.mark.parametrize("name", ["white", "pink", "rumble", "hum", "whine"])
def test_steady_noise_closes_it_however_loud(name: str, dbfs: float) -> None:
    """A noise that begins in a quiet room and stays opens the gate for less than ten seconds in all."""
    detector = GatedDetector(recorder := Recorder())
    sound = frames_of(np.concatenate([silence(5), at_level(noises()[name], dbfs)]))
    for frame in sound:
        detector.probability(frame)
    assert len(recorder.heard) < 10 * FRAMES_A_SECOND
    before = len(recorder.heard)
    for frame in sound[-120:]:
        detector.probability(frame)
    assert len(recorder.heard) - before <= 60, "and at its end it is closed as a rule"


def test_a_quiet_room_is_hardly_ever_heard_by_the_detector() -> None:
    """Of a minute of room noise the detector hears no more than the second in which the room was not known."""
    detector = GatedDetector(recorder := Recorder())
    for frame in frames_of(silence(60)):
        detector.probability(frame)
    assert len(recorder.heard) < 2 * FRAMES_A_SECOND
    assert detector.noise_floor_dbfs == pytest.approx(20 * np.log10(8 / FULL_SCALE), abs=1.0)


def test_on_opening_the_detector_is_played_the_second_before_in_order() -> None:
    """No frame is given twice, none of the last second is left out, and the loud one comes last."""
    detector = GatedDetector(recorder := Recorder())
    frames = [frame.copy() for frame in frames_of(silence(10))]
    for index, frame in enumerate(frames):
        frame[0] = index
        detector.probability(frame)
    heard_before = len(recorder.heard)
    loud = np.full(512, 3_000, np.int16) * np.where(np.arange(512) % 40 < 20, 1, -1).astype(np.int16)
    detector.probability(loud)
    assert recorder.heard[heard_before:] == [*range(len(frames) - REPLAYED_FRAMES, len(frames)), 3_000]
    assert recorder.resets == 0


def test_reset_forgets_the_sound_but_not_the_room() -> None:
    """After a reset nothing from before is replayed, and the floor is still known."""
    detector = GatedDetector(recorder := Recorder())
    for frame in frames_of(silence(10)):
        detector.probability(frame)
    floor, heard = detector.noise_floor_dbfs, len(recorder.heard)
    detector.reset()
    detector.probability(frames_of(clip("en_dir-intro"))[30])
    assert recorder.resets == 1
    assert len(recorder.heard) == heard + 1
    assert floor is not None
    assert floor == pytest.approx(detector.noise_floor_dbfs)


@pytest.mark.parametrize("softer_db", [0, 20, 30])
@pytest.mark.parametrize("name", clip_names())
def test_no_speech_is_missed_behind_the_gate(name: str, softer_db: int) -> None:
    """Wherever Silero alone hears speech, also far away in a quiet room, Silero behind the gate was listening too.

    The very first frame of speech is heard by an open gate, and from there on both say nearly the same.
    """
    speech = np.rint(clip(name) * 10 ** (-softer_db / 20)).astype(np.int16)
    frames = frames_of(np.concatenate([silence(5, level=2), speech + silence(len(speech) / 16_000, level=2)]))
    alone, gated = SileroDetector(), GatedDetector(SileroDetector())
    expected = np.array([alone.probability(frame) for frame in frames])
    found = np.array([gated.probability(frame) for frame in frames])
    speaking = expected > 0.5
    assert speaking.any()
    assert (found[speaking] > 0).all()
    assert np.mean((found > 0.5) == speaking) > 0.97
