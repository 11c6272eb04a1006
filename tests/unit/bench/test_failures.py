import pytest

from agent.bench.failures import standing
from agent.bench.records import (
    Failure,
    IdleMeasurement,
    LatencyBlock,
    LatencyMeasurement,
    Measurement,
    Record,
    SystemStart,
)

A = "whisper_cpp:a"
MEASURED = Measurement(A, "set", "clip", 1, "en", "", 1.0, "", 0.1, 0.1, 1, 1)
BLOCK = LatencyBlock(A, 2, 1, audio_s=1.0, cpu_s=1.0, peak_pss_bytes=1, peak_rss_bytes=1)


@pytest.mark.parametrize(
    ("failure", "cure"),
    [
        (Failure(A, "died", "set", "clip", 1), MEASURED),
        (Failure(A, "unreadable", "set", "clip", 1), LatencyMeasurement(A, "set", "clip", 1, "", 0.1)),
        (Failure(A, "no broker", repeat=1, block=2), BLOCK),
        (Failure(A, "no broker", repeat=1), BLOCK),
        (Failure(A, "ended", repeat=1), IdleMeasurement(A, 1, 1.0, 1.0, 1.0, 1, 0)),
        (Failure(A, "not installed"), SystemStart(A, 1.0, 1)),
    ],
)
def test_what_a_later_run_made_good_does_not_stand(failure: Failure, cure: Record) -> None:
    """Only what comes later can: a system that was loaded before it failed has failed."""
    assert standing([failure, cure]) == ()
    assert standing([cure, failure]) == (failure,)


def test_other_failures_stand() -> None:
    """Another clip, repeat, block or system is another matter."""
    others = (
        Failure("whisper_cpp:b", "died", "set", "clip", 1),
        Failure(A, "died", "set", "clip", 0),
        Failure(A, "died", "set", "other", 1),
        Failure(A, "no broker", repeat=1, block=0),
    )
    assert standing([*others, MEASURED, BLOCK, SystemStart(A, 1.0, 1)]) == others


def test_what_fails_again_is_told_once() -> None:
    """With the reason of the last time."""
    first, second = Failure(A, "died", "set", "clip"), Failure(A, "too slow", "set", "clip")
    assert standing([first, second]) == (second,)
