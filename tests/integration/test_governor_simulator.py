import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SIMULATOR = Path(__file__).parents[2] / "benchmarks" / "governor_simulator.py"
DINNER = ("--start", "19", "--hours", "2")
_LIMIT_S = 200.0


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a user would."""
    command = [sys.executable, str(SIMULATOR), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_S)


def figures(*arguments: str) -> dict[str, Any]:
    """Of each scenario, with the governor off and on."""
    done = simulate(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    scenarios: dict[str, Any] = json.loads(done.stdout)["scenarios"]
    return scenarios


def test_two_hours_of_dinner_are_kept_up_with_only_by_the_governor(tmp_path: Path) -> None:
    """Nothing is dropped, what waits is in time, and the full model alone would be too late; a picture shows it."""
    picture = tmp_path / "day.svg"
    dinner = figures(*DINNER, "--scenario", "busy-day", "--plot", str(picture))["busy-day"]
    off, on = dinner["off"], dinner["on"]
    assert off["utterances"] == on["utterances"] > 500
    assert (on["dropped_s"], on["queue_s"]["p99"] < 10.0) == (0.0, True)
    assert off["queue_s"]["p99"] > 10.0
    assert on["hottest_c"] < off["hottest_c"]
    assert 0 < on["steps"] < 12
    assert picture.read_text().startswith("<svg")


def test_what_even_the_smallest_cannot_keep_up_with_comes_late() -> None:
    """With a neighbour that takes the processor: kept rather than dropped, in every second."""
    afternoon = figures("--start", "14", "--hours", "1.5", "--scenario", "neighbour")["neighbour"]
    off, on = afternoon["off"], afternoon["on"]
    assert off["dropped_s"] > 100
    assert on["dropped_s"] == 0
    assert on["late_s"] > 100


def test_the_same_seed_gives_the_same_day() -> None:
    """And another one another."""
    short = ("--start", "19", "--hours", "0.5", "--scenario", "busy-day")
    one, again, other = (figures(*short, "--seed", seed) for seed in ("3", "3", "4"))
    assert one == again != other


@pytest.mark.parametrize(
    "arguments", [["--hours", "25"], ["--start", "23", "--hours", "2"], ["--calibration", "/no/calibration.json"]]
)
def test_what_cannot_be_simulated_is_told_in_one_line(arguments: list[str]) -> None:
    """With the exit code of a usage error."""
    done = simulate(*arguments)
    assert done.returncode == 2
    assert "governor_simulator.py: error: " in done.stderr.splitlines()[-1]
