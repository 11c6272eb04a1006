"""From settings to an engine, or one line that says what is missing."""

import sys
from pathlib import Path

import pytest

from agent.asr import create_engine
from agent.asr.scripted import Scripted
from agent.config.settings import FasterWhisperSettings, ScriptedSettings, WhisperCppSettings
from agent.errors import EngineError, ModelError
from agent.install import extras


def test_the_scripted_engine_needs_no_model() -> None:
    """It can be tried before anything is downloaded."""
    assert isinstance(create_engine(ScriptedSettings(), None), Scripted)


@pytest.mark.parametrize("settings", [WhisperCppSettings(), FasterWhisperSettings()])
def test_an_engine_without_its_model_says_how_to_get_it(settings: WhisperCppSettings | FasterWhisperSettings) -> None:
    """The remedy is a command to copy."""
    with pytest.raises(EngineError, match=f"edgescribe models pull {settings.model}"):
        create_engine(settings, None)


def test_a_missing_extra_names_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """CTranslate2 is an extra: without it, one line and no traceback."""
    monkeypatch.delitem(sys.modules, "agent.asr.ctranslate2", raising=False)
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(EngineError) as failure:
        create_engine(FasterWhisperSettings(), tmp_path)
    assert str(failure.value).endswith(extras.missing("faster-whisper"))


@pytest.mark.parametrize("content", [b"", b"no model at all", b"lmgg" + bytes(1_000)])
def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    """whisper.cpp gives a null pointer, which must not be touched."""
    path = tmp_path / "ggml.bin"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"ggml\.bin cannot be loaded") as failure:
        create_engine(WhisperCppSettings(), path)
    assert "\n" not in str(failure.value)


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Both engines say which file they miss."""
    with pytest.raises(ModelError, match=r"nowhere\.bin"):
        create_engine(WhisperCppSettings(), tmp_path / "nowhere.bin")
    with pytest.raises(ModelError, match=r"tokenizer\.json is missing"):
        create_engine(FasterWhisperSettings(), tmp_path)
