"""The recording that comes with the agent, and the words in it."""

import csv
from pathlib import Path
from typing import Final

_CLIPS: Final = Path(__file__).parents[2] / "agent" / "clips"
RECORDING: Final = _CLIPS / "demo.flac"


def sentences() -> tuple[str, ...]:
    """The sentences of the recording, in order."""
    with (_CLIPS / "demo.tsv").open(encoding="utf-8", newline="") as file:
        return tuple(row["text"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
