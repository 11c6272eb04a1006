from dataclasses import replace
from pathlib import Path

import pytest

from agent.config.settings import AutoSettings, FasterWhisperSettings, ScriptedSettings, Settings, WhisperCppSettings
from agent.errors import ModelError
from agent.models.calibration import NAME, Calibration, write_calibration
from agent.models.selection import in_words, resolve
from tests.calibrations import calibration, measurement

MEASURED = calibration(
    measurement("faster_whisper", "tiny.en-ct2", threads=3),
    measurement("whisper_cpp", "tiny.en-q8_0", latency_s=0.4),
    measurement("whisper_cpp", "tiny-q8_0", latency_s=0.5, errors=6, threads=2),
)
"""The first one is chosen: as accurate as the second, and faster."""


def settings(tmp_path: Path, *models: str, measured: Calibration | None = MEASURED, **engine: object) -> Settings:
    """Of a device with these models and that calibration."""
    for model in models:
        (tmp_path / "models" / model).mkdir(parents=True, exist_ok=True)
    if measured:
        write_calibration(tmp_path, measured)
    return Settings(state_dir=tmp_path, engine=AutoSettings.model_validate(engine))


def test_an_engine_that_is_named_stays_as_it_is(tmp_path: Path) -> None:
    """Only `auto` asks the calibration."""
    for engine in (WhisperCppSettings(threads=7), FasterWhisperSettings(), ScriptedSettings()):
        resolved = resolve(Settings(state_dir=tmp_path, engine=engine))
        assert (resolved.engine, resolved.warning) == (engine, "")


def test_auto_is_what_was_chosen_with_all_that_the_settings_say_besides(tmp_path: Path) -> None:
    """Engine, model and threads from the file; language, prompt, isolation and budget from the settings."""
    given = settings(
        tmp_path, "tiny.en-ct2", "tiny.en-q8_0", language="en", initial_prompt="Kitchen", isolation="thread", budget_s=9
    )
    resolved = resolve(given)
    assert resolved.warning == ""
    assert resolved.engine == FasterWhisperSettings(
        model="tiny.en-ct2", threads=3, language="en", initial_prompt="Kitchen", isolation="thread", budget_s=9
    )


def test_threads_of_the_settings_go_before_those_that_were_measured(tmp_path: Path) -> None:
    """Whoever sets a number means it."""
    assert resolve(settings(tmp_path, "tiny.en-ct2", threads=1)).engine.model_dump()["threads"] == 1


def test_without_a_calibration_the_default_is_taken_and_it_is_said(tmp_path: Path) -> None:
    """If it is here: a device that listens badly is better than one that does not start."""
    resolved = resolve(settings(tmp_path, "tiny.en-q8_0", measured=None, initial_prompt="Kitchen"))
    assert resolved.engine == WhisperCppSettings(initial_prompt="Kitchen")
    assert "run `edgescribe calibrate`; until then it is whisper_cpp tiny.en-q8_0" in resolved.warning


@pytest.mark.parametrize(("models", "language"), [((), "en"), (("tiny.en-q8_0",), "de")])
def test_without_anything_to_go_by_it_is_an_error_with_the_remedy(
    tmp_path: Path, models: tuple[str, ...], language: str
) -> None:
    """No calibration, and no default model that would do either."""
    with pytest.raises(ModelError, match=r"not calibrated: run `edgescribe calibrate` \(with --pull"):
        resolve(settings(tmp_path, *models, measured=None, language=language))


def test_a_damaged_file_is_as_good_as_none(tmp_path: Path) -> None:
    """It is said what is wrong with it; the agent starts."""
    given = settings(tmp_path, "tiny.en-q8_0", measured=None)
    (tmp_path / NAME).write_text("{", encoding="utf-8")
    resolved = resolve(given)
    assert resolved.engine == WhisperCppSettings()
    assert "is damaged" in resolved.warning


def test_a_model_that_is_gone_makes_room_for_the_next_best(tmp_path: Path) -> None:
    """Out of what was measured and is here."""
    resolved = resolve(settings(tmp_path, "tiny.en-q8_0", "tiny-q8_0"))
    assert in_words(resolved.engine) == "whisper_cpp tiny-q8_0, 2 threads"
    resolved = resolve(settings(tmp_path, "tiny.en-q8_0", "tiny-q8_0", language="en"))
    assert in_words(resolved.engine) == "whisper_cpp tiny.en-q8_0, 1 thread"
    assert "cannot use tiny.en-ct2" in resolved.warning


def test_another_language_takes_a_model_that_knows_it(tmp_path: Path) -> None:
    """The English-only choice does not do for German; what was measured and is multilingual does."""
    resolved = resolve(settings(tmp_path, "tiny.en-ct2", "tiny-q8_0", language="de"))
    assert in_words(resolved.engine) == "whisper_cpp tiny-q8_0, 2 threads"
    assert "run `edgescribe calibrate` again" in resolved.warning


def test_figures_of_another_machine_are_used_with_a_warning_and_without_their_threads(tmp_path: Path) -> None:
    """A card moved to a board with fewer cores must not take all of them."""
    elsewhere = replace(MEASURED.fingerprint, cores=64, board="Another board")
    resolved = resolve(settings(tmp_path, "tiny.en-ct2", measured=replace(MEASURED, fingerprint=elsewhere)))
    assert resolved.engine == FasterWhisperSettings(model="tiny.en-ct2", threads=0)
    assert "out of date (the board was Another board" in resolved.warning
