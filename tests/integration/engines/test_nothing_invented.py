"""Real weights on silence, noise and quiet speech: nothing is made up, and nothing real is taken for noise."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from agent.asr import Engine, create_engine
from agent.asr.loading import transcribe
from agent.asr.transcript import Verdict
from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16, Utterance
from agent.config.settings import FasterWhisperSettings, Settings, WhisperCppSettings
from tests.support.clips import clip

pytestmark = pytest.mark.weights

Pulled = Callable[[str], Path]
ENGINES: dict[str, WhisperCppSettings | FasterWhisperSettings] = {
    "whisper_cpp": WhisperCppSettings(),
    "faster_whisper": FasterWhisperSettings(),
}
SPOKEN = ["en_vm-msgforwarded", "en_vm-invalidpassword", "en_pls-hold-while-try"]


@pytest.fixture(scope="module")
def engines(pulled: Pulled) -> Iterator[dict[str, Engine]]:
    """tiny.en on both."""
    loaded = {kind: create_engine(settings, pulled(settings.model)) for kind, settings in ENGINES.items()}
    yield loaded
    for engine in loaded.values():
        engine.close()


@pytest.fixture(params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest, engines: dict[str, Engine]) -> Engine:
    """One of them."""
    return engines[request.param]


def utterance(pcm: Pcm16) -> Utterance:
    """All of `pcm` as one utterance that no detector has heard."""
    return Utterance("01", pcm, 0, 0, speech_end=len(pcm), closed_at=len(pcm))


def noise(kind: str, seconds: float) -> Pcm16:
    """Synthetic sounds as they are in rooms."""
    count = round(seconds * SAMPLE_RATE_HZ)
    time_s, chance = np.arange(count) / SAMPLE_RATE_HZ, np.random.default_rng(9)
    white = chance.normal(0.0, 1.0, count)
    match kind:
        case "silence":
            wave = np.zeros(count)
        case "white":
            wave = 3_000.0 * white
        case "hum":
            wave = 6_000.0 * np.sin(2 * np.pi * 50 * time_s) + 2_000.0 * np.sin(2 * np.pi * 150 * time_s)
        case "puffs":  # a third of a second each second, as somebody blows his nose
            wave = 9_000.0 * white * np.exp(-(((time_s % 1.0) - 0.5) ** 2) / 0.01)
        case _:  # chirps
            wave = 8_000.0 * np.sin(2 * np.pi * (400 * time_s + 300 * np.cos(2 * np.pi * 3 * time_s)))
    return np.clip(wave, -32_768, 32_767).astype(np.int16)


def published(pcm: Pcm16, engine: Engine, folder: Path) -> str:
    """What the agent's own path makes of a recording: detector, segmenter, engine."""
    path = folder / "recording.wav"
    soundfile.write(path, pcm, SAMPLE_RATE_HZ)
    return " ".join(passage.transcript.text for passage in transcribe(path, Settings(), engine))


@pytest.mark.parametrize("kind", ["silence", "white", "hum", "puffs", "chirps"])
def test_noise_publishes_nothing(kind: str, engine: Engine, tmp_path: Path) -> None:
    """Ten seconds of it, behind two of quiet."""
    assert published(np.concatenate([noise("silence", 2.0), noise(kind, 10.0)]), engine, tmp_path) == ""


@pytest.mark.parametrize("seconds", [0.5, 2.0])
def test_silence_that_reaches_the_engine_is_rejected(seconds: float, engine: Engine) -> None:
    """Without any detector: Whisper hears "you" in it."""
    transcript = engine.transcribe([utterance(noise("silence", seconds))])[0]
    assert (transcript.text, transcript.verdict) == ("", Verdict.REJECTED)


@pytest.mark.parametrize("kind", ["white", "puffs"])
def test_noise_that_the_detector_half_believes_is_rejected(kind: str, engine: Engine) -> None:
    """As a sneeze is: half a second with a mean probability of 0.6."""
    half_believed = replace(utterance(noise(kind, 1.2)), speech_s=0.5, speech_prob=0.6)
    assert engine.transcribe([half_believed])[0].text == ""


@pytest.mark.parametrize("name", SPOKEN)
@pytest.mark.parametrize("quieter_db", [0, 20, 30])
def test_quiet_words_are_published(name: str, quieter_db: int, engine: Engine, tmp_path: Path) -> None:
    """A voice from the next room is no noise."""
    pcm = (clip(name) / 10 ** (quieter_db / 20)).astype(np.int16)
    assert len(published(pcm, engine, tmp_path).split()) >= 3


@pytest.mark.parametrize(
    "pcm", [noise("silence", 2.0), noise("puffs", 2.0), clip(SPOKEN[0])], ids=["0", "puffs", "0 dB"]
)
def test_both_engines_find_the_same_no_speech_probability(pcm: Pcm16, engines: dict[str, Engine]) -> None:
    """whisper.cpp's comes from our own decoder step: openai/whisper's definition, as in CTranslate2."""
    ours, theirs = (engines[kind].transcribe([utterance(pcm)])[0].no_speech_prob for kind in sorted(ENGINES))
    assert ours is not None
    assert ours == pytest.approx(theirs, abs=0.05)


def test_the_no_speech_probability_is_that_of_the_last_sound(engines: dict[str, Engine]) -> None:
    """Not left over from the one before: silence does not speak against the words behind it, nor words for silence."""
    engine = engines["whisper_cpp"]
    words, silence = utterance(clip(SPOKEN[0])), utterance(noise("silence", 2.0))
    found = [engine.transcribe([sound])[0].no_speech_prob for sound in (words, silence, words, silence)]
    assert found[:2] == found[2:]
    assert found[0] != found[1]
