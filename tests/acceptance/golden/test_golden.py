"""The real command does what it did when the golden runs were recorded.

Each file in `runs/` holds one run: command lines, settings, exit codes, output, and every message with its topic, order
and delivery. `normal.py` lists what is left out. Record the runs anew with

    EDGESCRIBE_GOLDEN=record pytest tests/acceptance/golden

and read the difference before you commit it: it is what users and subscribers will see.
"""

import json
import os
from pathlib import Path

import pytest

from tests.acceptance.golden.recorder import Recorder
from tests.acceptance.golden.scenarios import SCENARIOS
from tests.support.mosquitto import Mosquitto

RUNS = Path(__file__).parent / "runs"
RECORD = os.environ.get("EDGESCRIBE_GOLDEN") == "record"
CARDS = Path("/proc/asound/cards")

pytestmark = pytest.mark.mosquitto


def has_sound_cards() -> bool:
    """Whether `devices` would list more than the test's own microphone."""
    return CARDS.exists() and "no soundcards" not in CARDS.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_run_is_as_it_was_recorded(name: str, broker: Mosquitto, tmp_path: Path) -> None:
    """Every topic, payload, order, exit code and line of output, but for what `normal.py` leaves out."""
    if name == "devices" and has_sound_cards():
        pytest.skip("this machine has sound cards of its own")
    scenario = SCENARIOS[name]
    recorder = Recorder(tmp_path, broker)
    scenario(recorder)
    about = (scenario.__doc__ or "").splitlines()[0]
    seen = json.dumps({"about": about, "steps": recorder.steps}, indent=2, ensure_ascii=False) + "\n"
    path = RUNS / f"{name}.json"
    if RECORD:
        path.write_text(seen, encoding="utf-8")
    assert seen.splitlines() == path.read_text(encoding="utf-8").splitlines()


def test_each_golden_file_belongs_to_a_run() -> None:
    """No file is left over from a run that is gone."""
    assert {path.stem for path in RUNS.glob("*.json")} == set(SCENARIOS)
