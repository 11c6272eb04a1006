"""Ours and the peers' libraries on the same real weights and the bundled clips."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from agent.bench.child import System
from agent.bench.clips import demo_clips
from agent.bench.process import ProcessPool
from agent.bench.records import Failure, Journal, Record, StreamBlock, WholeText, read_journal
from agent.bench.steps import plan_clips, run_steps, steps_left, take_clip
from agent.bench.streams import plan_streams, rooms, take_stream, whole_texts_in
from agent.bench.summary import stream_summaries, summarise
from agent.bench.systems import parse_system

pytestmark = pytest.mark.weights

PAIRS = [
    ("tiny.en-q8_0", "whisper_cpp", "stock-pywhispercpp"),
    ("tiny.en-ct2", "faster_whisper", "stock-faster-whisper"),
]


def system(text: str, model: Path) -> System:
    """A system with its model."""
    return replace(parse_system(text), path=str(model))


@pytest.mark.parametrize(("model", "engine", "peer"), PAIRS)
def test_ours_hears_as_well_for_less(
    tmp_path: Path, pulled: Callable[[str], Path], model: str, engine: str, peer: str
) -> None:
    """On short sentences both make no mistake, and a context that follows the utterance costs far less CPU."""
    systems = [system(f"{name}:{model}:threads=1", pulled(model)) for name in (peer, engine)]
    journal = Journal(tmp_path)
    steps = plan_clips(systems, demo_clips()[:3], repeats=1)
    list(run_steps(steps, take_clip, journal, ProcessPool(journal, resident=2)))
    journal.close()
    records = read_journal(tmp_path)
    assert [record.reason for record in records if isinstance(record, Failure)] == []
    report = summarise(records, resamples=100)
    assert [system["error_rate"].value for system in report.systems if system["error_rate"]] == [0.0, 0.0]
    (comparison,) = report.comparisons
    assert comparison["cpu_ratio"].value < 0.8


def stream(folder: Path, model: Path, repeats: int) -> list[Record]:
    """Three bundled sentences in a quiet room, as far as they are not measured yet."""
    earlier = read_journal(folder)
    where, ours = rooms([])[:1], system("faster_whisper:tiny.en-ct2:threads=1", model)
    left = steps_left(plan_streams([ours], demo_clips()[:3], where, repeats), earlier)
    journal = Journal(folder)
    take = partial(take_stream, rooms=where, whole_texts=whole_texts_in(earlier))
    list(run_steps(left, take, journal, ProcessPool(journal, resident=2)))
    journal.close()
    return read_journal(folder)


def test_a_stream_is_heard_as_well_as_its_clips(tmp_path: Path, pulled: Callable[[str], Path]) -> None:
    """Clear sentences lose nothing in a stream, and another seed decodes no clip whole again."""
    stream(tmp_path, pulled("tiny.en-ct2"), repeats=1)
    records = stream(tmp_path, pulled("tiny.en-ct2"), repeats=2)
    assert [record.reason for record in records if isinstance(record, Failure)] == []
    assert [len(record.heard) for record in records if isinstance(record, StreamBlock)] == [3, 3]
    assert len([record for record in records if isinstance(record, WholeText)]) == 3
    (everything, *_) = stream_summaries(records)
    assert (everything["clips"], everything["error_rate"], everything["whole_error_rate"]) == (3, 0.0, 0.0)
    assert (everything["first_lost"], everything["last_lost"], everything["strays"]) == (0, 0, 0)
    assert everything["cpu_rtf"]
    assert summarise(records, resamples=100).streams[0] == everything
