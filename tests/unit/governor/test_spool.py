import errno
import json
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from ulid import ULID

from agent.audio.frames import Utterance
from agent.config.settings import Settings
from agent.governor.spool import READ_AGAIN_S, READS, Kept, Spool, create_spool
from agent.messages.identity import boot_id
from tests.unprivileged import closed

ROOM = 1 << 20


def utterance(name: str = "01A", samples: int = 16_000) -> Utterance:
    """Noise, so that samples can be told from one another."""
    pcm = np.random.default_rng(len(name)).integers(-1_000, 1_000, samples).astype(np.int16)
    heard = Utterance(name, pcm, 5, 7_000, 15_000, 15_900, truncated=True, speech_s=0.5, speech_prob=0.9)
    return replace(heard, lead_samples=3, tail_samples=4)


def oldest(spool: Spool) -> Kept:
    """The oldest, which can be read."""
    kept = spool.oldest()
    assert kept
    assert not kept.lost
    return kept


def test_what_comes_back_is_what_was_kept(tmp_path: Path) -> None:
    """Every sample and every field, also for the next start."""
    assert Spool(tmp_path, ROOM).put(utterance())
    kept = oldest(Spool(tmp_path, ROOM))
    assert np.array_equal(kept.utterance.pcm, utterance().pcm)
    assert kept.utterance == utterance()


def test_the_oldest_comes_first_and_goes_when_it_is_removed(tmp_path: Path) -> None:
    """Ids tell the order, whatever the order of keeping."""
    spool = Spool(tmp_path, ROOM)
    for name in ("01B", "01A", "01C"):
        assert spool.put(utterance(name))
    order = []
    while kept := spool.oldest():
        order.append(kept.utterance.id)
        spool.remove(kept.path)
    assert order == ["01A", "01B", "01C"]
    assert len(spool) == 0
    assert list((tmp_path / "spool").iterdir()) == []


def test_room_is_bounded_over_restarts(tmp_path: Path) -> None:
    """What does not fit is refused, until something has gone."""
    room = 3 * 32_000
    spool = Spool(tmp_path, room)
    assert [spool.put(utterance(f"01{letter}")) for letter in "ABC"] == [True, True, False]
    spool = Spool(tmp_path, room)
    assert not spool.put(utterance("01D"))
    spool.remove(oldest(spool).path)
    assert spool.put(utterance("01D"))


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    """It is somebody's voice: mode 0600, in a folder of mode 0700."""
    Spool(tmp_path, ROOM).put(utterance())
    (file,) = (tmp_path / "spool").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "another", "method", "offset"])
