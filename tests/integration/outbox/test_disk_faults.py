"""Disks that are full, read-only or damaged, while somebody speaks."""

import json
import os
import random
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.delivery import Fate
from agent.outbox.condition import Condition, StorageDown
from agent.outbox.desk import CHUNK
from agent.outbox.letters import Batch
from agent.outbox.repair import KEPT
from tests.clock import FakeClock
from tests.integration.outbox.conftest import Open, deliver_all, deliveries, say
from tests.messages import transcript

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
    outbox.settle(entry.key, Fate.DELIVERED)
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
    write, states = outbox._disk.write, iter(("full", "slow"))

    def write_slowly(batch: Batch, now_s: float) -> None:
        match next(states, "well"):
            case "full":
                raise StorageDown(Condition.DISK_FULL, "database or disk is full")
            case "slow":
                deleting.set()
                assert go_on.wait(30)
        write(batch, now_s)

    monkeypatch.setattr(outbox._disk, "write", write_slowly)
    say(outbox, clock, 1)
    clock.advance(3)
    writer = threading.Thread(target=outbox.flush)
    writer.start()
    assert deleting.wait(30)
    outbox.rewind()
    entry = outbox.take()
    assert entry
    assert json.loads(entry.outgoing.payload)["seq"] > CHUNK
    outbox.settle(entry.key, Fate.DELIVERED)
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


def test_a_database_without_its_first_page_is_saved(tmp_path: Path, open_outbox: Open, clock: FakeClock) -> None:
    """Header and schema are the same in every database of ours: nothing is lost with them."""
    first = open_outbox(tmp_path)
    old = say(first, clock, 300)
    first.close()
    damage(tmp_path / "outbox.db", 0.0, 4_096)
    outbox = open_outbox(tmp_path)
    assert set(outbox.conditions) == {"outbox_corrupt"}
    assert deliver_all(outbox, clock) == old


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
    for _ in range(KEPT + 2):
        (tmp_path / "outbox.db").write_bytes(b"no database at all" * 1_000)
        outbox = open_outbox(tmp_path)
        assert set(outbox.conditions) == {"outbox_corrupt"}
        outbox.close()
    assert len(list(tmp_path.glob("outbox.db.corrupt-*"))) == KEPT


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
