"""What is written when, and what comes back after a restart or a reboot."""

import json
import logging
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from agent.mqtt import outbox as sqlite
from agent.mqtt.delivery import Outgoing, PublishResult
from agent.mqtt.outbox import StoredOutbox
from agent.mqtt.outbox_queue import DEAD_LETTERS, GRACE_S
from tests.clock import FakeClock
from tests.integration.outbox.conftest import Open, deliver_all, deliveries, say
from tests.messages import failed, transcript
from tests.support.receiver import eventually

SECRET = "the key is under the flower pot"


def contents(folder: Path) -> dict[str, bytes]:
    """All of the database's files."""
    return {path.name: path.read_bytes() for path in folder.glob("outbox.db*")}


def snapshot(folder: Path, to: Path) -> Path:
    """Copy the database into a folder `to` of its own, as a power cut would leave it now."""
    to.mkdir()
    for name, content in contents(folder).items():
        (to / name).write_bytes(content)
    return to


def deliver_next(outbox: StoredOutbox) -> int:
    """Take a message and settle it; return its number."""
    entry = outbox.take()
    assert entry
    outbox.acknowledge(entry, PublishResult.DELIVERED)
    return int(json.loads(entry.payload)["seq"])


def test_a_healthy_link_writes_nothing_to_the_card(tmp_path: Path, open_outbox: Open, clock: FakeClock) -> None:
    """Acknowledged within two seconds, 200 transcripts leave the database untouched, byte for byte."""
    outbox = open_outbox(tmp_path)
    outbox.flush()
    before = contents(tmp_path)
    for _ in range(200):
        (seq,) = say(outbox, clock, 1)
        clock.advance(1.9)
        assert deliver_next(outbox) == seq
    assert contents(tmp_path) == before


def test_what_is_not_acknowledged_within_two_seconds_is_stored(
    tmp_path: Path, open_outbox: Open, clock: FakeClock
) -> None:
    """By the thread of the outbox, without anybody asking; also if it is on its way."""
    outbox = open_outbox(tmp_path)
    say(outbox, clock, 2)
    outbox.take()
    clock.advance(GRACE_S)
    assert eventually(lambda: len(stored(tmp_path)) == 2)


def stored(folder: Path, table: str = "message") -> list[int]:
    """Numbers in a copy of the database, as a power cut would leave it now."""
    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    snapshot(folder, copy)
    db = sqlite3.connect(copy / "outbox.db")
    try:
        return [row[0] for row in db.execute(f"SELECT seq FROM {table} ORDER BY key")]  # noqa: S608 - ours
    finally:
        db.close()


def test_strict_has_it_on_disk_before_it_can_leave(tmp_path: Path, open_outbox: Open, clock: FakeClock) -> None:
    """When `put` returns it is there, and what was delivered is deleted within two seconds."""
    outbox = open_outbox(tmp_path, mode="strict")
    for count in range(1, 6):
        say(outbox, clock, 1)
        assert len(stored(tmp_path)) == count
    assert [deliver_next(outbox) for _ in range(5)] == [1, 2, 3, 4, 5]
    clock.advance(GRACE_S)
    outbox.flush()
    assert stored(tmp_path) == []


def after_a_power_cut(folder: Path, open_outbox: Open, clock: FakeClock) -> StoredOutbox:
    """A strict outbox with what the folder holds at this moment, on the next boot."""
    copy = snapshot(folder, folder / f"{clock.now.boot_id}-ended")
    shutil.copy(folder / "sequence.json", copy)
    clock.reboot(f"{clock.now.boot_id}-again")
    return open_outbox(copy, mode="strict")


def test_strict_never_gives_the_number_of_one_that_failed_again(
    tmp_path: Path, open_outbox: Open, clock: FakeClock
) -> None:
    """It counts like that of a transcript, and is stored like it."""
    outbox = open_outbox(tmp_path, mode="strict")
    say(outbox, clock, 2)
    outbox.put(Outgoing.of("pi-1", failed(outbox.next_seq()), clock.now.monotonic_s))
    assert after_a_power_cut(tmp_path, open_outbox, clock).next_seq() == 4


