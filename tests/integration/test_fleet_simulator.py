import json
import subprocess
import sys
from pathlib import Path

import pytest

SIMULATOR = Path(__file__).parents[2] / "benchmarks" / "fleet_simulator.py"
_LIMIT_S = 200.0


@pytest.mark.mosquitto
def test_a_small_fleet_survives_the_restart_of_its_broker() -> None:
    """Everybody connects, comes back, and not one transcript is lost; each figure is there."""
    arguments = ["--devices", "12", "--processes", "2", "--telemetry-s", "1", "--speech-s", "0.5"]
    phases = ["--steady-s", "3", "--burst", "5", "--outage-s", "1", "--outbox", "balanced", "--json"]
    command = [sys.executable, str(SIMULATOR), *arguments, *phases]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["connected"], figures["back"], figures["lost"], figures["failures"]) == (12, 12, 0, [])
    assert figures["transcripts"] >= 12 * 5
    assert figures["steady_messages_per_s"] > 12
    assert 0 < figures["publish_to_receive_s"]["p50"] < 5
    assert figures["connect_s"]["p99"] > 0
    assert figures["burst_messages_per_s"] > 0


@pytest.mark.parametrize("arguments", [["--devices", "100000"], ["--devices", "0"], ["--steady-s", "1e9"]])
def test_its_size_and_time_are_bounded(arguments: list[str]) -> None:
    """Nobody floods a machine by a slip of the finger."""
    command = [sys.executable, str(SIMULATOR), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
    assert done.returncode == 2
    assert "at most" in done.stderr or "is 1 to" in done.stderr
