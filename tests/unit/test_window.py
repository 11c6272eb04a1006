from agent.channel import Window


def test_an_empty_window_knows_nothing() -> None:
    """What was never measured has no percentile, rather than 0."""
    assert Window().p95() is None


def test_the_95th_percentile_is_one_of_the_values() -> None:
    """Nearest rank: 95 of a hundred values are not above it."""
    window = Window(100)
    for value in range(100, 0, -1):
        window.add(value)
    assert window.p95() == 95


def test_old_values_are_forgotten() -> None:
    """A slow start does not spoil the figure for ever."""
    window = Window(4)
    for value in (9_000.0, 1.0, 2.0, 3.0, 4.0):
        window.add(value)
    assert window.p95() == 4.0
