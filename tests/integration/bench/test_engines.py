"""Ours and the peers' libraries on the same real weights and the bundled clips."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.bench.clips import demo_clips
from agent.bench.records import Failure, Journal, read_journal
from agent.bench.runner import Runner, plan
from agent.bench.summary import summarise
from agent.bench.systems import parse_system

pytestmark = pytest.mark.weights

PAIRS = [
    ("tiny.en-q8_0", "whisper_cpp", "stock-pywhispercpp"),
    ("tiny.en-ct2", "faster_whisper", "stock-faster-whisper"),
]


@pytest.mark.parametrize(("model", "engine", "peer"), PAIRS)
def test_ours_hears_as_well_for_less(
    tmp_path: Path, pulled: Callable[[str], Path], model: str, engine: str, peer: str
) -> None:
    """On short sentences both make no mistake, and a context that follows the utterance costs far less CPU."""
    systems = [parse_system(f"{peer}:{model}:threads=1"), parse_system(f"{engine}:{model}:threads=1")]
    journal = Journal(tmp_path)
    runner = Runner({system.name: pulled(model) for system in systems}, journal, resident=2, peer_python=None)
    list(runner.run(plan(systems, demo_clips()[:3], repeats=1)))
    journal.close()
    records = read_journal(tmp_path)
    assert [record.reason for record in records if isinstance(record, Failure)] == []
    report = summarise(records, resamples=100)
    assert [system.error_rate.value for system in report.systems if system.error_rate] == [0.0, 0.0]
    (duel,) = report.duels
    assert duel.comparison.cpu_ratio.value < 0.8