def test_what_is_damaged_is_lost(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """And said to be, with a line in the log; then the next one comes. What a crash left half written goes as well."""
    spool = Spool(tmp_path, ROOM)
    spool.put(utterance("01A"))
    spool.put(utterance("01B"))
    path = tmp_path / "spool" / "01A.npz"
    whole = path.read_bytes()
    directory = whole.rindex(b"PK\1\2")
    damaged = {
        "empty": b"",
        "cut": whole[:500],
        "garbage": b"x" * 500,
        "method": whole[: directory + 10] + b"\x63\0" + whole[directory + 12 :],
        "offset": whole[:-6] + b"\xff\xff\xff\xff" + whole[-2:],
    }
    path.write_bytes(damaged.get(damage, (tmp_path / "spool" / "01B.npz").read_bytes()))
    (tmp_path / "spool" / "01C.new").write_bytes(b"half")
    spool = Spool(tmp_path, ROOM)
    lost = spool.oldest()
    assert lost
    assert (lost.utterance.id, len(lost.utterance.pcm)) == ("01A", path.stat().st_size // 2)
    assert "not what was written" in lost.lost
    spool.remove(lost.path)
    assert oldest(spool).utterance.id == "01B"
    assert [file.name for file in (tmp_path / "spool").iterdir()] == ["01B.npz"]
    assert "given up" in caplog.text


class Clock:
    """The monotonic clock of the spool."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1_000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now_s)


class Disk:
    """Reads of the files in `broken` fail like this."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.broken: set[str] = set()
        read = Path.read_bytes

        def read_bytes(path: Path) -> bytes:
            if path.stem in self.broken:
                raise OSError(number, "it fails", str(path))
            return read(path)

        monkeypatch.setattr(Path, "read_bytes", read_bytes)


def test_sound_that_cannot_be_read_now_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many files were open for a moment: a while later everything is there, in its order."""
    clock, disk = Clock(monkeypatch), Disk(monkeypatch, errno.EMFILE)
    spool = Spool(tmp_path, ROOM)
    for name in ("01A", "01B"):
        spool.put(utterance(name))
    disk.broken = {"01A", "01B"}
    assert spool.ready
    assert spool.oldest() is None
    assert (spool.ready, spool.oldest()) == (False, None)
    disk.broken = set()
    clock.now_s += READ_AGAIN_S
    assert spool.ready
    order = []
    while kept := spool.oldest():
        order.append(kept.utterance.id)
        spool.remove(kept.path)
    assert sorted(order) == ["01A", "01B"]


def test_what_can_never_be_read_holds_nobody_up_and_is_lost_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad block under the oldest: the others come first, and after some attempts it is said to be lost."""
    clock, disk = Clock(monkeypatch), Disk(monkeypatch, errno.EIO)
    spool = Spool(tmp_path, ROOM)
    for name in ("01A", "01B"):
        spool.put(utterance(name))
    disk.broken = {"01A"}
    assert spool.oldest() is None
    clock.now_s += READ_AGAIN_S
    kept = oldest(spool)
    assert kept.utterance.id == "01B"
    spool.remove(kept.path)
    for _ in range(READS - 2):
        assert spool.oldest() is None
        assert (tmp_path / "spool" / "01A.npz").exists()
        clock.now_s += READ_AGAIN_S
    lost = spool.oldest()
    assert lost
    assert (lost.utterance.id, round(lost.utterance.duration_s, 1)) == ("01A", 1.0)
    spool.remove(lost.path)
    assert len(spool) == 0


def test_what_somebody_deleted_is_lost_and_what_was_purged_is_not(tmp_path: Path) -> None:
    """Both files are gone; only of the one that nobody asked to forget is something to be said."""
    spool = Spool(tmp_path, ROOM)
    name = "01JD6Y8Q4Z7W3M5N8K2B1C0D9E"
    spool.put(utterance(name))
    (tmp_path / "spool" / f"{name}.npz").unlink()
    lost = spool.oldest()
    assert lost
    said_s = time.time() - (time.monotonic_ns() - lost.utterance.started_ns) / 1e9
    assert said_s == pytest.approx(ULID.from_str(name).timestamp, abs=5.0)
    assert not lost.utterance.dated
    spool.purge()
    assert spool.oldest() is None


def test_a_disk_that_takes_nothing_is_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The utterance is not kept, and the log says why."""
    (tmp_path / "spool").write_text("in the way")
    assert not Spool(tmp_path, ROOM).put(utterance())
    assert "cannot be written" in caplog.text


def test_a_full_disk_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of an utterance is of no use to anybody, but fills the disk, and is somebody's voice."""

    def half(file: BinaryIO, **arrays: object) -> None:
        file.write(b"x" * 500)
        file.flush()
        raise OSError(errno.ENOSPC, f"no room for {len(arrays)} arrays")

    spool = Spool(tmp_path, ROOM)
    assert spool.put(utterance("01A"))
    monkeypatch.setattr(np, "savez", half)
    assert not spool.put(utterance("01B"))
    assert [file.name for file in (tmp_path / "spool").iterdir()] == ["01A.npz"]


def test_what_was_half_written_goes_with_a_purge_as_well(tmp_path: Path) -> None:
    """Though it counts for nothing, and lay there before any utterance."""
    spool = Spool(tmp_path, ROOM)
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "01A.new").write_bytes(b"half")
    assert spool.purge() == 0
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_folder_that_cannot_be_listed_is_no_reason_not_to_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is kept then, and one line says what to do; a purge says that it could not."""
    Spool(tmp_path, ROOM).put(utterance("01A"))
    with closed(tmp_path / "spool"):
        spool = Spool(tmp_path, ROOM)
        (line,) = caplog.messages
        assert str(tmp_path / "spool") in line
        assert "nothing is kept" in line
        assert not spool.put(utterance("01B"))
        assert (len(spool), spool.ready, spool.oldest()) == (0, False, None)
        assert spool.purge() == 0
        assert "cannot be emptied" in caplog.messages[-1]
    assert [file.name for file in (tmp_path / "spool").iterdir()] == ["01A.npz"]


def test_after_a_reboot_the_wall_clock_tells_when_it_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The monotonic clock begins anew with the machine."""
    now_ns = 10_000_000_000_000
    monkeypatch.setattr("time.monotonic_ns", lambda: now_ns)
    monkeypatch.setattr("time.time", lambda: 1_000_000.0)
    Spool(tmp_path, ROOM).put(replace(utterance(), started_ns=now_ns - 4_000_000_000))
    monkeypatch.setattr("agent.governor.spool.boot_id", lambda: "another boot")
    monkeypatch.setattr("time.monotonic_ns", lambda: 50_000_000_000)
    monkeypatch.setattr("time.time", lambda: 1_000_020.0)
    kept = oldest(Spool(tmp_path, ROOM))
    assert kept.utterance.started_ns == 50_000_000_000 - 24_000_000_000


@pytest.mark.parametrize("then", [True, False])
@pytest.mark.parametrize("now", [True, False])
def test_when_it_was_said_is_known_within_a_boot_or_by_clocks_that_were_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, then: bool, now: bool
) -> None:
    """After a reboot both wall clocks have to have been synchronised; within one, the monotonic clock tells."""
    monkeypatch.setattr("agent.governor.spool.time_synced", lambda: then)
    Spool(tmp_path, ROOM).put(utterance())
    monkeypatch.setattr("agent.governor.spool.time_synced", lambda: now)
    assert oldest(Spool(tmp_path, ROOM)).utterance.dated
    monkeypatch.setattr("agent.governor.spool.boot_id", lambda: "another boot")
    assert oldest(Spool(tmp_path, ROOM)).utterance.dated is (then and now)


