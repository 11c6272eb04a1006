"""Disks that are full, read-only or damaged, while somebody speaks."""

import contextlib
import json
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConfigError
from agent.mqtt.delivery import PublishResult
from agent.mqtt.outbox_queue import CHUNK
from agent.mqtt.outbox_store import DAMAGED_KEPT, Condition, StorageDown
from tests.clock import FakeClock
from tests.integration.outbox.conftest import Open, deliver_all, deliveries, say
from tests.messages import transcript
from tests.support.receiver import eventually

LONG = "word " * 400
"""Makes a message of 2.4 kB: one fits on a page of the database, two do not."""
MODES = ("balanced", "strict")


@pytest.mark.parametrize("mode", MODES)
def test_a_disk_of_2_mb_takes_5000_transcripts_and_keeps_the_newest(
    mount: Callable[..., Path], open_outbox: Open, clock: FakeClock, mode: str
) -> None:
    """The oldest make room, counted; what is left is the end of it, whole, and survives a restart."""
    folder = mount("-t", "tmpfs", "-o", "size=2m", "tmpfs")
    outbox = open_outbox(folder, mode=mode)
    for _ in range(50):
        say(outbox, clock, 100)
        outbox.flush()
    assert set(outbox.conditions) == {"outbox_disk_full"}
    kept = outbox.pending
    assert 20 <= kept < 5_000
    assert outbox.dropped == 5_000 - kept
    outbox.close()
    again = open_outbox(folder, mode=mode)
    assert deliver_all(again, clock) == list(range(5_001 - kept, 5_001))
    assert again.next_seq() == 5_001


@pytest.mark.parametrize("mode", MODES)
def test_a_disk_that_others_have_filled_stops_nobody(
    mount: Callable[..., Path], open_outbox: Open, clock: FakeClock, mode: str
) -> None:
    """Words go on being delivered from memory, `health` knows, nothing is dropped; when there is room all is stored."""
    folder = mount("-t", "tmpfs", "-o", "size=64m", "tmpfs")
    outbox = open_outbox(folder, mode=mode)
    before = say(outbox, clock, 10, LONG)
    outbox.flush()
    fill_up(folder / "others")
    during = say(outbox, clock, 300, LONG)
    outbox.flush()
    assert set(outbox.conditions) == {"outbox_disk_full"}
    entry = outbox.take()
    assert entry
    outbox.acknowledge(entry, PublishResult.DELIVERED)
    assert outbox.dropped == 0
    (folder / "others").unlink()
    clock.advance(61)
    outbox.flush()
    assert not outbox.conditions
    outbox.close()
    assert deliver_all(open_outbox(folder, mode=mode), clock) == (before + during)[1:]


