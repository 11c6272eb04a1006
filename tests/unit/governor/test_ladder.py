import logging
from pathlib import Path

import pytest

from agent.config.settings import (
    FasterWhisperSettings,
    GovernorSettings,
    ScriptedSettings,
    Settings,
    WhisperCppSettings,
)
from agent.governor.ladder import build_ladder, catalogued_profiles, create_ladder, measured_profiles, take_over
from agent.models.calibration import Candidate, Measurement
from agent.models.catalogue import load_catalogue

CATALOGUE = load_catalogue()
BASE = WhisperCppSettings(model="base-q8_0", language="de", threads=2, initial_prompt="Grüezi")


def measured(engine: str, model: str, cpu: float, threads: int = 1, errors: int = 4) -> Measurement:
    """What a calibration might have found."""
    candidate = Candidate("whisper_cpp" if engine == "whisper_cpp" else "faster_whisper", model, threads)
    return Measurement(candidate, model.partition("-")[0], False, 80, errors, 0.2, 0.4, cpu, 150, 1.0, 3)


def catalogued(*names: str, top: str) -> list[str]:
    """Models that take over where these are installed."""
    models = [CATALOGUE.find(name) for name in names]
    return [profile.model for profile in catalogued_profiles(models, CATALOGUE.find(top), BASE)]


def test_the_first_steps_keep_the_model() -> None:
    """What costs nothing in words goes first: decoding ahead, then a window that is always full."""
    top = BASE.model_copy(update={"context": "full"})
    ladder = build_ladder(top, [take_over(top, "whisper_cpp", "tiny-q8_0")])
    assert [(profile.model, profile.speculative) for profile in ladder] == [
        ("base-q8_0", True),
        ("base-q8_0", False),
        ("base-q8_0", False),
        ("tiny-q8_0", False),
    ]
    contexts = [profile.engine.context for profile in ladder if isinstance(profile.engine, WhisperCppSettings)]
    assert contexts == ["full", "full", "follow", "follow"]


def test_a_model_that_takes_over_is_asked_as_before() -> None:
    """Language, prompt and threads go on, whichever engine it is."""
    ladder = build_ladder(
        BASE, [take_over(BASE, "faster_whisper", "tiny-ct2", 0.1), take_over(BASE, "whisper_cpp", "tiny-q4_0")]
    )
    other, last = ladder[-2].engine, ladder[-1].engine
    assert isinstance(other, FasterWhisperSettings)
    assert isinstance(last, WhisperCppSettings)
    for engine in (other, last):
        assert (engine.language, engine.initial_prompt, engine.threads) == ("de", "Grüezi", 2)
    assert (other.model, last.model, ladder[-2].cost) == ("tiny-ct2", "tiny-q4_0", 0.1)


def test_the_floor_is_never_gone_below() -> None:
    """Neither by a further profile, nor if the floor is the model itself."""
    profiles = [take_over(BASE, "whisper_cpp", "tiny-q8_0"), take_over(BASE, "whisper_cpp", "tiny-q4_0")]
    assert build_ladder(BASE, profiles, "tiny-q8_0")[-1].model == "tiny-q8_0"
    assert {profile.model for profile in build_ladder(BASE, profiles, "base-q8_0")} == {"base-q8_0"}


def test_an_engine_without_models_has_two_levels() -> None:
    """Decoding ahead, or not."""
    assert [profile.speculative for profile in build_ladder(ScriptedSettings(), [])] == [True, False]


def test_what_was_measured_decides_where_it_was() -> None:
    """Each profile clearly cheaper than the last; what is dearer, or hardly cheaper, is none."""
    found = measured_profiles(
        [
            measured("whisper_cpp", "small-q8_0", 0.9),
            measured("whisper_cpp", "base-q8_0", 0.40, threads=2),
            measured("whisper_cpp", "base-q8_0", 0.45),
            measured("whisper_cpp", "base-q5_1", 0.38),
            measured("faster_whisper", "tiny-ct2", 0.1, errors=6),
            measured("whisper_cpp", "tiny-q8_0", 0.2),
        ],
        BASE,
    )
    assert [(profile.model, profile.cost) for profile in found] == [
        ("base-q8_0", 0.40),
        ("tiny-q8_0", 0.2),
        ("tiny-ct2", 0.1),
    ]
    assert build_ladder(BASE, found)[0].cost == 0.40


def test_nobody_steps_down_to_what_is_worse_and_dearer() -> None:
    """A small model with 5 bits may take longer than a larger one on another engine: it is left out."""
    found = measured_profiles(
        [
            measured("whisper_cpp", "base-q8_0", 0.152),
            measured("whisper_cpp", "tiny-q5_1", 0.092),
            measured("faster_whisper", "base-ct2", 0.072),
            measured("faster_whisper", "tiny-ct2", 0.034),
        ],
        BASE,
    )
    assert [profile.model for profile in found] == ["base-q8_0", "base-ct2", "tiny-ct2"]


def test_a_model_that_was_not_measured_cannot_be_compared() -> None:
    """Then the measurements say nothing."""
    assert measured_profiles([measured("whisper_cpp", "tiny-q8_0", 0.2)], BASE) == ()


def test_without_measurements_smaller_sizes_take_over() -> None:
    """One a size, in the quantisation that is fastest as a rule, and last what takes least memory."""
    here = ("tiny-q4_0", "tiny-q8_0", "base-q5_1", "base-q8_0", "small-q8_0")
    assert catalogued(*here, top="small-q8_0") == ["base-q8_0", "tiny-q8_0", "tiny-q4_0"]
    assert catalogued(*here, top="base-q8_0") == ["tiny-q8_0", "tiny-q4_0"]


def test_the_smallest_size_has_only_fewer_bits_below_it() -> None:
    """For the sake of memory; where the model is the slimmest already, nothing takes over."""
    assert catalogued("tiny-q8_0", "tiny-q4_0", "base-q8_0", top="tiny-q8_0") == ["tiny-q4_0"]
    assert catalogued("tiny-q4_0", "base-q8_0", top="tiny-q4_0") == []


def test_what_does_not_know_the_language_takes_nothing_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Even where the settings name it."""
    for name in ("tiny.en-q8_0", "tiny-q8_0"):
        (tmp_path / "models" / name).mkdir(parents=True)
    governor = GovernorSettings(models=("tiny.en-q8_0", "tiny-q8_0"))
    caplog.set_level(logging.WARNING)
    ladder = create_ladder(Settings(engine=BASE, governor=governor, state_dir=tmp_path), BASE)
    assert [profile.model for profile in ladder] == ["base-q8_0", "base-q8_0", "tiny-q8_0"]
    assert 'governor.models: tiny.en-q8_0 cannot take over: engine.language is "de"' in caplog.text
    english = BASE.model_copy(update={"language": "auto"})
    ladder = create_ladder(Settings(engine=english, governor=governor, state_dir=tmp_path), english)
    assert [profile.model for profile in ladder] == ["base-q8_0", "base-q8_0", "tiny.en-q8_0", "tiny-q8_0"]
