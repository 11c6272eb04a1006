import math

import pytest

from agent.messages.presentation import clock, confidence_pct, score


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, "0:00.0"), (3.94, "0:03.9"), (59.97, "1:00.0"), (780.14, "13:00.1"), (3_725.5, "1:02:05.5")],
)
def test_times_read_like_a_player(seconds: float, shown: str) -> None:
    """Times are minutes and seconds with tenths, carried over correctly, with hours only where needed."""
    assert clock(seconds) == shown


def test_confidence_is_a_probability() -> None:
    """Confidence is the exponential of the mean log probability; unknown confidence is left blank."""
    assert confidence_pct(math.log(0.87)) == "87 %"
    assert confidence_pct(None) == ""


@pytest.mark.parametrize(
    ("expected", "heard", "errors"),
    [
        ("Turn off the heater.", "turn off the heater", 0),
        ("Turn off the heater.", "turn of heater", 2),
        ("don't", "don\N{RIGHT SINGLE QUOTATION MARK}t", 0),
        ("one two three", "", 3),
        ("one", "one two three", 2),
        ("a b c d", "b c d e", 2),
    ],
)
def test_word_errors_are_the_edit_distance(expected: str, heard: str, errors: int) -> None:
    """Errors are the fewest word edits, case and punctuation aside."""
    assert score(expected, heard).errors == errors
