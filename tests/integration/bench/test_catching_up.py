import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "catching_up.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The benchmark, on the bundled clips."""
    command = [sys.executable, str(BENCHMARK), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)


@pytest.mark.weights
def test_all_sizes_hear_the_same_in_one_run(pulled: Callable[[str], Path]) -> None:
    """One by one and four at once: the same words, and every figure is there."""
    store = pulled("tiny.en-ct2").parent
    done = run("--models", str(store), "--rounds", "1", "--at-once", "1", "4", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    alone, together = report["sizes"]
    assert (report["clips"], alone["at_once"], together["at_once"]) == (7, 1, 4)
    assert (alone["gain"], together["texts_that_differ"]) == (1.0, 0)
    assert alone["wer_pct"] == together["wer_pct"] < 10
    assert together["gain"] > 0
    assert together["cpu_s_per_s"] > 0


def test_a_model_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """With the command that brings it."""
    done = run("--models", str(tmp_path))
    assert done.returncode == 1
    assert "edgescribe models pull tiny.en-ct2" in done.stderr
    assert "Traceback" not in done.stderr
