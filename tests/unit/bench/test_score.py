import random

import jiwer
import numpy as np
import pytest

from agent.bench.score import align, align_words, percentile, rate, units, words_in


@pytest.mark.parametrize(
    ("reference", "heard", "expected"),
    [
        ("", "", (0, 0, 0, 0)),
        ("a b c", "a b c", (0, 0, 0, 3)),
        ("a b c", "", (0, 3, 0, 3)),
        ("", "a b", (0, 0, 2, 0)),
        ("a b c", "a x c", (1, 0, 0, 3)),
        ("a b c d", "a c d e", (0, 1, 1, 4)),
    ],
)
def test_errors_are_counted_by_kind(reference: str, heard: str, expected: tuple[int, ...]) -> None:
    """Known alignments give their known substitutions, deletions and insertions."""
    found = align_words(reference.split(), heard.split())
    assert (found.operations.count("substitute"), found.deletions, found.insertions, found.said) == expected
    assert found.errors == sum(expected[:3])


def test_the_count_agrees_with_jiwer() -> None:
    """On random word sequences the total is that of an independent implementation."""
    generator = random.Random(7)  # noqa: S311 - test data
    for _ in range(200):
        said, heard = ([generator.choice("abcd") for _ in range(generator.randrange(1, 12))] for _ in range(2))
        theirs = jiwer.process_words(" ".join(said), " ".join(heard))
        assert align_words(said, heard).errors == theirs.substitutions + theirs.deletions + theirs.insertions


def test_spelling_case_and_numerals_are_no_errors_in_english() -> None:
    """The English normaliser makes alike what is written differently and said alike."""
    assert align("The colour is twenty-two, Mr. Brown.", "the color is 22 mister brown", "en").errors == 0
    assert align("I'm at the door!", "I am at the door", "en").errors == 0


@pytest.mark.parametrize("heard", ["K-E-N 2-4-3.", "K E N 243", "KEN 2, 4, 3", "k e n two four three"])
def test_how_spelled_letters_and_digits_are_written_is_no_error(heard: str) -> None:
    """Somebody spells a name and a number: Whisper writes hyphens, commas, or nothing between, as it likes."""
    assert align("its plate is K E N two four three", f"Its plate is {heard}", "en").errors == 0, units(heard, "en")


def test_a_letter_that_is_wrong_in_what_was_spelled_is_an_error() -> None:
    """One word is wrong then, however many letters there were; words of more letters are left alone."""
    found = align("his name is K E N T", "his name is K-E-N-D", "en")
    assert (found.errors, found.said) == (1, 4)
    assert align("K E N T", "K-E-N-D", "en", spelled=False).said == 4
    assert units("I saw a big cat", "en") == ["i", "saw", "a", "big", "cat"]


def test_other_languages_keep_their_own_words() -> None:
    """German is not put through English rules: nothing but case and punctuation goes."""
    assert units("Schöne Grüße, Herr Müller!", "de") == ["schöne", "grüße", "herr", "müller"]


def test_chinese_is_scored_by_character() -> None:
    """One wrong character of four is one error of four, however it is punctuated."""
    found = align("打开电灯。", "打开电登", "zh")
    assert (found.errors, found.said) == (1, 4)


def test_words_where_nothing_was_said_need_no_normaliser() -> None:
    """Notes and punctuation are none; apostrophes part no words."""
    assert words_in("[BLANK_AUDIO] (wind) ... ♪ Thank you, it's over.") == 4
    assert words_in("") == 0


def test_a_rate_is_the_sum_of_parts_over_the_sum_of_wholes() -> None:
    """Long utterances weigh more than short ones, as in any word error rate."""
    assert rate([1, 0], [2, 8]).value == pytest.approx(0.1)


def test_the_interval_has_the_width_that_theory_gives() -> None:
    """For 400 independent words of which a fifth is wrong, it is close to plus or minus 1.96 standard errors."""
    wrong = np.random.default_rng(1).permutation([1.0] * 80 + [0.0] * 320)
    estimate = rate(list(wrong), [1.0] * 400)
    half_width = 1.96 * (0.2 * 0.8 / 400) ** 0.5
    assert estimate.low == pytest.approx(0.2 - half_width, abs=0.006)
    assert estimate.high == pytest.approx(0.2 + half_width, abs=0.006)


def test_the_same_measurements_give_the_same_interval() -> None:
    """A report does not change when it is made again."""
    assert rate([1, 2, 0, 4], [9, 8, 7, 6]) == rate([1, 2, 0, 4], [9, 8, 7, 6])


def test_pairing_removes_what_both_have_in_common() -> None:
    """A system that is worse by one word on every clip is worse for sure, however much the clips differ."""
    theirs = [0.0, 5.0, 1.0, 9.0, 2.0]
    ours = [errors + 1 for errors in theirs]
    estimate = rate([a - b for a, b in zip(ours, theirs, strict=True)], [10.0] * 5)
    assert [estimate.value, estimate.low, estimate.high] == pytest.approx([0.1] * 3)
    assert rate(theirs, [10.0] * 5).high - rate(theirs, [10.0] * 5).low > 0.2


def test_one_clip_has_no_spread() -> None:
    """With a single clip there is nothing to draw from, and the interval is the value."""
    estimate = rate([1.0], [4.0])
    assert (estimate.low, estimate.value, estimate.high) == (0.25, 0.25, 0.25)
    assert not estimate.known


@pytest.mark.parametrize(("parts", "wholes"), [([], []), ([1.0], [0.0]), ([1.0], [1.0, 2.0])])
def test_a_rate_of_nothing_is_refused(parts: list[float], wholes: list[float]) -> None:
    """No figure is made up where there is no data."""
    with pytest.raises(ValueError, match="no rate"):
        rate(parts, wholes)


def test_percentiles_are_values_that_occurred() -> None:
    """Nearest rank: of 1 to 20 the median is 10 and the 95th percentile 19."""
    values = [float(value) for value in range(20, 0, -1)]
    assert (percentile(values, 0.5), percentile(values, 0.95), percentile([3.0], 0.95)) == (10.0, 19.0, 3.0)
