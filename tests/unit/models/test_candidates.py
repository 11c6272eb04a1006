import pytest

from agent.models.candidates import (
    Contender,
    contenders,
    for_language,
    smaller_in_vain,
    thread_numbers,
    worth_pulling,
)
from agent.models.catalogue import Model, load_catalogue

CATALOGUE = load_catalogue()
BOTH = ("whisper_cpp", "faster_whisper")


def models(*names: str) -> list[Model]:
    """Out of the real catalogue."""
    return [CATALOGUE.find(name) for name in names]


def names(found: tuple[Contender, ...]) -> list[str]:
    """What is to be measured, in its order."""
    return [contender.model.name for contender in found]


def test_the_cheapest_come_first_and_of_a_size_those_that_probably_win() -> None:
    """Should the time run out, what was measured is what mattered most."""
    given = models("base-ct2", "small-q8_0", "tiny.en-f16", "tiny.en-q4_0", "base-q8_0", "tiny.en-ct2", "tiny.en-q8_0")
    found = contenders(given, BOTH, "en", 4_000)
    assert names(found.contenders) == [
        "tiny.en-q8_0",
        "tiny.en-ct2",
        "tiny.en-q4_0",
        "tiny.en-f16",
        "base-q8_0",
        "base-ct2",
        "small-q8_0",
    ]
    assert found.skipped == ()


def test_an_engine_that_is_not_installed_is_not_measured() -> None:
    """It is said why."""
    found = contenders(models("tiny.en-ct2", "tiny.en-q8_0"), ["whisper_cpp"], "en", 4_000)
    assert names(found.contenders) == ["tiny.en-q8_0"]
    assert [(one.model, one.why) for one in found.skipped] == [("tiny.en-ct2", "faster_whisper is not installed")]


def test_what_is_far_too_large_is_not_even_loaded() -> None:
    """A board of 512 MB with 200 MB to spare would only swap; what is near the budget is measured."""
    found = contenders(models("base-ct2", "tiny.en-q8_0", "large-v3-turbo-q5_0"), BOTH, "en", 200)
    assert names(found.contenders) == ["tiny.en-q8_0"]
    assert {one.model for one in found.skipped} == {"base-ct2", "large-v3-turbo-q5_0"}
    assert all("the engine may have 200" in one.why for one in found.skipped)


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
    tiny, base, ct2 = (
        Contender("whisper_cpp", CATALOGUE.find("tiny.en-q8_0")),
        Contender("whisper_cpp", CATALOGUE.find("base-q8_0")),
        Contender("faster_whisper", CATALOGUE.find("base-ct2")),
    )
    assert list(smaller_in_vain(base, [tiny])) == [tiny]
    assert list(smaller_in_vain(tiny, [tiny])) == []
    assert list(smaller_in_vain(ct2, [tiny])) == []


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
