import random

import jiwer
import pytest

from agent.bench.scoring import align, align_words, units, words_in


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
