import numpy as np
import pytest

from agent.bench.intervals import percentile, rate


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
