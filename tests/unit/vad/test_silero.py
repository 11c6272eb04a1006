"""Silero in numpy, held against the published network."""

from pathlib import Path

import numpy as np
import pytest

from agent.audio.frames import FRAME_SAMPLES, SAMPLE_RATE_HZ, Pcm16
from agent.vad.silero import RESTART_FRAMES, SileroDetector
from tests.support.clips import clip, clip_names, frames_of, silence

REFERENCE = Path(__file__).parents[2] / "data" / "vad" / "silero_reference.npz"


@pytest.fixture(scope="module")
def silero() -> SileroDetector:
    """One detector; each test resets it."""
    return SileroDetector()


def probabilities(detector: SileroDetector, pcm: Pcm16) -> list[float]:
    """From a fresh state, one number a frame."""
    detector.reset()
    return [detector.probability(frame) for frame in frames_of(pcm)]


@pytest.mark.parametrize("name", clip_names())
def test_answers_what_the_published_network_answers_or_more(silero: SileroDetector, name: str) -> None:
    """On real speech the first 2 s are within 1e-4 of the ONNX file under onnxruntime (docs/silero_weights.py).

    Later a state of its own with a short memory may raise a probability, and never lowers one.
    """
    with np.load(REFERENCE) as reference:
        expected = reference[name]
    answers = np.array(probabilities(silero, clip(name)))
    alike = 2 * RESTART_FRAMES
    assert answers[:alike] == pytest.approx(expected[:alike], abs=1e-4)
    assert (answers >= expected - 1e-4).all()


@pytest.mark.parametrize("name", clip_names())
def test_what_came_long_before_takes_nothing_from_speech(silero: SileroDetector, name: str) -> None:
    """Behind other sound a clip gets no lower answers than from a network that began a second before it."""
    before = np.concatenate([clip("fr_agent-user"), silence(3, level=300.0)])
    before = before[: len(before) // (RESTART_FRAMES * FRAME_SAMPLES) * RESTART_FRAMES * FRAME_SAMPLES]
    lead, speech = before[-RESTART_FRAMES * FRAME_SAMPLES :], clip(name)[: RESTART_FRAMES * FRAME_SAMPLES]
    fresh = probabilities(silero, np.concatenate([lead, speech]))[RESTART_FRAMES:]
    behind = probabilities(silero, np.concatenate([before, speech]))[len(before) // FRAME_SAMPLES :]
    assert (np.array(behind) >= np.array(fresh) - 0.02).all()


def test_a_distant_voice_is_heard_behind_changing_noise(silero: SileroDetector) -> None:
    """A state that is never reset goes deaf here: it gives no frame of this speech 0.5."""
    generator = np.random.default_rng(4)
    seconds = np.arange(40 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    room = generator.normal(scale=150.0, size=len(seconds)) * (1.2 + np.sin(2 * np.pi * 0.7 * seconds))
    decay = generator.normal(size=SAMPLE_RATE_HZ // 2) * np.exp(-np.arange(SAMPLE_RATE_HZ // 2) / 2_500)
    voice = np.convolve(clip("en_vm-invalidpassword").astype(np.float64), decay)
    voice *= 500.0 / voice.std()
    room[-len(voice) :] += voice
    answers = probabilities(silero, room.astype(np.int16))[-len(voice) // FRAME_SAMPLES :]
    assert np.mean(np.array(answers) > 0.5) > 0.3


def test_hears_speech_and_nothing_in_silence_or_noise(silero: SileroDetector) -> None:
    """Speech is mostly above 0.5; digital silence and white noise, faint or loud, never are."""
    noise = np.random.default_rng(1).normal(size=100 * FRAME_SAMPLES)
    assert np.mean(np.array(probabilities(silero, clip("en_dir-intro"))) > 0.5) > 0.6
    for level in (0, 3, 300, 10_000):
        assert max(probabilities(silero, np.clip(level * noise, -32768, 32767).astype(np.int16))) < 0.5


def test_reset_forgets_everything(silero: SileroDetector) -> None:
    """After a reset a clip gets exactly the answers that a new detector gives."""
    probabilities(silero, clip("en_vm-msgforwarded"))
    assert probabilities(silero, clip("fr_agent-user")) == probabilities(SileroDetector(), clip("fr_agent-user"))


def test_frames_are_judged_in_their_context(silero: SileroDetector) -> None:
    """The same frame gets another probability after other sound: context and state are carried along."""
    frames = frames_of(clip("en_dir-intro"))
    silero.reset()
    alone = silero.probability(frames[40])
    silero.reset()
    in_context = [silero.probability(frame) for frame in frames[:41]][-1]
    assert alone != pytest.approx(in_context, abs=1e-3)


def test_full_scale_sound_stays_a_probability(silero: SileroDetector) -> None:
    """Clipped square waves at full scale give finite numbers in [0, 1]."""
    square = np.where(np.arange(20 * FRAME_SAMPLES) % 160 < 80, 32767, -32768).astype(np.int16)
    assert all(0.0 <= probability <= 1.0 for probability in probabilities(silero, square))
