"""Recordings that begin and end with speech, as push to talk makes them: real weights on words out of real speech."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from agent.asr import Engine, create_engine
from agent.asr.loading import Passage, create_segmenter, transcribe
from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16
from agent.config.settings import FasterWhisperSettings, Settings, WhisperCppSettings
from agent.vad import create_detector
from agent.wyoming import words_in
from tests.support.clips import clip

pytestmark = pytest.mark.weights

CUTS = [
    ("en_pls-hold-while-try", 3_658, 9_179),
    ("en_pls-hold-while-try", 8_654, 16_098),
    ("en_conf-waitforleader", 36_467, 41_655),
    ("en_vm-invalidpassword", 21_091, 27_378),
]
"""Without silence around them, the engines hear nothing there."""


@pytest.fixture(scope="module", params=[WhisperCppSettings(), FasterWhisperSettings()], ids=lambda one: one.kind)
def engine(request: pytest.FixtureRequest, pulled: Callable[[str], Path]) -> Iterator[Engine]:
    """tiny.en on each engine."""
    engine = create_engine(request.param, pulled(request.param.model))
    yield engine
    engine.close()


def passages(folder: Path, pcm: Pcm16, engine: Engine) -> list[Passage]:
    """What `edgescribe transcribe` finds in a recording."""
    soundfile.write(folder / "word.wav", pcm, SAMPLE_RATE_HZ)
    return list(transcribe(folder / "word.wav", Settings(), engine))


def said(found: list[Passage]) -> str:
    """The words."""
    return " ".join(passage.transcript.text for passage in found)


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_the_words_are_those_with_silence_around_them(
    tmp_path: Path, engine: Engine, cut: tuple[str, int, int]
) -> None:
    """Half a second at either end changes nothing, in a recording and through Assist; and there are words."""
    name, start, end = cut
    word = clip(name)[start:end]
    surrounded = np.pad(word, 8_000)
    found = passages(tmp_path, word, engine)
    assert said(found)
    assert said(found) == said(passages(tmp_path, surrounded, engine))

    def assist(pcm: Pcm16) -> str:
        detector, segmenter = create_detector(Settings().vad), create_segmenter(Settings())
        return words_in(pcm, detector, segmenter, lambda utterance, _limit_s: engine.transcribe([utterance])[0])

    assert assist(word) == assist(surrounded) == said(found)


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_the_times_are_those_of_the_recording(tmp_path: Path, engine: Engine, cut: tuple[str, int, int]) -> None:
    """Nothing begins before it or ends behind it."""
    name, start, end = cut
    length_s = (end - start) / SAMPLE_RATE_HZ
    for passage in passages(tmp_path, clip(name)[start:end], engine):
        utterance = passage.utterance
        assert utterance.start_s == 0.0
        assert utterance.duration_s == length_s
        for segment in passage.transcript.segments:
            assert 0.0 <= segment.start_s <= segment.end_s <= length_s
