import logging
from pathlib import Path

import pytest

from agent.asr import Engine
from agent.asr.loading import as_commanded, load_as_commanded, load_engine
from agent.asr.scripted import Scripted
from agent.config.commanded import Applied
from agent.config.settings import FasterWhisperSettings, Settings, WhisperCppSettings
from agent.errors import ModelError

ENGLISH_ONLY = (
    'engine.language = "de", but engine.model = "tiny.en-q8_0" knows English only: '
    'set engine.model = "tiny-q8_0" or engine.language = "en"'
)


def test_no_engine_is_made_for_a_language_that_its_model_does_not_know(tmp_path: Path) -> None:
    """In the words of `check`, whoever asks: `run`, a reload, `transcribe`; 78."""
    engine = WhisperCppSettings(language="de")
    with pytest.raises(ModelError) as caught:
        load_engine(Settings(engine=engine, state_dir=tmp_path))
    assert str(caught.value) == ENGLISH_ONLY
    assert caught.value.exit_code == 78


@pytest.mark.parametrize(
    "engine",
    [
        WhisperCppSettings(),
        WhisperCppSettings(language="en"),
        WhisperCppSettings(model="tiny-q8_0", language="de"),
        FasterWhisperSettings(model="tiny.en-ct2", language="auto"),
    ],
)
def test_a_language_that_the_model_knows_is_not_what_is_wrong(
    tmp_path: Path, engine: WhisperCppSettings | FasterWhisperSettings
) -> None:
    """`auto` is English where the model knows nothing else. What is missing here is the model."""
    with pytest.raises(ModelError, match="not on this device"):
        load_engine(Settings(engine=engine, state_dir=tmp_path))


def test_a_language_set_by_command_gives_way_to_a_model_that_does_not_know_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody configures an English-only model afterwards: the device starts, as it is configured."""
    applied = Applied(tmp_path)
    applied.overlay(Settings(engine=WhisperCppSettings(model="tiny-q8_0")))
    applied.remember("engine.language", "de")

    def load(settings: Settings) -> Engine:
        try:
            return load_engine(settings)
        except ModelError as error:
            if "not on this device" in str(error):  # it would be loaded
                return Scripted.__new__(Scripted)
            raise

    caplog.set_level(logging.WARNING)
    configured = Settings(engine=WhisperCppSettings(), state_dir=tmp_path)
    _, settings = load_as_commanded(configured, applied, load)
    assert settings.engine == WhisperCppSettings()
    assert ENGLISH_ONLY in caplog.text


def test_so_it_does_in_a_reload(tmp_path: Path) -> None:
    """All else that was configured is taken; a language that the new model knows stays as commanded."""
    applied = Applied(tmp_path)
    applied.overlay(Settings(engine=WhisperCppSettings(model="tiny-q8_0")))
    applied.remember("engine.language", "de")
    assert as_commanded(Settings(engine=WhisperCppSettings(model="base-q5_1")), applied).engine.language == "de"
    assert as_commanded(Settings(engine=WhisperCppSettings()), applied).engine == WhisperCppSettings()
