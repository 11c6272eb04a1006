"""What every engine keeps, whatever recognises the words: the contract of `agent.asr.Engine`."""

import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.asr import Engine, create_engine
from agent.audio.frames import Pcm16, Utterance
from agent.config.settings import EngineSettings, FasterWhisperSettings, ScriptedSettings, WhisperCppSettings
from agent.errors import EngineError
from tests.support.clips import clip

SETTINGS: dict[str, EngineSettings] = {
    "scripted": ScriptedSettings(),
    "whisper_cpp": WhisperCppSettings(model="tiny.en-q8_0"),
    "faster_whisper": FasterWhisperSettings(model="tiny.en-ct2"),
}
REAL = [pytest.param(kind, marks=pytest.mark.weights) for kind in ("whisper_cpp", "faster_whisper")]


def utterance(pcm: Pcm16) -> Utterance:
    """All of `pcm` as one utterance."""
    return Utterance("01CONTRACT", pcm, 0, 0, speech_end=len(pcm), closed_at=len(pcm))


@pytest.fixture(params=["scripted", *REAL])
def kind(request: pytest.FixtureRequest) -> str:
    """Each engine in turn."""
    return str(request.param)


@pytest.fixture
def model_path(kind: str, request: pytest.FixtureRequest) -> Path | None:
    """The engine's verified weights, where it has any."""
    settings = SETTINGS[kind]
    if isinstance(settings, ScriptedSettings):
        return None
    pulled: Callable[[str], Path] = request.getfixturevalue("pulled")
    return pulled(settings.model)


@pytest.fixture
def engine(kind: str, model_path: Path | None) -> Iterator[Engine]:
    """A loaded engine, closed afterwards."""
    created = create_engine(SETTINGS[kind], model_path)
    yield created
    created.close()


def test_a_transcript_belongs_to_its_utterance_and_says_who_wrote_it(engine: Engine, kind: str) -> None:
    """Id, engine, language, time: what a subscriber is told."""
    transcript = engine.transcribe([utterance(clip("en_vm-msgforwarded"))])[0]
    assert (transcript.utterance_id, transcript.engine, transcript.language) == ("01CONTRACT", kind, "en")
    assert transcript.inference_s >= 0
    assert transcript.text == transcript.text.strip() != ""


def test_segments_lie_in_order_inside_the_utterance_and_hold_its_words(engine: Engine) -> None:
    """Times are relative to the first sample."""
    spoken = utterance(clip("en_dir-intro"))
    transcript = engine.transcribe([spoken])[0]
    times = [at_s for segment in transcript.segments for at_s in (segment.start_s, segment.end_s)]
    assert times == sorted(times)
    assert all(0.0 <= at_s <= spoken.duration_s for at_s in times)
    assert " ".join(segment.text for segment in transcript.segments) == transcript.text


def test_the_same_sound_gives_the_same_words(engine: Engine) -> None:
    """Nothing is carried from one utterance to the next, and nothing is drawn by lot."""
    first = engine.transcribe([utterance(clip("en_vm-msgforwarded"))])[0]
    engine.transcribe([utterance(clip("en_conf-waitforleader"))])[0]
    again = engine.transcribe([utterance(clip("en_vm-msgforwarded"))])[0]
    assert replace(again, inference_s=0.0) == replace(first, inference_s=0.0)


def test_an_engine_closes_once_and_for_all(engine: Engine) -> None:
    """`close` may come twice; `transcribe` after it is an error in one line."""
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.transcribe([utterance(clip("en_vm-msgforwarded"))])[0]


def test_loading_and_transcribing_never_touch_the_network(
    kind: str, model_path: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that is offline works as one that is online."""

    def connect(_socket: socket.socket, address: object) -> None:
        pytest.fail(f"connected to {address}")

    monkeypatch.setattr(socket.socket, "connect", connect)
    engine = create_engine(SETTINGS[kind], model_path)
    engine.transcribe([utterance(clip("en_vm-msgforwarded"))])[0]
    engine.close()
