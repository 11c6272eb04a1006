"""The engine that answers from a list."""

import time

import numpy as np
import pytest

from agent.asr.scripted import Scripted
from agent.audio.frames import Utterance
from agent.config.settings import ScriptedSettings
from agent.errors import EngineError


def utterance(number: int) -> Utterance:
    """Half a second of silence."""
    return Utterance(f"U{number}", np.zeros(8_000, np.int16), 0, 0, speech_end=8_000, closed_at=8_000)


def texts(engine: Scripted, count: int) -> list[str]:
    """Its next answers."""
    return [engine.transcribe([utterance(number)])[0].text for number in range(count)]


def test_it_answers_in_turn_and_begins_again() -> None:
    """The n-th utterance gets the n-th text: a test knows what to expect."""
    assert texts(Scripted(ScriptedSettings(texts=("one", "two"))), 5) == ["one", "two", "one", "two", "one"]


def test_an_empty_script_hears_nothing() -> None:
    """Rather than failing."""
    assert texts(Scripted(ScriptedSettings(texts=())), 2) == ["", ""]


def test_it_takes_as_long_as_it_is_told() -> None:
    """To try out what a slow model does to a pipeline."""
    engine = Scripted(ScriptedSettings(delay_s=0.05))
    began_s = time.monotonic()
    transcript = engine.transcribe([utterance(0)])[0]
    assert 0.05 <= transcript.inference_s <= time.monotonic() - began_s


def test_it_reports_the_language_it_was_given() -> None:
    """Dashboards can be tried in any language."""
    assert Scripted(ScriptedSettings(language="de")).transcribe([utterance(0)])[0].language == "de"


def test_nothing_is_transcribed_after_close() -> None:
    """As with every engine."""
    engine = Scripted(ScriptedSettings())
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.transcribe([utterance(0)])[0]
