"""Ours and the peers' libraries on the same real weights and the bundled clips."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.bench.clips import demo_clips
from agent.bench.records import Failure, Journal, Record, StreamMeasurement, WholeText, read_journal
from agent.bench.runner import Runner, plan
from agent.bench.stream import StreamRunner, plan_streams, rooms, streams_done
from agent.bench.streams import stream_summaries
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


def stream(folder: Path, model: Path, repeats: int) -> list[Record]:
    """Three bundled sentences in a quiet room, as far as they are not measured yet."""
    earlier = read_journal(folder)
    steps = plan_streams(
        [parse_system("faster_whisper:tiny.en-ct2:threads=1")], demo_clips()[:3], rooms([])[:1], repeats
    )
    left = [step for step in steps if step.key not in streams_done(earlier)]
    journal = Journal(folder)
    list(StreamRunner({step.system.name: model for step in steps}, journal, None, earlier).run(left))
    journal.close()
    return read_journal(folder)


def test_a_stream_is_heard_as_well_as_its_clips(tmp_path: Path, pulled: Callable[[str], Path]) -> None:
    """Clear sentences lose nothing in a stream, and another seed decodes no clip whole again."""
    stream(tmp_path, pulled("tiny.en-ct2"), repeats=1)
    records = stream(tmp_path, pulled("tiny.en-ct2"), repeats=2)
    assert [record.reason for record in records if isinstance(record, Failure)] == []
    assert len([record for record in records if isinstance(record, StreamMeasurement)]) == 6
    assert len([record for record in records if isinstance(record, WholeText)]) == 3
    (everything, *_) = stream_summaries(records)
    assert (everything.clips, everything.error_rate, everything.whole_error_rate) == (3, 0.0, 0.0)
    assert (everything.first_lost, everything.last_lost, everything.strays) == (0, 0, 0)
    assert everything.cpu_rtf
    assert summarise(records, resamples=100).streams[0] == everything
