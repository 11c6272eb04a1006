"""A state folder that an earlier release has left.

`tests/data/outbox/format-1.zip` was written by the agent of revision 416e569: 100 transcripts in `balanced`, without a
broker, and a stop in good order.
"""

import json
import sqlite3
import zipfile
from pathlib import Path

import pytest

from tests.clock import FakeClock
from tests.integration.outbox.conftest import Open, deliveries, say

OLD = Path(__file__).parents[2] / "data" / "outbox" / "format-1.zip"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What that agent left."""
    with zipfile.ZipFile(OLD) as archive:
        archive.extractall(tmp_path)
    return tmp_path


@pytest.mark.parametrize("mode", ["balanced", "strict"])
def test_what_an_earlier_release_has_not_sent_is_delivered(
    folder: Path, open_outbox: Open, clock: FakeClock, mode: str
) -> None:
    """All 100, unaltered but for the mark, in order; numbers go on, and the format stays."""
    with sqlite3.connect(folder / "outbox.db") as db:
        stored = [json.loads(payload) for (payload,) in db.execute("SELECT payload FROM message ORDER BY key")]
        schema = db.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
    db.close()
    outbox = open_outbox(folder, mode=mode)
    assert (outbox.pending, outbox.conditions) == (100, ())
    assert deliveries(outbox, clock) == [payload | {"replayed": True} for payload in stored]
    assert say(outbox, clock, 1) == [101]
    outbox.close()
    with sqlite3.connect(folder / "outbox.db") as db:
        assert db.execute("SELECT seq FROM message").fetchall() == [(101,)]
        assert db.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall() == schema
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
    db.close()
    note = json.loads((folder / "sequence.json").read_text(encoding="utf-8"))
    assert (note["next"], note["exact"]) == (102, True)
