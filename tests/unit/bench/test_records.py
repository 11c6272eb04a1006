from pathlib import Path

import pytest

from agent.bench.records import FILE_NAME, Failure, Journal, Record, SystemStart, drop_torn_line, read_journal
from agent.errors import ConfigError

RECORDS: list[Record] = [
    SystemStart("a", 1.5, 100),
    Failure("b", "no such thing"),
    Failure("a", "Tür\u2028zu", "set", "clip", 2),
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
    drop_torn_line(tmp_path)
    journal = Journal(tmp_path)
    journal.write(RECORDS[0])
    journal.close()
    assert read_journal(tmp_path) == [*RECORDS[:-1], RECORDS[0]]


@pytest.mark.parametrize("line", ["{}", "[]", "hello", '{"record": "Failure"}', '{"record": "Other"}'])
def test_a_foreign_file_is_refused(tmp_path: Path, line: str) -> None:
    """The message names file and line."""
    (tmp_path / FILE_NAME).write_text(line + "\n")
    with pytest.raises(ConfigError, match=r"raw\.jsonl: line 1"):
        read_journal(tmp_path)
