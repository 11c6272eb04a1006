"""The buffer against a plain array."""

import random

import numpy as np
import pytest

from agent.segmenter import RingBuffer


@pytest.mark.parametrize("seed", range(20))
def test_it_reads_what_was_appended_at_its_position(seed: int) -> None:
    """After any appending and dropping, every stretch that is still there is what was written there."""
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    everything = np.random.default_rng(seed).integers(-32_768, 32_767, 20_000, dtype=np.int16)
    buffer, written = RingBuffer(), 0
    while written < len(everything) - 700:
        length = chance.choice([1, 100, 512, 700])
        buffer.append(everything[written : written + length])
        written += length
        if chance.random() < 0.3:
            kept_from = chance.randint(0, written + 100)
            before = buffer.start
            buffer.drop_before(kept_from)
            assert buffer.start == max(before, min(kept_from, written))
        first = chance.randint(buffer.start, buffer.end)
        last = chance.randint(first, buffer.end)
        np.testing.assert_array_equal(buffer.read(first, last), everything[first:last])
    assert buffer.end == written


def test_reading_what_is_not_there_is_an_error() -> None:
    """Positions outside the buffer are never filled with something else."""
    buffer = RingBuffer()
    buffer.append(np.ones(100, np.int16))
    buffer.drop_before(10)
    for start, end in ((9, 20), (50, 101), (60, 50)):
        with pytest.raises(ValueError, match="10 to 100"):
            buffer.read(start, end)


def test_a_buffer_begins_at_the_position_it_is_given() -> None:
    """Empty, and its first sample stands there."""
    buffer = RingBuffer(5_000)
    assert (buffer.start, buffer.end) == (5_000, 5_000)
    buffer.append(np.full(3, 7, np.int16))
    assert buffer.read(5_000, 5_003).tolist() == [7, 7, 7]
