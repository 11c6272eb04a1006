"""Files that the settings name."""

import os
from pathlib import Path

from agent.config.named import file_problem


def test_pipes_and_standard_input_can_be_read(tmp_path: Path) -> None:
    """A recording may come out of them; the check does not wait for a writer."""
    os.mkfifo(tmp_path / "fifo")
    assert file_problem(tmp_path / "fifo") == ""
    assert file_problem(Path("-")) == ""


def test_folders_and_what_is_not_there_cannot(tmp_path: Path) -> None:
    """The remedy is to correct the path."""
    assert "correct the path" in file_problem(tmp_path)
    assert "correct the path" in file_problem(tmp_path / "absent")
