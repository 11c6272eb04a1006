"""Which utterances go together."""

import random

import pytest

from agent.asr.context import FOLLOW, FULL, FULL_WINDOW, Window, batches, common_window


def windows(*seconds: float) -> list[Window]:
    """Those of utterances of so many seconds."""
    return [FOLLOW.window(each) for each in seconds]


def test_short_ones_all_have_the_same_window_and_go_together() -> None:
    """Commands are what queues up."""
    assert batches(windows(1.0, 4.0, 0.5, 5.1), frugal=True) == [[0, 1, 2, 3]]


def test_a_long_one_does_not_make_the_short_ones_pay_for_it() -> None:
    """On a CPU, each position costs."""
    assert batches(windows(2.0, 20.0, 3.0), frugal=True) == [[0, 2], [1]]


def test_a_gpu_takes_everything_at_once() -> None:
    """There, what costs is to ask it."""
    (batch,) = batches(windows(2.0, 20.0, 3.0), frugal=False)
    assert sorted(batch) == [0, 1, 2]


def test_full_windows_go_one_by_one_on_a_cpu() -> None:
    """`engine.context = "full"`: two would need twice the memory."""
    assert batches([FULL.window(1.0)] * 3, frugal=True) == [[0], [1], [2]]


def test_nothing_makes_no_batch() -> None:
    """On either."""
    assert (batches([], frugal=True), batches([], frugal=False)) == ([], [])


@pytest.mark.parametrize("seed", range(50))
def test_each_is_in_one_batch_that_is_narrow_and_fits(seed: int) -> None:
    """Whatever waits: none is lost or doubled, padding and memory are bounded."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    asked = windows(*(chance.uniform(0.1, 29.0) for _ in range(chance.randint(1, 32))))
    made = batches(asked, frugal=True)
    assert sorted(index for batch in made for index in batch) == list(range(len(asked)))
    for batch in made:
        sizes = [asked[index].positions for index in batch]
        assert max(sizes) <= 1.25 * min(sizes)
        assert len(sizes) * max(sizes) ** 2 <= FULL_WINDOW**2 or len(sizes) == 1


def test_the_common_window_holds_every_one() -> None:
    """Its positions and its cap are those of the one that needs most."""
    assert common_window([Window(400, 20), Window(384, 60)]) == Window(400, 60)
