"""A calibration to write, read and print."""

from collections.abc import Sequence
from datetime import UTC, datetime

from agent.models.calibration import VERSION, Calibration, Candidate, Engine, Limits, Measurement, Skipped, fingerprint
from agent.models.choice import choose, pareto_front


def measurement(
    engine: Engine, model: str, *, errors: int = 0, latency_s: float = 0.2, threads: int = 1
) -> Measurement:
    """Of 80 words, in sentences of 3 s."""
    size = model.partition("-")[0].partition(".")[0]
    return Measurement(
        Candidate(engine, model, threads), size, ".en" in model, 80, errors, latency_s / 3, latency_s, 0.1, 150, 1.0, 3
    )


def calibration(*measurements: Measurement, skipped: Sequence[Skipped] = ()) -> Calibration:
    """Of this machine, just now."""
    limits = Limits(memory_mb=500)
    return Calibration(
        v=VERSION,
        measured_at=datetime.now(UTC).replace(microsecond=0),
        agent="1.2.3",
        fingerprint=fingerprint(),
        language="en",
        limits=limits,
        measurements=measurements,
        front=tuple(one.candidate for one in pareto_front(measurements)),
        skipped=tuple(skipped),
        others_cpu_pct=30.0,
        choice=choose(measurements, limits),
    )
