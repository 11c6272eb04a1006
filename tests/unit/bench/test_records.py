from pathlib import Path

import pytest

from agent.bench.records import (
    FILE_NAME,
    Delay,
    Failure,
    IdleMeasurement,
    Journal,
    LatencyBlock,
    Measurement,
    Record,
    StreamBlock,
    StreamClip,
    SystemStart,
    read_journal,
    standing,
    steps_done,
)
from agent.errors import ConfigError

A = "whisper_cpp:a"
MEASURED = Measurement(
    "hello",
    system=A,
    set_name="set",
    clip_id="clip",
    repeat=1,
    language="en",
    reference="hello",
    audio_s=1.0,
    wall_s=0.1,
    cpu_s=0.1,
    peak_rss_bytes=1,
    pss_bytes=1,
)
BLOCK = LatencyBlock(A, "block 2", 1, 1.0, 1.0, 1, ("set/clip",), (Delay("set/clip", "hello", 0.1, 0.7),))
STREAM = StreamBlock(
    A, "quiet 0", 1, "quiet", 9.0, 1.0, 0, ("set/clip",), (StreamClip("set", "clip", "en", "hello", "", "hello", 0),)
)
IDLE = IdleMeasurement(A, "idle", 1, 1.0, 1.0, 1.0, 1, 0)
RECORDS: list[Record] = [
    SystemStart("a", 1.5, 100),
    MEASURED,
    BLOCK,
    STREAM,
    IDLE,
    Failure("b", "no such thing"),
    Failure("a", "Tür\u2028zu", "set/clip", 2),
]


def write(folder: Path) -> None:
    """A journal with these records."""
    journal = Journal(folder)
    for record in RECORDS:
        journal.write(record)
    journal.close()


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """Any text survives, line separators of Unicode included."""
    write(tmp_path)
    assert read_journal(tmp_path) == RECORDS


def test_no_file_is_no_records(tmp_path: Path) -> None:
    """A first run resumes from nothing."""
    assert read_journal(tmp_path) == []


def test_a_run_that_was_killed_while_writing_goes_on(tmp_path: Path) -> None:
    """Half a line at the end is dropped, and the next record is whole."""
    write(tmp_path)
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:-9])
    assert read_journal(tmp_path) == RECORDS[:-1]
    journal = Journal(tmp_path)
    journal.write(RECORDS[0])
    journal.close()
    assert read_journal(tmp_path) == [*RECORDS[:-1], RECORDS[0]]


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "[]",
        "hello",
        '{"record": "Failure"}',
        '{"record": "Failure", "system": 1, "reason": "x"}',
        '{"record": "Other"}',
    ],
)
def test_a_foreign_file_is_refused(tmp_path: Path, line: str) -> None:
    """The message names file and line."""
    (tmp_path / FILE_NAME).write_text(line + "\n")
    with pytest.raises(ConfigError, match=r"raw\.jsonl: line 1"):
        read_journal(tmp_path)


@pytest.mark.parametrize(
    ("failure", "cure"),
    [
        (Failure(A, "died", "set/clip", 1), MEASURED),
        (Failure(A, "unreadable", "set/clip", 1), BLOCK),
        (Failure(A, "no broker", "block 2", 1), BLOCK),
        (Failure(A, "unreadable", "set/clip", 1), STREAM),
        (Failure(A, "died", "quiet 0", 1), STREAM),
        (Failure(A, "ended", "idle", 1), IDLE),
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
        Failure("whisper_cpp:b", "died", "set/clip", 1),
        Failure(A, "died", "set/clip", 0),
        Failure(A, "died", "set/other", 1),
        Failure(A, "no broker", "block 0", 1),
    )
    assert standing([*others, MEASURED, BLOCK, SystemStart(A, 1.0, 1)]) == others


def test_what_fails_again_is_told_once() -> None:
    """With the reason of the last time."""
    first, second = Failure(A, "died", "set/clip"), Failure(A, "too slow", "set/clip")
    assert standing([first, second]) == (second,)


def test_a_resumed_run_knows_what_is_done() -> None:
    """Steps are told by system, name and repeat; what failed is not done."""
    done = {(A, "set/clip", 1), (A, "block 2", 1), (A, "quiet 0", 1), (A, "idle", 1)}
    assert steps_done(RECORDS) == done
