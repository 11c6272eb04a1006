from agent.telemetry.histogram import Histogram


def test_values_are_counted_up_to_each_bound() -> None:
    """Cumulative, bounds included, as Prometheus wants it; the last class has no end."""
    histogram = Histogram((0.1, 0.5, 1.0))
    for value in (0.05, 0.1, 0.3, 0.5, 2.0):
        histogram.add(value)
    counted = histogram.distribution()
    assert counted.counts == (2, 4, 4, 5)
    assert counted.total == 2.95


def test_nothing_is_counted_before_anything_came() -> None:
    """Zeros in every class."""
    assert Histogram((1.0,)).distribution().counts == (0, 0)