def test_strict_counts_on_from_balanced_through_a_power_cut(
    tmp_path: Path, open_outbox: Open, clock: FakeClock
) -> None:
    """The database, which knows nothing of the numbers that were never stored, is told before one is given."""
    balanced = open_outbox(tmp_path)
    say(balanced, clock, 1)
    balanced.flush()
    say(balanced, clock, 3)
    for _ in range(4):
        deliver_next(balanced)
    balanced.close()
    assert open_outbox(tmp_path, mode="strict").next_seq() == 5
    assert after_a_power_cut(tmp_path, open_outbox, clock).next_seq() == 5


@pytest.mark.parametrize("mode", ["balanced", "strict"])
def test_a_restart_brings_back_what_was_not_delivered_as_live_as_it_is(
    tmp_path: Path, open_outbox: Open, clock: FakeClock, mode: str
) -> None:
    """After a restart within a minute words are still live; those that were on their way come again."""
    outbox = open_outbox(tmp_path, mode=mode)
    say(outbox, clock, 4)
    deliver_next(outbox)
    outbox.take()
    clock.advance(10)
    outbox.close()
    again = open_outbox(tmp_path, mode=mode)
    assert again.pending == 3
    entry = again.take()
    assert entry
    assert entry == Outgoing.of("pi-1", transcript(2), clock.now.monotonic_s - 10)
    assert again.next_seq() == 5


def test_after_a_reboot_everything_is_late(tmp_path: Path, open_outbox: Open, clock: FakeClock) -> None:
    """With what is left of its week, by the wall clock if that can be trusted."""
    outbox = open_outbox(tmp_path)
    say(outbox, clock, 1)
    outbox.close()
    clock.reboot("boot-2", off_s=3_580, up_s=20)
    again = open_outbox(tmp_path)
    assert again.take() is None
    clock.advance(again.due_in_s())
    entry = again.take()
    assert entry
    assert entry.topic.endswith("/transcript/backlog")
    assert entry.remaining_s(clock.now.monotonic_s) == pytest.approx(7 * 86_400 - 3_600, abs=31)


def test_a_week_ends_across_reboots_as_soon_as_the_clock_is_known(
    tmp_path: Path, open_outbox: Open, clock: FakeClock
) -> None:
    """Without the time of day nothing is thrown away; once it is synchronised, what is a week old goes."""
    outbox = open_outbox(tmp_path)
    say(outbox, clock, 3)
    outbox.close()
    clock.reboot("boot-2", synced=False)
    again = open_outbox(tmp_path)
    assert again.pending == 3
    clock.now = FakeClock("boot-2", clock.now.monotonic_s + 100).now
    clock.jump_wall(8 * 86_400)
    again.flush()
    assert deliver_all(again, clock) == []
    assert again.dropped == 3


def test_refused_messages_are_kept_aside_and_bounded(tmp_path: Path, open_outbox: Open, clock: FakeClock) -> None:
    """Somebody may look at them later; they are never sent again."""
    outbox = open_outbox(tmp_path)
    say(outbox, clock, DEAD_LETTERS + 20)
    while entry := outbox.take():
        outbox.acknowledge(entry, PublishResult.REFUSED)
    outbox.flush()
    newest = list(range(21, DEAD_LETTERS + 21))
    assert stored(tmp_path, "dead_letter") == newest
    assert (outbox.pending, outbox.dropped) == (0, DEAD_LETTERS + 20)
    outbox.close()
    again = open_outbox(tmp_path)
    assert (again.pending, stored(tmp_path, "dead_letter")) == (0, newest)


@pytest.mark.parametrize(("purged", "left"), [(False, [3, 1, 2]), (True, [3])])
def test_a_purge_reaches_what_could_not_be_read_at_the_start(
    tmp_path: Path, open_outbox: Open, clock: FakeClock, *, purged: bool, left: list[int]
) -> None:
    """As soon as the disk works, what lay on it is deleted instead of sent; what was said since is not."""
    before = open_outbox(tmp_path)
    say(before, clock, 2)
    before.close()
    database, aside = tmp_path / "outbox.db", tmp_path / "aside"
    database.rename(aside)
    database.mkdir()  # nobody can open that
    clock.advance(100)
    outbox = open_outbox(tmp_path)
    assert outbox.conditions
    if purged:
        outbox.purge()
    say(outbox, clock, 1)
    database.rmdir()
    aside.rename(database)
    clock.advance(10)
    outbox.flush()
    assert outbox.conditions == ()
    assert deliver_all(outbox, clock) == left
    outbox.close()
    assert stored(tmp_path) == []