def test_what_an_older_version_kept_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It did not say whether the clock was right, so that after a reboot nobody knows."""
    monkeypatch.setattr("agent.governor.spool.time_synced", lambda: True)
    spool = Spool(tmp_path, ROOM)
    spool.put(utterance())
    path = oldest(spool).path
    with np.load(path) as archive:
        pcm, rest = archive["pcm"], json.loads(archive["rest"].tobytes())
    del rest["synced"], rest["lead_samples"], rest["tail_samples"]
    np.savez(path, pcm=pcm, rest=np.frombuffer(json.dumps(rest).encode(), np.uint8))
    kept = oldest(Spool(tmp_path, ROOM)).utterance
    assert (kept.id, kept.dated, kept.lead_samples, kept.tail_samples) == ("01A", True, 0, 0)
    monkeypatch.setattr("agent.governor.spool.boot_id", lambda: "another boot")
    assert not oldest(Spool(tmp_path, ROOM)).utterance.dated


def test_what_was_kept_was_said_before_now_whatever_the_wall_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without a clock of its own may wake up in the past."""
    Spool(tmp_path, ROOM).put(utterance())
    monkeypatch.setattr("agent.governor.spool.boot_id", lambda: "another boot")
    monkeypatch.setattr("time.time", lambda: 0.0)
    kept = oldest(Spool(tmp_path, ROOM))
    assert kept.utterance.started_ns + kept.utterance.duration_s * 1e9 <= time.monotonic_ns()


def test_a_purge_leaves_nothing(tmp_path: Path) -> None:
    """And says how much there was."""
    spool = Spool(tmp_path, ROOM)
    spool.put(utterance("01A"))
    spool.put(utterance("01B"))
    assert spool.purge() == 2
    assert list((tmp_path / "spool").iterdir()) == []


REST = {
    "id": "01A",
    "position": 5,
    "started_ns": 7_000,
    "started_s": 1e9,
    "boot_id": "another",
    "speech_end": 15_000,
    "closed_at": 15_900,
    "truncated": True,
    "speech_s": 0.5,
    "speech_prob": 0.9,
    "synced": True,
}


@pytest.mark.parametrize(
    ("change", "samples"),
    [
        ({}, 0),
        ({"started_s": -1e308}, 100),
        ({"started_s": float("nan")}, 100),
        ({"started_s": float("inf")}, 100),
        ({"started_ns": 10**400, "boot_id": boot_id()}, 100),
        ({"started_ns": 2**62, "boot_id": boot_id()}, 100),
        ({"position": -1}, 100),
        ({"closed_at": 10**30}, 100),
        ({"speech_s": "long"}, 100),
        ({"speech_prob": []}, 100),
        ({"boot_id": {}}, 100),
        ({"id": "\ud800"}, 100),
    ],
)
def test_an_utterance_that_cannot_have_been_heard_is_lost(
    tmp_path: Path, change: dict[str, object], samples: int
) -> None:
    """The engine and the messages would fail on its numbers, and with them the agent."""
    (tmp_path / "spool").mkdir()
    rest = np.frombuffer(json.dumps(REST | change).encode(), np.uint8)
    np.savez(tmp_path / "spool" / "01A.npz", pcm=np.zeros(samples, np.int16), rest=rest)
    kept = Spool(tmp_path, ROOM).oldest()
    assert kept
    assert kept.lost


def test_a_file_that_has_no_id_for_a_name_is_no_utterance(tmp_path: Path) -> None:
    """Its name would become an id in a message, where bytes that are no UTF-8 cannot stand."""
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "\udcff.npz").write_bytes(b"x")
    (folder / "..npz").write_bytes(b"x")
    assert Spool(tmp_path, ROOM).oldest() is None
    assert list(folder.iterdir()) == []


def test_by_default_an_utterance_without_time_is_kept(tmp_path: Path) -> None:
    """Also by a spool that is empty at first."""
    spool = create_spool(Settings(state_dir=tmp_path))
    assert spool.put(utterance())
    assert len(spool) == 1


@pytest.mark.parametrize(
    "unwanted", [{"governor": {"enabled": False}}, {"governor": {"spool_mib": 0}}, {"publish": {"privacy": "off"}}]
)
def test_where_no_sound_may_be_kept_none_is_and_the_old_is_deleted(
    tmp_path: Path, unwanted: dict[str, dict[str, object]]
) -> None:
    """The governor is off, there is no room, or the words would not be published."""
    assert Spool(tmp_path, ROOM).put(utterance())
    spool = create_spool(Settings.model_validate({"state_dir": tmp_path} | unwanted))
    assert not spool.ready
    assert not spool.put(utterance("01B"))
    assert list((tmp_path / "spool").iterdir()) == []