def test_a_connection_that_changes_while_a_full_disk_makes_room_is_survived(
    open_outbox: Open, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest are being deleted, slowly: they are not handed out, the thread lives, and the next one arrives."""
    outbox = open_outbox(tmp_path)
    say(outbox, clock, 70)
    outbox.flush()
    deleting, go_on = threading.Event(), threading.Event()
    write, states = outbox._store.write, iter(("full", "slow"))

    def write_slowly(*batch: Any) -> None:
        match next(states, "well"):
            case "full":
                raise StorageDown(Condition.DISK_FULL, "database or disk is full")
            case "slow":
                deleting.set()
                assert go_on.wait(30)
        write(*batch)

    monkeypatch.setattr(outbox._store, "write", write_slowly)
    say(outbox, clock, 1)
    clock.advance(3)
    writer = threading.Thread(target=outbox.flush)
    writer.start()
    assert deleting.wait(30)
    outbox.requeue()
    entry = outbox.take()
    assert entry
    assert json.loads(entry.payload)["seq"] > CHUNK
    outbox.acknowledge(entry, PublishResult.DELIVERED)
    go_on.set()
    writer.join()
    assert outbox.pending + outbox.dropped == 70
    assert deliver_all(outbox, clock)[-1] == 71


def fill_up(path: Path) -> None:
    """Take the whole rest of a disk."""
    with path.open("wb") as file:
        for size in (65_536, 4_096, 1):
            while True:
                try:
                    os.write(file.fileno(), bytes(size))
                except OSError:
                    break


@pytest.mark.parametrize("mode", MODES)
def test_a_database_that_may_not_grow_gives_up_its_oldest(
    tmp_path: Path, open_outbox: Open, clock: FakeClock, mode: str
) -> None:
    """As above, without root: pages fill worse than bytes, so that SQLite itself says `full`."""
    outbox = open_outbox(tmp_path, mode=mode, max_free_pct=1e-9)
    for _ in range(60):
        say(outbox, clock, 3, LONG)
        outbox.flush()
    kept = outbox.pending
    assert 5 <= kept < 180
    assert outbox.dropped == 180 - kept
    assert (tmp_path / "outbox.db").stat().st_size <= 65_536
    assert (tmp_path / "outbox.db-wal").stat().st_size <= 1 << 20
    assert deliver_all(outbox, clock) == list(range(181 - kept, 181))


@pytest.mark.parametrize("mode", MODES)
def test_a_disk_that_turns_read_only_stops_nobody(
    mount: Callable[..., Path], tmp_path: Path, open_outbox: Open, clock: FakeClock, mode: str
) -> None:
    """The kernel remounts a failing card read-only: what is stored can be read, what is new waits in memory."""
    image = tmp_path / "card"
    image.write_bytes(b"")
    os.truncate(image, 32 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True, capture_output=True)
    folder = mount("-o", "loop,errors=remount-ro", str(image))
    outbox = open_outbox(folder, mode=mode, max_free_pct=50)
    stored = say(outbox, clock, 5)
    outbox.flush()
    break_file_system(folder)
    in_memory = say(outbox, clock, 5)
    outbox.flush()
    assert set(outbox.conditions) == {"outbox_read_only"}
    assert deliver_all(outbox, clock) == stored + in_memory
    assert outbox.dropped == 0


def break_file_system(folder: Path) -> None:
    """Make ext4 believe that it found an error; it remounts itself read-only."""
    source = subprocess.run(["findmnt", "-no", "SOURCE", folder], check=True, capture_output=True, text=True).stdout
    trigger = Path("/sys/fs/ext4") / Path(source.strip()).name / "trigger_fs_error"
    if not trigger.exists():
        pytest.skip("this kernel does not offer ext4's trigger_fs_error")
    trigger.write_text("test")


def test_a_disk_that_was_read_only_at_the_start_is_used_when_it_can_be(
    mount: Callable[..., Path], open_outbox: Open, clock: FakeClock
) -> None:
    """What was stored before comes out before what was said meanwhile, and numbers are not repeated."""
    folder = mount("-t", "tmpfs", "-o", "size=64m", "tmpfs")
    first = open_outbox(folder)
    assert say(first, clock, 3) == [1, 2, 3]
    first.close()
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    outbox = open_outbox(folder)
    assert set(outbox.conditions) == {"outbox_read_only"}
    assert say(outbox, clock, 3) == [4, 5, 6]
    subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
    clock.advance(11)
    outbox.flush()
    assert not outbox.conditions
    assert deliver_all(outbox, clock) == [1, 2, 3, 4, 5, 6]
    assert say(outbox, clock, 1) == [7]


def damage(path: Path, share: float, size_bytes: int = 3_000) -> None:
    """Overwrite some bytes, `share` of the way into the file."""
    with path.open("r+b") as file:
        file.seek(int(share * path.stat().st_size))
        file.write(random.Random(share).randbytes(size_bytes))  # noqa: S311 - repeatable


def is_as_it_was(payload: dict[str, Any], text: str) -> bool:
    """Whether a payload is what was put."""
    original: dict[str, Any] = json.loads(transcript(payload["seq"], text).payload())
    return payload | {"replayed": False} == original


@pytest.mark.parametrize("share", [n / 24 for n in range(24)])
def test_a_damaged_database_never_lies_and_never_stops_the_agent(
    tmp_path: Path, open_outbox: Open, clock: FakeClock, share: float
) -> None:
    """Garbage anywhere in the file: what comes out is what went in, the rest is missing and said so, new words work."""
    first = open_outbox(tmp_path)
    old = say(first, clock, 300)
    first.close()
    damage(tmp_path / "outbox.db", share)
    outbox = open_outbox(tmp_path)
    new = say(outbox, clock, 3)
    assert min(new) > max(old)
    out = deliveries(outbox, clock)
    assert all(is_as_it_was(payload, "turn on the light") for payload in out)
    assert [payload["seq"] for payload in out][-3:] == new
    assert len(out) == len({payload["seq"] for payload in out})
    assert len(out) == 303 or set(outbox.conditions) == {"outbox_corrupt"}
    clock.advance(3_601)
    assert not outbox.conditions


def test_a_database_without_its_first_page_is_set_aside_and_begun_anew(
    tmp_path: Path, open_outbox: Open, clock: FakeClock
) -> None:
    """Nothing of it can be read: the file is kept, numbers go on, and new words arrive."""
    first = open_outbox(tmp_path)
    old = say(first, clock, 300)
    first.close()
    damage(tmp_path / "outbox.db", 0.0, 4_096)
    damaged = (tmp_path / "outbox.db").read_bytes()
    outbox = open_outbox(tmp_path)
    assert set(outbox.conditions) == {"outbox_corrupt"}
    new = say(outbox, clock, 1)
    assert new == [old[-1] + 1]
    assert deliver_all(outbox, clock) == new
    (aside,) = tmp_path.glob("outbox.db.corrupt-*")
    assert aside.read_bytes() == damaged


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_damage_under_a_running_agent_costs_what_was_damaged_and_no_more(
    tmp_path: Path, open_outbox: Open, clock: FakeClock, share: float
) -> None:
    """Every message is delivered as it was, or counted as dropped; most are delivered."""
    outbox = open_outbox(tmp_path, max_free_pct=50)
    say(outbox, clock, 1_000, LONG * 2)  # more than SQLite keeps in memory
    outbox.flush()
    damage(tmp_path / "outbox.db", share, 40_000)
    out = deliveries(outbox, clock)
    assert all(is_as_it_was(payload, LONG * 2) for payload in out)
    assert len({payload["seq"] for payload in out}) + outbox.dropped == 1_000
    assert len(out) >= 950
    assert outbox.pending == 0


def test_only_so_many_damaged_databases_are_kept(tmp_path: Path, open_outbox: Open) -> None:
    """A card that goes bad every day does not fill itself with its own ruins."""
    for _ in range(DAMAGED_KEPT + 2):
        (tmp_path / "outbox.db").write_bytes(b"no database at all" * 1_000)
        outbox = open_outbox(tmp_path)
        assert set(outbox.conditions) == {"outbox_corrupt"}
        outbox.close()
    assert len(list(tmp_path.glob("outbox.db.corrupt-*"))) == DAMAGED_KEPT


def test_what_is_said_in_the_room_is_for_the_owner_only(tmp_path: Path, open_outbox: Open, clock: FakeClock) -> None:
    """No file in the state folder can be read by others, whatever the umask."""
    old = os.umask(0)
    try:
        outbox = open_outbox(tmp_path / "state", mode="strict")
        say(outbox, clock, 1)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").iterdir()}
    finally:
        os.umask(old)
    assert {"outbox.db", "outbox.db-wal", "outbox.lock", "sequence.json"} <= set(modes)
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


@pytest.mark.parametrize("content", [b'{"next": Infinity, "exact": true, "keeper": null}', 100_000 * b"["])
def test_a_damaged_note_of_the_next_number_is_said_and_begun_anew(
    tmp_path: Path, open_outbox: Open, clock: FakeClock, content: bytes
) -> None:
    """`health` says so for an hour; no number is used twice where the database knows better."""
    first = open_outbox(tmp_path, mode="strict")
    used = say(first, clock, 3)
    first.close()
    (tmp_path / "sequence.json").write_bytes(content)
    outbox = open_outbox(tmp_path, mode="strict")
    assert outbox.conditions == ("outbox_corrupt",)
    assert say(outbox, clock, 1) == [used[-1] + 1]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", ["x", 2**63 - 1, -3, 4.5, b"\xff"])
def test_a_number_in_the_database_that_cannot_be_is_none(
    tmp_path: Path, open_outbox: Open, clock: FakeClock, mode: str, number: object
) -> None:
    """Numbers go on by the other notes, and the database learns them."""
    first = open_outbox(tmp_path, mode=mode)
    used = say(first, clock, 3)
    first.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db")) as db, db:
        db.execute("INSERT OR REPLACE INTO number VALUES ('next_seq', ?)", (number,))
    outbox = open_outbox(tmp_path, mode=mode)
    assert outbox.conditions == ("outbox_corrupt",)
    assert say(outbox, clock, 1) == [used[-1] + 1]
    outbox.flush()
    assert deliver_all(outbox, clock) == [*used, used[-1] + 1]
    outbox.close()
    assert open_outbox(tmp_path, mode=mode).conditions == ()


@pytest.mark.parametrize("column", ["expiry_s", "monotonic_s", "wall_s", "late_topic", "boot_id", "seq", "payload"])
@pytest.mark.parametrize("value", ["x", b"\xff", 9e999, -(2**63), 2**63 - 1])
def test_a_message_with_impossible_values_is_dropped(
    tmp_path: Path, open_outbox: Open, clock: FakeClock, column: str, value: object
) -> None:
    """Columns of SQLite hold any type; the other messages arrive."""
    first = open_outbox(tmp_path)
    used = say(first, clock, 3)
    first.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db")) as db, db:
        db.execute(f"UPDATE message SET {column} = ? WHERE seq = 2", (value,))  # noqa: S608 - a constant
    outbox = open_outbox(tmp_path)
    assert deliver_all(outbox, clock) == [used[0], used[2]]
    assert outbox.pending == 0


def another_database(folder: Path) -> None:
    """Put an old copy of the database in its place, as a backup that is restored under a running agent."""
    with contextlib.closing(sqlite3.connect(folder / "copy")) as db:
        db.execute("PRAGMA journal_mode = WAL")
    (folder / "copy").replace(folder / "outbox.db")


def rubbish(folder: Path) -> None:
    """Put an empty file in the place of everything."""
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "outbox.db").touch()


def delete(folder: Path, pattern: str) -> None:
    """Delete these files."""
    for path in folder.glob(pattern):
        path.unlink()


DELETIONS: dict[str, Callable[[Path], object]] = {
    "database": lambda folder: delete(folder, "outbox.db"),
    "log": lambda folder: delete(folder, "outbox.db-wal"),
    "database and log": lambda folder: delete(folder, "outbox.db*"),
    "all files": lambda folder: delete(folder, "*"),
    "folder": shutil.rmtree,
    "folder, moved": lambda folder: folder.rename(folder.with_name("moved")),
    "database, by another": another_database,
    "database, by rubbish": rubbish,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("deletion", DELETIONS.values(), ids=DELETIONS)
def test_a_database_that_is_deleted_under_the_agent_is_written_again(
    tmp_path: Path, open_outbox: Open, clock: FakeClock, deletion: Callable[[Path], object], mode: str
) -> None:
    """Nothing that was accepted is lost, `health` tells, and a restart finds all of it, numbers included."""
    folder = tmp_path / "state"
    outbox = open_outbox(folder, mode=mode, max_free_pct=50)
    said = say(outbox, clock, 100, LONG)
    outbox.flush()
    deletion(folder)
    said += say(outbox, clock, 5)
    clock.advance(11)
    outbox.flush()
    assert set(outbox.conditions) == {"outbox_deleted"}
    said += say(outbox, clock, 5)
    outbox.flush()
    assert (outbox.pending, outbox.dropped) == (110, 0)
    outbox.close()
    assert {path.name for path in folder.iterdir()} >= {"outbox.db", "outbox.lock", "sequence.json"}
    again = open_outbox(folder, mode=mode)
    assert again.conditions == ()
    assert deliver_all(again, clock) == said
    assert say(again, clock, 1) == [said[-1] + 1]


@pytest.mark.parametrize("mode", MODES)
def test_a_folder_that_cannot_be_made_again_stops_no_delivery(
    tmp_path: Path, open_outbox: Open, clock: FakeClock, mode: str
) -> None:
    """Words go on being delivered, and are stored as soon as that can be done."""
    folder = tmp_path / "state"
    outbox = open_outbox(folder, mode=mode)
    stored = say(outbox, clock, 5)
    outbox.flush()
    shutil.rmtree(folder)
    folder.touch()  # a file in the place of the folder: root is held up as well
    clock.advance(11)
    outbox.flush()
    in_memory = say(outbox, clock, 5)
    assert "outbox_deleted" in outbox.conditions
    assert len(set(outbox.conditions)) == 2
    entry = outbox.take()
    assert entry
    outbox.acknowledge(entry, PublishResult.DELIVERED)
    folder.unlink()
    clock.advance(11)
    outbox.flush()
    assert outbox.conditions == ("outbox_deleted",)
    outbox.close()
    assert deliver_all(open_outbox(folder, mode=mode), clock) == (stored + in_memory)[1:]


def test_a_deleted_folder_is_claimed_again(tmp_path: Path, open_outbox: Open, clock: FakeClock) -> None:
    """Another agent must not get into the folder that this one has made anew."""
    folder = tmp_path / "state"
    outbox = open_outbox(folder)
    shutil.rmtree(folder)
    clock.advance(11)
    outbox.flush()
    with pytest.raises(ConfigError, match="in use by another edgescribe"):
        open_outbox(folder)


def test_what_was_deleted_is_noticed_without_a_word_being_said(
    tmp_path: Path, open_outbox: Open, clock: FakeClock
) -> None:
    """The thread of the outbox looks now and then by itself."""
    outbox = open_outbox(tmp_path / "state")
    shutil.rmtree(tmp_path / "state")
    clock.advance(11)
    say(outbox, clock, 1)  # wakes it, since its clock stands still
    assert eventually(lambda: outbox.conditions == ("outbox_deleted",))
