from pathlib import Path

import pytest

from agent.calibrate.candidates import cost, objection, smaller_in_vain, thread_numbers, worth_pulling
from agent.calibrate.run import candidates
from agent.errors import ModelError
from agent.models.calibration import Limits
from agent.models.catalogue import Model, load_catalogue
from agent.models.choice import for_language
from agent.models.store import Store

CATALOGUE = load_catalogue()
BOTH = ("whisper_cpp", "faster_whisper")


def models(*names: str) -> list[Model]:
    """Out of the real catalogue."""
    return [CATALOGUE.find(name) for name in names]


def test_the_cheapest_come_first_and_of_a_size_those_that_probably_win() -> None:
    """Should the time run out, what was measured is what mattered most."""
    given = models("base-ct2", "small-q8_0", "tiny.en-f16", "tiny.en-q4_0", "base-q8_0", "tiny.en-ct2", "tiny.en-q8_0")
    assert [model.name for model in sorted(given, key=cost)] == [
        "tiny.en-q8_0",
        "tiny.en-ct2",
        "tiny.en-q4_0",
        "tiny.en-f16",
        "base-q8_0",
        "base-ct2",
        "small-q8_0",
    ]


def test_an_engine_that_is_not_installed_is_not_measured() -> None:
    """It is said why."""
    assert objection(CATALOGUE.find("tiny.en-q8_0"), ["whisper_cpp"], 4_000) == ""
    assert objection(CATALOGUE.find("tiny.en-ct2"), ["whisper_cpp"], 4_000) == "faster_whisper is not installed"


def test_what_is_far_too_large_is_not_even_loaded() -> None:
    """A board of 512 MB with 200 MB to spare would only swap; what is near the budget is measured."""
    assert objection(CATALOGUE.find("tiny.en-q8_0"), BOTH, 200) == ""
    for name in ("base-ct2", "large-v3-turbo-q5_0"):
        assert "the engine may use only 200" in objection(CATALOGUE.find(name), BOTH, 200)


def test_what_is_here_and_does_not_do_is_named(tmp_path: Path) -> None:
    """English-only models for German; and without any model the error says what to run."""
    store = Store(tmp_path, CATALOGUE)
    with pytest.raises(ModelError, match="calibrate --pull"):
        candidates(store, "de", Limits(4_000))
    for name in ("tiny.en-q8_0", "tiny-q8_0"):
        (tmp_path / name).mkdir()
    found, skipped = candidates(store, "de", Limits(4_000))
    assert [model.name for model in found] == ["tiny-q8_0"]
    assert [(one.model, one.why) for one in skipped] == [
        ("tiny.en-q8_0", 'it knows English only, and engine.language is "de"')
    ]


@pytest.mark.parametrize(
    ("language", "given", "expected"),
    [
        ("en", ("tiny.en-q8_0", "base-q8_0"), ["tiny.en-q8_0", "base-q8_0"]),
        ("de", ("tiny.en-q8_0", "base-q8_0"), ["base-q8_0"]),
        ("de", ("tiny.en-q8_0",), []),
        ("auto", ("tiny.en-q8_0", "base-q8_0"), ["base-q8_0"]),
        ("auto", ("tiny.en-q8_0",), ["tiny.en-q8_0"]),
    ],
)
def test_the_language_decides_whether_a_model_will_do(
    language: str, given: tuple[str, ...], expected: list[str]
) -> None:
    """English-only models are for English; where the language is open, only for want of another."""
    assert [model.name for model in for_language(models(*given), language)] == expected


@pytest.mark.parametrize(
    ("cores", "setting", "expected"),
    [(1, 0, [1]), (2, 0, [1]), (4, 0, [3, 2, 1]), (6, 0, [5, 4, 2, 1]), (16, 0, [15, 8, 4, 2, 1]), (4, 4, [4])],
)
def test_a_core_is_left_free_unless_the_settings_want_it(cores: int, setting: int, expected: list[int]) -> None:
    """Never as many threads as cores by ourselves; what somebody set is not second-guessed."""
    assert thread_numbers(cores, setting) == expected


def test_what_is_larger_than_something_too_slow_is_not_tried() -> None:
    """On the same engine only: another engine may be several times faster."""
    tiny, base, ct2 = models("tiny.en-q8_0", "base-q8_0", "base-ct2")
    assert smaller_in_vain(base, [tiny]) == tiny
    assert smaller_in_vain(tiny, [tiny]) is None
    assert smaller_in_vain(ct2, [tiny]) is None


def test_what_is_pulled_exists_fits_and_suits_the_language() -> None:
    """On a small board only what it can hold; for German nothing that knows English only."""
    assert worth_pulling(CATALOGUE, BOTH, "en", 4_000) == [
        ["tiny.en-q8_0", "tiny-q8_0"],
        ["tiny.en-ct2", "tiny-ct2"],
        ["base.en-q8_0", "base-q8_0"],
        ["base.en-ct2", "base-ct2"],
    ]
    assert worth_pulling(CATALOGUE, BOTH, "en", 130) == [["tiny.en-q8_0", "tiny-q8_0"]]
    assert worth_pulling(CATALOGUE, ["whisper_cpp"], "de", 4_000) == [["tiny-q8_0"], ["base-q8_0"]]