@pytest.mark.parametrize("result", [None, PublishResult.REFUSED])
def test_a_purge_leaves_no_word_in_the_files(
    tmp_path: Path, open_outbox: Open, clock: FakeClock, result: PublishResult | None
) -> None:
    """Not in the database, not in its log, not among the refused."""
    outbox = open_outbox(tmp_path, mode="strict")
    say(outbox, clock, 50, SECRET)
    if result:
        entry = outbox.take()
        assert entry
        outbox.acknowledge(entry, result)
        outbox.flush()
    assert SECRET.encode() in b"".join(contents(tmp_path).values())
    outbox.purge()
    assert SECRET.encode() not in b"".join(contents(tmp_path).values())
    assert outbox.pending == 0


def test_the_disk_gets_its_room_back_after_an_outage(tmp_path: Path, open_outbox: Open, clock: FakeClock) -> None:
    """A backlog of megabytes that was delivered leaves a small file."""
    outbox = open_outbox(tmp_path, max_free_pct=50)
    say(outbox, clock, 1_000, "word " * 800)
    outbox.flush()
    assert (tmp_path / "outbox.db").stat().st_size > 4 << 20
    assert len(deliveries(outbox, clock)) == 1_000
    for _ in range(2):
        clock.advance(61)
        outbox.flush()
    outbox.close()
    assert (tmp_path / "outbox.db").stat().st_size < 1 << 20


def test_changes_of_the_condition_are_logged_once(
    tmp_path: Path, open_outbox: Open, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged database is a warning; when the hour in `health` is over, one line says so."""
    caplog.set_level(logging.INFO)
    (tmp_path / "outbox.db").write_bytes(b"nonsense" * 1_000)
    outbox = open_outbox(tmp_path)
    assert set(outbox.conditions) == {"outbox_corrupt"}
    outbox.flush()
    assert sum("outbox_corrupt" in line for line in caplog.messages) == 1
    caplog.clear()
    clock.advance(3_601)
    outbox.flush()
    assert not outbox.conditions
    assert len(caplog.messages) == 1


def test_memory_is_bounded_where_no_disk_helps(tmp_path: Path, open_outbox: Open, clock: FakeClock) -> None:
    """With the disk gone for days, the newest 8 MiB are kept, and the rest is counted."""
    outbox = open_outbox(tmp_path, max_free_pct=50)
    (tmp_path / "outbox.db").unlink()
    outbox._store._disconnect()  # as after an error: the file cannot be opened any more
    (tmp_path / "outbox.db").mkdir()
    outbox.flush()
    say(outbox, clock, 2_000, "word " * 1_600)
    assert outbox.conditions == ("outbox_io_error",)
    assert outbox.pending + outbox.dropped == 2_000
    assert 900 < outbox.pending < 1_100
    entry = outbox.take()
    assert entry
    assert json.loads(entry.payload)["seq"] == outbox.dropped + 1


def test_a_disk_that_hangs_holds_nobody_up_for_ever(
    tmp_path: Path, open_outbox: Open, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `strict`, words wait for the disk for so long and then go without it; `health` says so until it answers."""
    monkeypatch.setattr(sqlite, "_PATIENCE_S", 0.2)
    outbox = open_outbox(tmp_path, mode="strict")
    with outbox._store.lock:  # as long as this is held, nothing gets through to the disk
        speaker = threading.Thread(target=say, args=(outbox, clock, 1))
        speaker.start()
        speaker.join(30)
        assert not speaker.is_alive()
        assert set(outbox.conditions) == {"outbox_stalled"}
        assert deliver_next(outbox) == 1
    say(outbox, clock, 1)
    assert not outbox.conditions
    assert deliver_next(outbox) == 2
